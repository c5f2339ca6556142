/*
 * simd/exp_poly.h - e^r = 1 + r P(r) for |r| <= ln(2)/2, 2^r likewise for |r| <= 1/2 and, with UP in
 * the name, for 0 <= r <= 1; log2(e), and ln 2 in two parts.
 *
 * Made by tools/gen_exp_poly.py; change that, not this.  Each list expands FIRST(c) with the
 * highest coefficient and NEXT(c) with the others downwards, ready for Horner's rule.
 */
#ifndef QKV_SIMD_EXP_POLY_H
#define QKV_SIMD_EXP_POLY_H

/* Largest relative error of 1 + r P(r) against e^r: 1.0e-08. */
#define QKV_EXPM1_F32(FIRST, NEXT) \
    FIRST(1.39336416e-03f) \
    NEXT(8.36914871e-03f) \
    NEXT(4.16664667e-02f) \
    NEXT(1.66665047e-01f) \
    NEXT(5.00000000e-01f) \
    NEXT(1.00000000e+00f)

/* Largest relative error of 1 + r P(r) against e^r: 7.2e-19. */
#define QKV_EXPM1_F64(FIRST, NEXT) \
    FIRST(2.0918129454967065e-09) \
    NEXT(2.5110037605963777e-08) \
    NEXT(2.7557263301474753e-07) \
    NEXT(2.7557240918578970e-06) \
    NEXT(2.4801587336421321e-05) \
    NEXT(1.9841269890047113e-04) \
    NEXT(1.3888888888879082e-03) \
    NEXT(8.3333333333196011e-03) \
    NEXT(4.1666666666666678e-02) \
    NEXT(1.6666666666666680e-01) \
    NEXT(5.0000000000000000e-01) \
    NEXT(1.0000000000000000e+00)

/* Largest relative error of 1 + r P(r) against 2^r: 9.2e-09. */
#define QKV_EXP2M1_F32(FIRST, NEXT) \
    FIRST(1.54531634e-04f) \
    NEXT(1.33908633e-03f) \
    NEXT(9.61808302e-03f) \
    NEXT(5.55035695e-02f) \
    NEXT(2.40226507e-01f) \
    NEXT(6.93147182e-01f)

/* Largest relative error of 1 + r P(r) against 2^r: 2.0e-07. */
#define QKV_EXP2M1_BF16(FIRST, NEXT) \
    FIRST(1.33813021e-03f) \
    NEXT(9.66636837e-03f) \
    NEXT(5.55038117e-02f) \
    NEXT(2.40223497e-01f) \
    NEXT(6.93147182e-01f)

/* Largest relative error of 1 + r P(r) against 2^r: 1.2e-08. */
#define QKV_EXP2M1_UP_F32(FIRST, NEXT) \
    FIRST(2.08179146e-04f) \
    NEXT(1.26921665e-03f) \
    NEXT(9.65219550e-03f) \
    NEXT(5.54960221e-02f) \
    NEXT(2.40227208e-01f) \
    NEXT(6.93147182e-01f)

/* Largest relative error of 1 + r P(r) against 2^r: 2.3e-07. */
#define QKV_EXP2M1_UP_BF16(FIRST, NEXT) \
    FIRST(1.78836880e-03f) \
    NEXT(9.19938739e-03f) \
    NEXT(5.56570552e-02f) \
    NEXT(2.40207195e-01f) \
    NEXT(6.93147540e-01f)

#define QKV_LOG2E_F32 1.44269502e+00f
#define QKV_LN2_HIGH_F32 6.93115234e-01f
#define QKV_LN2_LOW_F32 3.19461833e-05f
#define QKV_LOG2E_F64 1.4426950408889634e+00
#define QKV_LN2_HIGH_F64 6.9314718055966296e-01
#define QKV_LN2_LOW_F64 2.8235290563031577e-13

#endif
