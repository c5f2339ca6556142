/*
 * t_weights.c - how far an element of the weights may be from the oracle's.
 *
 * A score of D terms, rounded once a term and a few times more, is off by at most
 *
 *     d = u ((D + 8) |scale| sum |q k|  +  12 |capped|  +  4 (|alibi| + |bias| + |score|))
 *
 * (more if k is decoded, or if the precision permits to round q and k first), and a weight
 * exp(s - lse) by the relative error e^(d + error of lse) - 1.
 */
#include <float.h>
#include <math.h>

#include "t_problem.h"

typedef struct element {
    double products;    /* |scale| sum |q k| */
    double decoded;     /* |scale| sum |q| (what decoding k may cost) */
    double alibi, bias; /* magnitudes */
} element;

static element measure(const t_problem *p, int32_t b, int32_t h, int64_t i, int64_t j)
{
    const qkv_desc *d = &p->desc;
    const t_span s = t_span_of(d, b);
    const int32_t kv_head = h / (d->n_q_heads / d->n_kv_heads);
    const double scale =
        d->scale == QKV_SCALE_DEFAULT ? 1 / sqrt((double)d->head_dim) : fabs(d->scale);
    const int64_t k_b = d->cu_seqlens_k ? 0 : b, *n = p->tensor[T_K].n;
    const int64_t k_at = ((k_b * n[1] + kv_head) * n[2] + s.k_row + j) * n[3];
    element e = {0, 0, 0, 0};

    for (int32_t c = 0; c < d->head_dim; c++) {
        const double q = t_get(p, T_Q, d->cu_seqlens_q ? 0 : b, h, s.q_row + i, c);
        e.products += scale * fabs(q * t_get(p, T_K, k_b, kv_head, s.k_row + j, c));
        if (p->k_error && p->k_error[k_at + c] == (double)INFINITY)
            e.decoded = INFINITY;
        else if (p->k_error)
            e.decoded += scale * fabs(q) * p->k_error[k_at + c];
    }
    if (d->slopes.type != QKV_NONE)
        e.alibi = fabs(t_get(p, T_SLOPES, b, h, 0, 0) * (double)(s.q_offset + i - j));
    if (d->bias.type != QKV_NONE)
        e.bias = fabs(t_get(p, T_BIAS, b, h, i, j));
    return e;
}

/* want: the oracle's element; lse and its budget: of the row. */
static double bound(const qkv_desc *d, const element *e, double want, double lse, double lse_budget)
{
    const int f64 = d->q.type == QKV_F64;
    const double u = f64 ? 0x1p-51 : 0x1p-24, normal = f64 ? DBL_MIN : (double)FLT_MIN;
    const double score = d->stage == QKV_STAGE_WEIGHTS ? lse + log(want) : want;
    double error =
        u * (d->head_dim + 8) * e->products + e->decoded + normal * (1 + d->head_dim);

    if (!f64 && d->precision == QKV_PRECISION_MEDIUM) /* both factors rounded to 8 bits */
        error += 0x1.02p-7 * e->products;
    if (!f64 && d->precision == QKV_PRECISION_HIGH) /* to two parts of 8 bits */
        error += 0x1.84p-15 * e->products;

    if (!isfinite(want))
        return 0; /* must be the same infinity, or NaN */
    if (d->stage == QKV_STAGE_WEIGHTS && want == 0)
        return 2 * normal;
    if (!(e->products < (f64 ? DBL_MAX : (double)FLT_MAX) / 4))
        return INFINITY;
    if (d->stage >= QKV_STAGE_CAPPED && d->softcap > 0)
        error += 12 * u * fmin(d->softcap, e->products);
    if (d->stage >= QKV_STAGE_BIASED)
        error += 4 * u * (e->alibi + e->bias + fabs(score));
    if (d->stage == QKV_STAGE_WEIGHTS)
        error = want * expm1(error + lse_budget + 8 * u) + 2 * normal;
    return error;
}

/* Is this NaN what the formula makes of an infinite scale of codes?  A kernel need not. */
static int may_differ(const t_problem *p, const element *e, double want, double lse_budget)
{
    return p->k_error && isnan(want) &&
           (e->decoded == (double)INFINITY ||
            (p->desc.stage == QKV_STAGE_WEIGHTS && lse_budget == (double)INFINITY));
}

void t_bound_weights(t_problem *p)
{
    const qkv_desc *d = &p->desc;

    for (int32_t b = 0; b < d->n_seqs; b++) {
        const t_span s = t_span_of(d, b);
        for (int32_t h = 0; h < d->n_q_heads; h++)
            for (int64_t i = 0; i < d->q_len; i++)
                for (int64_t j = 0; j < d->kv_len; j++) {
                    const int64_t row = ((int64_t)b * d->n_q_heads + h) * d->q_len + i;
                    const double want = p->ref.weights[row * d->kv_len + j];
                    element e = {0, 0, 0, 0};
                    if (i < s.q_len && j >= s.kv_start && j < s.kv_len &&
                        (isfinite(want) || p->k_error))
                        e = measure(p, b, h, i, j);
                    p->weights_budget[row * d->kv_len + j] =
                        may_differ(p, &e, want, p->ref.lse_budget[row])
                            ? (double)INFINITY
                            : bound(d, &e, want, p->ref.lse[row], p->ref.lse_budget[row]);
                }
    }
}
