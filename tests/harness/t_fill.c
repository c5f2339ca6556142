/* t_fill.c - inputs of a problem, poison where nobody may look, and the oracle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "t_problem.h"

/* Row i of sequence b is row q_row + i of sequence 0 in a packed tensor. */
typedef struct place {
    int64_t b, row;
} place;

static place q_place(const t_problem *p, int32_t b, int64_t i)
{
    if (p->desc.cu_seqlens_q)
        return (place){0, t_span_of(&p->desc, b).q_row + i};
    return (place){b, i};
}

static place k_place(const t_problem *p, int32_t b, int64_t j)
{
    if (p->desc.cu_seqlens_k)
        return (place){0, t_span_of(&p->desc, b).k_row + j};
    return (place){b, j};
}

static double q_value(t_problem *p)
{
    const double x = t_normal(&p->rng);
    switch (p->fill) {
    case T_RISING:
    case T_SPIKE_LAST:
        return fabs(x);
    case T_HUGE:
        return 8 * x;
    case T_VAST:
        return 100 * x;
    case T_TINY:
        return x * (p->desc.q.type == QKV_F64 ? 1e-158 : p->desc.q.type == QKV_F16 ? 1e-6 : 1e-21);
    case T_COARSE:
        return round(2 * x);
    default:
        return x;
    }
}

static double k_value(t_problem *p, const t_span *s, int64_t j, int32_t c)
{
    const double x = t_normal(&p->rng), keys = (double)(s->kv_len - s->kv_start);
    switch (p->fill) {
    case T_EQUAL:
    case T_CONSTANT:
        return (double)(c * 37 % 11 - 5) / 4;
    case T_RISING:
        return 3 * (double)(j - s->kv_start) / keys + 0.01 * x;
    case T_SPIKE_LAST:
        return j + 1 == s->kv_len ? 4 + x / 4 : x / 4;
    case T_HUGE:
        return 8 * x;
    case T_VAST:
        return 100 * x;
    case T_TINY:
        return x * (p->desc.k.type == QKV_F64 ? 1e-158 : p->desc.k.type == QKV_F16 ? 1e-6 : 1e-21);
    case T_COARSE:
        return round(2 * x);
    default:
        return x;
    }
}

static double v_value(t_problem *p, int32_t c)
{
    const double x = t_normal(&p->rng);
    switch (p->fill) {
    case T_TINY:
        return x * (p->desc.v.type == QKV_F64 ? 1e-309 : p->desc.v.type == QKV_F16 ? 1e-7 : 1e-39);
    case T_CONSTANT:
        return 1 / (c + 3.0);
    case T_COARSE:
        return round(2 * x);
    default:
        return x;
    }
}

static void fill_sequence(t_problem *p, int32_t b)
{
    const qkv_desc *d = &p->desc;
    const t_span s = t_span_of(d, b);

    for (int32_t h = 0; h < d->n_q_heads; h++)
        for (int64_t i = 0; i < s.q_len; i++)
            for (int32_t c = 0; c < d->head_dim; c++) {
                const place at = q_place(p, b, i);
                t_put(p, T_Q, at.b, h, at.row, c, q_value(p));
            }
    for (int32_t h = 0; h < d->n_kv_heads; h++)
        for (int64_t j = s.kv_start; j < s.kv_len; j++) {
            const place at = k_place(p, b, j);
            for (int32_t c = 0; c < d->head_dim; c++)
                t_put(p, T_K, at.b, h, at.row, c, k_value(p, &s, j, c));
            for (int32_t c = 0; c < d->head_dim_v && !p->v_is_k; c++)
                t_put(p, T_V, at.b, h, at.row, c, v_value(p, c));
        }
}

/* mask and bias; a fifth of the rows of a mask hide everything, as do some of a bias. */
static void fill_scores(t_problem *p, int32_t b)
{
    const qkv_desc *d = &p->desc;
    const int hides = t_chance(&p->rng, 40) ? 25 : 0, large = t_chance(&p->rng, 10);

    for (int32_t h = 0; h < d->n_q_heads; h++)
        for (int64_t i = 0; i < d->q_len; i++) {
            const int density = t_chance(&p->rng, 20) ? 0 : (int)t_between(&p->rng, 10, 95);
            const int nothing = hides && t_chance(&p->rng, 20);
            for (int64_t j = 0; j < d->kv_len; j++) {
                if (d->mask.type != QKV_NONE)
                    t_put(p, T_MASK, b, h, i, j,
                          t_chance(&p->rng, density) ? (double)t_between(&p->rng, 1, 255) : 0);
                if (d->bias.type != QKV_NONE)
                    t_put(p, T_BIAS, b, h, i, j,
                          nothing || t_chance(&p->rng, hides) ? -(double)INFINITY
                          : large && t_chance(&p->rng, 30)    ? -60000
                                                              : t_normal(&p->rng));
            }
        }
}

void t_problem_fill(t_problem *p)
{
    const qkv_desc *d = &p->desc;

    for (int32_t b = 0; b < d->n_seqs; b++) {
        fill_sequence(p, b);
        if (d->mask.type != QKV_NONE || d->bias.type != QKV_NONE)
            fill_scores(p, b);
        for (int32_t h = 0; h < d->n_q_heads; h++) {
            if (d->sinks.type != QKV_NONE)
                t_put(p, T_SINKS, b, h, 0, 0, t_normal(&p->rng) * 3);
            if (d->slopes.type != QKV_NONE)
                t_put(p, T_SLOPES, b, h, 0, 0, exp2(-8 * t_uniform(&p->rng)));
        }
    }
}

/* ---- poison ---- */

static double poison(t_problem *p)
{
    const double values[] = {NAN, INFINITY, -INFINITY, NAN};
    return values[t_below(&p->rng, 4)];
}

static size_t seen_index(const t_problem *p, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const qkv_desc *d = &p->desc;
    return (size_t)(((b * d->n_q_heads + h) * d->q_len + i) * d->kv_len + j);
}

/* The byte of a map over a tensor's memory that stands for one element. */
static size_t map_index(const t_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (size_t)((const char *)t->first - (const char *)t->memory +
                    t_offset(t, i0, i1, i2, i3));
}

static int key_is_seen(const t_problem *p, int32_t b, int32_t kv_head, int64_t j)
{
    const qkv_desc *d = &p->desc;
    const int32_t group = d->n_q_heads / d->n_kv_heads;
    for (int32_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        for (int64_t i = 0; i < d->q_len; i++)
            if (p->seen[seen_index(p, b, h, i, j)])
                return 1;
    return 0;
}

/* Rows of K and V that no query sees, nor another row that lies in the same place. */
static void poison_keys(t_problem *p, int tensor)
{
    const qkv_desc *d = &p->desc;
    t_tensor *t = &p->tensor[tensor];
    uint8_t *used = t_scratch(t->bytes);

    memset(used, 0, t->bytes);
    for (int pass = 0; pass < 2; pass++)
        for (int32_t b = 0; b < d->n_seqs; b++)
            for (int32_t h = 0; h < d->n_kv_heads; h++)
                for (int64_t j = 0; j < t_span_of(d, b).kv_len; j++) {
                    const place at = k_place(p, b, j);
                    uint8_t *mark = &used[map_index(t, at.b, h, at.row, 0)];
                    if (pass == 0)
                        *mark |= (uint8_t)key_is_seen(p, b, h, j);
                    else if (!*mark)
                        for (int64_t c = 0; c < t->n[3]; c++)
                            t_put(p, tensor, at.b, h, at.row, c, poison(p));
                }
}

static void poison_bias(t_problem *p)
{
    const qkv_desc *d = &p->desc;
    t_tensor *t = &p->tensor[T_BIAS];
    uint8_t *used = t_scratch(t->bytes);

    memset(used, 0, t->bytes);
    for (int pass = 0; pass < 2; pass++)
        for (int32_t b = 0; b < d->n_seqs; b++)
            for (int32_t h = 0; h < d->n_q_heads; h++)
                for (int64_t i = 0; i < d->q_len; i++)
                    for (int64_t j = 0; j < d->kv_len; j++) {
                        uint8_t *mark = &used[map_index(t, b, h, i, j)];
                        if (pass == 0)
                            *mark |= p->seen[seen_index(p, b, h, i, j)];
                        else if (!*mark && t_get(p, T_BIAS, b, h, i, j) != -(double)INFINITY)
                            t_put(p, T_BIAS, b, h, i, j,
                                  t_chance(&p->rng, 50) ? (double)NAN : (double)INFINITY);
                    }
}

/* A few elements that queries do see become NaN or infinite. */
static void make_strange(t_problem *p)
{
    const int tensors[] = {T_K, T_V, T_V, T_Q};

    for (int n = (int)t_between(&p->rng, 1, 3); n > 0; n--) {
        const int tensor = tensors[t_below(&p->rng, 4)];
        const t_tensor *t = &p->tensor[tensor];
        if (t->n[0] * t->n[1] * t->n[2] == 0)
            continue;
        const int64_t i0 = t_below(&p->rng, t->n[0]), i1 = t_below(&p->rng, t->n[1]);
        const int64_t i2 = t_below(&p->rng, t->n[2]), i3 = t_below(&p->rng, t->n[3]);
        t_put(p, tensor, i0, i1, i2, i3, poison(p));
    }
}

/* ---- the oracle ---- */

static void ask(t_problem *p, const qkv_desc *d, const qkv_ref_out *out)
{
    void *scratch = t_scratch(qkv_ref_scratch_size(d));
    const qkv_status status = qkv_ref_attention(d, &p->args, out, scratch);
    if (status != QKV_OK) {
        char text[256];
        qkv_explain(d, text, sizeof text);
        t_fail("the oracle refuses: %s; %s", text, t_problem_text(p));
    }
}

static void look_at_visible(t_problem *p)
{
    const qkv_desc *d = &p->desc;
    const size_t n = (size_t)((int64_t)d->n_seqs * d->n_q_heads * d->q_len * d->kv_len);
    double *biased = malloc((n + 1) * sizeof *biased);
    qkv_desc look = *d;

    look.stage = QKV_STAGE_BIASED;
    ask(p, &look, &(qkv_ref_out){.weights = biased});
    p->seen = t_scratch(n);
    for (size_t i = 0; i < n; i++)
        p->seen[i] = biased[i] != -(double)INFINITY;
    free(biased);
}

void t_problem_solve(t_problem *p)
{
    const qkv_desc *d = &p->desc;
    const size_t rows = (size_t)((int64_t)d->n_seqs * d->n_q_heads * d->q_len);

    look_at_visible(p);
    poison_keys(p, T_K);
    if (!p->v_is_k)
        poison_keys(p, T_V);
    if (d->bias.type != QKV_NONE)
        poison_bias(p);
    if (p->limits.strange && t_chance(&p->rng, 15))
        make_strange(p);
    p->ref.o = t_scratch(rows * (size_t)d->head_dim_v * sizeof(double));
    p->ref.o_budget = t_scratch(rows * (size_t)d->head_dim_v * sizeof(double));
    p->ref.lse = t_scratch(rows * sizeof(double));
    p->ref.lse_budget = t_scratch(rows * sizeof(double));
    if (d->weights.type != QKV_NONE) {
        p->ref.weights = t_scratch(rows * (size_t)d->kv_len * sizeof(double));
        p->weights_budget = t_scratch(rows * (size_t)d->kv_len * sizeof(double));
    }
    ask(p, d, &p->ref);
    if (p->weights_budget)
        t_bound_weights(p);
}

void t_problem_make(t_problem *p, uint64_t seed, const t_limits *limits)
{
    t_problem_describe(p, seed, limits);
    t_problem_allocate(p);
    t_problem_fill(p);
    t_problem_solve(p);
    for (int i = 0; i < T_N_TENSORS; i++)
        if (p->tensor[i].memory && i != T_O && i != T_LSE && i != T_WEIGHTS)
            t_protect(p->tensor[i].memory);
}
