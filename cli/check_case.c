/*
 * check_case.c - random problems for qkv check.
 *
 * Everything the descriptor can say is said now and then.  What must not be read holds NaN: gaps
 * between rows, keys before kv_start and from kv_len on, queries past q_len.  Outputs start as NaN,
 * so that an element nobody wrote shows.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* Largest Hq Tq Tk (D + Dv) summed over sequences: the oracle takes a few milliseconds for it. */
#define MOST_WORK 6e6

/* ---- randomness --------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014): any seed is a good seed. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int64_t below(uint64_t *r, int64_t n) { return (int64_t)(next(r) % (uint64_t)n); }
static int64_t between(uint64_t *r, int64_t a, int64_t b) { return a + below(r, b - a + 1); }
static int chance(uint64_t *r, int percent) { return below(r, 100) < percent; }
static double uniform(uint64_t *r) { return (double)(next(r) >> 11) * 0x1p-53; }

/* Sum of twelve uniform numbers: bounded and near enough to normal. */
static double normal(uint64_t *r)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform(r);
    return sum;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* All bits set: NaN in every float type. */
static void *poisoned(cli_case *c, int64_t bytes)
{
    void *p = c->n_buffers < CLI_CASE_BUFFERS ? malloc((size_t)bytes + 64) : NULL;
    if (p != NULL) {
        memset(p, 0xff, (size_t)bytes + 64);
        c->buffers[c->n_buffers++] = p;
    }
    return p;
}

void cli_case_free(cli_case *c)
{
    for (int i = 0; i < c->n_buffers; i++)
        free(c->buffers[i]);
    c->n_buffers = 0;
}

static void note(cli_case *c, const char *word)
{
    const size_t used = strlen(c->text);
    snprintf(c->text + used, sizeof c->text - used, " %s", word);
}

/* ---- sizes and types ---------------------------------------------------------------------- */

static int64_t random_length(uint64_t *r)
{
    const int64_t kind = below(r, 100);
    return kind < 4    ? 0
           : kind < 14 ? 1
           : kind < 65 ? between(r, 2, 40)
           : kind < 95 ? between(r, 41, 200)
                       : between(r, 201, 700);
}

static int32_t random_dim(uint64_t *r)
{
    static const int16_t usual[] = {1, 2, 8, 16, 32, 40, 64, 64, 80, 96, 128, 128, 192, 256, 576};
    return chance(r, 70) ? usual[below(r, sizeof usual / sizeof usual[0])]
                         : (int32_t)between(r, 1, 300);
}

static void choose_types(qkv_desc *d, uint64_t *r)
{
    static const int32_t narrow[] = {QKV_F32, QKV_F16, QKV_BF16};
    qkv_layout *all[4] = {&d->q, &d->k, &d->v, &d->o};
    const int32_t one = chance(r, 15) ? QKV_F64 : narrow[below(r, 3)];
    const int mixed = one != QKV_F64 && chance(r, 35);
    for (int i = 0; i < 4; i++)
        all[i]->type = mixed ? narrow[below(r, 3)] : one;
    if (one != QKV_F64 && chance(r, 20))
        d->precision = (int32_t)between(r, QKV_PRECISION_HIGH, QKV_PRECISION_MEDIUM);
}

static void choose_sizes(qkv_desc *d, uint64_t *r)
{
    d->n_seqs = chance(r, 3) ? 0 : (int32_t)between(r, 1, 3);
    d->n_kv_heads = (int32_t)between(r, 1, 3);
    d->n_q_heads = d->n_kv_heads * (chance(r, 50) ? 1 : (int32_t)between(r, 2, 5));
    d->head_dim = random_dim(r);
    d->head_dim_v = chance(r, 60) ? d->head_dim : random_dim(r);
    d->q_len = random_length(r);
    d->kv_len = chance(r, 30) ? d->q_len : random_length(r);
    while ((double)d->n_seqs * d->n_q_heads * (double)d->q_len * (double)d->kv_len *
               (d->head_dim + d->head_dim_v) >
           MOST_WORK) {
        d->q_len -= d->q_len / 2;
        d->kv_len -= d->kv_len / 4;
    }
}

/* ---- lengths ------------------------------------------------------------------------------ */

static int64_t own_tokens(const void *cu, int64_t all, int64_t b)
{
    const int64_t *rows = cu;
    return rows != NULL ? rows[b + 1] - rows[b] : all;
}

/* Ascending rows, with rows before the first sequence now and then. */
static const void *choose_cu(cli_case *c, uint64_t *r, int64_t longest)
{
    int64_t *cu = poisoned(c, (c->desc.n_seqs + 1) * 8);
    if (cu == NULL)
        return NULL;
    cu[0] = chance(r, 20) ? below(r, 5) : 0;
    for (int32_t b = 0; b < c->desc.n_seqs; b++)
        cu[b + 1] = cu[b] + between(r, 0, longest);
    return cu;
}

static int32_t *choose_list(cli_case *c, uint64_t *r, const void *cu, int64_t all,
                            int64_t below_zero)
{
    int32_t *list = poisoned(c, (c->desc.n_seqs + 1) * 4);
    for (int32_t b = 0; list != NULL && b < c->desc.n_seqs; b++)
        list[b] = (int32_t)between(r, -below_zero, own_tokens(cu, all, b));
    return list;
}

static int choose_lengths(cli_case *c, uint64_t *r)
{
    qkv_desc *d = &c->desc;
    int ok = 1;
    d->cu_seqlens_type = QKV_I64;
    if (chance(r, 15)) {
        note(c, "packed-q");
        ok = ok && (d->cu_seqlens_q = choose_cu(c, r, d->q_len)) != NULL;
    }
    if (chance(r, 15)) {
        note(c, "packed-k");
        ok = ok && (d->cu_seqlens_k = choose_cu(c, r, d->kv_len)) != NULL;
    }
    if (ok && d->cu_seqlens_q == NULL && chance(r, 20)) { /* packed queries have no others */
        note(c, "q_lens");
        ok = (d->q_lens = choose_list(c, r, d->cu_seqlens_q, d->q_len, 0)) != NULL;
    }
    if (ok && chance(r, 30)) {
        note(c, "kv_lens");
        ok = (d->kv_lens = choose_list(c, r, d->cu_seqlens_k, d->kv_len, 0)) != NULL;
    }
    if (ok && chance(r, 15)) {
        note(c, "kv_starts");
        ok = (d->kv_starts = choose_list(c, r, d->cu_seqlens_k, d->kv_len, 0)) != NULL;
    }
    if (ok && chance(r, 20)) {
        note(c, "q_offsets");
        ok = (d->q_offsets = choose_list(c, r, d->cu_seqlens_k, d->kv_len, 20)) != NULL;
    }
    return ok;
}

/* ---- tensors ------------------------------------------------------------------------------ */

/* Strides of [B][H][T][C] in either order, with gaps; *elements of the buffer, and where in it
 * element 0 is. */
static int64_t choose_strides(uint64_t *r, int64_t *stride, int64_t n_b, int64_t n_h, int64_t n_t,
                              int64_t n_c, int input, int64_t *elements)
{
    const int64_t gap = chance(r, 30) ? between(r, 1, 7) : 0, row = n_c + gap;
    const int64_t b = n_b > 0 ? n_b : 1, h = n_h, t = n_t > 0 ? n_t : 1;
    const int by_token = chance(r, 40);
    int64_t start = 0;
    stride[3] = 1;
    stride[2] = by_token ? h * row : row;
    stride[1] = by_token ? row : t * row;
    stride[0] = h * t * row;
    *elements = b * h * t * row;
    if (input && chance(r, 10)) { /* tokens backwards */
        start = (t - 1) * stride[2];
        stride[2] = -stride[2];
    }
    return start;
}

/* Writes the rows that exist. */
static void fill(const qkv_desc *d, uint64_t *r, const qkv_layout *l, char *base, int keys,
                 int32_t n_h, int32_t n_c, double magnitude)
{
    const int64_t *cu = keys ? d->cu_seqlens_k : d->cu_seqlens_q;
    const int64_t all = keys ? d->kv_len : d->q_len;
    const int32_t *lens = keys ? d->kv_lens : d->q_lens, *starts = keys ? d->kv_starts : NULL;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)l->type);
    double row[1024];
    for (int32_t b = 0; b < d->n_seqs; b++) {
        const int64_t from = starts != NULL ? starts[b] : 0;
        const int64_t to = lens != NULL ? lens[b] : own_tokens(cu, all, b);
        for (int32_t h = 0; h < n_h; h++)
            for (int64_t t = from; t < to; t++) {
                const int64_t at = (cu != NULL ? cu[b] * l->stride[2] : b * l->stride[0]) +
                                   h * l->stride[1] + t * l->stride[2];
                for (int32_t i = 0; i < n_c; i++)
                    row[i] = magnitude * normal(r);
                (void)qkv_convert(base + at * size, (qkv_type)l->type, row, QKV_F64, (size_t)n_c);
            }
    }
}

static int64_t rows_of(const qkv_desc *d, int keys)
{
    const int64_t *cu = keys ? d->cu_seqlens_k : d->cu_seqlens_q;
    return cu != NULL ? cu[d->n_seqs] : keys ? d->kv_len : d->q_len;
}

static char *make_rows(cli_case *c, uint64_t *r, qkv_layout *l, int keys, int input, int32_t n_h,
                       int32_t n_c)
{
    const qkv_desc *d = &c->desc;
    const int packed = keys ? d->cu_seqlens_k != NULL : d->cu_seqlens_q != NULL;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)l->type);
    int64_t elements;
    const int64_t start = choose_strides(r, l->stride, packed ? 1 : d->n_seqs, n_h,
                                         rows_of(d, keys), n_c, input, &elements);
    char *base = poisoned(c, elements * size);
    return base != NULL ? base + start * size : NULL;
}

static int make_main_tensors(cli_case *c, uint64_t *r)
{
    static const double magnitudes[] = {1, 1, 1, 0.05, 4, 20};
    qkv_desc *d = &c->desc;
    char *q = make_rows(c, r, &d->q, 0, 1, d->n_q_heads, d->head_dim);
    char *k = make_rows(c, r, &d->k, 1, 1, d->n_kv_heads, d->head_dim);
    char *v = make_rows(c, r, &d->v, 1, 1, d->n_kv_heads, d->head_dim_v);
    if (q == NULL || k == NULL || v == NULL)
        return 0;
    fill(d, r, &d->q, q, 0, d->n_q_heads, d->head_dim, magnitudes[below(r, 6)]);
    fill(d, r, &d->k, k, 1, d->n_kv_heads, d->head_dim, 1);
    fill(d, r, &d->v, v, 1, d->n_kv_heads, d->head_dim_v, magnitudes[below(r, 6)]);
    c->args.q = q;
    c->args.k = k;
    c->args.v = v;
    return 1;
}

static int make_outputs(cli_case *c, uint64_t *r)
{
    qkv_desc *d = &c->desc;
    const int32_t wide = d->o.type == QKV_F64 ? QKV_F64 : QKV_F32;
    const int64_t rows = rows_of(d, 0), row = rows > 0 ? rows : 1;
    const int64_t keys = d->kv_len > 0 ? d->kv_len : 1, queries = d->q_len > 0 ? d->q_len : 1;
    c->args.o = make_rows(c, r, &d->o, 0, 0, d->n_q_heads, d->head_dim_v);
    if (chance(r, 80)) {
        d->lse = (qkv_layout){wide, 0, {d->n_q_heads * row, row, 1, 0}};
        c->args.lse = poisoned(c, (d->n_seqs + 1) * d->n_q_heads * row * 8);
        if (c->args.lse == NULL)
            return 0;
    }
    if (chance(r, 30)) {
        note(c, "weights");
        d->weights =
            (qkv_layout){wide, 0, {d->n_q_heads * queries * keys, queries * keys, keys, 1}};
        d->stage = (int32_t)between(r, QKV_STAGE_SCORES, QKV_STAGE_WEIGHTS);
        c->args.weights = poisoned(c, (d->n_seqs + 1) * d->n_q_heads * queries * keys * 8);
        if (c->args.weights == NULL)
            return 0;
    }
    return c->args.o != NULL;
}

/* ---- what is optional --------------------------------------------------------------------- */

static int32_t float_type(const qkv_desc *d, uint64_t *r)
{
    return (int32_t)between(r, d->q.type == QKV_F64 ? QKV_F64 : QKV_F32, QKV_BF16);
}

/* Dense strides over n[0] .. n[rank-1], where each dimension may repeat; returns the elements. */
static int64_t repeat_some(uint64_t *r, int64_t *stride, const int64_t *n, int rank)
{
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        const int repeated = chance(r, 30);
        stride[i] = repeated ? 0 : step;
        if (!repeated && n[i] > 0)
            step *= n[i];
    }
    return step;
}

/* Numbers of magnitude 2; -infinity for hidden_percent of them; their size if absolute. */
static void *make_floats(cli_case *c, uint64_t *r, qkv_layout *l, const int64_t *n, int rank,
                         int hidden_percent, int absolute)
{
    l->type = float_type(&c->desc, r);
    const int64_t elements = repeat_some(r, l->stride, n, rank);
    const int64_t size = (int64_t)qkv_type_size((qkv_type)l->type);
    char *data = poisoned(c, elements * size);
    for (int64_t i = 0; data != NULL && i < elements; i++) {
        double x = 2 * normal(r);
        if (chance(r, hidden_percent))
            x = -INFINITY;
        else if (absolute)
            x = fabs(x) / 8;
        (void)qkv_convert(data + i * size, (qkv_type)l->type, &x, QKV_F64, 1);
    }
    return data;
}

static void *make_mask(cli_case *c, uint64_t *r, const int64_t *n)
{
    qkv_layout *l = &c->desc.mask;
    l->type = QKV_BOOL;
    const int64_t elements = repeat_some(r, l->stride, n, 4);
    uint8_t *data = poisoned(c, elements);
    for (int64_t i = 0; data != NULL && i < elements; i++)
        data[i] = chance(r, 80) ? (uint8_t)between(r, 1, 255) : 0;
    return data;
}

static int make_blocks(cli_case *c, uint64_t *r)
{
    static const int32_t sizes[] = {1, 7, 16, 64, 100};
    qkv_desc *d = &c->desc;
    d->block_q = sizes[below(r, 5)];
    d->block_k = sizes[below(r, 5)];
    const int64_t n_q = (d->q_len + d->block_q - 1) / d->block_q;
    const int64_t n_k = (d->kv_len + d->block_k - 1) / d->block_k;
    const int per_head = chance(r, 50), per_seq = chance(r, 50);
    const int64_t head = n_q * n_k, seq = per_head ? head * d->n_q_heads : head;
    d->block_stride[2] = n_k;
    d->block_stride[1] = per_head ? head : 0;
    d->block_stride[0] = per_seq ? seq : 0;
    const int64_t bytes = (seq * (per_seq ? d->n_seqs : 1) + 7) / 8;
    uint8_t *bits = poisoned(c, bytes);
    for (int64_t i = 0; bits != NULL && i < bytes; i++)
        bits[i] = (uint8_t)(next(r) | next(r)); /* three of four are visible */
    d->block_bits = bits;
    return bits != NULL;
}

static int make_optional(cli_case *c, uint64_t *r)
{
    qkv_desc *d = &c->desc;
    const int64_t n[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    int ok = 1;
    if (chance(r, 20)) {
        note(c, "mask");
        ok = ok && (c->args.mask = make_mask(c, r, n)) != NULL;
    }
    if (chance(r, 20)) {
        note(c, "bias");
        ok = ok && (c->args.bias = make_floats(c, r, &d->bias, n, 4, 10, 0)) != NULL;
    }
    if (chance(r, 15)) {
        note(c, "sinks");
        ok = ok && (c->args.sinks = make_floats(c, r, &d->sinks, n, 2, 0, 0)) != NULL;
    }
    if (chance(r, 15)) {
        note(c, "alibi");
        ok = ok && (c->args.slopes = make_floats(c, r, &d->slopes, n, 2, 0, 1)) != NULL;
    }
    if (chance(r, 15)) {
        note(c, "blocks");
        ok = ok && make_blocks(c, r);
    }
    return ok;
}

static void choose_options(cli_case *c, uint64_t *r)
{
    qkv_desc *d = &c->desc;
    if (chance(r, 45)) {
        d->causal = chance(r, 70) ? QKV_CAUSAL_INCLUSIVE : QKV_CAUSAL_STRICT;
        note(c, d->causal == QKV_CAUSAL_STRICT ? "causal-strict" : "causal");
    }
    if (chance(r, 25)) {
        d->align = QKV_ALIGN_TOP_LEFT;
        note(c, "top-left");
    }
    if (chance(r, 25)) {
        note(c, "window");
        d->window_left = chance(r, 80) ? between(r, 0, 90) : QKV_UNBOUNDED;
        d->window_right = chance(r, 50) ? between(r, 0, 50) : QKV_UNBOUNDED;
    }
    if (chance(r, 20)) {
        note(c, "scale");
        d->scale = (uniform(r) - 0.3) / sqrt((double)d->head_dim);
    }
    if (chance(r, 15)) {
        note(c, "softcap");
        d->softcap = 0.5 + 30 * uniform(r);
    }
}

/* Starts that lie behind their sequence's end mean that no key exists; both are legal. */
int cli_case_make(cli_case *c, uint64_t seed)
{
    uint64_t state = seed, *r = &state;
    qkv_desc *d = &c->desc;
    memset(c, 0, sizeof *c);
    qkv_desc_init(d);
    qkv_args_init(&c->args);
    choose_types(d, r);
    choose_sizes(d, r);
    snprintf(c->text, sizeof c->text, "B%d Hq%d Hkv%d Tq%lld Tk%lld D%d Dv%d %s/%s/%s/%s",
             (int)d->n_seqs, (int)d->n_q_heads, (int)d->n_kv_heads, (long long)d->q_len,
             (long long)d->kv_len, (int)d->head_dim, (int)d->head_dim_v,
             qkv_type_name((qkv_type)d->q.type), qkv_type_name((qkv_type)d->k.type),
             qkv_type_name((qkv_type)d->v.type), qkv_type_name((qkv_type)d->o.type));
    if (d->precision != QKV_PRECISION_HIGHEST)
        note(c, d->precision == QKV_PRECISION_HIGH ? "high" : "medium");
    choose_options(c, r);
    const int ok = choose_lengths(c, r) && make_main_tensors(c, r) && make_outputs(c, r) &&
                   make_optional(c, r);
    if (!ok)
        cli_case_free(c);
    return ok;
}
