/* test_simd_avx512_dot.c - dot products of pairs of bf16 on AVX512_BF16. */
#include "kernels/simd/avx512_bf16.h"

#define SIMD_PROGRAM "simd_avx512_dot"
#define SIMD_TIER "avx512_bf16"
#define SIMD_CPU QKV_CPU_AVX512_BF16
#include "simd_dot.h"
