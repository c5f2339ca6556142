/* ceilings.h - what this machine can do, measured in the same run as everything it is compared to. */
#ifndef BENCH_CEILINGS_H
#define BENCH_CEILINGS_H

#include <stddef.h>

#include "qkv/base.h"

double fma_flops_base(long rounds, float *keep);
double fma_flops_avx2(long rounds, float *keep);
double fma_flops_avx512(long rounds, float *keep);
float read_sum_base(const float *p, size_t n);
float read_sum_avx2(const float *p, size_t n);
float read_sum_avx512(const float *p, size_t n);

/* Seconds since some fixed moment. */
double bench_now(void);

/* f32 multiply-adds (two operations each) of a tier on all workers, GFLOP/s: the best of a few
 * short runs. */
double ceiling_fma(uint32_t tier_flag, const qkv_parallel *workers);

/* Reading memory that no cache holds, GB/s on all workers: the best of a few passes. */
double ceiling_read(uint32_t tier_flag, const float *memory, size_t n,
                    const qkv_parallel *workers);

#endif
