/* test_simd_scalar_f32.c - the vocabulary of floats on the portable tier against plain C. */
#include "kernels/simd/scalar_f32.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_scalar_f32"
#define SIMD_TIER "scalar"
#define SIMD_CPU 0
#define SIMD_TWO_ROUNDINGS 1 /* of v_fma */
#define SIMD_F32 1
#include "simd_tmpl.h"
