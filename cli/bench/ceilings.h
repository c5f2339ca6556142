/*
 * ceilings.h - what this machine can do, measured beside everything that is compared to it.
 *
 * Rates are in 10^9 a second: operations (a multiply-add is two), or bytes for reads.
 */
#ifndef QKV_CLI_BENCH_CEILINGS_H
#define QKV_CLI_BENCH_CEILINGS_H

#include <stddef.h>

#include "qkv/attention.h"

/* What can bound a kernel's arithmetic. */
typedef enum bench_ceiling {
    BENCH_FMA_128,
    BENCH_FMA_256,
    BENCH_FMA_512,
    BENCH_FMA_F16_512,
    BENCH_DOT_BF16_512,
    BENCH_DOT_INT8_256,
    BENCH_DOT_INT8_512,
    BENCH_AMX_BF16,
    BENCH_AMX_INT8,
    BENCH_N_CEILINGS
} bench_ceiling;

/* Of several tries; 0 where the machine or the build cannot. */
typedef struct bench_rate {
    double median, best;
} bench_rate;

/* "fma_f32_512"; "GFLOP/s" or "GOP/s"; and a few words.  Static. */
const char *bench_ceiling_name(bench_ceiling c);
const char *bench_ceiling_unit(bench_ceiling c);
const char *bench_ceiling_text(bench_ceiling c);

/* Whether this build has the loop and this machine the instructions.  On a machine with AMX the
 * first call asks the system for the right to use it, for the whole process. */
int bench_ceiling_available(bench_ceiling c);

/* The ceiling of a kernel, by its name, tier and what it computes in; *share is the part of it that
 * the element type can reach (f64 has half the lanes of f32). */
bench_ceiling bench_ceiling_of_kernel(const char *kernel, double *share);

/* Tries of about `seconds` on all workers.  Zeros if it is not available. */
bench_rate bench_measure_compute(bench_ceiling c, int tries, double seconds,
                                 const qkv_parallel *workers);

/* Passes over memory, split evenly between the workers.  memory is 64-byte aligned. */
bench_rate bench_measure_read(const void *memory, size_t bytes, int passes,
                              const qkv_parallel *workers);

/* Whether the CPU and the system offer what a ceiling needs; in ceilings_cpu.c. */
int bench_cpu_has(bench_ceiling c);

#endif
