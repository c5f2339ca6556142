/*
 * decode_threads.c - one decoding step over a batch of caches, spread over threads four ways.
 *
 * Each of B sequences has one new token (its query) and a cache of kv_lens[b] tokens in an
 * array of room for T: grouped-query attention, 8 query heads on 2 key/value heads.  One plan
 * serves the step; it runs
 *     1. on this thread                        qkv_run
 *     2. on the library's pool                 qkv_run_parallel with qkv_pool_parallel
 *     3. on this program's own parallel loop   qkv_run_parallel with a qkv_parallel
 *     4. as tasks a program spreads itself     qkv_run_task
 * and the four results must have the same bits.  They are also compared with the formula.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qkv/attention.h>

enum { B = 3, HQ = 8, HKV = 2, T = 1500, D = 64, WORKERS = 4 };
static const int32_t kv_lens[B] = {1500, 1, 777};
static float q[B][HQ][1][D], k[B][HKV][T][D], v[B][HKV][T][D];
static float o[4][B][HQ][1][D];

/* ---- this program's own parallel loop --------------------------------------------------- */

/* A loop that WORKERS threads eat from. */
struct loop {
    atomic_llong next;
    int64_t n;
    void (*fn)(void *arg, int64_t i, int32_t worker);
    void *arg;
};

struct worker {
    struct loop *loop;
    int32_t number;
};

static void *work(void *arg)
{
    const struct worker *self = arg;
    struct loop *loop = self->loop;
    for (int64_t i; (i = atomic_fetch_add(&loop->next, 1)) < loop->n;)
        loop->fn(loop->arg, i, self->number);
    return NULL;
}

/* Starts threads for each loop, to be short; a real engine hands the loop to threads it has. */
static void own_parallel_for(void *ctx, int64_t n,
                             void (*fn)(void *arg, int64_t i, int32_t worker), void *arg)
{
    (void)ctx;
    struct loop loop = {.n = n, .fn = fn, .arg = arg};
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    int32_t started = 0;
    for (int32_t w = 1; w < WORKERS; w++) {
        workers[w] = (struct worker){&loop, w};
        if (pthread_create(&threads[started], NULL, work, &workers[w]) == 0)
            started++;
    }
    workers[0] = (struct worker){&loop, 0};
    work(&workers[0]);
    for (int32_t t = 0; t < started; t++)
        pthread_join(threads[t], NULL);
}

/* ---- tasks ------------------------------------------------------------------------------ */

struct phase {
    const qkv_plan *plan;
    const qkv_args *args;
    int32_t number;
};

static void run_one_task(void *arg, int64_t task, int32_t worker)
{
    const struct phase *phase = arg;
    qkv_run_task(phase->plan, phase->args, phase->number, task, worker);
}

/* Tasks of a phase are independent; the loop returns when the phase is done. */
static void run_tasks(const qkv_plan *plan, const qkv_args *args)
{
    for (int32_t p = 0; p < qkv_n_phases(plan); p++) {
        struct phase phase = {plan, args, p};
        own_parallel_for(NULL, qkv_n_tasks(plan, p), run_one_task, &phase);
    }
}

/* ---- the problem ------------------------------------------------------------------------ */

static void fill(float *x, size_t n, float step)
{
    for (size_t i = 0; i < n; i++)
        x[i] = sinf(step * (float)i);
}

/* Cache slots past a sequence's length hold NaN: they must not matter. */
static void make_tensors(void)
{
    fill(&q[0][0][0][0], sizeof q / sizeof(float), 0.37f);
    fill(&k[0][0][0][0], sizeof k / sizeof(float), 1.71f);
    fill(&v[0][0][0][0], sizeof v / sizeof(float), 2.93f);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < HKV; h++)
            for (int j = kv_lens[b]; j < T; j++)
                for (int c = 0; c < D; c++)
                    k[b][h][j][c] = v[b][h][j][c] = NAN;
}

static int count_wrong(void)
{
    int wrong = 0;
    for (int b = 0; b < B; b++)
        for (int h = 0; h < HQ; h++) {
            const int g = h / (HQ / HKV);
            double sum = 0, out[D] = {0};
            for (int j = 0; j < kv_lens[b]; j++) {
                double s = 0;
                for (int c = 0; c < D; c++)
                    s += (double)q[b][h][0][c] * k[b][g][j][c];
                const double w = exp(s / sqrt(D));
                sum += w;
                for (int c = 0; c < D; c++)
                    out[c] += w * v[b][g][j][c];
            }
            for (int c = 0; c < D; c++)
                wrong += !(fabs(o[0][b][h][0][c] - out[c] / sum) <= 1e-5);
        }
    return wrong;
}

static const qkv_plan *make_plan(void **memory)
{
    qkv_desc desc;
    qkv_desc_init(&desc);
    desc.n_seqs = B;
    desc.n_q_heads = HQ;
    desc.n_kv_heads = HKV;
    desc.head_dim = desc.head_dim_v = D;
    desc.q_len = 1;
    desc.kv_len = T;
    desc.kv_lens = kv_lens;
    desc.causal = QKV_CAUSAL_INCLUSIVE; /* bottom-right: the new token is the last of its cache */
    qkv_desc_dense(&desc, QKV_F32, QKV_BHTD);

    const qkv_plan *plan = NULL;
    const size_t bytes = qkv_plan_size(&desc);
    *memory = malloc(bytes + 1);
    if (*memory == NULL || qkv_plan_init(*memory, bytes, &desc, &plan) != QKV_OK) {
        char why[256];
        qkv_explain(&desc, why, sizeof why);
        fprintf(stderr, "no plan: %s\n", why);
    }
    return plan;
}

int main(void)
{
    make_tensors();
    void *memory;
    const qkv_plan *plan = make_plan(&memory);
    qkv_pool *pool;
    if (plan == NULL || qkv_pool_create(WORKERS, NULL, &pool) != QKV_OK)
        return 1;

    qkv_args args;
    qkv_args_init(&args);
    args.q = q;
    args.k = k;
    args.v = v;
    args.workspace_bytes = (qkv_workspace_size(plan, WORKERS) + 63) / 64 * 64;
    args.workspace = aligned_alloc(64, args.workspace_bytes);

    args.o = o[0];
    qkv_run(plan, &args);

    args.o = o[1];
    const qkv_parallel pooled = qkv_pool_parallel(pool);
    qkv_run_parallel(plan, &args, &pooled);

    args.o = o[2];
    const qkv_parallel own = {WORKERS, own_parallel_for, NULL};
    qkv_run_parallel(plan, &args, &own);

    args.o = o[3];
    run_tasks(plan, &args);

    int differ = 0;
    for (int n = 1; n < 4; n++)
        differ += memcmp(o[0], o[n], sizeof o[0]) != 0;
    const int wrong = count_wrong();
    printf("%s: %d phases, %lld tasks in the first, workspace %zu bytes for %d workers: "
           "%d wrong, %d of 3 threaded results differ\n",
           qkv_plan_kernel(plan), qkv_n_phases(plan), (long long)qkv_n_tasks(plan, 0),
           args.workspace_bytes, WORKERS, wrong, differ);

    qkv_pool_destroy(pool);
    free(args.workspace);
    free(memory);
    return wrong > 0 || differ > 0;
}
