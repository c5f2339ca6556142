/*
 * tmpl/math_tmpl.h - exp and tanh on vectors.
 *
 * x = n ln 2 + r with n integral and |r| <= ln(2)/2 (Cody and Waite, 1980: n times the high part
 * of ln 2 is exact, so this holds without FMA too), e^r = 1 + r P(r) with P from exp_poly.h.
 *
 * Parameters: none.  Needs one simd/ header; works for its `real`.
 */
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

/* 2^f on [-1/2, 1/2] as 1 + f Q(f), n whole: e^x for x <= 0 in fewer steps than v_exp, because log2(e)
 * is one number and not two.  Its rounding costs |x| 2^-26, next to the rounding of x itself: the
 * budget of a weight has u (4 + |s - m|).  Exactly 1 at 0, exactly 0 at -infinity, NaN at NaN. */
#define EXP2_WITH(POLYNOMIAL)                                                                      \
    const vf y = v_max(v_set1(EXP_FLOOR), x), log2e = v_set1(MATH_CONSTANT(QKV_LOG2E));            \
    const vf n = v_round(v_mul(y, log2e));                                                         \
    const vf f = v_fms(y, log2e, n);                                                               \
    vf p;                                                                                          \
    POLYNOMIAL(FIRST, NEXT)                                                                        \
    return v_scale2(v_fma(p, f, v_set1(1)), n);
#define NEXT(c) p = v_fma(p, f, v_set1((real)(c)));

/* e^x for a weight in front of f32 or f64 products. */
static inline vf v_exp_weight(vf x)
{
    if (!IS_F32)
        return v_exp(x);
    EXP2_WITH(QKV_EXP2M1_F32)
}

/* The same in front of products of bf16: good to 2e-7, which the LSE needs and the weights, rounded
 * to 8 bits, do not. */
static inline vf v_exp_bf16(vf x) { EXP2_WITH(QKV_EXP2M1_BF16) }
#undef FIRST
#undef NEXT

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
