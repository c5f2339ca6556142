/*
 * pages_fill.c - what lies in pages: encoded, and decoded again.
 *
 * Decoding is written here from the formulas in qkv/attention.h and the OCP 8-bit floating point
 * specification (1.0, 2023); nothing is shared with the library or its oracle.
 */
#include <math.h>
#include <string.h>

#include "pages.h"

static double read_float(const t_tensor *t, pages_place to, int64_t h, int64_t i)
{
    double x;
    qkv_convert(&x, QKV_F64, pages_at(t, to.outer, h, to.row, i), (qkv_type)t->layout->type, 1);
    return x;
}

static void write_float(const t_tensor *t, pages_place to, int64_t h, int64_t i, double x)
{
    qkv_convert(pages_at(t, to.outer, h, to.row, i), (qkv_type)t->layout->type, &x, QKV_F64, 1);
}

/* Element c of the dense copy's row for this key, T_K or T_V. */
static double *dense(paged *x, int tensor, int32_t b, int32_t h, int64_t j, int64_t c)
{
    const qkv_desc *d = &x->p.desc;
    const t_tensor *t = &x->p.tensor[tensor];
    return (double *)(void *)pages_at(t, d->cu_seqlens_k ? 0 : b, h, t_span_of(d, b).k_row + j, c);
}

/* ---- encode ---- */

/* Any finite code. */
static uint8_t any_code(t_rng *rng, int32_t type)
{
    for (;;) {
        const uint8_t code = (uint8_t)t_below(rng, 256);
        const int magnitude = code & 0x7f;
        if (!(type == QKV_E4M3 && magnitude == 0x7f) && !(type == QKV_E5M2 && magnitude >= 0x7c))
            return code;
    }
}

/* A scale that makes the largest code about as large as x, or now and then anything. */
static double scale_for(t_rng *rng, int32_t type, double x)
{
    const double most = type == QKV_I8 ? 127 : type == QKV_U4 ? 7 : type == QKV_E4M3 ? 448 : 57344;
    const double odd = t_chance(rng, 1) ? exp2((double)t_between(rng, -120, 120)) : 1;
    return x * (0.5 + t_uniform(rng)) / most * odd;
}

static void encode_row(paged *x, const pages_side *s, pages_place to, int32_t h, const double *row)
{
    const int32_t type = s->data.layout->type;
    t_rng *rng = &x->p.rng;

    for (int64_t c = 0; c < s->data.n[3]; c++)
        if (pages_coded(type))
            *(uint8_t *)pages_at(&s->data, to.outer, h, to.row, c) = any_code(rng, type);
        else
            write_float(&s->data, to, h, c, row[c]);
    for (int64_t g = 0; pages_coded(type) && g < s->scale.n[3]; g++) {
        const double scale = scale_for(rng, type, row[g * ((s->dim - 1) / s->scale.n[3])]);
        write_float(&s->scale, to, h, g, scale);
        if (type == QKV_U4)
            write_float(&s->min, to, h, g, scale * (double)t_between(rng, -10, -5));
    }
}

static void encode_key(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const pages_place to = pages_find(x, b, h, j);

    (void)arg;
    encode_row(x, &x->k, to, h, dense(x, T_K, b, h, j, 0));
    if (!x->latent)
        encode_row(x, &x->v, to, h, dense(x, T_V, b, h, j, 0));
    for (int32_t c = 0; c < x->p.desc.rope_dim; c++)
        write_float(&x->rope, to, h, c, *dense(x, T_K, b, h, j, x->k.dim + c));
}

void pages_encode(paged *x) { pages_each_key(x, encode_key, NULL); }

/* ---- decode ---- */

/* Sign, exponent, fraction; specials are the callers' matter. */
static double small_float(unsigned code, int fraction_bits, int bias)
{
    const unsigned units = 1u << fraction_bits;
    const unsigned fraction = code & (units - 1), exponent = (code & 0x7f) >> fraction_bits;
    const double significand = (double)(exponent ? units + fraction : fraction) / units;
    const double x = significand * exp2((exponent ? (int)exponent : 1) - bias);
    return code & 0x80 ? -x : x;
}

static double code_value(int32_t type, const uint8_t *row, int64_t c)
{
    switch (type) {
    case QKV_I8:
        return row[c] < 128 ? row[c] : row[c] - 256.0;
    case QKV_U4:
        return row[c / 2] >> (c % 2 ? 4 : 0) & 15;
    case QKV_E4M3:
        return (row[c] & 0x7f) == 0x7f ? (double)NAN : small_float(row[c], 3, 7);
    default:
        if ((row[c] & 0x7f) == 0x7c)
            return row[c] & 0x80 ? -(double)INFINITY : (double)INFINITY;
        return (row[c] & 0x7f) > 0x7c ? (double)NAN : small_float(row[c], 2, 15);
    }
}

/* error receives what rounding to f32 on the way may cost. */
static double value_of(const pages_side *s, int32_t group, pages_place from, int32_t h, int64_t c,
                       double *error)
{
    const int32_t type = s->data.layout->type;
    const int64_t g = group > 0 ? c / group : 0;

    *error = 0;
    if (!pages_coded(type))
        return read_float(&s->data, from, h, c);
    const uint8_t *row = (const uint8_t *)pages_at(&s->data, from.outer, h, from.row, 0);
    const double scale = read_float(&s->scale, from, h, g);
    const double product = code_value(type, row, c) * scale;
    const double x = type == QKV_U4 ? read_float(&s->min, from, h, g) + product : product;
    *error = 0x1p-22 * (fabs(product) + fabs(x)) + 0x1p-126;
    if (isinf(scale) || fabs(product) > 0x1.fffffep127 || fabs(x) > 0x1.fffffep127)
        *error = INFINITY; /* the range of f32 may be left */
    return x;
}

static void gather_key(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const qkv_desc *d = &x->p.desc;
    const pages_place from = pages_find(x, b, h, j);
    const int64_t first = dense(x, T_K, b, h, j, 0) - (double *)x->p.tensor[T_K].first;
    double unused;

    (void)arg;
    for (int64_t c = 0; c < x->k.dim; c++)
        *dense(x, T_K, b, h, j, c) = value_of(&x->k, d->k_group, from, h, c, &x->k_error[first + c]);
    for (int64_t c = 0; c < d->rope_dim; c++)
        *dense(x, T_K, b, h, j, x->k.dim + c) = read_float(&x->rope, from, h, c);
    for (int64_t c = 0; c < x->v.dim; c++)
        *dense(x, T_V, b, h, j, c) = value_of(&x->v, d->v_group, from, h, c, &unused);
}

void pages_gather(paged *x) { pages_each_key(x, gather_key, NULL); }
