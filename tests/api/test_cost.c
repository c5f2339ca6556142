/* test_cost.c - a run allocates nothing and needs little stack; the pool reports its failures. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "t_problem.h"

/* ---- malloc, counted ---- */

/* glibc's own entry points: this program's malloc stands before the library's. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 1
static atomic_int allocations;
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void __libc_free(void *memory);
void *malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(n, bytes);
}
void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, bytes);
}
void free(void *memory) { __libc_free(memory); }
#else
#define COUNTS_MALLOC 0
static int allocations;
#endif

/* A plan, its arguments and workspaces for a problem. */
typedef struct ready {
    const qkv_plan *plan;
    qkv_args args;
} ready;

static ready get_ready(const t_problem *p, int32_t workers)
{
    ready r = {NULL, p->args};
    const size_t bytes = qkv_plan_size(&p->desc);
    t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &p->desc, &r.plan) == QKV_OK,
            "no plan; %s", t_problem_text(p));
    r.args.workspace_bytes = qkv_workspace_size(r.plan, workers);
    r.args.workspace = t_alloc(r.args.workspace_bytes, 64, T_END, 0xff);
    return r;
}

void test_no_malloc(void)
{
    t_limits limits = t_limits_all();
    t_problem p;

    limits.max_work = 50000;
    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        void *probe = malloc(10);
        t_check(!COUNTS_MALLOC || allocations > 0, "malloc is not counted");
        free(probe);
        t_problem_make(&p, t_seed() * 89 + (uint64_t)i, &limits);
        qkv_pool *pool = NULL;
        t_check(qkv_pool_create(3, NULL, &pool) == QKV_OK, "no pool");
        const qkv_parallel parallel = qkv_pool_parallel(pool);
        const ready r = get_ready(&p, 3);
        const int before = allocations;
        qkv_explain(&p.desc, NULL, 0);
        qkv_plan_size(&p.desc);
        qkv_args_check(r.plan, &r.args, 3, NULL, 0);
        qkv_run(r.plan, &r.args);
        qkv_run_parallel(r.plan, &r.args, &parallel);
        t_check(allocations == before, "%d allocations; %s", allocations - before,
                t_problem_text(&p));
        qkv_pool_destroy(pool);
    }
}

/* ---- stack ---- */

enum { STACK_BYTES = 256 * 1024, STACK_LIMIT = 16 * 1024, PAINT = 0x5c };

static void *run_once(void *arg)
{
    const ready *r = arg;
    qkv_run(r->plan, &r->args);
    return NULL;
}

static void *run_nothing(void *arg) { return arg; }

/* Bytes of a painted stack that fn changed. */
static size_t stack_used(void *(*fn)(void *), void *arg)
{
    unsigned char *stack = t_alloc(STACK_BYTES, 4096, T_START, PAINT);
    pthread_attr_t attributes;
    pthread_t thread;
    size_t untouched = 0;

    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK_BYTES);
    if (pthread_create(&thread, &attributes, fn, arg) == 0)
        pthread_join(thread, NULL);
    else
        t_fail("no thread");
    pthread_attr_destroy(&attributes);
    while (untouched < STACK_BYTES && stack[untouched] == PAINT)
        untouched++;
    return STACK_BYTES - untouched;
}

void test_stack(void)
{
    t_limits limits = t_limits_all();
    t_problem p;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return; /* their frames are larger, and they paint too */
#endif
    limits.max_work = 50000;
    limits.max_dim = 1024;
    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_make(&p, t_seed() * 97 + (uint64_t)i, &limits);
        ready r = get_ready(&p, 1);
        const size_t thread = stack_used(run_nothing, NULL), all = stack_used(run_once, &r);
        t_check(all - thread < STACK_LIMIT, "%zu bytes of stack; %s", all - thread,
                t_problem_text(&p));
    }
}

/* ---- the pool ---- */

typedef struct counting {
    int calls, live, fail_at;
} counting;

static void *counting_alloc(void *ctx, size_t bytes)
{
    counting *c = ctx;
    if (c->calls++ == c->fail_at)
        return NULL;
    c->live++;
    return malloc(bytes);
}

static void counting_free(void *ctx, void *memory)
{
    counting *c = ctx;
    c->live -= memory != NULL;
    free(memory);
}

typedef struct tally {
    atomic_int count[1000];
    atomic_int busy[8];
    atomic_int bad_worker;
    int n_workers;
} tally;

static void count_one(void *arg, int64_t i, int32_t worker)
{
    tally *t = arg;
    if (worker < 0 || worker >= t->n_workers || atomic_exchange(&t->busy[worker], 1))
        atomic_store(&t->bad_worker, 1);
    else
        atomic_store(&t->busy[worker], 0);
    atomic_fetch_add(&t->count[i], 1);
}

static void check_loop(const qkv_parallel *parallel, int64_t n)
{
    tally *t = t_scratch(sizeof *t);
    memset(t, 0, sizeof *t);
    t->n_workers = parallel->n_workers;
    parallel->parallel_for(parallel->ctx, n, count_one, t);
    for (int64_t i = 0; i < 1000; i++)
        t_check(t->count[i] == (i < n), "index %lld ran %d times of %lld", (long long)i,
                t->count[i], (long long)n);
    t_check(!t->bad_worker, "a worker number was out of range or used twice at a time");
}

static void *loop_often(void *arg)
{
    for (int i = 0; i < 50; i++)
        check_loop(arg, 100);
    return NULL;
}

static void count_loops(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int32_t worker),
                        void *arg)
{
    ++*(int *)ctx;
    for (int64_t i = 0; i < n; i++)
        fn(arg, i, (int32_t)(i % 2));
}

/* How many loops a head of so many queries and keys asks for, all of them zeros. */
static int loops_of(int32_t q_len, int32_t kv_len)
{
    enum { D = 64 };
    int loops = 0;
    const qkv_parallel parallel = {2, count_loops, &loops};
    qkv_desc d;
    qkv_args a;

    qkv_desc_init(&d);
    qkv_args_init(&a);
    d.n_seqs = d.n_q_heads = d.n_kv_heads = 1;
    d.q_len = q_len;
    d.kv_len = kv_len;
    d.head_dim = d.head_dim_v = D;
    qkv_desc_dense(&d, QKV_F32, QKV_BHTD);
    a.q = t_alloc(sizeof(float) * D * (size_t)q_len, 64, T_END, 0);
    a.o = t_alloc(sizeof(float) * D * (size_t)q_len, 64, T_END, 0);
    a.k = a.v = t_alloc(sizeof(float) * D * (size_t)kv_len, 64, T_END, 0);
    a.workspace_bytes = qkv_attention_workspace_size(&d, 2);
    a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0xff);
    t_check(qkv_attention(&d, &a, &parallel) == QKV_OK, "refused");
    return loops;
}

void test_pool(void)
{
    qkv_pool *pool = NULL;

    if (t_case("small runs stay on the calling thread")) {
        t_check(loops_of(1, 16) == 0, "16 keys were spread over threads");
        t_check(loops_of(256, 256) == 1, "256 queries of 256 keys were not");
        t_check(loops_of(1, 65536) == 1, "65,536 keys were not, or their joining was");
    }

    for (int32_t n = 1; n <= 8; n++)
        if (t_case("%d workers", n)) {
            t_check(qkv_pool_create(n, NULL, &pool) == QKV_OK, "not created");
            const qkv_parallel parallel = qkv_pool_parallel(pool);
            t_check(parallel.n_workers == n, "it says %d", parallel.n_workers);
            for (int64_t i = 0; i < 20; i++)
                check_loop(&parallel, i * i);
            check_loop(&parallel, 1000);
            qkv_pool_destroy(pool);
        }
    if (t_case("two callers")) {
        pthread_t thread;
        qkv_pool_create(3, NULL, &pool);
        qkv_parallel parallel = qkv_pool_parallel(pool);
        tally *mine = t_scratch(sizeof *mine);
        pthread_create(&thread, NULL, loop_often, &parallel);
        for (int i = 0; i < 50; i++) {
            memset(mine, 0, sizeof *mine);
            mine->n_workers = 3;
            parallel.parallel_for(parallel.ctx, 100, count_one, mine);
            for (int n = 0; n < 100; n++)
                t_check(mine->count[n] == 1, "index %d ran %d times", n, mine->count[n]);
        }
        pthread_join(thread, NULL);
        qkv_pool_destroy(pool);
    }
    if (t_case("refusals")) {
        pool = (qkv_pool *)(void *)&pool;
        t_check(qkv_pool_create(0, NULL, &pool) == QKV_ERR_ARGUMENT && !pool, "0 workers");
        t_check(qkv_pool_create(1025, NULL, &pool) == QKV_ERR_ARGUMENT, "1,025 workers");
        t_check(qkv_pool_create(2, NULL, NULL) == QKV_ERR_ARGUMENT, "NULL pool");
        qkv_pool_destroy(NULL);
    }
    if (t_case("allocation failures")) {
        counting c = {0, 0, -1};
        const qkv_allocator allocator = {counting_alloc, counting_free, &c};
        t_check(qkv_pool_create(3, &allocator, &pool) == QKV_OK && c.live > 0, "not created");
        const int n = c.calls;
        qkv_pool_destroy(pool);
        t_check(c.live == 0, "%d blocks were not freed", c.live);
        for (int i = 0; i < n; i++) {
            c = (counting){0, 0, i};
            t_check(qkv_pool_create(3, &allocator, &pool) == QKV_ERR_MEMORY && !pool,
                    "allocation %d failed and nobody noticed", i);
            t_check(c.live == 0, "%d blocks were not freed", c.live);
        }
    }
}
