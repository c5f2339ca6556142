/* simd_suite.h - what a file compiled for one tier hands to simd_main.c, which is compiled for none. */
#ifndef SIMD_SUITE_H
#define SIMD_SUITE_H

#include "t.h"

typedef struct simd_suite {
    const char *program; /* "simd_avx2_f32" */
    const char *tier;    /* "avx2" */
    uint32_t cpu;        /* QKV_CPU_ bits the tier needs */
    int n_tests;
    const t_test *tests;
} simd_suite;

extern const simd_suite simd_suite_of_tier;

#endif
