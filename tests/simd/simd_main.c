/*
 * simd_main.c - runs the suite of one tier if this CPU has the tier.
 *
 * Compiled without a tier's flags: everything up to the answer must run on any CPU.
 */
#include "simd_suite.h"

#include <stdio.h>

#include "qkv/base.h"

enum { EXIT_SKIPPED = 77 }; /* Meson's code for a test that does not apply */

int main(int argc, char **argv)
{
    const simd_suite *suite = &simd_suite_of_tier;

    if ((qkv_cpu_flags() & suite->cpu) != suite->cpu) {
        printf("%s: skipped, this CPU lacks the %s tier\n", suite->program, suite->tier);
        printf("%s: 0 passed, 0 failed\n", suite->program);
        return EXIT_SKIPPED;
    }
    return t_main(argc, argv, suite->program, suite->tests, suite->n_tests);
}
