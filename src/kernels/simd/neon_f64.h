/*
 * simd/neon_f64.h - the vocabulary on two doubles: Armv8.0-A with Advanced SIMD.  Contracts:
 * README.md.
 */
#ifndef QKV_SIMD_NEON_F64_H
#define QKV_SIMD_NEON_F64_H
#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "this file needs AArch64 with Advanced SIMD"
#endif

#include <arm_neon.h>
#include <stdint.h>

typedef double real;
typedef float64x2_t vf;
typedef uint64x2_t vm; /* all bits of a lane, or none */
#define VL 2
#define LANES 6 /* as in neon_f32.h */
#define TILE 4

static inline vf v_zero(void) { return vdupq_n_f64(0); }
static inline vf v_set1(real x) { return vdupq_n_f64(x); }
static inline vf v_load(const real *p) { return vld1q_f64(p); }
static inline vf v_load_n(const real *p, int n)
{
    return n > 0 ? vld1q_lane_f64(p, v_zero(), 0) : v_zero();
}
static inline void v_store(real *p, vf a) { vst1q_f64(p, a); }
static inline vf v_add(vf a, vf b) { return vaddq_f64(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f64(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f64(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f64(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f64(c, a, b); }
static inline vf v_fms(vf a, vf b, vf c) { return vfmaq_f64(vnegq_f64(c), a, b); }
/* As in neon_f32.h. */
static inline vf v_max(vf a, vf b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
static inline vf v_abs(vf a) { return vabsq_f64(a); }
static inline vf v_sign_of(vf a, vf s)
{
    return vbslq_f64(vdupq_n_u64((uint64_t)1 << 63), s, a);
}
static inline vf v_round(vf a) { return vrndnq_f64(a); }

/* As in neon_f32.h. */
static inline vf v_scale2(vf a, vf n)
{
    const int64x2_t i = vcvtq_s64_f64(n);
    const int64x2_t half = vshrq_n_s64(i, 1), rest = vsubq_s64(i, half);
    const int64x2_t bias = vdupq_n_s64(1023);
    const vf x = vreinterpretq_f64_s64(vshlq_n_s64(vaddq_s64(half, bias), 52));
    const vf y = vreinterpretq_f64_s64(vshlq_n_s64(vaddq_s64(rest, bias), 52));
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
static inline vm v_le(vf a, vf b) { return vcleq_f64(a, b); }
static inline vm v_eq(vf a, vf b) { return vceqq_f64(a, b); }
static inline vm v_and(vm a, vm b) { return vandq_u64(a, b); }
static inline vm v_or(vm a, vm b) { return vorrq_u64(a, b); }
static inline int v_any(vm a) { return vmaxvq_u32(vreinterpretq_u32_u64(a)) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return vbslq_f64(m, a, b); }

static inline vm v_test(const uint8_t *p)
{
    const uint64x2_t x = vcombine_u64(vcreate_u64(p[0]), vcreate_u64(p[1]));
    return vtstq_u64(x, x);
}
static inline vf v_zip_lo(vf a, vf b) { return vzip1q_f64(a, b); }
static inline vf v_zip_hi(vf a, vf b) { return vzip2q_f64(a, b); }

static inline void v_sum4(const vf a[4], real out[4])
{
    vst1q_f64(out, vpaddq_f64(a[0], a[1]));
    vst1q_f64(out + 2, vpaddq_f64(a[2], a[3]));
}

#endif
