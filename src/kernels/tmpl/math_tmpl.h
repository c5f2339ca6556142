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
    vf p = v_zero();
#define STEP(c) p = v_fma(p, r, v_set1((real)(c)));
    if (IS_F32) {
        QKV_EXPM1_F32(STEP)
    } else {
        QKV_EXPM1_F64(STEP)
    }
#undef STEP
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
