/*
 * ref/ref_budget.c - how far a correct kernel may be from the oracle, for this very row.
 *
 * The rounding errors of one evaluation, propagated to first order.  The sum of a score is walked:
 * each of its roundings costs at most u times the partial sum it rounds (Wilkinson's running
 * error analysis), so terms of one sign get the large budget they need and terms that cancel a
 * small one.  Sums over keys of n terms grow like sqrt(n) (Higham and Mary 2019, "A new approach
 * to probabilistic rounding error analysis").  docs/numerics.md derives each term.
 *
 *     score      d_j = u (walked_j + 4 size_j + 6 |capped| + 4 added_j + 2 |s_j|) + underflow
 *     exponent   e_j = d_j + u (4 + |s_j - m|)
 *     weight     x_j = w_j (exp(e_j) - 1)
 *     raise      1 + sum_j x_j       lower = sum_j w_j exp(-e_j)
 *     o          sum_j x_j (|v_j| + |o|) / (2 - raise)  +  u g sum_j w_j |v_j|  +  half an ulp of
 *                the output; from raise = 1.5 on: max |v| + |o|, for a mean of the values it stays,
 *                and the rounding of any one weight
 *     products of bf16   the score's operands, if they had to be rounded, in d_j; weights and values
 *                rounded independently: 6 u_b sqrt(sum_j (w_j v_j)^2), at most u_b sum_j w_j |v_j|
 *     lse        log of raise or of 1 / lower  +  u (g + 2 |lse|)
 *     g          6 + sqrt(128) + 2 sqrt(blocks of 128 keys): the sum inside a block, then across
 */
#include "ref/ref.h"

#include <math.h>

/* A binary floating-point format. */
typedef struct format {
    double u;         /* half an ulp of 1 */
    double smallest;  /* subnormal */
    double normal;    /* smallest normal number */
    double largest;
} format;

static format format_of(int32_t type)
{
    static const format f16 = {0x1p-11, 0x1p-24, 0x1p-14, 65504};
    static const format bf16 = {0x1p-8, 0x1p-133, 0x1p-126, 0x1.fep127};
    static const format f32 = {0x1p-24, 0x1p-149, 0x1p-126, 0x1.fffffep127};
    static const format f64 = {0x1p-53, 0x1p-1074, 0x1p-1022, 0x1.fffffffffffffp1023};
    return type == QKV_F16 ? f16 : type == QKV_BF16 ? bf16 : type == QKV_F64 ? f64 : f32;
}

static int exact_in_bf16(int32_t type)
{
    return type == QKV_BF16 || type == QKV_I8 || type == QKV_E4M3 || type == QKV_E5M2 ||
           type == QKV_U4;
}

ref_products qkv_ref_products(const qkv_desc *d)
{
    const ref_products none = {0, 0, 0}, bf16 = {0, 0x1p-8, 0x1p-126};
    const ref_products rounded_to_bf16 = {0x1.02p-7, 0x1.02p-7, 0x1p-126};
    /* x = high + low (1 + 2^-8): 2^-16 from each factor and 2^-16 for the product of the low parts,
     * which is left out.  Low parts of small numbers are subnormal. */
    const ref_products parts_of_bf16 = {0x1.84p-15, 0x1.84p-15, 0x1p-117};

    if (d->q.type == QKV_BF16 && exact_in_bf16(d->k.type) && exact_in_bf16(d->v.type))
        return bf16;
    if (d->q.type == QKV_F64 || d->precision == QKV_PRECISION_HIGHEST)
        return none;
    return d->precision == QKV_PRECISION_MEDIUM ? rounded_to_bf16 : parts_of_bf16;
}

/* In f64 the oracle rounds like the kernel, so twice the error may lie between them. */
static double unit(const ref_row *r, const format *compute)
{
    return r->d->q.type == QKV_F64 ? 3 * compute->u : compute->u;
}

static double chain(const ref_row *r)
{
    return 6 + sqrt(128) + 2 * sqrt((double)r->n_visible / 128);
}

/* Error of the exponent of key j; infinity if its score may overflow the compute type. */
static double exponent_error(const ref_row *r, int64_t j, const format *compute)
{
    const double u = unit(r, compute);
    const double cap = r->d->softcap > 0 ? 6 * fabs(r->s[j]) + 6 * r->added[j] : 0;
    const double limit = compute->largest / 4;

    if (!(r->size[j] < limit && r->added[j] < limit))
        return INFINITY;
    /* scale q may be rounded among the subnormals, where the error is absolute. */
    const double underflow = r->size[j] > 0 ? compute->smallest * 0x1p24 : 0;
    const double d = u * (r->walked[j] + 4 * r->size[j] + cap + 4 * r->added[j] +
                          2 * fabs(r->s[j])) +
                     underflow + r->rounded[j];
    return d + u * (4 + fabs(r->s[j] - r->m));
}

/* A weight that rounds to 0 in the compute type makes infinity times it NaN, where the formula has
 * infinity: nothing is asked then. */
static int undefined_product(const ref_row *r, int64_t j, double v, const format *compute)
{
    return !isfinite(v) && r->w[j] * r->sum < compute->normal * 4;
}

static void o_errors(const ref_row *r, double *budget, const format *compute)
{
    const format out = format_of(r->d->o.type);
    const ref_products products = qkv_ref_products(r->d);
    const double u = unit(r, compute);

    for (int64_t c = 0; c < r->d->head_dim_v; c++) {
        const double o = fabs(r->o[c]);
        double relative = 0, mass = 0, squares = 0, weighed = 0, raw = 0, largest = 0, most = 0;
        double tiny = compute->smallest;
        int undefined = 0;
        for (int64_t j = 0; j < r->d->kv_len; j++) {
            if (!r->visible[j])
                continue;
            const ref_number number = qkv_ref_value(r, j, c);
            const double v = fabs(number.value);
            /* x_j stands in size[] by now. */
            relative += r->size[j] == 0 ? 0 : r->size[j] * (v + o);
            largest = fmax(largest, v);
            most = fmax(most, number.weighed);
            mass += r->w[j] * v;
            weighed += r->w[j] * number.weighed;
            squares += r->w[j] * number.weighed * (r->w[j] * number.weighed);
            raw += r->w[j] * r->sum * v;
            tiny += compute->normal * v + compute->smallest + products.normal +
                    (number.error == INFINITY ? INFINITY : r->w[j] * number.error);
            undefined |= undefined_product(r, j, v, compute);
        }
        relative = r->raise < 1.5 ? fmin(relative / (2 - r->raise), largest + o) : largest + o;
        const double known = fmin(weighed, 6 * sqrt(squares));
        const double rounding = products.weights * (r->raise < 1.5 ? known : most);
        const double e = relative + u * chain(r) * (mass + o) + rounding + tiny;
        budget[c] = e + out.u * (o + e) + out.smallest / 2;
        if (undefined || raw > compute->largest / 4 || (isfinite(o) && o + e > out.largest))
            budget[c] = INFINITY;
    }
}

/* Puts x_j into size[j], sets raise and lower.  Returns 0 if a score may overflow. */
static int perturb_weights(ref_row *r, const format *compute)
{
    r->raise = 1;
    r->lower = r->sink == -INFINITY ? 0 : exp(r->sink - r->m) / r->sum;
    for (int64_t j = 0; j < r->d->kv_len; j++) {
        if (!r->visible[j])
            continue;
        const double e = exponent_error(r, j, compute), w = r->w[j];
        if (e == INFINITY) /* even at weight 0: its score is not to be trusted */
            return 0;
        /* A weight that underflows may come back if its exponent is that uncertain. */
        r->size[j] = e < 1 ? w * expm1(e) : exp(r->s[j] - r->m + e) / r->sum;
        r->raise += r->size[j];
        r->lower += w * exp(-e);
    }
    return 1;
}

static double lse_error(const ref_row *r, const format *compute)
{
    const double u = unit(r, compute);
    if (r->n_visible == 0)
        return isinf(r->lse) ? 0 : u * fabs(r->lse);
    if (isinf(r->lse))
        return 0;
    return fmax(log(r->raise), -log(fmin(r->lower, 1))) + u * (chain(r) + 2 * fabs(r->lse)) +
           compute->smallest;
}

void qkv_ref_row_budget(ref_row *row, double *o_budget, double *lse_budget)
{
    const format compute = format_of(row->d->q.type == QKV_F64 ? QKV_F64 : QKV_F32);

    if (!o_budget && !lse_budget)
        return;
    const int sound = perturb_weights(row, &compute);
    if (o_budget && sound)
        o_errors(row, o_budget, &compute);
    for (int64_t c = 0; o_budget && !sound && c < row->d->head_dim_v; c++)
        o_budget[c] = INFINITY;
    if (lse_budget)
        *lse_budget = sound ? lse_error(row, &compute) : INFINITY;
}
