/*
 * simd/scalar_f64.h - the vocabulary on one double at a time: the portable tier.
 * Contracts: README.md.
 *
 * Written so that a compiler may vectorise the loops over LANES with whatever the baseline has.
 */
#ifndef QKV_SIMD_SCALAR_F64_H
#define QKV_SIMD_SCALAR_F64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/convert.h"

typedef double real;
typedef double vf;
typedef int vm;
#define VL 1
#define LANES 8
#define TILE 4

static inline vf v_zero(void) { return 0; }
static inline vf v_set1(real x) { return x; }
static inline vf v_load(const real *p) { return *p; }
static inline vf v_load_n(const real *p, int n) { return n > 0 ? *p : 0; }
static inline void v_store(real *p, vf a) { *p = a; }
static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
/* Two roundings: fma() without the instruction is a slow library call. */
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_abs(vf a) { return fabs(a); }
static inline vf v_sign_of(vf a, vf s) { return copysign(a, s); }

/* Adding 1.5 times the unit's weight leaves no bits below the point: rint() would be a call. */
static inline vf v_round(vf a)
{
    const real big = 6755399441055744.0;
    return (a + big) - big;
}

static inline real two_to(int n) /* normal results only */
{
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* In two factors: one alone does not reach the subnormals.  Only the second product can round. */
static inline vf v_scale2(vf a, vf n)
{
    if (n != n)
        return n;
    const int i = (int)n, half = i / 2;
    return a * two_to(half) * two_to(i - half);
}
static inline vm v_le(vf a, vf b) { return a <= b; }
static inline vm v_eq(vf a, vf b) { return a == b; }
static inline vm v_and(vm a, vm b) { return a & b; }
static inline vm v_or(vm a, vm b) { return a | b; }
static inline int v_any(vm a) { return a; }
static inline vf v_select(vm m, vf a, vf b) { return m ? a : b; }

static inline void v_sum4(const vf a[4], real out[4])
{
    for (int i = 0; i < 4; i++)
        out[i] = a[i];
}

#endif
