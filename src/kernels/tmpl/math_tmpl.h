/*
 * tmpl/math_tmpl.h - exp and tanh on vectors.
 *
 * x = n ln 2 + r with n integral and |r| <= ln(2)/2 (Cody and Waite, 1980: n times the high part
 * of ln 2 is exact, so this holds without FMA too), e^r = 1 + r P(r) with P from exp_poly.h.
 *
 * Parameters: none.  Needs one simd/ header; works for its `real`.
 */
#include <math.h>

#include "kernels/simd/exp_poly.h"

#define IS_F32 (sizeof(real) == 4)
#define MATH_CONSTANT(name) (IS_F32 ? (real)name##_F32 : (real)name##_F64)

/* n and g with e^x = 2^n (1 + g), for x in [EXP_FLOOR, 0] or NaN. */
static inline vf exp_reduced(vf x, vf *n)
{
    *n = v_round(v_mul(x, v_set1(MATH_CONSTANT(QKV_LOG2E))));
    vf r = v_fma(*n, v_set1(-MATH_CONSTANT(QKV_LN2_HIGH)), x);
    r = v_fma(*n, v_set1(-MATH_CONSTANT(QKV_LN2_LOW)), r);
    vf p;
#define FIRST(c) p = v_set1((real)(c));
#define NEXT(c) p = v_fma(p, r, v_set1((real)(c)));
    if (IS_F32) {
        QKV_EXPM1_F32(FIRST, NEXT)
    } else {
        QKV_EXPM1_F64(FIRST, NEXT)
    }
#undef NEXT
    return v_mul(p, r);
}

/* Where e^x rounds to 0 even as a subnormal; below it the reduction would meet inf - inf. */
#define EXP_FLOOR (IS_F32 ? (real)-104 : (real)-746)

/* e^x for x <= 0.  Exactly 0 at -infinity, exactly 1 at 0; NaN gives NaN.  Error below 2 ulp for
 * normal results (tests/simd measures it). */
static inline vf v_exp(vf x)
{
    vf n;
    const vf g = exp_reduced(v_max(v_set1(EXP_FLOOR), x), &n);
    return v_scale2(v_add(v_set1(1), g), n);
}

/* a 2^n for weights, 0 at n = LEAST_POWER.  Where the vocabulary flushes, weights below the normal numbers are
 * 0 before a product could underflow, which costs as much as the whole exponential on Zen 4: hidden keys
 * all come here with -infinity. */
#if defined(QKV_FLUSHES_WEIGHTS)
enum { LEAST_POWER = -127 };
#define WEIGHT_FLOOR ((real)-88.03) /* its n is LEAST_POWER */
static inline vf scale_weight(vf a, vf n) { return v_scale2_flush(a, n); }
#else
enum { LEAST_POWER = -150 };
#define WEIGHT_FLOOR EXP_FLOOR
static inline vf scale_weight(vf a, vf n) { return v_scale2(a, n); }
#endif

/* 2^t for t near or below 0: exactly 1 at 0, 0 at -infinity, NaN at NaN.  2^f is 1 + f Q(f) on [0,
 * 1] where the vocabulary splits t in hardware, two instructions less, on [-1/2, 1/2] elsewhere. */
#define NEXT(c) p = v_fma(p, f, v_set1((real)(c)));
#if defined(QKV_SPLITS_EXPONENTS)
#define EXP2_POLYNOMIAL(name) QKV_EXP2M1_UP_##name(FIRST, NEXT)
#define EXP2_WITH(name, t)                                                                         \
    const vf f = v_fraction(t);                                                                    \
    vf p;                                                                                          \
    EXP2_POLYNOMIAL(name)                                                                          \
    return v_scale2_down(v_fma(p, f, v_set1(1)), t);
#else
#define EXP2_POLYNOMIAL(name) QKV_EXP2M1_##name(FIRST, NEXT)
#define EXP2_WITH(name, t)                                                                         \
    const vf y = v_max(v_set1(LEAST_POWER), t), n = v_round(y), f = v_sub(y, n);                   \
    vf p;                                                                                          \
    EXP2_POLYNOMIAL(name)                                                                          \
    return scale_weight(v_fma(p, f, v_set1(1)), n);
#endif

static inline vf exp2_f32(vf t) { EXP2_WITH(F32, t) }
/* Good to 2e-7, which the LSE needs and weights that are rounded to 8 bits do not. */
static inline vf exp2_bf16(vf t) { EXP2_WITH(BF16, t) }
#undef NEXT

/* e^x for x <= 0 in fewer steps than v_exp, because log2(e) is one number and not two.  Its
 * rounding costs |x| 2^-26, next to the rounding of x itself: the budget of a weight has u (4 + |s
 * - m|).  Exactly 1 at 0. */
static inline vf v_exp_weight(vf x)
{
    if (!IS_F32)
        return v_exp(x);
    const vf y = v_max(v_set1(WEIGHT_FLOOR), x), log2e = v_set1(MATH_CONSTANT(QKV_LOG2E));
    const vf n = v_round(v_mul(y, log2e));
    const vf f = v_fms(y, log2e, n);
    vf p;
#define NEXT(c) p = v_fma(p, f, v_set1((real)(c)));
    QKV_EXP2M1_F32(FIRST, NEXT)
#undef NEXT
    return scale_weight(v_fma(p, f, v_set1(1)), n);
}
#undef FIRST

/*
 * Weights of many scores of one row, e^(s - m) = 2^(s L - M) with L = log2(e) and M = m L, rounded
 * once for the row: one FMA in place of a subtraction and a multiplication.  The error of M is the
 * same in all weights and cancels, as that of m does, if it is small beside 1; rows whose m is far
 * from 0 subtract first.  L may bring a scale that the scores still lack.  In f64, where exponents
 * are split in units of ln 2, L is 1 and every row subtracts.
 */
static inline vf no_infinity(vf m) /* a row of hidden scores: they must not meet -infinity */
{
    return v_select(v_eq(m, v_set1(-(real)INFINITY)), v_zero(), m);
}
static inline real weight_unit(void) { return IS_F32 ? MATH_CONSTANT(QKV_LOG2E) : 1; }
static inline vm is_far(vf m) { return v_le(v_set1(65536), v_abs(m)); }
static inline int any_far(vf m) { return IS_F32 && v_any(is_far(m)); }
static inline vf weight_shift(vf m) { return IS_F32 ? v_mul(m, v_set1(weight_unit())) : m; }

/* What weights are powers of: unit is L times the scale of s. */
static inline vf exponent(vf s, vf unit, vf shift)
{
    return IS_F32 ? v_fms(s, unit, shift) : v_sub(s, shift);
}
/* The same where some rows are far. */
static inline vf exponent_far(vf s, vf scale, vf m, vf unit, vf shift)
{
    const vf near = exponent(s, unit, shift), apart = v_sub(v_mul(s, scale), m);
    return v_select(is_far(m), v_mul(apart, v_set1(weight_unit())), near);
}
/* e^(old - m), exactly 1 if they are the same. */
static inline vf weight_of_old(vf old, vf m)
{
    if (!IS_F32)
        return v_exp(v_sub(old, m));
    const vf near = v_sub(weight_shift(old), weight_shift(m));
    return exp2_f32(v_select(is_far(m), weight_shift(v_sub(old, m)), near));
}

/* tanh(x), with a relative error of a few ulp also near 0: -E / (2 + E) with E = e^(-2|x|) - 1
 * and E formed without cancellation, as 2^n g + (2^n - 1). */
static inline vf v_tanh(vf x)
{
    vf n;
    const vf y = v_max(v_set1(EXP_FLOOR), v_mul(v_set1(-2), v_abs(x)));
    const vf g = exp_reduced(y, &n);
    const vf t = v_scale2(v_set1(1), n);
    const vf e = v_fma(t, g, v_sub(t, v_set1(1)));
    const vf result = v_div(v_sub(v_zero(), e), v_add(v_set1(2), e));
    return v_sign_of(result, x);
}

/* Is some lane NaN?  Sums of x times 0 are, if some x was not finite. */
static inline int has_nan(vf a)
{
    const vf one_if = v_select(v_eq(a, a), v_zero(), v_set1(1));
    return v_any(v_eq(one_if, v_set1(1)));
}
