/* test_props.c - properties of attention that need no oracle, only a budget; and shared checks. */
#include <math.h>

#include "props.h"

uint32_t some_tier(int i)
{
    uint32_t masks[8];
    const char *names[8];
    const int n = t_tiers(masks, names);
    return masks[i % n];
}

static void check_pair(double x, double y, double budget, const char *what, const t_problem *p)
{
    if (x == y || (isnan(x) && isnan(y)) || budget == (double)INFINITY)
        return;
    t_check(fabs(x - y) <= budget, "%s changes %.9g to %.9g, more than %g; %s", what, x, y, budget,
            t_problem_text(p));
}

void check_near(const t_problem *x, const t_problem *y, double times, const char *what)
{
    const qkv_desc *d = &x->desc;
    int64_t row = 0;

    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_q_heads; h++)
            for (int64_t i = 0; i < d->q_len; i++, row++) {
                if (d->cu_seqlens_q && i >= t_span_of(d, b).q_len)
                    continue;
                for (int64_t c = 0; c < d->head_dim_v; c++) {
                    const int64_t at = row * d->head_dim_v + c;
                    check_pair(t_get_o(x, b, h, i, c), t_get_o(y, b, h, i, c),
                               times * (x->ref.o_budget[at] + y->ref.o_budget[at]), what, x);
                }
                if (d->lse.type != QKV_NONE)
                    check_pair(t_get_lse(x, b, h, i), t_get_lse(y, b, h, i),
                               times * (x->ref.lse_budget[row] + y->ref.lse_budget[row]), what, x);
            }
}

static int same(double x, double y)
{
    return x == y ? signbit(x) == signbit(y) : isnan(x) && isnan(y);
}

void check_same_rows(const t_problem *x, int32_t b, const t_problem *y, int32_t c,
                     const char *what)
{
    const qkv_desc *d = &x->desc;
    const t_span s = t_span_of(d, b);

    for (int32_t h = 0; h < d->n_q_heads; h++)
        for (int64_t i = 0; i < s.q_len; i++) {
            int equal = 1;
            for (int64_t n = 0; n < d->head_dim_v; n++)
                equal &= same(t_get_o(x, b, h, i, n), t_get_o(y, c, h, i, n));
            if (d->lse.type != QKV_NONE)
                equal &= same(t_get_lse(x, b, h, i), t_get_lse(y, c, h, i));
            for (int64_t j = 0; d->weights.type != QKV_NONE && j < s.kv_len; j++)
                equal &= same(t_get(x, T_WEIGHTS, b, h, i, j), t_get(y, T_WEIGHTS, c, h, i, j));
            t_check(equal, "%s: sequence %d, head %d, row %lld; %s", what, b, h, (long long)i,
                    t_problem_text(x));
        }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {
        {"threads", test_threads},         {"alone", test_alone},
        {"layouts", test_layouts},         {"padding", test_padding},
        {"two_plans", test_two_plans},     {"permutation", test_permutation},
        {"shift", test_shift},             {"merge", test_merge},
        {"masks", test_masks},             {"grouped", test_grouped},
        {"convexity", test_convexity},     {"linearity", test_linearity},
        {"decode", test_decode},
    };
    return t_main(argc, argv, "props", tests, (int)(sizeof tests / sizeof *tests));
}
