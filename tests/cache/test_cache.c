/* test_cache.c - the cache: formats, bookkeeping, files, threads. */
#include "cache_test.h"

int main(int argc, char **argv)
{
    static const t_test tests[] = {
        {"int8", test_int8},
        {"int4", test_int4},
        {"fp8", test_fp8},
        {"ggml", test_ggml},
        {"ort", test_ort},
        {"format_refusals", test_format_refusals},
        {"config", test_config},
        {"refusals", test_refusals},
        {"failing_memory", test_failing_memory},
        {"sharing", test_sharing},
        {"bytes", test_bytes},
        {"random", test_random},
        {"save", test_save},
        {"damage", test_damage},
        {"load_refusals", test_load_refusals},
        {"threads", test_threads},
        {"prefixes", test_prefixes},
        {"pick", test_pick},
        {"pools", test_pools},
        {"attend", test_attend},
        {"cascade", test_cascade},
        {"sparse", test_sparse},
        {"views", test_views},
        {"poison", test_poison},
        {"head_scales", test_head_scales},
    };
    return t_main(argc, argv, "cache", tests, (int)(sizeof tests / sizeof *tests));
}
