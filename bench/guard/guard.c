/*
 * guard.c - two builds of libqkv in one process, in turns on the same arrays.
 *
 *     guard BASE.so NEW.so [--threads N] [--rounds N] [--case SUBSTRING] [--new-cpu-mask N]
 *
 * A clock alone says nothing on a machine that others use too; here the two run A B, B A, A B,
 * each turn a few hundredths of a second, so both meet the same moments.  Inputs, output and
 * workspace are the same memory for both: addresses decide about caches, and would be a difference
 * that is not the libraries'.
 *
 * Prints one JSON object a line for each case, which judge.py reads:
 *     {"case", "threads", "base_kernel", "new_kernel", "base": [seconds], "new": [seconds]}
 *     {"case", "threads", "refused": "which library, and its sentence"}
 * Exit status 0, or 2 if something is wrong with the arguments or a library.  --new-cpu-mask keeps
 * the new library to those tiers: a way to see that a slow one is found.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "library.h"

typedef struct shape {
    const char *name;
    qkv_type type;
    int32_t B, Hq, Hkv;
    int64_t Tq, Tk;
    int32_t D, Dv, causal;
} shape;

/* One of each kind, small enough that a round of all takes about a second. */
static const shape shapes[] = {
    {"prefill-f32-d128", QKV_F32, 1, 2, 2, 1024, 1024, 128, 128, 0},
    {"prefill-f32-d64-causal", QKV_F32, 1, 4, 4, 1024, 1024, 64, 64, 1},
    {"prefill-f32-d80", QKV_F32, 1, 2, 2, 1021, 1021, 80, 80, 0},
    {"prefill-bf16-d128", QKV_BF16, 1, 2, 2, 1024, 1024, 128, 128, 0},
    {"prefill-f16-d128-causal", QKV_F16, 1, 2, 2, 1024, 1024, 128, 128, 1},
    {"short-f32-d64", QKV_F32, 8, 8, 8, 64, 64, 64, 64, 1},
    {"decode-f32", QKV_F32, 1, 32, 8, 1, 8192, 128, 128, 0},
    {"decode-bf16", QKV_BF16, 2, 32, 8, 1, 8192, 128, 128, 0},
    {"decode-f16", QKV_F16, 2, 32, 8, 1, 8192, 128, 128, 0},
    {"decode-4-tokens", QKV_F32, 1, 32, 8, 4, 4096, 128, 128, 1},
    {"latent-decode-bf16", QKV_BF16, 1, 128, 1, 1, 2048, 576, 512, 0},
};

typedef struct options {
    const char *filter;
    int32_t threads;
    int rounds;
    uint32_t new_cpu_mask;
} options;

/* A library's plan for a shape. */
typedef struct side {
    const library *lib;
    void *memory;
    const qkv_plan *plan;
    qkv_args args;
} side;

enum { TURN_MS = 20, MOST_RUNS = 200, MOST_ROUNDS = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == NULL) {
        fprintf(stderr, "guard: %zu bytes could not be allocated\n", bytes);
        exit(2);
    }
    return p;
}

/* Numbers of unit variance (a sum of four uniform ones), never zeros. */
static void *random_tensor(const library *lib, qkv_type type, int64_t n, uint64_t seed)
{
    float *x = need((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = 0;
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            x[i] += (float)((double)(seed >> 11) * 0x1p-53 - 0.5) * 1.7320508f;
        }
    }
    void *p = need((size_t)n * 4);
    lib->convert(p, type, x, QKV_F32, (size_t)n);
    free(x);
    return p;
}

/* ---- one library's part ------------------------------------------------------------------ */

static void describe(const library *lib, const shape *s, uint32_t cpu_mask, qkv_desc *d)
{
    lib->desc_init_sized(d, sizeof *d);
    d->cpu_mask = cpu_mask;
    d->n_seqs = s->B;
    d->n_q_heads = s->Hq;
    d->n_kv_heads = s->Hkv;
    d->q_len = s->Tq;
    d->kv_len = s->Tk;
    d->head_dim = s->D;
    d->head_dim_v = s->Dv;
    d->causal = s->causal;
    lib->desc_dense(d, s->type, QKV_BHTD);
    if (s->Dv < s->D)
        d->v = d->k;
}

/* Returns 0, or -1 with the library's sentence in why. */
static int make_plan(side *a, const shape *s, uint32_t cpu_mask, char *why, size_t bytes)
{
    qkv_desc desc;

    describe(a->lib, s, cpu_mask, &desc);
    if (a->lib->explain(&desc, why, bytes) != QKV_OK)
        return -1;
    const size_t size = a->lib->plan_size(&desc);
    a->memory = need(size);
    return a->lib->plan_init(a->memory, size, &desc, &a->plan) == QKV_OK ? 0 : -1;
}

static void run(const side *a)
{
    a->lib->run_parallel(a->plan, &a->args, &a->lib->loop);
}

/* Seconds of the shortest of `runs` runs, after one that brings caches and threads back: whatever
 * else the machine does in between only adds. */
static double turn(const side *a, int runs)
{
    double best = 1e9;

    run(a);
    for (int i = 0; i < runs; i++) {
        const double begin = now();
        run(a);
        const double spent = now() - begin;
        best = spent < best ? spent : best;
    }
    return best;
}

/* ---- a case ------------------------------------------------------------------------------ */

static void print_times(const char *name, const double *times, int n)
{
    printf(", \"%s\": [", name);
    for (int i = 0; i < n; i++)
        printf("%s%.9g", i ? ", " : "", times[i]);
    putchar(']');
}

static void play(const shape *s, const side *base, const side *new, const options *opt)
{
    static double times[2][MOST_ROUNDS];

    const double once = turn(base, 1);
    int runs = (int)(TURN_MS * 1e-3 / (once > 1e-7 ? once : 1e-7));
    runs = runs < 1 ? 1 : runs > MOST_RUNS ? MOST_RUNS : runs;
    turn(new, runs);
    for (int r = 0; r < opt->rounds; r++)
        for (int i = 0; i < 2; i++) {
            const int which = (r + i) % 2; /* A B, then B A */
            times[which][r] = turn(which ? new : base, runs);
        }
    printf("{\"case\": \"%s\", \"threads\": %d", s->name, (int)opt->threads);
    printf(", \"base_kernel\": \"%s\", \"new_kernel\": \"%s\"", base->lib->plan_kernel(base->plan),
           new->lib->plan_kernel(new->plan));
    print_times("base", times[0], opt->rounds);
    print_times("new", times[1], opt->rounds);
    puts("}");
    fflush(stdout);
}

/* Tensors that both sides share. */
static void give_memory(side *sides[2], const shape *s, int32_t threads)
{
    const library *lib = sides[0]->lib;
    const int64_t kv = (int64_t)s->B * s->Hkv * s->Tk;
    qkv_args args;
    size_t bytes = 64;

    lib->args_init_sized(&args, sizeof args);
    args.q = random_tensor(lib, s->type, s->B * s->Hq * s->Tq * s->D, 1);
    args.k = random_tensor(lib, s->type, kv * s->D, 2);
    args.v = s->Dv < s->D ? args.k : random_tensor(lib, s->type, kv * s->Dv, 3);
    args.o = need((size_t)(s->B * s->Hq * s->Tq * s->Dv) * 4);
    for (int i = 0; i < 2; i++) {
        const size_t own = sides[i]->lib->workspace_size(sides[i]->plan, threads);
        bytes = own > bytes ? own : bytes;
    }
    args.workspace = need(bytes);
    args.workspace_bytes = bytes;
    sides[0]->args = sides[1]->args = args;
}

static void free_memory(const side *a)
{
    if (a->args.v != a->args.k)
        free((void *)(uintptr_t)a->args.v);
    free((void *)(uintptr_t)a->args.q);
    free((void *)(uintptr_t)a->args.k);
    free(a->args.o);
    free(a->args.workspace);
}

static void compare(const shape *s, const library *libs, const options *opt)
{
    side base = {.lib = &libs[0]}, new = {.lib = &libs[1]};
    side *sides[2] = {&base, &new};
    char why[256];

    for (int i = 0; i < 2; i++)
        if (make_plan(sides[i], s, i ? opt->new_cpu_mask : QKV_CPU_ALL, why, sizeof why) != 0) {
            for (char *c = why; *c; c++)
                *c = *c == '"' || *c == '\\' ? '\'' : *c;
            printf("{\"case\": \"%s\", \"threads\": %d, \"refused\": \"%s: %s\"}\n", s->name,
                   (int)opt->threads, i ? "new" : "base", why);
            free(base.memory);
            return;
        }
    give_memory(sides, s, opt->threads);
    play(s, &base, &new, opt);
    free_memory(&base);
    free(base.memory);
    free(new.memory);
}

/* ---- the command ------------------------------------------------------------------------- */

static int usage(void)
{
    fprintf(stderr, "usage: guard BASE.so NEW.so [--threads 1..1024] [--rounds 1..%d] "
                    "[--case SUBSTRING] [--new-cpu-mask N]\n", MOST_ROUNDS);
    return 2;
}

/* The whole text as a number within bounds, or -1. */
static long number(const char *text, long least, long most)
{
    char *end;
    const long n = strtol(text, &end, 0);
    return *text == 0 || *end != 0 || n < least || n > most ? -1 : n;
}

static int read_options(int argc, char **argv, options *opt)
{
    static const struct option known[] = {{"threads", 1, NULL, 't'}, {"rounds", 1, NULL, 'r'},
                                          {"case", 1, NULL, 'c'}, {"new-cpu-mask", 1, NULL, 'm'},
                                          {NULL, 0, NULL, 0}};
    long n = 0;

    for (int c; n >= 0 && (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 't')
            opt->threads = (int32_t)(n = number(optarg, 1, 1024));
        else if (c == 'r')
            opt->rounds = (int)(n = number(optarg, 1, MOST_ROUNDS));
        else if (c == 'm')
            opt->new_cpu_mask = (uint32_t)(n = number(optarg, 0, QKV_CPU_ALL));
        else if (c == 'c')
            opt->filter = optarg;
        else
            n = -1;
    }
    return n < 0 || argc - optind != 2 ? -1 : 0;
}

int main(int argc, char **argv)
{
    options opt = {.threads = 1, .rounds = 31, .new_cpu_mask = QKV_CPU_ALL};
    library libs[2];
    int measured = 0;

    if (read_options(argc, argv, &opt) != 0)
        return usage();
    for (int i = 0; i < 2; i++)
        if (library_open(&libs[i], argv[optind + i], opt.threads) != 0)
            return 2;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (opt.filter == NULL || strstr(shapes[i].name, opt.filter) != NULL) {
            compare(&shapes[i], libs, &opt);
            measured++;
        }
    for (int i = 0; i < 2; i++)
        library_close(&libs[i]);
    if (measured == 0)
        fprintf(stderr, "guard: no case has '%s' in its name\n", opt.filter);
    return measured ? 0 : 2;
}
