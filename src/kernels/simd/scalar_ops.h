/*
 * simd/scalar_ops.h - the operations of the portable tier, for the `real` that scalar_f32.h or
 * scalar_f64.h has defined.  Contracts: README.md.
 *
 * Written so that a compiler may vectorise the loops over LANES with whatever the baseline has.
 *
 * Parameters: real, vf, scalar_bits (an unsigned integer of the same size), SCALAR_BIAS and
 * SCALAR_FRACTION of the format, SCALAR_BIG = 1.5 2^SCALAR_FRACTION, SCALAR_ABS, SCALAR_SIGN.
 */
#include <string.h>

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
static inline vf v_fms(vf a, vf b, vf c) { return a * b - c; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_abs(vf a) { return SCALAR_ABS(a); }
static inline vf v_sign_of(vf a, vf s) { return SCALAR_SIGN(a, s); }

/* Adding 1.5 times the unit's weight leaves no bits below the point: rint() would be a call. */
static inline vf v_round(vf a)
{
    const real big = SCALAR_BIG;
    return (a + big) - big;
}

static inline real two_to(int n) /* normal results only */
{
    const scalar_bits bits = (scalar_bits)(n + SCALAR_BIAS) << SCALAR_FRACTION;
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
static inline vm v_test(const uint8_t *p) { return *p != 0; }
/* A vector of one has nothing to interleave: transposes of 1 x 1 never ask. */
static inline vf v_zip_lo(vf a, vf b)
{
    (void)b;
    return a;
}
static inline vf v_zip_hi(vf a, vf b)
{
    (void)a;
    return b;
}
static inline void v_sum4(const vf a[4], real out[4])
{
    for (int i = 0; i < 4; i++)
        out[i] = a[i];
}
