/*
 * bench.c - qkv against the ceilings of the machine it runs on.
 *
 *     bench [--threads N] [--shape SUBSTRING] [--tier NAME] [--repeat N] [--json FILE]
 *
 * For each shape: the median time and the spread of the repeats; useful work only (visible pairs,
 * 2 (D + Dv) operations each; each byte of K and V once); the fraction of the roof, which is the
 * larger of work over the multiply-add rate and bytes over the read rate; and the error of sampled
 * queries against the double-precision oracle, as a share of the budget.  A client of the public
 * headers.
 */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ceilings.h"
#include "qkv/qkv.h"

typedef struct shape {
    const char *name;
    qkv_type type;
    int32_t B, Hq, Hkv;
    int64_t Tq, Tk;
    int32_t D, Dv, causal;
    int64_t window;
} shape;

static const shape shapes[] = {
#define SHAPE(name, type, B, Hq, Hkv, Tq, Tk, D, Dv, causal, window)                               \
    {name, QKV_##type, B, Hq, Hkv, Tq, Tk, D, Dv, causal, window},
#include "shapes.inc"
#undef SHAPE
};

typedef struct options {
    int32_t threads;
    int repeat;
    const char *filter, *json;
    uint32_t cpu_mask, tier_flag;
    const char *tier;
} options;

typedef struct tensors {
    void *q, *k, *v, *o, *plan_memory, *workspace;
    const qkv_plan *plan;
    qkv_desc desc;
    qkv_args args;
} tensors;

static void *need(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == NULL) {
        fprintf(stderr, "bench: %zu bytes could not be allocated\n", bytes);
        exit(2);
    }
    return p;
}

/* Normal numbers (sum of four uniform ones), never zeros: zeros are not what anyone computes. */
static void *random_tensor(qkv_type type, int64_t n, uint64_t seed)
{
    char *p = need((size_t)n * qkv_type_size(type));
    const size_t size = qkv_type_size(type);
    for (int64_t i = 0; i < n; i++) {
        double x = 0;
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            x += (double)(seed >> 11) * 0x1p-53 - 0.5;
        }
        x *= 1.7320508; /* unit variance */
        qkv_convert(p + (size_t)i * size, type, &x, QKV_F64, 1);
    }
    return p;
}

static void describe(const shape *s, const options *opt, qkv_desc *d)
{
    qkv_desc_init(d);
    d->cpu_mask = opt->cpu_mask;
    d->n_seqs = s->B;
    d->n_q_heads = s->Hq;
    d->n_kv_heads = s->Hkv;
    d->q_len = s->Tq;
    d->kv_len = s->Tk;
    d->head_dim = s->D;
    d->head_dim_v = s->Dv;
    d->causal = s->causal;
    d->window_left = s->window;
    qkv_desc_dense(d, s->type, QKV_BHTD);
    if (s->Dv < s->D) /* latent: V is the first channels of K */
        d->v = d->k;
}

static void set_up(const shape *s, const options *opt, tensors *t)
{
    char why[256];

    describe(s, opt, &t->desc);
    if (qkv_explain(&t->desc, why, sizeof why) != QKV_OK) {
        fprintf(stderr, "bench: %s: %s\n", s->name, why);
        exit(2);
    }
    const size_t plan_bytes = qkv_plan_size(&t->desc);
    t->plan_memory = need(plan_bytes);
    if (qkv_plan_init(t->plan_memory, plan_bytes, &t->desc, &t->plan) != QKV_OK)
        exit(2);
    t->q = random_tensor(s->type, (int64_t)s->B * s->Hq * s->Tq * s->D, 1);
    t->k = random_tensor(s->type, (int64_t)s->B * s->Hkv * s->Tk * s->D, 2);
    t->v = s->Dv < s->D ? t->k : random_tensor(s->type, (int64_t)s->B * s->Hkv * s->Tk * s->Dv, 3);
    t->o = need((size_t)s->B * (size_t)s->Hq * (size_t)s->Tq * (size_t)s->Dv *
                qkv_type_size(s->type));
    qkv_args_init(&t->args);
    t->args.q = t->q;
    t->args.k = t->k;
    t->args.v = t->v;
    t->args.o = t->o;
    t->args.workspace_bytes = qkv_workspace_size(t->plan, opt->threads);
    t->args.workspace = t->workspace = need(t->args.workspace_bytes);
}

static void tear_down(tensors *t)
{
    if (t->v != t->k)
        free(t->v);
    free(t->q);
    free(t->k);
    free(t->o);
    free(t->plan_memory);
    free(t->workspace);
}

/* The largest error over budget of a few queries: the first, the last and one between, of every
 * head of the first sequence. */
static double sampled_error(const shape *s, const tensors *t)
{
    const size_t size = qkv_type_size(s->type);
    const int64_t rows[] = {0, s->Tq / 2, s->Tq - 1};
    double worst = 0;
    qkv_desc d = t->desc;
    int32_t offset;

    d.n_seqs = 1;
    d.q_len = 1;
    d.q_offsets = &offset;
    double *o = need((size_t)s->Hq * (size_t)s->Dv * sizeof *o);
    double *budget = need((size_t)s->Hq * (size_t)s->Dv * sizeof *budget);
    void *scratch = need(qkv_ref_scratch_size(&d));
    for (int r = 0; r < 3; r++) {
        qkv_args args = t->args;
        const qkv_ref_out out = {.o = o, .o_budget = budget};
        offset = (int32_t)(s->Tk - s->Tq + rows[r]);
        args.q = (const char *)t->q + (size_t)rows[r] * (size_t)s->D * size;
        if (qkv_ref_attention(&d, &args, &out, scratch) != QKV_OK)
            exit(2);
        for (int64_t h = 0; h < s->Hq; h++)
            for (int64_t c = 0; c < s->Dv; c++) {
                const int64_t at = (h * s->Tq + rows[r]) * s->Dv + c;
                double got;
                qkv_convert(&got, QKV_F64, (const char *)t->o + (size_t)at * size, s->type, 1);
                worst = fmax(worst, fabs(got - o[h * s->Dv + c]) / budget[h * s->Dv + c]);
            }
    }
    free(o);
    free(budget);
    free(scratch);
    return worst;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef struct machine {
    double fma, read; /* GFLOP/s, GB/s, on all threads */
} machine;

static json_t *measure(const shape *s, const options *opt, const qkv_parallel *workers,
                       const machine *m)
{
    tensors t;
    double *times = need((size_t)opt->repeat * sizeof *times);

    set_up(s, opt, &t);
    qkv_run_parallel(t.plan, &t.args, workers); /* pages touched, caches as a second call finds them */
    for (int r = 0; r < opt->repeat; r++) {
        const double begin = bench_now();
        qkv_run_parallel(t.plan, &t.args, workers);
        times[r] = bench_now() - begin;
    }
    qsort(times, (size_t)opt->repeat, sizeof *times, ascending);
    const double median = times[opt->repeat / 2];
    const double spread = (times[opt->repeat - 1] - times[0]) / median;
    const double flops = 2.0 * (double)qkv_plan_visible_pairs(t.plan) * (s->D + s->Dv);
    const double bytes = (double)s->B * s->Hkv * (double)s->Tk * (double)qkv_type_size(s->type) *
                         (s->Dv < s->D ? s->D : s->D + s->Dv);
    const double gflops = flops / median / 1e9, gbytes = bytes / median / 1e9;
    const double fma = s->type == QKV_F64 ? m->fma / 2 : m->fma; /* half as many lanes */
    const double fraction = fmax(gflops / fma, gbytes / m->read);
    const double error = sampled_error(s, &t);
    printf("%-20s %-5s %10.3f %5.0f%% %9.1f %8.2f %9.0f%% %10.3f\n", s->name,
           qkv_type_name(s->type), median * 1e3, spread * 100, gflops, gbytes, fraction * 100,
           error);
    fflush(stdout);
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "shape", s->name, "type",
        qkv_type_name(s->type), "kernel", qkv_plan_kernel(t.plan), "median_seconds", median,
        "spread", spread, "gflops", gflops, "gbytes_per_second", gbytes, "fraction_of_roof",
        fraction, "error_over_budget", error, "workspace_bytes",
        (json_int_t)t.args.workspace_bytes);
    tear_down(&t);
    free(times);
    return row;
}

static void choose_tier(options *opt)
{
    qkv_tier tier;
    uint32_t mask = 0;

    for (int32_t i = 0; qkv_tier_info(i, &tier) == QKV_OK; i++) {
        mask |= tier.flag;
        const int wanted = opt->tier != NULL && strcmp(tier.name, opt->tier) == 0;
        if (wanted && !tier.available) {
            fprintf(stderr, "bench: --tier %s: %s\n", opt->tier, tier.reason);
            exit(2);
        }
        if (wanted || (opt->tier == NULL && tier.available)) {
            opt->cpu_mask = mask;
            opt->tier_flag = tier.flag;
            if (wanted)
                return;
        }
    }
    if (opt->tier != NULL) {
        fprintf(stderr, "bench: --tier %s: there is no such tier; see `qkv info`\n", opt->tier);
        exit(2);
    }
}

static int number(const char *name, const char *text, int most)
{
    char *end;
    const long n = strtol(text, &end, 10);
    if (*text == 0 || *end != 0 || n < 1 || n > most) {
        fprintf(stderr, "bench: --%s is '%s'; it must be 1 .. %d\n", name, text, most);
        exit(2);
    }
    return (int)n;
}

static options parse(int argc, char **argv)
{
    static const struct option known[] = {{"threads", required_argument, NULL, 't'},
                                          {"shape", required_argument, NULL, 's'},
                                          {"tier", required_argument, NULL, 'c'},
                                          {"repeat", required_argument, NULL, 'r'},
                                          {"json", required_argument, NULL, 'j'},
                                          {NULL, 0, NULL, 0}};
    options opt = {.threads = 1, .repeat = 9};
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
        switch (c) {
        case 't':
            opt.threads = number("threads", optarg, 1024);
            break;
        case 'r':
            opt.repeat = number("repeat", optarg, 1000);
            break;
        case 's':
            opt.filter = optarg;
            break;
        case 'c':
            opt.tier = optarg;
            break;
        case 'j':
            opt.json = optarg;
            break;
        default:
            exit(2);
        }
    if (optind < argc) {
        fprintf(stderr, "bench: '%s' is no option; see the head of bench/bench.c\n", argv[optind]);
        exit(2);
    }
    choose_tier(&opt);
    return opt;
}

int main(int argc, char **argv)
{
    const options opt = parse(argc, argv);
    const size_t floats = (size_t)1 << 28; /* 1 GiB */
    char cpu[128];
    qkv_pool *pool;

    if (qkv_pool_create(opt.threads, NULL, &pool) != QKV_OK) {
        fprintf(stderr, "bench: %d threads could not be started\n", (int)opt.threads);
        return 2;
    }
    const qkv_parallel workers = qkv_pool_parallel(pool);
    float *memory = need(floats * sizeof *memory);
    for (size_t i = 0; i < floats; i++)
        memory[i] = 1;
    const machine m = {ceiling_fma(opt.tier_flag, &workers),
                       ceiling_read(opt.tier_flag, memory, floats, &workers)};
    free(memory);
    printf("qkv %s, %s, %d thread%s; ceilings: f32 multiply-add %.0f GFLOP/s, read %.1f GB/s\n",
           qkv_version_string(), qkv_cpu_name(cpu, sizeof cpu), (int)opt.threads,
           opt.threads == 1 ? "" : "s", m.fma, m.read);
    printf("%-20s %-5s %10s %6s %9s %8s %10s %10s\n", "shape", "type", "median ms", "spread",
           "GFLOP/s", "GB/s", "of roof", "err/budget");
    json_t *rows = json_array();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (opt.filter == NULL || strstr(shapes[i].name, opt.filter))
            json_array_append_new(rows, measure(&shapes[i], &opt, &workers, &m));
    json_t *all = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:o}", "version", qkv_version_string(),
                            "cpu", cpu, "compiler", __VERSION__, "threads", (int)opt.threads,
                            "fma_gflops", m.fma, "read_gbytes_per_second", m.read, "rows", rows);
    const int failed =
        opt.json && json_dump_file(all, opt.json, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) != 0;
    if (failed)
        fprintf(stderr, "bench: %s could not be written\n", opt.json);
    json_decref(all);
    qkv_pool_destroy(pool);
    return failed ? 2 : 0;
}
