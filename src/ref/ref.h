/* ref/ref.h - one row of the oracle, between the formula (ref_attention.c) and the error budget
 * (ref_budget.c). */
#ifndef QKV_REF_REF_H
#define QKV_REF_REF_H

#include <stdint.h>

#include "qkv/ref.h"

/* Query i of head h in sequence b, with everything computed about it. */
typedef struct ref_row {
    const qkv_desc *d;
    const qkv_args *args;
    int64_t b, h, i;
    int64_t q_len, kv_start, kv_len, q_offset; /* of the sequence */
    int64_t q_row, k_row;                      /* first row of the sequence in packed tensors */
    double scale;
    double sink; /* -infinity if there is none */

    /* Scratch, Tk entries each. */
    double *s;       /* score at the stage reached */
    double *w;       /* weight, 0 where hidden */
    double *size;    /* |scale| sum_d |q_d k_jd|: how large the terms of the score were */
    double *walked;  /* |scale| times the magnitudes of the partial sums of the score */
    double *added;   /* |alibi| + |bias| */
    double *rounded; /* what products of a smaller type may take from the score */
    uint8_t *visible;

    double *q, *o, *lost; /* D; Dv; Dv: what rounding took from o */
    double m, sum, lse;     /* largest visible logit, sum of exp(s - m), log of it */
    int64_t n_visible;

    /* Of the budget: the factors by which errors of the scores may raise and lower the sum. */
    double raise, lower;
} ref_row;

/* What products of a smaller type than the compute type may cost; all 0 if none are used. */
typedef struct ref_products {
    double operands; /* relative error of a product q k, from rounding q and k */
    double weights;  /* relative error of a product w v, from rounding w and v */
    double normal;   /* factors below this may count as 0 */
} ref_products;

/* Products of bf16 are what a tier may use if q, k and v are bf16, or if the precision permits. */
ref_products qkv_ref_products(const qkv_desc *desc);

/* An element of the keys or values, and what decoding it in f32 may cost: 0 if it is no code,
 * infinity if it may leave the range of f32.  `weighed` is what the rounding of a weight in bf16 meets: the
 * magnitude, but of a code of 4 bits its distance from the middle of the codes, in scales. */
typedef struct ref_number {
    double value, error, weighed;
} ref_number;
ref_number qkv_ref_key(const ref_row *row, int64_t j, int64_t c);
ref_number qkv_ref_value(const ref_row *row, int64_t j, int64_t c);

/* Element (i0, i1, i2, i3) of a float or boolean tensor. */
double qkv_ref_element(const void *base, const qkv_layout *layout, int64_t i0, int64_t i1, int64_t i2,
                       int64_t i3);

/* Bounds for o (Dv entries) and lse of this row; either may be NULL.  Derived in
 * docs/numerics.md. */
void qkv_ref_row_budget(ref_row *row, double *o_budget, double *lse_budget);

#endif
