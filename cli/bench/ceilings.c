/* ceilings.c - see ceilings.h.  The loops themselves are in loops/. */
#include "ceilings.h"

#include <string.h>

#include "loops/loops.h"
#include "timing.h"

enum { MOST_WORKERS = 1024, MOST_TRIES = 16 };

/* ---- what there is ------------------------------------------------------------------------ */

static const struct {
    const char *name, *unit, *text;
} words[BENCH_N_CEILINGS] = {
    [BENCH_FMA_128] = {"fma_f32_128", "GFLOP/s", "f32 multiply-add, 128 bits"},
    [BENCH_FMA_256] = {"fma_f32_256", "GFLOP/s", "f32 FMA, 256 bits (AVX2)"},
    [BENCH_FMA_512] = {"fma_f32_512", "GFLOP/s", "f32 FMA, 512 bits (AVX-512)"},
    [BENCH_FMA_F16_512] = {"fma_f16_512", "GFLOP/s", "f16 FMA, 512 bits (AVX512-FP16)"},
    [BENCH_DOT_BF16_512] = {"dot_bf16_512", "GFLOP/s", "bf16 dot, 512 bits (AVX512-BF16)"},
    [BENCH_DOT_INT8_256] = {"dot_int8_256", "GOP/s", "int8 dot, 256 bits (AVX-VNNI)"},
    [BENCH_DOT_INT8_512] = {"dot_int8_512", "GOP/s", "int8 dot, 512 bits (AVX512-VNNI)"},
    [BENCH_AMX_BF16] = {"amx_bf16", "GFLOP/s", "bf16 tiles (AMX)"},
    [BENCH_AMX_INT8] = {"amx_int8", "GOP/s", "int8 tiles (AMX)"}};

const char *bench_ceiling_name(bench_ceiling c) { return words[c].name; }
const char *bench_ceiling_unit(bench_ceiling c) { return words[c].unit; }
const char *bench_ceiling_text(bench_ceiling c) { return words[c].text; }

typedef double (*compute_loop)(long rounds, float *keep);

/* NULL: the compiler of this build did not know the instructions. */
static compute_loop loop_of(bench_ceiling c)
{
    switch (c) {
    case BENCH_FMA_128:
        return loop_fma_128;
#ifdef BENCH_HAVE_VEC_256
    case BENCH_FMA_256:
        return loop_fma_256;
#endif
#ifdef BENCH_HAVE_VEC_512
    case BENCH_FMA_512:
        return loop_fma_512;
#endif
#ifdef BENCH_HAVE_F16_512
    case BENCH_FMA_F16_512:
        return loop_fma_f16_512;
#endif
#ifdef BENCH_HAVE_BF16_512
    case BENCH_DOT_BF16_512:
        return loop_dot_bf16_512;
#endif
#ifdef BENCH_HAVE_INT8_256
    case BENCH_DOT_INT8_256:
        return loop_dot_int8_256;
#endif
#ifdef BENCH_HAVE_INT8_512
    case BENCH_DOT_INT8_512:
        return loop_dot_int8_512;
#endif
#ifdef BENCH_HAVE_AMX
    case BENCH_AMX_BF16:
        return loop_amx_bf16;
    case BENCH_AMX_INT8:
        return loop_amx_int8;
#endif
    default:
        return NULL;
    }
}

int bench_ceiling_available(bench_ceiling c) { return loop_of(c) != NULL && bench_cpu_has(c); }

static bench_ceiling vector_ceiling(const char *tier)
{
    if (strcmp(tier, "avx2") == 0)
        return BENCH_FMA_256;
    if (strncmp(tier, "avx512", 6) == 0 || strncmp(tier, "amx", 3) == 0)
        return BENCH_FMA_512;
    return BENCH_FMA_128;
}

static qkv_kernel_info find_kernel(const char *name)
{
    qkv_kernel_info info;
    for (int32_t i = 0; i < qkv_kernel_count(); i++)
        if (qkv_kernel_info_get(i, &info) == QKV_OK && strcmp(info.name, name) == 0)
            return info;
    return (qkv_kernel_info){.tier = "scalar", .compute_type = QKV_F32};
}

bench_ceiling bench_ceiling_of_kernel(const char *kernel, double *share)
{
    const qkv_kernel_info info = find_kernel(kernel);
    bench_ceiling c = vector_ceiling(info.tier);

    *share = info.compute_type == QKV_F64 ? 0.5 : 1;
    if (info.compute_type == QKV_BF16 && c == BENCH_FMA_512)
        c = strncmp(info.tier, "amx", 3) == 0 ? BENCH_AMX_BF16 : BENCH_DOT_BF16_512;
    /* A tier that is a software model has kernels without the instructions. */
    return bench_ceiling_available(c) ? c : BENCH_FMA_128;
}

/* ---- arithmetic --------------------------------------------------------------------------- */

typedef struct compute_job {
    compute_loop loop;
    long rounds;
    double done[MOST_WORKERS];
    float keep[MOST_WORKERS];
} compute_job;

static void compute_task(void *arg, int64_t i, int32_t worker)
{
    compute_job *job = arg;
    (void)worker;
    job->done[i] = job->loop(job->rounds, &job->keep[i]);
}

/* How many rounds take about `seconds` on this thread; also lets the clock settle. */
static long rounds_for(compute_loop loop, double seconds)
{
    float keep = 0;
    for (long rounds = 1000;; rounds *= 4) {
        const double begin = bench_now();
        loop(rounds, &keep);
        const double took = bench_now() - begin;
        if (took > seconds / 8)
            return (long)((double)rounds * seconds / took) + 1;
    }
}

static bench_rate summary(double *rates, int n)
{
    const double median = bench_median(rates, n);
    return (bench_rate){median, rates[n - 1]};
}

bench_rate bench_measure_compute(bench_ceiling c, int tries, double seconds,
                                 const qkv_parallel *workers)
{
    static compute_job job;
    double rates[MOST_TRIES];

    if (!bench_ceiling_available(c))
        return (bench_rate){0, 0};
    job.loop = loop_of(c);
    job.rounds = rounds_for(job.loop, seconds);
    for (int t = 0; t < tries; t++) {
        const double begin = bench_now();
        workers->parallel_for(workers->ctx, workers->n_workers, compute_task, &job);
        const double took = bench_now() - begin;
        double operations = 0;
        for (int32_t i = 0; i < workers->n_workers; i++)
            operations += job.done[i];
        rates[t] = operations / took / 1e9;
    }
    return summary(rates, tries);
}

/* ---- memory ------------------------------------------------------------------------------- */

typedef float (*read_loop)(const float *p, size_t n);

typedef struct read_job {
    read_loop sum;
    const float *memory;
    size_t each;
    float keep[MOST_WORKERS];
} read_job;

static void read_task(void *arg, int64_t i, int32_t worker)
{
    read_job *job = arg;
    (void)worker;
    job->keep[i] = job->sum(job->memory + (size_t)i * job->each, job->each);
}

static read_loop widest_read(void)
{
#ifdef BENCH_HAVE_VEC_512
    if (bench_cpu_has(BENCH_FMA_512))
        return read_512;
#endif
#ifdef BENCH_HAVE_VEC_256
    if (bench_cpu_has(BENCH_FMA_256))
        return read_256;
#endif
    return read_128;
}

bench_rate bench_measure_read(const void *memory, size_t bytes, int passes,
                              const qkv_parallel *workers)
{
    static read_job job;
    const size_t whole = 1024; /* floats: parts begin at pages, and none is left over in a loop */
    double rates[MOST_TRIES];

    job.sum = widest_read();
    job.memory = memory;
    job.each = bytes / sizeof(float) / (size_t)workers->n_workers / whole * whole;
    const double read = (double)job.each * sizeof(float) * workers->n_workers;
    for (int t = 0; t < passes; t++) {
        const double begin = bench_now();
        workers->parallel_for(workers->ctx, workers->n_workers, read_task, &job);
        rates[t] = read / (bench_now() - begin) / 1e9;
    }
    return summary(rates, passes);
}
