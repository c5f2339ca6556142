/* test_simd_avx512_f64.c - the vocabulary of doubles on AVX-512 against plain C. */
#include "kernels/simd/avx512_f64.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_avx512_f64"
#define SIMD_TIER "avx512"
#define SIMD_CPU QKV_CPU_AVX512
#define SIMD_TWO_ROUNDINGS 0
#define SIMD_F32 0
#include "simd_tmpl.h"
