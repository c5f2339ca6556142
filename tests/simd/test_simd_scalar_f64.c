/* test_simd_scalar_f64.c - the vocabulary of doubles on the portable tier against plain C. */
#include "kernels/simd/scalar_f64.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_scalar_f64"
#define SIMD_TIER "scalar"
#define SIMD_CPU 0
#define SIMD_TWO_ROUNDINGS 1 /* of v_fma */
#define SIMD_F32 0
#include "simd_tmpl.h"
