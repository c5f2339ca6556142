/* test_simd_plain16_pairs.c - pairs of bf16 in plain C. */
#include "kernels/simd/plain16_f32.h"

#define SIMD_PROGRAM "simd_plain16_pairs"
#define SIMD_TIER "plain16"
#define SIMD_CPU 0
#include "simd_pairs.h"
