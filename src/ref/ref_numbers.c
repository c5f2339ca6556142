/* ref/ref_numbers.c - single elements of tensors: floats, pages, codes and their scales. */
#include "ref/ref.h"

#include <math.h>
#include <string.h>

static double f16_value(uint16_t h)
{
    const int sign = h >> 15, exponent = h >> 10 & 31, fraction = h & 1023;
    double x;
    if (exponent == 31)
        x = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        x = ldexp(fraction, -24);
    else
        x = ldexp(fraction + 1024, exponent - 25);
    return sign ? -x : x;
}

static double bf16_value(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

double qkv_ref_element(const void *base, const qkv_layout *l, int64_t i0, int64_t i1, int64_t i2,
                       int64_t i3)
{
    const int64_t n =
        i0 * l->stride[0] + i1 * l->stride[1] + i2 * l->stride[2] + i3 * l->stride[3];
    switch (l->type) {
    case QKV_F64:
        return ((const double *)base)[n];
    case QKV_F32:
        return (double)((const float *)base)[n];
    case QKV_F16:
        return f16_value(((const uint16_t *)base)[n]);
    case QKV_BF16:
        return bf16_value(((const uint16_t *)base)[n]);
    default:
        return ((const uint8_t *)base)[n] != 0;
    }
}

static double e4m3_value(unsigned code)
{
    const int exponent = code >> 3 & 15, fraction = code & 7;
    const double x = (code & 127) == 127 ? NAN
                     : exponent == 0     ? ldexp(fraction, -9)
                                         : ldexp(fraction + 8, exponent - 10);
    return code & 128 ? -x : x;
}

/* What of the keys or values is looked at: one head of one sequence. */
typedef struct side {
    const void *base, *scale, *min;
    const qkv_layout *layout, *scales;
    int32_t group, dim;
} side;

/* Where token j of the row's sequence lies: the number of its sequence or page, and of its row there. */
static void locate(const ref_row *r, int64_t j, int64_t *outer, int64_t *row)
{
    const qkv_desc *d = r->d;
    const int64_t head = r->h / (d->n_q_heads / d->n_kv_heads);

    *outer = d->cu_seqlens_k ? 0 : r->b;
    *row = r->k_row + j;
    if (d->page_tokens > 0) {
        *outer = r->args->block_table[r->b * d->block_table_stride[0] +
                                      head * d->block_table_stride[1] + j / d->page_tokens];
        *row = j % d->page_tokens;
    }
}

static double code_of(const side *x, int64_t outer, int64_t head, int64_t row, int64_t c)
{
    const int64_t *stride = x->layout->stride;
    const int64_t at = outer * stride[0] + head * stride[1] + row * stride[2];
    const uint8_t *codes = x->base;

    switch (x->layout->type) {
    case QKV_I8:
        return ((const int8_t *)x->base)[at + c];
    case QKV_U4:
        return c % 2 ? codes[at + c / 2] >> 4 : codes[at + c / 2] & 15;
    case QKV_E4M3:
        return e4m3_value(codes[at + c]);
    default:
        return f16_value((uint16_t)(codes[at + c] << 8));
    }
}

/* Decoding rounds the product with the scale, and the sum with the minimum; anything may come of what
 * leaves the range of f32 on the way. */
static ref_number number_of(const ref_row *r, const side *x, int64_t j, int64_t c)
{
    const int64_t head = r->h / (r->d->n_q_heads / r->d->n_kv_heads);
    int64_t outer, row;
    ref_number n = {0, 0, 0};

    locate(r, j, &outer, &row);
    if (x->layout->type < QKV_I8) {
        n.value = qkv_ref_element(x->base, x->layout, outer, head, row, c);
        n.weighed = fabs(n.value);
        return n;
    }
    const int64_t group = c / (x->group > 0 ? x->group : x->dim);
    const double scale = qkv_ref_element(x->scale, x->scales, outer, head, row, group);
    const double code = code_of(x, outer, head, row, c), product = code * scale;
    n.value = product;
    n.weighed = fabs(product);
    n.error = 0x1p-23 * fabs(product) + 0x1p-126;
    if (x->layout->type == QKV_U4) {
        n.value += qkv_ref_element(x->min, x->scales, outer, head, row, group);
        n.error += 0x1p-23 * fabs(n.value);
        n.weighed = fabs((code - 8) * scale);
    }
    if (fabs(product) > 0x1.fffffep127 || fabs(n.value) > 0x1.fffffep127)
        n.error = INFINITY;
    return n;
}

ref_number qkv_ref_key(const ref_row *r, int64_t j, int64_t c)
{
    const qkv_desc *d = r->d;
    const int32_t dim = d->head_dim - d->rope_dim;
    const side k = {r->args->k, r->args->k_scale, r->args->k_min, &d->k, &d->k_scale, d->k_group, dim};
    const side rope = {.base = r->args->k_rope, .layout = &d->k_rope};

    return c < dim ? number_of(r, &k, j, c) : number_of(r, &rope, j, c - dim);
}

ref_number qkv_ref_value(const ref_row *r, int64_t j, int64_t c)
{
    const qkv_desc *d = r->d;
    const side v = {r->args->v,  r->args->v_scale, r->args->v_min, &d->v, &d->v_scale,
                    d->v_group, d->head_dim_v};

    return number_of(r, &v, j, c);
}
