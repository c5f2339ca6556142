/* test_simd_neon_bf16.c - pairs of bf16 on NEON_BF16. */
#include "kernels/simd/neon_bf16.h"

#define SIMD_PROGRAM "simd_neon_bf16"
#define SIMD_TIER "neon_bf16"
#define SIMD_CPU QKV_CPU_NEON_BF16
#include "simd_pairs.h"
