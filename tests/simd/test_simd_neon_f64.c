/* test_simd_neon_f64.c - the vocabulary of doubles on NEON against plain C. */
#include "kernels/simd/neon_f64.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_neon_f64"
#define SIMD_TIER "neon"
#define SIMD_CPU QKV_CPU_NEON
#define SIMD_TWO_ROUNDINGS 0
#define SIMD_F32 0
#include "simd_tmpl.h"
