/*
 * simd/wasm128_f32.h - the vocabulary on four floats: WebAssembly with SIMD128, which every browser
 * since 2023 and Node since 16 has.  Contracts: README.md.
 */
#ifndef QKV_SIMD_WASM128_F32_H
#define QKV_SIMD_WASM128_F32_H
#if !defined(__wasm_simd128__)
#error "this file needs -msimd128"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <wasm_simd128.h>

typedef float real;
typedef v128_t vf;
typedef v128_t vm; /* all bits of a lane, or none */
#define VL 4
/* 4 x 6 accumulators fill the 32 registers of Arm; x86 without AVX-512 has 16 and keeps some in
 * memory, which costs less than the loads that it saves.  GFLOP/s of the package's attention() on
 * one core, f32, T = 1024 with D = 64 and T = 768 with D = 128 (Node 20.20, AMD EPYC, AVX-512):
 *     4 x 2   9.1  9.4      4 x 3  11.8 12.3      4 x 4  12.1 12.7
 *     4 x 6  12.8 13.5      4 x 8  12.8 13.3      8 x 6  14.4 15.4      8 x 3   6.6  6.8
 * 8 x 6 would spill on every machine, and has been tried on this one only. */
#define LANES 6
#define TILE 4

static inline vf v_zero(void) { return wasm_f32x4_const_splat(0); }
static inline vf v_set1(real x) { return wasm_f32x4_splat(x); }
static inline vf v_load(const real *p) { return wasm_v128_load(p); }
static inline vf v_load_n(const real *p, int n)
{
    vf x = v_zero();
    if (n > 1)
        x = wasm_v128_load64_zero(p);
    else if (n > 0)
        return wasm_v128_load32_zero(p);
    if (n > 2)
        x = wasm_v128_load32_lane(p + 2, x, 2);
    return x;
}
static inline void v_store(real *p, vf a) { wasm_v128_store(p, a); }
static inline vf v_add(vf a, vf b) { return wasm_f32x4_add(a, b); }
static inline vf v_sub(vf a, vf b) { return wasm_f32x4_sub(a, b); }
static inline vf v_mul(vf a, vf b) { return wasm_f32x4_mul(a, b); }
static inline vf v_div(vf a, vf b) { return wasm_f32x4_div(a, b); }
/* Two roundings: SIMD128 has no fused form (relaxed SIMD may fuse or not, so bits would vary). */
static inline vf v_fma(vf a, vf b, vf c) { return v_add(v_mul(a, b), c); }
static inline vf v_fms(vf a, vf b, vf c) { return v_sub(v_mul(a, b), c); }
/* pmax(x, y) is x < y ? y : x, one instruction on x86; max would pass on a NaN of either side. */
static inline vf v_max(vf a, vf b) { return wasm_f32x4_pmax(b, a); }
static inline vf v_abs(vf a) { return wasm_f32x4_abs(a); }
static inline vf v_sign_of(vf a, vf s)
{
    return wasm_v128_bitselect(s, a, wasm_u32x4_const_splat(0x80000000u));
}
static inline vf v_round(vf a) { return wasm_f32x4_nearest(a); }

/* 2^n in two factors: one alone does not reach the subnormals.  Only the second product can
 * round.  Adding 1.5 2^23 leaves n in the low bits: the conversion that WebAssembly has saturates,
 * which costs x86 six instructions.  A NaN in n becomes some integer; adding n - n brings it
 * back. */
static inline vf v_scale2(vf a, vf n)
{
    const v128_t big = wasm_f32x4_const_splat(12582912.0f);
    const v128_t i = wasm_i32x4_sub(v_add(n, big), big);
    const v128_t half = wasm_i32x4_shr(i, 1), rest = wasm_i32x4_sub(i, half);
    const v128_t bias = wasm_i32x4_const_splat(127);
    const vf x = wasm_i32x4_shl(wasm_i32x4_add(half, bias), 23);
    const vf y = wasm_i32x4_shl(wasm_i32x4_add(rest, bias), 23);
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
static inline vm v_le(vf a, vf b) { return wasm_f32x4_le(a, b); }
static inline vm v_eq(vf a, vf b) { return wasm_f32x4_eq(a, b); }
static inline vm v_and(vm a, vm b) { return wasm_v128_and(a, b); }
static inline vm v_or(vm a, vm b) { return wasm_v128_or(a, b); }
static inline int v_any(vm a) { return wasm_v128_any_true(a); }
static inline vf v_select(vm m, vf a, vf b) { return wasm_v128_bitselect(a, b, m); }

static inline vm v_test(const uint8_t *p)
{
    const v128_t x = wasm_u32x4_extend_low_u16x8(
        wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(p)));
    return wasm_i32x4_ne(x, wasm_i32x4_const_splat(0));
}
static inline vf v_zip_lo(vf a, vf b) { return wasm_i32x4_shuffle(a, b, 0, 4, 1, 5); }
static inline vf v_zip_hi(vf a, vf b) { return wasm_i32x4_shuffle(a, b, 2, 6, 3, 7); }

static inline vf wasm_pair_sums_(vf a, vf b)
{
    return v_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
}
static inline void v_sum4(const vf a[4], real out[4])
{
    wasm_v128_store(out, wasm_pair_sums_(wasm_pair_sums_(a[0], a[1]), wasm_pair_sums_(a[2], a[3])));
}

/* The first n (0 .. 3) elements of 16 bits as integers of 32. */
static inline v128_t wasm_load_u16_n_(const uint16_t *p, int n)
{
    v128_t x = wasm_i32x4_const_splat(0);
    if (n > 0)
        x = wasm_v128_load16_lane(p, x, 0);
    if (n > 1)
        x = wasm_v128_load16_lane(p + 1, x, 1);
    if (n > 2)
        x = wasm_v128_load16_lane(p + 2, x, 2);
    return wasm_u32x4_extend_low_u16x8(x);
}
static inline vf wasm_of_bf16_(v128_t x) { return wasm_i32x4_shl(x, 16); }

/* The bits of an f16 moved to those of an f32 are 2^-112 of its value, subnormals too; infinity and
 * NaN have another exponent. */
static inline vf wasm_of_f16_(v128_t x)
{
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(x, wasm_i32x4_const_splat(0x8000)), 16);
    const v128_t rest = wasm_v128_and(x, wasm_i32x4_const_splat(0x7fff));
    const v128_t bits = wasm_i32x4_shl(rest, 13);
    const vf finite = v_mul(bits, wasm_f32x4_const_splat(0x1p112f));
    const v128_t nan = wasm_i32x4_gt(rest, wasm_i32x4_const_splat(0x7c00));
    const v128_t quiet = wasm_v128_and(nan, wasm_i32x4_const_splat(0x400000));
    const v128_t exponent = wasm_i32x4_const_splat(0x7f800000);
    const v128_t special = wasm_v128_or(wasm_v128_or(bits, quiet), exponent);
    const v128_t is_special = wasm_i32x4_ge(rest, wasm_i32x4_const_splat(0x7c00));
    return wasm_v128_or(wasm_v128_bitselect(special, finite, is_special), sign);
}
static inline vf v_widen_bf16(const uint16_t *p) { return wasm_of_bf16_(wasm_u32x4_load16x4(p)); }
static inline vf v_widen_f16(const uint16_t *p) { return wasm_of_f16_(wasm_u32x4_load16x4(p)); }
static inline vf v_widen_bf16_n(const uint16_t *p, int n)
{
    return wasm_of_bf16_(wasm_load_u16_n_(p, n));
}
static inline vf v_widen_f16_n(const uint16_t *p, int n)
{
    return wasm_of_f16_(wasm_load_u16_n_(p, n));
}

/* The lower halves of four integers of 32 bits. */
static inline void wasm_store_u16_(uint16_t *p, v128_t x)
{
    wasm_v128_store64_lane(p, wasm_i16x8_shuffle(x, x, 0, 2, 4, 6, 0, 2, 4, 6), 0);
}
static inline void v_narrow_bf16(uint16_t *p, vf a)
{
    const v128_t odd = wasm_v128_and(wasm_u32x4_shr(a, 16), wasm_i32x4_const_splat(1));
    const v128_t up = wasm_i32x4_add(wasm_i32x4_add(a, wasm_i32x4_const_splat(0x7fff)), odd);
    const v128_t quiet = wasm_v128_or(a, wasm_i32x4_const_splat(0x400000));
    wasm_store_u16_(p, wasm_u32x4_shr(wasm_v128_bitselect(up, quiet, v_eq(a, a)), 16));
}

/* Normal results are rounded as integers, subnormal ones by adding 1/2, whose last bit weighs
 * 2^-24. */
static inline void v_narrow_f16(uint16_t *p, vf a)
{
    const v128_t sign = wasm_v128_and(wasm_u32x4_shr(a, 16), wasm_i32x4_const_splat(0x8000));
    const v128_t x = v_abs(a), half = wasm_f32x4_const_splat(0.5f);
    const v128_t odd = wasm_v128_and(wasm_u32x4_shr(x, 13), wasm_i32x4_const_splat(1));
    const v128_t lower = wasm_i32x4_add(x, wasm_i32x4_const_splat(0xfff - (112 << 23)));
    const v128_t large = wasm_u32x4_shr(wasm_i32x4_add(lower, odd), 13);
    const v128_t small = wasm_i32x4_sub(v_add(x, half), half);
    const v128_t is_small = wasm_f32x4_lt(x, wasm_f32x4_const_splat(0x1p-14f));
    const v128_t number = wasm_v128_bitselect(small, large, is_small);
    const v128_t capped = wasm_i32x4_min(number, wasm_i32x4_const_splat(0x7c00));
    const v128_t nan = wasm_i32x4_const_splat(0x7e00);
    wasm_store_u16_(p, wasm_v128_or(wasm_v128_bitselect(capped, nan, v_eq(a, a)), sign));
}

#endif
