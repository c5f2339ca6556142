/*
 * simd/exp_poly.h - e^r = 1 + r P(r) for |r| <= ln(2)/2, log2(e), and ln 2 in two parts.
 *
 * Made by tools/gen_exp_poly.py; change that, not this.  Each list expands X(c) from the highest
 * coefficient down, ready for Horner's rule.
 */
#ifndef QKV_SIMD_EXP_POLY_H
#define QKV_SIMD_EXP_POLY_H

/* Largest relative error of 1 + r P(r) against e^r: 1.0e-08. */
#define QKV_EXPM1_F32(X) \
    X(1.39336416e-03f) \
    X(8.36914871e-03f) \
    X(4.16664667e-02f) \
    X(1.66665047e-01f) \
    X(5.00000000e-01f) \
    X(1.00000000e+00f)

/* Largest relative error of 1 + r P(r) against e^r: 7.2e-19. */
#define QKV_EXPM1_F64(X) \
    X(2.0918129454967065e-09) \
    X(2.5110037605963777e-08) \
    X(2.7557263301474753e-07) \
    X(2.7557240918578970e-06) \
    X(2.4801587336421321e-05) \
    X(1.9841269890047113e-04) \
    X(1.3888888888879082e-03) \
    X(8.3333333333196011e-03) \
    X(4.1666666666666678e-02) \
    X(1.6666666666666680e-01) \
    X(5.0000000000000000e-01) \
    X(1.0000000000000000e+00)

#define QKV_LOG2E_F32 1.44269502e+00f
#define QKV_LN2_HIGH_F32 6.93115234e-01f
#define QKV_LN2_LOW_F32 3.19461833e-05f
#define QKV_LOG2E_F64 1.4426950408889634e+00
#define QKV_LN2_HIGH_F64 6.9314718055966296e-01
#define QKV_LN2_LOW_F64 2.8235290563031577e-13

#endif
