/* test_rope.c - rotary position embedding: the list of tests. */
#include "rope_test.h"

static const t_test tests[] = {
    {"frequencies", test_frequencies},
    {"known", test_known},
    {"tables", test_tables},
    {"tables_f32", test_tables_f32},
    {"rotation", test_rotation},
    {"same_bits", test_same_bits},
    {"gradient", test_gradient},
    {"untouched", test_untouched},
    {"empty", test_empty},
    {"cached", test_cached},
    {"refused_ropes", test_refused_ropes},
    {"refused_args", test_refused_args},
    {"refused_writes", test_refused_writes},
};

int main(int argc, char **argv)
{
    return t_main(argc, argv, "rope", tests, sizeof tests / sizeof *tests);
}
