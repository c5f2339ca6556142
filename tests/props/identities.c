/* identities.c - what follows from the formula, whatever the rounding: within the budgets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "props.h"

/* Full lengths, every element its own place; each test switches on what it can take. */
static t_limits base_limits(void)
{
    t_limits limits = t_limits_all();
    limits.max_work = 400000;
    limits.max_len = 300;
    limits.packed = limits.lengths = limits.positions = limits.masks = limits.scores = 0;
    limits.outputs = limits.strange = limits.fills = 0;
    limits.layouts = T_OWN_LAYOUT;
    return limits;
}

/* Describes, fills and solves, leaving the inputs writable. */
static void make(t_problem *p, uint64_t seed, const t_limits *limits)
{
    t_problem_describe(p, seed, limits);
    t_problem_allocate(p);
    t_problem_fill(p);
    t_problem_solve(p);
}

static void swap_keys(t_problem *p, int tensor, int64_t x, int64_t y)
{
    const t_tensor *t = &p->tensor[tensor];
    const int by_key = tensor == T_MASK || tensor == T_BIAS;
    const int64_t inner = by_key ? t->n[2] : t->n[3];

    for (int64_t b = 0; b < t->n[0]; b++)
        for (int64_t h = 0; h < t->n[1]; h++)
            for (int64_t i = 0; i < inner; i++) {
                const int64_t x2 = by_key ? i : x, x3 = by_key ? x : i;
                const int64_t y2 = by_key ? i : y, y3 = by_key ? y : i;
                const double kept = t_get(p, tensor, b, h, x2, x3);
                t_put(p, tensor, b, h, x2, x3, t_get(p, tensor, b, h, y2, y3));
                t_put(p, tensor, b, h, y2, y3, kept);
            }
}

void test_permutation(void)
{
    t_limits limits = base_limits();
    t_problem p, q;

    limits.masks = 1;
    for (int i = 0; i < t_times(100); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&p, t_seed() * 53 + (uint64_t)i, &limits);
        p.desc.block_bits = NULL; /* blocks are of neighbouring keys */
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        t_problem_clone(&q, &p);
        t_problem_rebuild(&q);
        t_copy_inputs(&q, &p);
        for (int64_t j = q.desc.kv_len - 1; j > 0; j--) {
            const int64_t other = t_below(&q.rng, j + 1);
            for (int tensor = T_K; tensor <= T_BIAS; tensor++)
                if (tensor != T_O && q.tensor[tensor].layout->type != QKV_NONE)
                    swap_keys(&q, tensor, j, other);
        }
        q.ref = p.ref; /* the same answer */
        t_run(&p, some_tier(i), T_SERIAL);
        t_run(&q, some_tier(i), T_SERIAL);
        check_near(&p, &q, 1.1, "permuting the keys");
    }
}

/* The same scores plus 5 everywhere: the same weights, lse plus 5. */
void test_shift(void)
{
    t_limits limits = base_limits();
    t_problem p, q;

    limits.positions = limits.lengths = 1;
    for (int i = 0; i < t_times(100); i++) {
        if (!t_case("p%d", i))
            continue;
        make(&p, t_seed() * 59 + (uint64_t)i, &limits);
        t_problem_clone(&q, &p);
        q.desc.bias.type = q.desc.q.type == QKV_F64 ? QKV_F64 : QKV_F32;
        t_problem_rebuild(&q);
        t_copy_tensor(&q, T_Q, &p);
        t_copy_tensor(&q, T_K, &p);
        t_copy_tensor(&q, T_V, &p);
        for (int64_t b = 0; b < q.desc.n_seqs; b++)
            for (int64_t h = 0; h < q.desc.n_q_heads; h++)
                for (int64_t x = 0; x < q.desc.q_len; x++)
                    for (int64_t j = 0; j < q.desc.kv_len; j++)
                        t_put(&q, T_BIAS, b, h, x, j, 5);
        t_problem_solve(&q);
        t_run(&p, some_tier(i), T_SERIAL);
        t_run(&q, some_tier(i), T_SERIAL);
        for (int32_t b = 0; b < q.desc.n_seqs; b++)
            for (int32_t h = 0; h < q.desc.n_q_heads; h++)
                for (int64_t x = 0; x < t_span_of(&q.desc, b).q_len; x++) {
                    const int64_t i0 = q.desc.cu_seqlens_q ? 0 : b;
                    t_put(&q, T_LSE, i0, h, x, 0, t_get(&q, T_LSE, i0, h, x, 0) - 5);
                }
        check_near(&p, &q, 1.1, "adding 5 to all scores");
    }
}

/* ---- split and merge ---- */

/* One part: keys from .. to-1 of every sequence, without sinks, o and lse in the compute type. */
static void run_part(t_problem *part, const t_problem *all, int64_t from, int64_t to, int i)
{
    const int32_t n = all->desc.n_seqs;
    int32_t *numbers = t_scratch(3 * sizeof *numbers * (size_t)(n + 1));
    qkv_desc *d = &part->desc;

    t_problem_clone(part, all);
    for (int32_t b = 0; b < n; b++) {
        const t_span s = t_span_of(&all->desc, b);
        const int64_t end = to < s.kv_len ? to : s.kv_len;
        numbers[b] = (int32_t)(from > s.kv_start ? from : s.kv_start);
        numbers[n + b] = (int32_t)end;
        numbers[2 * n + b] = (int32_t)s.q_offset;
    }
    d->kv_starts = numbers;
    d->kv_lens = numbers + n;
    d->q_offsets = numbers + 2 * n;
    d->sinks.type = QKV_NONE;
    d->o.type = d->lse.type = d->q.type == QKV_F64 ? QKV_F64 : QKV_F32;
    part->limits.layouts = 0; /* qkv_merge gets dense arrays */
    t_problem_rebuild(part);
    t_copy_inputs(part, all);
    t_run(part, some_tier(i), T_SERIAL);
}

static void merge_parts(t_problem *whole, t_problem *parts, int n_parts, const void *sinks)
{
    const void *o[8], *lse[8];
    qkv_merge_args m;
    char text[256] = "";

    qkv_merge_init(&m);
    for (int i = 0; i < n_parts; i++) {
        o[i] = parts[i].args.o;
        lse[i] = parts[i].args.lse;
    }
    m.type = whole->desc.o.type;
    m.n_parts = n_parts;
    m.n_seqs = whole->desc.n_seqs;
    m.n_heads = whole->desc.n_q_heads;
    m.head_dim_v = whole->desc.head_dim_v;
    m.n_tokens = whole->desc.q_len;
    m.o_parts = o;
    m.lse_parts = lse;
    memcpy(m.o_part_stride, parts[0].desc.o.stride, sizeof m.o_part_stride);
    memcpy(m.lse_part_stride, parts[0].desc.lse.stride, sizeof m.lse_part_stride);
    m.o = whole->args.o;
    memcpy(m.o_stride, whole->desc.o.stride, sizeof m.o_stride);
    m.lse = whole->args.lse;
    memcpy(m.lse_stride, whole->desc.lse.stride, sizeof m.lse_stride);
    m.sinks = sinks;
    t_check(qkv_merge(&m, text, sizeof text) == QKV_OK, "qkv_merge: %s", text);
}

/* qkv_merge takes one sink per head in the type of o. */
static void *dense_sinks(t_problem *p)
{
    void *sinks = t_alloc((size_t)p->desc.n_q_heads * 8, 8, T_START, 0xff);
    for (int32_t h = 0; h < p->desc.n_q_heads; h++) {
        const double x = t_get(p, T_SINKS, 0, h, 0, 0);
        for (int32_t b = 1; b < p->desc.n_seqs; b++)
            t_put(p, T_SINKS, b, h, 0, 0, x);
        qkv_convert((char *)sinks + (size_t)h * qkv_type_size((qkv_type)p->desc.o.type),
                    (qkv_type)p->desc.o.type, &x, QKV_F64, 1);
    }
    return sinks;
}

static void split(t_problem *all, int i)
{
    t_problem parts[8], whole;
    const int n_parts = (int)t_between(&all->rng, 1, 8);
    int64_t from = 0;
    const void *sinks = all->desc.sinks.type != QKV_NONE ? dense_sinks(all) : NULL;

    t_problem_solve(all);
    t_run(all, some_tier(i), T_SERIAL);
    for (int n = 0; n < n_parts; n++) { /* some of them empty */
        const int64_t to = n + 1 == n_parts ? all->desc.kv_len
                                            : t_between(&all->rng, from, all->desc.kv_len);
        run_part(&parts[n], all, from, to, i);
        from = to;
    }
    t_problem_clone(&whole, all);
    t_problem_rebuild(&whole);
    whole.ref = all->ref;
    merge_parts(&whole, parts, n_parts, sinks);
    check_near(all, &whole, 2, "splitting the keys and merging");
}

void test_merge(void)
{
    t_limits limits = base_limits();
    t_problem all;

    limits.positions = limits.lengths = limits.masks = limits.scores = 1;
    for (int i = 0; i < t_times(120); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&all, t_seed() * 61 + (uint64_t)i, &limits);
        all.desc.o.type = all.desc.lse.type = all.desc.q.type == QKV_F64 ? QKV_F64 : QKV_F32;
        all.desc.q_lens = NULL; /* to qkv_merge a row past q_len is one that saw no key */
        t_problem_rebuild(&all);
        t_problem_fill(&all);
        split(&all, i);
    }
}

/* ---- masks ---- */

/* Causal, windows, lengths, blocks: all the same as the boolean mask of what they leave visible. */
void test_masks(void)
{
    t_limits limits = base_limits();
    t_problem p, q;

    limits.positions = limits.lengths = limits.masks = 1;
    for (int i = 0; i < t_times(150); i++) {
        if (!t_case("p%d", i))
            continue;
        make(&p, t_seed() * 67 + (uint64_t)i, &limits);
        t_problem_clone(&q, &p);
        q.desc.causal = QKV_CAUSAL_NONE;
        q.desc.window_left = q.desc.window_right = QKV_UNBOUNDED;
        q.desc.block_bits = NULL;
        q.desc.kv_starts = q.desc.kv_lens = NULL;
        q.desc.mask.type = QKV_BOOL;
        t_problem_rebuild(&q);
        for (int tensor = T_Q; tensor <= T_BIAS; tensor++)
            if (tensor != T_O && tensor != T_MASK && q.tensor[tensor].layout->type != QKV_NONE)
                t_copy_tensor(&q, tensor, &p);
        const uint8_t *seen = p.seen;
        for (int64_t b = 0; b < q.desc.n_seqs; b++)
            for (int64_t h = 0; h < q.desc.n_q_heads; h++)
                for (int64_t x = 0; x < q.desc.q_len; x++)
                    for (int64_t j = 0; j < q.desc.kv_len; j++)
                        t_put(&q, T_MASK, b, h, x, j, *seen++);
        q.ref = p.ref;
        t_run(&p, some_tier(i), T_SERIAL);
        t_run(&q, some_tier(i), T_SERIAL);
        check_near(&p, &q, 1.1, "a mask in place of lengths, causal and window");
    }
}

void test_grouped(void)
{
    t_limits limits = base_limits();
    t_problem p, q;

    limits.positions = limits.lengths = limits.masks = limits.scores = 1;
    for (int i = 0; i < t_times(80); i++) {
        if (!t_case("p%d", i))
            continue;
        make(&p, t_seed() * 71 + (uint64_t)i, &limits);
        t_problem_clone(&q, &p);
        q.desc.n_kv_heads = q.desc.n_q_heads;
        t_problem_rebuild(&q);
        for (int tensor = T_Q; tensor <= T_SLOPES; tensor++)
            if (tensor != T_O && tensor != T_K && tensor != T_V &&
                q.tensor[tensor].layout->type != QKV_NONE)
                t_copy_tensor(&q, tensor, &p);
        const int32_t group = p.desc.n_q_heads / p.desc.n_kv_heads;
        for (int tensor = T_K; tensor <= T_V; tensor++)
            for (int64_t b = 0; b < q.tensor[tensor].n[0]; b++)
                for (int64_t h = 0; h < q.desc.n_q_heads; h++)
                    for (int64_t j = 0; j < q.tensor[tensor].n[2]; j++)
                        for (int64_t c = 0; c < q.tensor[tensor].n[3]; c++)
                            t_put(&q, tensor, b, h, j, c, t_get(&p, tensor, b, h / group, j, c));
        q.ref = p.ref;
        t_run(&p, some_tier(i), T_SERIAL);
        t_run(&q, some_tier(i), T_SERIAL);
        check_near(&p, &q, 1.1, "repeating the heads of K and V");
    }
}

/* ---- means ---- */

static void check_between(const t_problem *p, int32_t b, int32_t h, int64_t i, int64_t c)
{
    const qkv_desc *d = &p->desc;
    const t_span s = t_span_of(d, b);
    const int64_t row = ((int64_t)b * d->n_q_heads + h) * d->q_len + i;
    const int32_t kv_head = h / (d->n_q_heads / d->n_kv_heads);
    const double budget = p->ref.o_budget[row * d->head_dim_v + c], o = t_get_o(p, b, h, i, c);
    double low = INFINITY, high = -INFINITY;

    for (int64_t j = s.kv_start; j < s.kv_len; j++)
        if (p->seen[row * d->kv_len + j]) {
            const double v = t_get(p, T_V, d->cu_seqlens_k ? 0 : b, kv_head, s.k_row + j, c);
            low = fmin(low, v);
            high = fmax(high, v);
        }
    if (low > high)
        low = high = 0;
    t_check(o >= low - budget && o <= high + budget, "o is %g, its values lie in [%g, %g]; %s", o,
            low, high, t_problem_text(p));
}

void test_convexity(void)
{
    t_limits limits = base_limits();
    t_problem p;

    limits.positions = limits.lengths = limits.masks = limits.packed = 1;
    for (int i = 0; i < t_times(80); i++) {
        if (!t_case("p%d", i))
            continue;
        make(&p, t_seed() * 73 + (uint64_t)i, &limits);
        t_run(&p, some_tier(i), T_SERIAL);
        for (int32_t b = 0; b < p.desc.n_seqs; b++)
            for (int32_t h = 0; h < p.desc.n_q_heads; h++)
                for (int64_t x = 0; x < t_span_of(&p.desc, b).q_len; x++)
                    check_between(&p, b, h, x, x % p.desc.head_dim_v);
    }
}

/* A(v1) + A(v2) = A(v1 + v2), with small integers so that v1 + v2 is exact in every type. */
void test_linearity(void)
{
    t_limits limits = base_limits();
    t_problem p[3];

    limits.positions = limits.masks = limits.scores = 1;
    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&p[0], t_seed() * 79 + (uint64_t)i, &limits);
        p[0].desc.o.type = p[0].desc.q.type == QKV_F64 ? QKV_F64 : QKV_F32;
        t_problem_rebuild(&p[0]);
        t_problem_fill(&p[0]);
        for (int k = 1; k < 3; k++) {
            t_problem_clone(&p[k], &p[0]);
            t_problem_rebuild(&p[k]);
            t_copy_inputs(&p[k], &p[0]);
        }
        const int64_t *n = p[0].tensor[T_V].n;
        for (int64_t b = 0; b < n[0]; b++)
            for (int64_t h = 0; h < n[1]; h++)
                for (int64_t j = 0; j < n[2]; j++)
                    for (int64_t c = 0; c < n[3]; c++) {
                        const double x = (double)t_between(&p[0].rng, -20, 20);
                        const double y = (double)t_between(&p[0].rng, -20, 20);
                        t_put(&p[0], T_V, b, h, j, c, x);
                        t_put(&p[1], T_V, b, h, j, c, y);
                        t_put(&p[2], T_V, b, h, j, c, x + y);
                    }
        for (int k = 0; k < 3; k++) {
            t_problem_solve(&p[k]);
            t_run(&p[k], some_tier(i), T_SERIAL);
        }
        const int64_t *no = p[0].tensor[T_O].n;
        for (int64_t b = 0, at = 0; b < no[0]; b++)
            for (int64_t h = 0; h < no[1]; h++)
                for (int64_t x = 0; x < no[2]; x++)
                    for (int64_t c = 0; c < no[3]; c++, at++) {
                        const double sum = t_get(&p[0], T_O, b, h, x, c) +
                                           t_get(&p[1], T_O, b, h, x, c);
                        const double budget = p[0].ref.o_budget[at] + p[1].ref.o_budget[at] +
                                              p[2].ref.o_budget[at];
                        t_check(fabs(sum - t_get(&p[2], T_O, b, h, x, c)) <= budget,
                                "A(v1) + A(v2) is %g, A(v1 + v2) is %g; %s", sum,
                                t_get(&p[2], T_O, b, h, x, c), t_problem_text(&p[0]));
                    }
    }
}

/* The last row of a prefill is what decoding that token gives. */
void test_decode(void)
{
    t_limits limits = base_limits();
    t_problem p, q;

    limits.scores = 1;
    for (int i = 0; i < t_times(80); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&p, t_seed() * 83 + (uint64_t)i, &limits);
        p.desc.causal = QKV_CAUSAL_INCLUSIVE;
        if (p.desc.q_len == 0)
            p.desc.q_len = 1;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        t_problem_clone(&q, &p);
        q.desc.q_len = 1;
        t_problem_rebuild(&q);
        for (int tensor = T_K; tensor <= T_SLOPES; tensor++)
            if (tensor != T_O && q.tensor[tensor].layout->type != QKV_NONE)
                t_copy_tensor(&q, tensor, &p);
        for (int64_t b = 0; b < q.desc.n_seqs; b++)
            for (int64_t h = 0; h < q.desc.n_q_heads; h++)
                for (int64_t c = 0; c < q.desc.head_dim; c++)
                    t_put(&q, T_Q, b, h, 0, c, t_get(&p, T_Q, b, h, p.desc.q_len - 1, c));
        t_run(&p, some_tier(i), T_SERIAL);
        t_run(&q, some_tier(i), T_SERIAL);
        for (int32_t b = 0; b < q.desc.n_seqs; b++)
            for (int32_t h = 0; h < q.desc.n_q_heads; h++)
                for (int64_t c = 0; c < q.desc.head_dim_v; c++) {
                    const int64_t last = p.desc.q_len - 1;
                    const int64_t row = ((int64_t)b * p.desc.n_q_heads + h) * p.desc.q_len + last;
                    const double x = t_get_o(&p, b, h, last, c), y = t_get_o(&q, b, h, 0, c);
                    t_check(fabs(x - y) <= 2 * p.ref.o_budget[row * p.desc.head_dim_v + c],
                            "prefill gives %g, decode %g; %s", x, y, t_problem_text(&p));
                }
    }
}
