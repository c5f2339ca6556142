/*
 * simd/neon_bf16.h - pairs of bf16 in the lanes of neon_f32.h: FEAT_BF16, part of Armv8.6-A.
 * Contracts: README.md.
 *
 * BFDOT takes subnormal operands and results as 0 and rounds the sum of a lane's two products, and
 * then the sum with c, to odd, whatever FPCR says (Arm Architecture Reference Manual, DDI 0487,
 * BFDotAdd): an error below one ulp, where rounding to nearest has half of that, but no bias.
 * BFMMLA, twice as fast again on some cores, wants tiles of 2 x 4 and is not used.  By llvm-mca 19
 * the products of a tile keep 3.1 to 3.4 of the 4 pipes of a Neoverse V1 busy.
 */
#ifndef QKV_SIMD_NEON_BF16_H
#define QKV_SIMD_NEON_BF16_H
#if !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#error "this file needs the bf16 extension: -march=armv8.2-a+bf16"
#endif

#include "kernels/simd/neon_f32.h"

static inline vf v_dot(vf x, vf y, vf c)
{
    return vbfdotq_f32(c, vreinterpretq_bf16_f32(x), vreinterpretq_bf16_f32(y));
}

static inline vf pair_(uint16x4_t lo, uint16x4_t hi)
{
    return vreinterpretq_f32_u16(vzip1q_u16(vcombine_u16(lo, lo), vcombine_u16(hi, hi)));
}
static inline vf v_pair(vf lo, vf hi)
{
    return pair_(vreinterpret_u16_bf16(vcvt_bf16_f32(lo)),
                 vreinterpret_u16_bf16(vcvt_bf16_f32(hi)));
}
static inline vf v_pair_low(vf pair)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pair), 16));
}
static inline vf v_pair_high(vf pair)
{
    const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pair), upper));
}
static inline vf v_pair_rows(const uint16_t *p, const uint16_t *q)
{
    return pair_(vld1_u16(p), vld1_u16(q));
}
static inline vf v_pair_rows_n(const uint16_t *p, const uint16_t *q, int n)
{
    return pair_(load_u16_n_(p, n), load_u16_n_(q, n));
}

/* Eight elements of two rows as two vectors of pairs, which lie in the order of channels. */
static inline void v_zip_rows(const uint16_t *p, const uint16_t *q, vf *lo, vf *hi)
{
    const uint16x8_t x = vld1q_u16(p), y = vld1q_u16(q);
    *lo = vreinterpretq_f32_u16(vzip1q_u16(x, y));
    *hi = vreinterpretq_f32_u16(vzip2q_u16(x, y));
}
static inline void v_unzip(vf *lo, vf *hi)
{
    (void)lo;
    (void)hi;
}

/* Eight elements of one row, or its first n, as pairs. */
static inline vf v_load_pairs(const uint16_t *p) { return vreinterpretq_f32_u16(vld1q_u16(p)); }
static inline vf v_load_pairs_n(const uint16_t *p, int n)
{
    const uint16x4_t none = vdup_n_u16(0);
    const uint16x8_t x = n < 4 ? vcombine_u16(load_u16_n_(p, n), none)
                               : vcombine_u16(vld1_u16(p), load_u16_n_(p + 4, n - 4));
    return vreinterpretq_f32_u16(x);
}

#endif
