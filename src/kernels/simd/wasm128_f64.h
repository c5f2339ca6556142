/*
 * simd/wasm128_f64.h - the vocabulary on two doubles: WebAssembly with SIMD128.  Contracts:
 * README.md.
 */
#ifndef QKV_SIMD_WASM128_F64_H
#define QKV_SIMD_WASM128_F64_H
#if !defined(__wasm_simd128__)
#error "this file needs -msimd128"
#endif

#include <math.h>
#include <stdint.h>
#include <wasm_simd128.h>

typedef double real;
typedef v128_t vf;
typedef v128_t vm; /* all bits of a lane, or none */
#define VL 2
#define LANES 6 /* as in wasm128_f32.h */
#define TILE 4

static inline vf v_zero(void) { return wasm_f64x2_const_splat(0); }
static inline vf v_set1(real x) { return wasm_f64x2_splat(x); }
static inline vf v_load(const real *p) { return wasm_v128_load(p); }
static inline vf v_load_n(const real *p, int n)
{
    return n > 0 ? wasm_v128_load64_zero(p) : v_zero();
}
static inline void v_store(real *p, vf a) { wasm_v128_store(p, a); }
static inline vf v_add(vf a, vf b) { return wasm_f64x2_add(a, b); }
static inline vf v_sub(vf a, vf b) { return wasm_f64x2_sub(a, b); }
static inline vf v_mul(vf a, vf b) { return wasm_f64x2_mul(a, b); }
static inline vf v_div(vf a, vf b) { return wasm_f64x2_div(a, b); }
/* Two roundings, as in wasm128_f32.h. */
static inline vf v_fma(vf a, vf b, vf c) { return v_add(v_mul(a, b), c); }
static inline vf v_fms(vf a, vf b, vf c) { return v_sub(v_mul(a, b), c); }
static inline vf v_max(vf a, vf b) { return wasm_f64x2_pmax(b, a); }
static inline vf v_abs(vf a) { return wasm_f64x2_abs(a); }
static inline vf v_sign_of(vf a, vf s)
{
    return wasm_v128_bitselect(s, a, wasm_u64x2_const_splat(1ull << 63));
}
static inline vf v_round(vf a) { return wasm_f64x2_nearest(a); }

/* As in wasm128_f32.h.  Integers of 64 bits have no arithmetic shift on most CPUs: half of n is
 * found as a double. */
static inline vf wasm_two_to_(vf n)
{
    const v128_t big = wasm_f64x2_const_splat(0x1.8p52);
    const v128_t i = wasm_i64x2_sub(v_add(n, big), big);
    return wasm_i64x2_shl(wasm_i64x2_add(i, wasm_i64x2_const_splat(1023)), 52);
}
static inline vf v_scale2(vf a, vf n)
{
    const vf half = v_round(v_mul(n, wasm_f64x2_const_splat(0.5)));
    const vf x = wasm_two_to_(half), y = wasm_two_to_(v_sub(n, half));
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
static inline vm v_le(vf a, vf b) { return wasm_f64x2_le(a, b); }
static inline vm v_eq(vf a, vf b) { return wasm_f64x2_eq(a, b); }
static inline vm v_and(vm a, vm b) { return wasm_v128_and(a, b); }
static inline vm v_or(vm a, vm b) { return wasm_v128_or(a, b); }
static inline int v_any(vm a) { return wasm_v128_any_true(a); }
static inline vf v_select(vm m, vf a, vf b) { return wasm_v128_bitselect(a, b, m); }

static inline vm v_test(const uint8_t *p)
{
    return wasm_i64x2_ne(wasm_i64x2_make(p[0], p[1]), wasm_i64x2_const_splat(0));
}
static inline vf v_zip_lo(vf a, vf b) { return wasm_i64x2_shuffle(a, b, 0, 2); }
static inline vf v_zip_hi(vf a, vf b) { return wasm_i64x2_shuffle(a, b, 1, 3); }

static inline void v_sum4(const vf a[4], real out[4])
{
    wasm_v128_store(out, v_add(v_zip_lo(a[0], a[1]), v_zip_hi(a[0], a[1])));
    wasm_v128_store(out + 2, v_add(v_zip_lo(a[2], a[3]), v_zip_hi(a[2], a[3])));
}

#endif
