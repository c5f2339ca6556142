/* test_api.c - the public interface: refusals, versions, plans, costs, conversions. */
#include "api.h"

int main(int argc, char **argv)
{
    static const t_test tests[] = {
        {"refusals", test_refusals},       {"args", test_args},
        {"codes", test_coded_refusals},    {"block_tables", test_block_tables},
        {"older", test_older_structs},
        {"merge", test_merge_refusals},    {"versions", test_versions},
        {"plans", test_plans},             {"one_call", test_one_call},
        {"registry", test_registry},       {"no_malloc", test_no_malloc},
        {"stack", test_stack},             {"pool", test_pool},
        {"convert_all", test_narrow_all},  {"convert_many", test_narrow_many},
        {"convert_refusals", test_convert_refusals},
    };
    return t_main(argc, argv, "api", tests, (int)(sizeof tests / sizeof *tests));
}
