/* test_layers.c - layers: every variant and form against an oracle, plans, weights, refusals. */
#include "layers_test.h"

int main(int argc, char **argv)
{
    static const t_test tests[] = {
        {"whole", test_whole},
        {"ragged", test_ragged},
        {"cached", test_cached},
        {"cross", test_cross},
        {"mla", test_mla},
        {"plans", test_plans},
        {"weights", test_weights},
        {"refusals", test_refusals},
        {"failing_memory", test_failing_memory},
        {"conversions", test_conversions},
        {"threads", test_threads},
        {"narrow_forms", test_narrow_forms},
        {"narrow_pieces", test_narrow_pieces},
        {"narrow_bounds", test_narrow_bounds},
        {"narrow_numbers", test_narrow_numbers},
        {"narrow_refusals", test_narrow_refusals},
    };
    qkv_layers_blas_threads(1); /* bits may depend on BLAS's own threads */
    return t_main(argc, argv, "layers", tests, (int)(sizeof tests / sizeof *tests));
}
