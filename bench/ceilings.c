/* ceilings.c - see ceilings.h. */
#include "ceilings.h"

#include <time.h>

enum { TRIES = 5 };

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct fma_job {
    double (*flops)(long rounds, float *keep);
    double done[1024];
    float keep[1024];
} fma_job;

static void fma_task(void *arg, int64_t i, int32_t worker)
{
    fma_job *job = arg;
    (void)worker;
    job->done[i] = job->flops(2000000, &job->keep[i]);
}

double ceiling_fma(uint32_t tier_flag, const qkv_parallel *workers)
{
    static fma_job job;
    double best = 0;

    job.flops = fma_flops_base;
#if defined(__x86_64__)
    if (tier_flag == QKV_CPU_AVX2)
        job.flops = fma_flops_avx2;
    if (tier_flag == QKV_CPU_AVX512)
        job.flops = fma_flops_avx512;
#else
    (void)tier_flag;
#endif
    for (int t = 0; t < TRIES; t++) {
        const double begin = bench_now();
        workers->parallel_for(workers->ctx, workers->n_workers, fma_task, &job);
        const double seconds = bench_now() - begin;
        double flops = 0;
        for (int i = 0; i < workers->n_workers; i++)
            flops += job.done[i];
        if (flops / seconds > best)
            best = flops / seconds;
    }
    return best / 1e9;
}

typedef struct read_job {
    float (*sum)(const float *p, size_t n);
    const float *memory;
    size_t each;
    float keep[1024];
} read_job;

static void read_task(void *arg, int64_t i, int32_t worker)
{
    read_job *job = arg;
    (void)worker;
    job->keep[i] = job->sum(job->memory + (size_t)i * job->each, job->each);
}

double ceiling_read(uint32_t tier_flag, const float *memory, size_t n, const qkv_parallel *workers)
{
    static read_job job;
    const size_t whole = 1024; /* floats: parts begin at whole vectors */
    double best = 0;

    job.sum = read_sum_base;
#if defined(__x86_64__)
    if (tier_flag == QKV_CPU_AVX2)
        job.sum = read_sum_avx2;
    if (tier_flag == QKV_CPU_AVX512)
        job.sum = read_sum_avx512;
#else
    (void)tier_flag;
#endif
    job.memory = memory;
    job.each = n / (size_t)workers->n_workers / whole * whole;
    for (int t = 0; t < TRIES; t++) {
        const double begin = bench_now();
        workers->parallel_for(workers->ctx, workers->n_workers, read_task, &job);
        const double rate = (double)(n * sizeof *memory) / (bench_now() - begin);
        if (rate > best)
            best = rate;
    }
    return best / 1e9;
}
