/*
 * test_hidden.c - what a query does not see changes no bit of its output, at every tier, in every
 * format.
 *
 * Each problem runs with ordinary numbers everywhere, with NaN and infinity in keys and values that
 * nobody sees, and with one of them in a value that some queries see and others do not.  No oracle is
 * asked: bits are compared with bits.
 */
#include <math.h>
#include <string.h>

#include "pages.h"

enum { MAX_TIERS = 8 };

/* The rows of each tier, see read_rows. */
typedef struct answers {
    double *rows[MAX_TIERS];
} answers;

static int tiers(uint32_t masks[MAX_TIERS])
{
    const char *names[MAX_TIERS];
    return t_tiers(masks, names);
}

static int64_t n_rows(const qkv_desc *d) { return (int64_t)d->n_seqs * d->n_q_heads * d->q_len; }
static int64_t row_numbers(const qkv_desc *d)
{
    return d->head_dim_v + 1 + (d->weights.type != QKV_NONE ? d->kv_len : 0);
}

/* o, lse and weights of a row behind each other, [B][Hq][Tq]; zeros where there is none. */
static double *read_rows(const t_problem *p)
{
    const qkv_desc *d = &p->desc;
    const int64_t n = n_rows(d) * row_numbers(d);
    double *rows = t_scratch((size_t)(n + 1) * sizeof *rows), *to = rows;

    memset(rows, 0, (size_t)(n + 1) * sizeof *rows);
    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_q_heads; h++)
            for (int64_t i = 0; i < d->q_len; i++, to += row_numbers(d)) {
                const t_span s = t_span_of(d, b);
                const int there = i < s.q_len, weighed = there && d->weights.type != QKV_NONE;
                for (int32_t c = 0; there && c < d->head_dim_v; c++)
                    to[c] = t_get_o(p, b, h, i, c);
                if (there && d->lse.type != QKV_NONE)
                    to[d->head_dim_v] = t_get_lse(p, b, h, i);
                for (int64_t j = 0; weighed && j < s.kv_len; j++)
                    to[d->head_dim_v + 1 + j] = t_get(p, T_WEIGHTS, b, h, i, j);
            }
    return rows;
}

static void run_clean(paged *x, answers *a)
{
    uint32_t masks[MAX_TIERS];
    const int n = tiers(masks);

    for (int i = 0; i < n; i++) {
        t_run(&x->p, masks[i], T_SERIAL);
        a->rows[i] = read_rows(&x->p);
    }
}

/* ---- one value that some see ---- */

typedef struct oddity {
    const t_tensor *tensor;
    const char *element;
    uint8_t *sees; /* [B][Hq][Tq] */
} oddity;

/* The queries that see this key, if the element is one of its own. */
static void find_queries(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const qkv_desc *d = &x->p.desc;
    const oddity *o = arg;
    const pages_place at = pages_find(x, b, h, j);
    const int32_t group = d->n_q_heads / d->n_kv_heads;
    int its = 0;

    for (int64_t c = 0; c < o->tensor->n[3]; c++)
        its |= pages_at(o->tensor, at.outer, h, at.row, c) == o->element;
    for (int64_t row = 0; its && row < group * d->q_len; row++) {
        const int64_t n = ((int64_t)b * d->n_q_heads + h * group) * d->q_len + row;
        o->sees[n] |= x->seen[n * d->kv_len + j];
    }
}

/* An element of the values becomes odd: a number, a code or a scale. */
static void put_oddity(paged *x, oddity *o)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY};
    const qkv_desc *d = &x->p.desc;
    t_rng *rng = &x->p.rng;
    const int32_t b = (int32_t)t_below(rng, d->n_seqs);
    const t_span s = t_span_of(d, b);
    const int finite = d->v.type == QKV_I8 || d->v.type == QKV_U4;

    o->tensor = finite ? &x->v.scale : &x->v.data;
    if (d->v.type == QKV_U4 && t_chance(rng, 50))
        o->tensor = &x->v.min;
    if (s.kv_start >= s.kv_len)
        return;
    const int32_t h = (int32_t)t_below(rng, d->n_kv_heads);
    const int64_t j = t_between(rng, s.kv_start, s.kv_len - 1);
    const pages_place at = pages_find(x, b, h, j);
    char *element = pages_at(o->tensor, at.outer, h, at.row, t_below(rng, o->tensor->n[3]));
    if (pages_coded(o->tensor->layout->type))
        *element = 0x7f; /* NaN */
    else
        qkv_convert(element, (qkv_type)o->tensor->layout->type, &odd[t_below(rng, 3)], QKV_F64, 1);
    o->element = element;
    pages_each_key(x, find_queries, o);
}

/* ---- comparing ---- */

/* Any NaN is as good as another, and so is a zero of either sign: what underflows may give both. */
static int same_row(const double *x, const double *y, int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        if (x[c] != y[c] && !(isnan(x[c]) && isnan(y[c])))
            return 0;
    return 1;
}

/* The same rows as before, but for those marked in `except` (NULL: none)? */
static void check_rows(paged *x, const answers *a, const uint8_t *except, int how, const char *what)
{
    const int64_t rows = n_rows(&x->p.desc), width = row_numbers(&x->p.desc);
    uint32_t masks[MAX_TIERS];
    const int n = tiers(masks);

    for (int i = 0; i < n; i++) {
        const char *kernel = t_run(&x->p, masks[i], how);
        const double *got = read_rows(&x->p);
        int64_t wrong = 0;
        for (int64_t row = 0; row < rows; row++)
            wrong += !(except && except[row]) &&
                     !same_row(got + row * width, a->rows[i] + row * width, width);
        t_check(wrong == 0, "%s: %s changes %lld rows; %s", kernel ? kernel : "nothing", what,
                (long long)wrong, pages_text(x));
    }
}

/* ---- problems ---- */

static void look_for_infinity(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const qkv_desc *d = &x->p.desc;
    const int64_t outer = d->cu_seqlens_k ? 0 : b, row = t_span_of(d, b).k_row + j;
    int *found = arg;

    for (int64_t c = 0; c < d->head_dim; c++)
        *found |= !isfinite(t_get(&x->p, T_K, outer, h, row, c));
}

/* Now and then a scale overflows f16.  A key of infinity scores -infinity with some queries, and then this
 * program could not tell it from a hidden one. */
static int has_infinite_keys(paged *x)
{
    int found = 0;
    pages_each_key(x, look_for_infinity, &found);
    return found;
}

static void check_problem(paged *x)
{
    const int64_t rows = n_rows(&x->p.desc);
    oddity odd = {.sees = t_scratch((size_t)rows + 1)};
    answers clean;

    pages_contents(x);
    if (has_infinite_keys(x))
        return;
    run_clean(x, &clean);
    pages_spoil(x, x->seen);
    check_rows(x, &clean, NULL, T_SERIAL, "what nobody sees");
    memset(odd.sees, 0, (size_t)rows + 1);
    for (int64_t n = rows > 0 ? t_between(&x->p.rng, 1, 3) : 0; n > 0; n--)
        put_oddity(x, &odd);
    check_rows(x, &clean, odd.sees, T_TASKS_BACK, "a value that others see");
}

/* All features, all types. */
static void test_any(void)
{
    t_limits limits = t_limits_all();
    paged x;

    limits.strange = 0;
    limits.max_work = 400000;
    for (int i = 0; i < t_times(500); i++) {
        if (!t_case("p%d", i))
            continue;
        pages_describe(&x, t_seed() * 1000117 + (uint64_t)i, &limits);
        check_problem(&x);
    }
}

/* What products of bf16 and their parts take, with ranges that cut blocks and pairs anywhere. */
static void test_bf16(void)
{
    t_limits limits = t_limits_plain();
    paged x;

    limits.layouts = T_ANY_LAYOUT;
    limits.max_dim = 140;
    limits.max_len = 300;
    for (int i = 0; i < t_times(300); i++) {
        if (!t_case("p%d", i))
            continue;
        limits.type = i % 3 ? QKV_BF16 : QKV_F32;
        pages_describe(&x, t_seed() * 1000121 + (uint64_t)i, &limits);
        qkv_desc *d = &x.p.desc;
        x.latent = 0;
        d->q.type = d->k.type = d->v.type = limits.type;
        d->o.type = QKV_F32; /* rounding to fewer bits would hide most differences */
        d->k_group = d->v_group = d->rope_dim = 0;
        d->k_rope.type = QKV_NONE;
        d->precision = i % 3 ? QKV_PRECISION_HIGHEST
                       : i % 2 ? QKV_PRECISION_HIGH : QKV_PRECISION_MEDIUM;
        d->q_len = i % 4 ? 17 + d->q_len % 150 : 1 + d->q_len % 4;
        d->kv_len = 1 + d->kv_len;
        d->causal = i % 5 ? QKV_CAUSAL_INCLUSIVE : QKV_CAUSAL_NONE;
        d->align = QKV_ALIGN_BOTTOM_RIGHT;
        d->window_left = i % 7 > 3 ? i % 60 : -1;
        check_problem(&x);
    }
}

/* Codes, which some kernels multiply as they are; scales of rows and of groups. */
static void test_codes(void)
{
    static const int32_t types[] = {QKV_I8, QKV_E4M3, QKV_E5M2, QKV_U4};
    t_limits limits = t_limits_plain();
    paged x;

    limits.type = QKV_BF16;
    limits.max_dim = 200;
    limits.max_len = 400;
    for (int i = 0; i < t_times(200); i++) {
        if (!t_case("%s_%d", qkv_type_name((qkv_type)types[i % 4]), i))
            continue;
        pages_describe(&x, t_seed() * 1000133 + (uint64_t)i, &limits);
        qkv_desc *d = &x.p.desc;
        x.latent = 0;
        d->q.type = QKV_BF16;
        d->k.type = types[i / 4 % 4];
        d->v.type = types[i % 4];
        d->o.type = QKV_F32; /* rounding to fewer bits would hide most differences */
        d->k_group = i / 32 % 2 && d->head_dim >= 32 ? 32 : 0;
        d->v_group = i / 32 % 2 && d->head_dim_v >= 32 ? 32 : 0;
        d->rope_dim = 0;
        d->k_rope.type = QKV_NONE;
        d->q_len = i / 16 % 2 ? 17 + d->q_len % 70 : 1 + d->q_len % 5;
        d->causal = QKV_CAUSAL_INCLUSIVE;
        d->align = QKV_ALIGN_BOTTOM_RIGHT;
        d->window_left = i % 3 ? i : -1;
        check_problem(&x);
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"any", test_any}, {"bf16", test_bf16}, {"codes", test_codes}};
    return t_main(argc, argv, "hidden", tests, (int)(sizeof tests / sizeof *tests));
}
