/*
 * ref/ref_attention.c - the oracle: one query at a time, one key at a time, in double.
 *
 *     s_j  = scale sum_d q_d k_jd         cap: c tanh(s_j / c)        - slope |p - j|    + bias_j
 *     w_j  = exp(s_j - m) / (sum_visible exp(s_n - m) + exp(sink - m))     m = largest logit
 *     o    = sum_visible w_j v_j          lse = m + log(that sum)
 *
 * Every rule stands here once more, element by element, as include/qkv/attention.h words it;
 * nothing is shared with the planner or the kernels.  Two passes over the scores: maximum, then
 * exponentials.
 */
#include "ref/ref.h"

#include <math.h>
#include <string.h>

static int64_t cu_entry(const qkv_desc *d, const void *cu, int64_t b)
{
    return d->cu_seqlens_type == QKV_I64 ? ((const int64_t *)cu)[b] : ((const int32_t *)cu)[b];
}

static void set_sequence(ref_row *r, int64_t b)
{
    const qkv_desc *d = r->d;

    r->b = b;
    r->q_row = r->k_row = 0;
    r->q_len = d->q_lens ? d->q_lens[b] : d->q_len;
    r->kv_len = d->kv_len;
    if (d->cu_seqlens_q) {
        r->q_row = cu_entry(d, d->cu_seqlens_q, b);
        r->q_len = cu_entry(d, d->cu_seqlens_q, b + 1) - r->q_row;
    }
    if (d->cu_seqlens_k) {
        r->k_row = cu_entry(d, d->cu_seqlens_k, b);
        r->kv_len = cu_entry(d, d->cu_seqlens_k, b + 1) - r->k_row;
    }
    if (d->kv_lens)
        r->kv_len = d->kv_lens[b];
    r->kv_start = d->kv_starts ? d->kv_starts[b] : 0;
    r->q_offset = d->align == QKV_ALIGN_TOP_LEFT ? 0 : r->kv_len - r->q_len;
    if (d->q_offsets)
        r->q_offset = d->q_offsets[b];
}

static int block_visible(const ref_row *r, int64_t j)
{
    const qkv_desc *d = r->d;
    if (!d->block_bits)
        return 1;
    const int64_t n = r->b * d->block_stride[0] + r->h * d->block_stride[1] +
                      r->i / d->block_q * d->block_stride[2] + j / d->block_k;
    return d->block_bits[n / 8] >> n % 8 & 1;
}

static int exists(const ref_row *r, int64_t j) { return r->kv_start <= j && j < r->kv_len; }

static int sees(const ref_row *r, int64_t j)
{
    const qkv_desc *d = r->d;
    const int64_t p = r->q_offset + r->i;

    if (!exists(r, j))
        return 0;
    if (d->causal == QKV_CAUSAL_INCLUSIVE && j > p)
        return 0;
    if (d->causal == QKV_CAUSAL_STRICT && j >= p)
        return 0;
    /* Written as differences of the small numbers, so that huge windows cannot overflow. */
    if (d->window_left >= 0 && p - j > d->window_left)
        return 0;
    if (d->window_right >= 0 && j - p > d->window_right)
        return 0;
    if (!block_visible(r, j))
        return 0;
    if (d->mask.type != QKV_NONE && qkv_ref_element(r->args->mask, &d->mask, r->b, r->h, r->i, j) == 0)
        return 0;
    if (d->bias.type != QKV_NONE &&
        qkv_ref_element(r->args->bias, &d->bias, r->b, r->h, r->i, j) == -INFINITY)
        return 0;
    return 1;
}

static void score(ref_row *r, int64_t j)
{
    const qkv_desc *d = r->d;
    const ref_products products = qkv_ref_products(d);
    double s = 0, size = 0, walked = 0, flushed = 0, decoded = 0;

    for (int64_t c = 0; c < d->head_dim; c++) {
        const ref_number number = qkv_ref_key(r, j, c);
        const double k = number.value;
        const double term = r->q[c] * k;
        s += term;
        size += fabs(term);
        walked += fabs(s);
        decoded += number.error == INFINITY ? INFINITY : fabs(r->q[c]) * number.error;
        if (fabs(r->q[c]) < products.normal || fabs(k) < products.normal)
            flushed += fabs(term);
    }
    r->rounded[j] = fabs(r->scale) * (products.operands * size + flushed + decoded +
                                      products.normal * (double)d->head_dim);
    if (decoded == INFINITY) /* also if the scale is 0 */
        r->rounded[j] = INFINITY;
    r->s[j] = r->scale * s;
    r->size[j] = fabs(r->scale) * size;
    r->walked[j] = fabs(r->scale) * walked;
}

static void add_terms(ref_row *r, int64_t j)
{
    const qkv_desc *d = r->d;
    double added = 0;

    if (d->slopes.type != QKV_NONE) {
        const double slope = qkv_ref_element(r->args->slopes, &d->slopes, r->b, r->h, 0, 0);
        const double term = slope * fabs((double)(r->q_offset + r->i - j));
        r->s[j] -= term;
        added += fabs(term);
    }
    if (d->bias.type != QKV_NONE) {
        const double bias = qkv_ref_element(r->args->bias, &d->bias, r->b, r->h, r->i, j);
        r->s[j] += bias;
        added += fabs(bias);
    }
    r->added[j] = added;
}

/* Copies the stage asked for to out (kv_len entries, may be NULL). */
static void look(const ref_row *r, int32_t stage, const double *from, double *out)
{
    if (!out || stage != r->d->stage)
        return;
    for (int64_t j = 0; j < r->d->kv_len; j++)
        out[j] = exists(r, j) ? from[j] : stage == QKV_STAGE_WEIGHTS ? 0 : -INFINITY;
}

static void compute_scores(ref_row *r, double *weights_out)
{
    const qkv_desc *d = r->d;
    const int64_t n = d->kv_len;
    const int all = weights_out && (d->stage == QKV_STAGE_SCORES || d->stage == QKV_STAGE_CAPPED);

    r->n_visible = 0;
    for (int64_t j = 0; j < n; j++) {
        r->visible[j] = (uint8_t)sees(r, j);
        r->n_visible += r->visible[j];
        r->s[j] = 0;
        if (r->visible[j] || (all && exists(r, j))) /* a hidden key may lie in no page */
            score(r, j);
    }
    look(r, QKV_STAGE_SCORES, r->s, weights_out);
    for (int64_t j = 0; j < n; j++)
        if (exists(r, j) && d->softcap > 0)
            r->s[j] = d->softcap * tanh(r->s[j] / d->softcap);
    look(r, QKV_STAGE_CAPPED, r->s, weights_out);
    for (int64_t j = 0; j < n; j++) {
        if (r->visible[j])
            add_terms(r, j);
        else
            r->s[j] = -INFINITY;
    }
    look(r, QKV_STAGE_BIASED, r->s, weights_out);
}

/* Adds x to *sum and what rounding took to *lost (Knuth's two-sum), so that long sums in double
 * are good enough to judge kernels that compute in double too. */
static void add(double *sum, double *lost, double x)
{
    const double before = *sum, after = before + x, back = after - before;
    *sum = after;
    *lost += (before - (after - back)) + (x - back);
}

/* The sum with what was lost; infinities make lost NaN, and then the sum is as it is. */
static double total(double sum, double lost) { return isfinite(lost) ? sum + lost : sum; }

static void soften(ref_row *r)
{
    const int64_t n = r->d->kv_len;
    double m = r->sink, sum = 0, lost = 0;

    for (int64_t j = 0; j < n; j++)
        if (r->visible[j] && r->s[j] > m)
            m = r->s[j];
    for (int64_t j = 0; j < n; j++) {
        r->w[j] = r->visible[j] ? exp(r->s[j] - m) : 0;
        add(&sum, &lost, r->w[j]);
    }
    if (r->sink != -INFINITY)
        add(&sum, &lost, exp(r->sink - m));
    sum = total(sum, lost);
    for (int64_t j = 0; j < n; j++)
        r->w[j] = r->visible[j] ? r->w[j] / sum : 0;
    r->m = m;
    r->sum = sum;
    r->lse = r->n_visible == 0 ? r->sink : m + log(sum);
}

static void average_values(ref_row *r)
{
    for (int64_t c = 0; c < r->d->head_dim_v; c++)
        r->o[c] = r->lost[c] = 0;
    for (int64_t j = 0; j < r->d->kv_len; j++)
        for (int64_t c = 0; r->visible[j] && c < r->d->head_dim_v; c++)
            add(&r->o[c], &r->lost[c], r->w[j] * qkv_ref_value(r, j, c).value);
    for (int64_t c = 0; c < r->d->head_dim_v; c++)
        r->o[c] = total(r->o[c], r->lost[c]);
}

/* Where this row's results go; all may be NULL. */
typedef struct ref_place {
    double *o, *lse, *weights, *o_budget, *lse_budget;
} ref_place;

static ref_place place_of(const ref_row *r, const qkv_ref_out *out)
{
    const qkv_desc *d = r->d;
    const int64_t row = (r->b * d->n_q_heads + r->h) * d->q_len + r->i;
    const ref_place place = {out->o ? out->o + row * d->head_dim_v : NULL,
                             out->lse ? out->lse + row : NULL,
                             out->weights ? out->weights + row * d->kv_len : NULL,
                             out->o_budget ? out->o_budget + row * d->head_dim_v : NULL,
                             out->lse_budget ? out->lse_budget + row : NULL};
    return place;
}

static void write_padding(const ref_row *r, const ref_place *to)
{
    const double hidden = r->d->stage == QKV_STAGE_WEIGHTS ? 0 : -INFINITY;
    for (int64_t c = 0; c < r->d->head_dim_v; c++) {
        if (to->o)
            to->o[c] = 0;
        if (to->o_budget)
            to->o_budget[c] = 0;
    }
    if (to->lse)
        *to->lse = -INFINITY;
    if (to->lse_budget)
        *to->lse_budget = 0;
    for (int64_t j = 0; to->weights && j < r->d->kv_len; j++)
        to->weights[j] = hidden;
}

static void compute_row(ref_row *r, const qkv_ref_out *out)
{
    const qkv_desc *d = r->d;
    const ref_place to = place_of(r, out);

    if (r->i >= r->q_len) {
        write_padding(r, &to);
        return;
    }
    for (int64_t c = 0; c < d->head_dim; c++)
        r->q[c] = qkv_ref_element(r->args->q, &d->q, d->cu_seqlens_q ? 0 : r->b, r->h, r->q_row + r->i, c);
    r->sink = -INFINITY;
    if (d->sinks.type != QKV_NONE)
        r->sink = qkv_ref_element(r->args->sinks, &d->sinks, r->b, r->h, 0, 0);
    compute_scores(r, to.weights);
    soften(r);
    average_values(r);
    look(r, QKV_STAGE_WEIGHTS, r->w, to.weights);
    if (to.o)
        memcpy(to.o, r->o, (size_t)d->head_dim_v * sizeof *to.o);
    if (to.lse)
        *to.lse = r->lse;
    qkv_ref_row_budget(r, to.o_budget, to.lse_budget);
}

size_t qkv_ref_scratch_size(const qkv_desc *desc)
{
    if (qkv_explain(desc, NULL, 0) != QKV_OK)
        return 0;
    return (size_t)(6 * desc->kv_len + desc->head_dim + 2 * desc->head_dim_v) * sizeof(double) +
           ((size_t)desc->kv_len + 7) / 8 * 8;
}

static void map_scratch(ref_row *r, void *scratch)
{
    double *at = scratch;
    double **arrays[] = {&r->s, &r->w, &r->size, &r->walked, &r->added, &r->rounded};

    for (int i = 0; i < 6; i++) {
        *arrays[i] = at;
        at += r->d->kv_len;
    }
    r->q = at;
    r->o = r->q + r->d->head_dim;
    r->lost = r->o + r->d->head_dim_v;
    r->visible = (uint8_t *)(r->lost + r->d->head_dim_v);
}

qkv_status qkv_ref_attention(const qkv_desc *desc, const qkv_args *args, const qkv_ref_out *out,
                             void *scratch)
{
    const qkv_status status = qkv_explain(desc, NULL, 0);
    qkv_desc d; /* the caller's structs may be older and shorter */
    qkv_args a;
    ref_row r = {.d = &d, .args = &a};

    if (status != QKV_OK)
        return status;
    if (!args || args->struct_size > sizeof a || !out || !scratch)
        return QKV_ERR_ARGUMENT;
    qkv_desc_init(&d);
    memcpy(&d, desc, desc->struct_size);
    qkv_args_init(&a);
    memcpy(&a, args, args->struct_size);
    r.scale = d.scale == QKV_SCALE_DEFAULT ? 1 / sqrt((double)d.head_dim) : d.scale;
    map_scratch(&r, scratch);
    for (int64_t b = 0; b < d.n_seqs; b++) {
        set_sequence(&r, b);
        for (r.h = 0; r.h < d.n_q_heads; r.h++)
            for (r.i = 0; r.i < d.q_len; r.i++)
                compute_row(&r, out);
    }
    return QKV_OK;
}
