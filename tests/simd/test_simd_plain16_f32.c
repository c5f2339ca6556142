/* test_simd_plain16_f32.c - the sixteen lanes in plain C that stand beside the model of tiles. */
#include "kernels/simd/plain16_f32.h"
#include "kernels/tmpl/math_tmpl.h"

#define SIMD_PROGRAM "simd_plain16_f32"
#define SIMD_TIER "plain16"
#define SIMD_CPU 0
#define SIMD_TWO_ROUNDINGS 1 /* of v_fma */
#define SIMD_F32 1
#include "simd_tmpl.h"
