/*
 * simd_tmpl.h - tests of one vocabulary header and of v_exp and v_tanh on it.
 *
 * Each operation is run on every combination of special numbers and on random bit patterns, and
 * compared with its definition in plain C (src/kernels/simd/README.md).
 *
 * Parameters: a simd/ header and math_tmpl.h, included before; SIMD_PROGRAM and SIMD_TIER, names;
 * SIMD_CPU, the bits the tier needs; SIMD_F32, 1 or 0; SIMD_TWO_ROUNDINGS, 1 where v_fma rounds twice.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/base.h"
#include "simd_suite.h"

/* SIMD(f) is libm's f for `real`, WIDE(f) that for `wide`, a type with more bits. */
#if SIMD_F32
typedef uint32_t bits_t;
typedef double wide;
#define SIMD(name) name##f
#define WIDE(name) name
enum { FRACTION = FLT_MANT_DIG - 1, LOWEST = FLT_MIN_EXP - 1 };
#else
typedef uint64_t bits_t;
typedef long double wide;
#define SIMD(name) name
#define WIDE(name) name##l
enum { FRACTION = DBL_MANT_DIG - 1, LOWEST = DBL_MIN_EXP - 1 };
#endif

static bits_t bits_of(real x)
{
    bits_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static real of_bits(bits_t bits)
{
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#include "simd_ops.h"
#include "simd_sum.h"
#include "simd_memory.h"
#include "simd_parts.h"
#include "simd_wide.h"
#include "simd_math.h"

static const t_test simd_tests[] = {
    {"operations", test_operations}, {"any", test_any}, {"sum4", test_sum4},
    {"memory", test_memory},         {"parts", test_parts}, {"zip", test_zip},
#if SIMD_F32
    {"widen", test_widen},           {"narrow", test_narrow},
#endif
    {"exp", test_exp},               {"weight", test_weight}, {"tanh", test_tanh},
};

const simd_suite simd_suite_of_tier = {SIMD_PROGRAM, SIMD_TIER, SIMD_CPU,
                                       (int)(sizeof simd_tests / sizeof simd_tests[0]), simd_tests};
