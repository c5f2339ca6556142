/* test_simd_wasm128_f64.c - the vocabulary of doubles on WebAssembly's SIMD128 against plain C. */
#include "kernels/simd/wasm128_f64.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_wasm128_f64"
#define SIMD_TIER "wasm128"
#define SIMD_CPU QKV_CPU_WASM128
#define SIMD_TWO_ROUNDINGS 1
#define SIMD_F32 0
#include "simd_tmpl.h"
