/*
 * simd/neon_f32.h - the vocabulary on four floats: Armv8.0-A with Advanced SIMD, which every
 * AArch64 Linux has.  Contracts: README.md.
 */
#ifndef QKV_SIMD_NEON_F32_H
#define QKV_SIMD_NEON_F32_H
#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "this file needs AArch64 with Advanced SIMD"
#endif

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef float real;
typedef float32x4_t vf;
typedef uint32x4_t vm; /* all bits of a lane, or none */
#define VL 4
/* 4 x 6 accumulators, 6 loads, 1 broadcast of 32 registers.  24 chains keep 4 pipes of latency 4
 * busy, and as few of the loads as can be are broadcasts, which take a vector pipe too if the
 * compiler makes them LD1R.  By llvm-mca 19 on the loops of clang 22 and gcc 12, FMAs a cycle with
 * scores / values (first Neoverse N1 with 2 pipes, then V1 with 4); not measured on a processor:
 *     4 x 6   clang 1.99 / 1.91, 3.96 / 3.66   gcc 1.99 / 1.91, 3.96 / 3.79
 *     6 x 4   clang 1.65 / 1.91, 3.10 / 3.61   gcc 1.91 / 1.91, 3.80 / 3.80
 *     8 x 3   clang 1.54 / 1.91, 2.86 / 3.72   gcc 1.91 / 1.99, 3.80 / 3.96
 * gcc needs -fno-schedule-insns for that, or it hoists the loads and spills accumulators. */
#define LANES 6
#define TILE 4

static inline vf v_zero(void) { return vdupq_n_f32(0); }
static inline vf v_set1(real x) { return vdupq_n_f32(x); }
static inline vf v_load(const real *p) { return vld1q_f32(p); }
static inline vf v_load_n(const real *p, int n)
{
    vf x = v_zero();
    if (n > 0)
        x = vld1q_lane_f32(p, x, 0);
    if (n > 1)
        x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2)
        x = vld1q_lane_f32(p + 2, x, 2);
    return x;
}
static inline void v_store(real *p, vf a) { vst1q_f32(p, a); }
static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_fms(vf a, vf b, vf c) { return vfmaq_f32(vnegq_f32(c), a, b); }
/* FMAX and FMAXNM answer NaN or the number, whichever side it is on; here b is wanted. */
static inline vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_abs(vf a) { return vabsq_f32(a); }
static inline vf v_sign_of(vf a, vf s)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), s, a);
}
static inline vf v_round(vf a) { return vrndnq_f32(a); }

/* 2^n in two factors: one alone does not reach the subnormals.  Only the second product can
 * round.  A NaN in n becomes the integer 0; adding n - n brings it back. */
static inline vf v_scale2(vf a, vf n)
{
    const int32x4_t i = vcvtq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(i, 1), rest = vsubq_s32(i, half);
    const int32x4_t bias = vdupq_n_s32(127);
    const vf x = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const vf y = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
static inline vm v_le(vf a, vf b) { return vcleq_f32(a, b); }
static inline vm v_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vm v_and(vm a, vm b) { return vandq_u32(a, b); }
static inline vm v_or(vm a, vm b) { return vorrq_u32(a, b); }
static inline int v_any(vm a) { return vmaxvq_u32(a) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }

static inline vm v_test(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint32x4_t x = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
    return vtstq_u32(x, x);
}
static inline vf v_zip_lo(vf a, vf b) { return vzip1q_f32(a, b); }
static inline vf v_zip_hi(vf a, vf b) { return vzip2q_f32(a, b); }

static inline void v_sum4(const vf a[4], real out[4])
{
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
}

static inline uint16x4_t load_u16_n_(const uint16_t *p, int n)
{
    uint16x4_t x = vdup_n_u16(0);
    if (n > 0)
        x = vld1_lane_u16(p, x, 0);
    if (n > 1)
        x = vld1_lane_u16(p + 1, x, 1);
    if (n > 2)
        x = vld1_lane_u16(p + 2, x, 2);
    return x;
}
static inline vf f32_of_bf16_(uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); }
static inline vf f32_of_f16_(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
static inline vf v_widen_bf16(const uint16_t *p) { return f32_of_bf16_(vld1_u16(p)); }
static inline vf v_widen_f16(const uint16_t *p) { return f32_of_f16_(vld1_u16(p)); }
static inline vf v_widen_bf16_n(const uint16_t *p, int n)
{
    return f32_of_bf16_(load_u16_n_(p, n));
}
static inline vf v_widen_f16_n(const uint16_t *p, int n) { return f32_of_f16_(load_u16_n_(p, n)); }

static inline void v_narrow_bf16(uint16_t *p, vf a)
{
    const uint32x4_t x = vreinterpretq_u32_f32(a);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(x, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(vaddq_u32(x, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(x, vdupq_n_u32(0x400000));
    vst1_u16(p, vshrn_n_u32(vbslq_u32(v_eq(a, a), up, quiet), 16));
}
static inline void v_narrow_f16(uint16_t *p, vf a)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}

#endif
