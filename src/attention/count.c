/* attention/count.c - what the tasks of a plan read, by count. */
#include "attention/internal.h"

/* As visit_part in run.c goes over them: from the first query's first key to the last query's last.
 */
static int64_t keys_of_tile(const qkv_plan *plan, const qkv_seq *seq, int64_t block)
{
    const qkv_row_range rows = qkv_rows_of_tile(plan, seq, block);

    if (rows.from >= rows.end)
        return 0;
    const int64_t first = rows.from / plan->head_group, last = (rows.end - 1) / plan->head_group;
    const int64_t lo = qkv_visible_range(&plan->rules, &seq->span, first).lo;
    const int64_t hi = qkv_visible_range(&plan->rules, &seq->span, last).hi;
    return hi < lo ? 0 : hi + 1 - lo;
}

int64_t qkv_plan_key_reads(const qkv_plan *plan)
{
    int64_t keys = 0;

    for (int64_t b = 0; b < plan->desc.n_seqs; b++)
        for (int64_t block = 0; block < plan->seqs[b].blocks; block++)
            keys += keys_of_tile(plan, &plan->seqs[b], block);
    return keys * plan->n_groups;
}
