/* test_simd_neon_dot.c - dot products of pairs of bf16 on NEON_BF16. */
#include "kernels/simd/neon_bf16.h"

#define SIMD_PROGRAM "simd_neon_dot"
#define SIMD_TIER "neon_bf16"
#define SIMD_CPU QKV_CPU_NEON_BF16
#include "simd_dot.h"
