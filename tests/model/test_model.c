/* test_model.c - configurations, families, the places of weights, checkpoints. */
#include "model_test.h"

static const t_test tests[] = {
    {"desc_defaults", test_desc_defaults},
    {"desc_refusals", test_desc_refusals},
    {"desc_numbers", test_desc_numbers},
    {"read_values", test_read_values},
    {"read_sentences", test_read_sentences},
    {"read_hostile", test_read_hostile},
    {"read_broken", test_read_broken},
    {"read_random", test_read_random},
    {"read_structs", test_read_structs},
    {"weights", test_weights},
    {"checkpoints", test_checkpoints},
    {"checkpoint_refusals", test_checkpoint_refusals},
};

int main(int argc, char **argv)
{
    return t_main(argc, argv, "model", tests, (int)(sizeof tests / sizeof tests[0]));
}
