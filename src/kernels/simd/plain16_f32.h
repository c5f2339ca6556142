/*
 * simd/plain16_f32.h - the vocabulary on sixteen floats in plain C, and pairs of bf16.  Contracts: README.md.
 *
 * It stands beside the model of the tile instructions (amx_tiles_model.h) as avx512_bf16.h stands
 * beside the instructions: with vectors as long as theirs a kernel has the same tiles, rests and
 * buffers on any CPU as on the one it is made for.  The scalar vocabulary, with vectors of one, would
 * test other code.  Speed does not matter here.
 */
#ifndef QKV_SIMD_PLAIN16_F32_H
#define QKV_SIMD_PLAIN16_F32_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/convert.h"

typedef float real;
typedef struct vf {
    float x[16];
} vf;
typedef uint32_t vm; /* one bit a lane */
#define VL 16
#define LANES 3
#define TILE 8

/* r with r.x[i] = value for every lane i. */
#define EACH_LANE_(value)                                                                          \
    vf r;                                                                                          \
    for (int i = 0; i < VL; i++)                                                                   \
        r.x[i] = (value);                                                                          \
    return r;
#define EACH_BIT_(condition)                                                                       \
    vm r = 0;                                                                                      \
    for (int i = 0; i < VL; i++)                                                                   \
        r |= (uint32_t)((condition) != 0) << i;                                                    \
    return r;

static inline float plain_two_to_(int n) { return qkv_f32_of_bits((uint32_t)(n + 127) << 23); }
/* In two factors, because one alone does not reach the subnormals. */
static inline float plain_scale2_(float a, float n)
{
    if (n != n)
        return n;
    const int i = (int)n, half = i / 2;
    return a * plain_two_to_(half) * plain_two_to_(i - half);
}

static inline vf v_zero(void) { EACH_LANE_(0) }
static inline vf v_set1(real a) { EACH_LANE_(a) }
static inline vf v_load(const real *p) { EACH_LANE_(p[i]) }
static inline vf v_load_n(const real *p, int n) { EACH_LANE_(i < n ? p[i] : 0) }
static inline void v_store(real *p, vf a) { memcpy(p, a.x, sizeof a.x); }
static inline vf v_add(vf a, vf b) { EACH_LANE_(a.x[i] + b.x[i]) }
static inline vf v_sub(vf a, vf b) { EACH_LANE_(a.x[i] - b.x[i]) }
static inline vf v_mul(vf a, vf b) { EACH_LANE_(a.x[i] * b.x[i]) }
static inline vf v_div(vf a, vf b) { EACH_LANE_(a.x[i] / b.x[i]) }
/* Two roundings: fma() without the instruction is a slow library call. */
static inline vf v_fma(vf a, vf b, vf c) { EACH_LANE_(a.x[i] * b.x[i] + c.x[i]) }
static inline vf v_fms(vf a, vf b, vf c) { EACH_LANE_(a.x[i] * b.x[i] - c.x[i]) }
static inline vf v_max(vf a, vf b) { EACH_LANE_(a.x[i] > b.x[i] ? a.x[i] : b.x[i]) }
static inline vf v_abs(vf a) { EACH_LANE_(fabsf(a.x[i])) }
static inline vf v_sign_of(vf a, vf s) { EACH_LANE_(copysignf(a.x[i], s.x[i])) }
/* Adding 1.5 2^23 leaves no bits below the point. */
static inline vf v_round(vf a) { EACH_LANE_((a.x[i] + 12582912.0f) - 12582912.0f) }
static inline vf v_scale2(vf a, vf n) { EACH_LANE_(plain_scale2_(a.x[i], n.x[i])) }
static inline vm v_le(vf a, vf b) { EACH_BIT_(a.x[i] <= b.x[i]) }
static inline vm v_eq(vf a, vf b) { EACH_BIT_(a.x[i] == b.x[i]) }
static inline vm v_and(vm a, vm b) { return a & b; }
static inline vm v_or(vm a, vm b) { return a | b; }
static inline int v_any(vm a) { return a != 0; }
static inline vf v_select(vm m, vf a, vf b) { EACH_LANE_(m >> i & 1 ? a.x[i] : b.x[i]) }
static inline vm v_test(const uint8_t *p) { EACH_BIT_(p[i]) }
static inline vf v_zip_lo(vf a, vf b) { EACH_LANE_(i % 2 ? b.x[i / 2] : a.x[i / 2]) }
static inline vf v_zip_hi(vf a, vf b) { EACH_LANE_(i % 2 ? b.x[8 + i / 2] : a.x[8 + i / 2]) }

static inline void v_sum4(const vf a[4], real out[4])
{
    for (int k = 0; k < 4; k++) {
        out[k] = 0;
        for (int i = 0; i < VL; i++)
            out[k] += a[k].x[i];
    }
}

static inline vf v_widen_bf16(const uint16_t *p) { EACH_LANE_(qkv_f32_of_bf16(p[i])) }
static inline vf v_widen_f16(const uint16_t *p) { EACH_LANE_(qkv_f32_of_f16(p[i])) }
static inline vf v_widen_bf16_n(const uint16_t *p, int n)
{
    EACH_LANE_(i < n ? qkv_f32_of_bf16(p[i]) : 0)
}
static inline vf v_widen_f16_n(const uint16_t *p, int n)
{
    EACH_LANE_(i < n ? qkv_f32_of_f16(p[i]) : 0)
}
static inline void v_narrow_bf16(uint16_t *p, vf a)
{
    for (int i = 0; i < VL; i++)
        p[i] = qkv_bf16_of_f64((double)a.x[i]);
}
static inline void v_narrow_f16(uint16_t *p, vf a)
{
    for (int i = 0; i < VL; i++)
        p[i] = qkv_f16_of_f64((double)a.x[i]);
}

/* ---- pairs of bf16, the first in the lower half ---- */

static inline float plain_pair_(uint32_t lo, uint32_t hi) { return qkv_f32_of_bits(hi << 16 | lo); }
static inline vf v_pair(vf lo, vf hi)
{
    EACH_LANE_(plain_pair_(qkv_bf16_of_f64((double)lo.x[i]), qkv_bf16_of_f64((double)hi.x[i])))
}
static inline uint32_t plain_bits_(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline vf v_pair_low(vf p) { EACH_LANE_(qkv_f32_of_bits(plain_bits_(p.x[i]) << 16)) }
static inline vf v_pair_high(vf p)
{
    EACH_LANE_(qkv_f32_of_bits(plain_bits_(p.x[i]) & 0xffff0000u))
}
static inline vf v_pair_rows(const uint16_t *p, const uint16_t *q)
{
    EACH_LANE_(plain_pair_(p[i], q[i]))
}
static inline vf v_pair_rows_n(const uint16_t *p, const uint16_t *q, int n)
{
    EACH_LANE_(i < n ? plain_pair_(p[i], q[i]) : 0)
}

#endif
