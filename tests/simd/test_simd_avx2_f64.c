/* test_simd_avx2_f64.c - the vocabulary of doubles on AVX2 against plain C. */
#include "kernels/simd/avx2_f64.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_avx2_f64"
#define SIMD_TIER "avx2"
#define SIMD_CPU QKV_CPU_AVX2
#define SIMD_TWO_ROUNDINGS 0
#define SIMD_F32 0
#include "simd_tmpl.h"
