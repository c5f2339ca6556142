/*
 * core/pool.c - threads that wait to be given loops.
 *
 *     parallel_for          workers
 *     open the loop         asleep on `wake`
 *     take indices  <---->  join it, take indices      one shared counter
 *     close the loop
 *     wait for `done`       the last that joined signals
 *
 * Indices are handed out one at a time by an atomic counter: tasks of attention differ in length
 * (causal blocks), so equal shares would leave workers idle.  Workers sleep between loops and
 * never spin: a spinning pool beside another runtime's (PyTorch's OpenMP) halves both.
 *
 * So a worker takes some microseconds to wake, tens on a virtual machine.  Only those that joined in
 * time are waited for: one that wakes when all indices are taken finds the loop closed and sleeps
 * again.  When every worker was waited for, two threads took 0.18 ms for a decode step that one
 * does in 0.13.
 */
#include <pthread.h>
#if !defined(__wasi__)
#include <signal.h>
#endif
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/base.h"

enum { MAX_WORKERS = 1024 };

typedef struct worker {
    struct qkv_pool *pool;
    pthread_t thread;
    int32_t index;
} worker;

typedef struct loop {
    int64_t n;
    void (*fn)(void *arg, int64_t i, int32_t worker);
    void *arg;
} loop;

struct qkv_pool {
    qkv_allocator allocator;
    int32_t n_workers; /* with the caller, who is worker 0 */
    int32_t n_started;
    pthread_mutex_t busy; /* held by the caller whose loop runs */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake, done;
    uint64_t generation; /* counts loops, so that a worker joins each once */
    int open;            /* the current loop may be joined */
    int32_t joined;      /* workers that are in it */
    int stop;
    loop current;
    _Atomic int64_t next;
    worker workers[]; /* n_workers - 1 */
};

static void *default_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    return malloc(bytes);
}

static void default_free(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

static void take_indices(qkv_pool *pool, const loop *l, int32_t index)
{
    for (;;) {
        const int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= l->n)
            return;
        l->fn(l->arg, i, index);
    }
}

static void *worker_main(void *arg)
{
    const worker *self = arg;
    qkv_pool *pool = self->pool;
    uint64_t seen = 0;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stop && (!pool->open || pool->generation == seen))
            pthread_cond_wait(&pool->wake, &pool->lock);
        if (pool->stop)
            break;
        seen = pool->generation;
        pool->joined++;
        const loop l = pool->current;
        pthread_mutex_unlock(&pool->lock);
        take_indices(pool, &l, self->index);
        pthread_mutex_lock(&pool->lock);
        if (--pool->joined == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void run_alone(const loop *l)
{
    for (int64_t i = 0; i < l->n; i++)
        l->fn(l->arg, i, 0);
}

/* Calls as many workers as there are indices beside the caller's first. */
static void wake_workers(qkv_pool *pool, int64_t n)
{
    if (n - 1 >= pool->n_workers - 1) {
        pthread_cond_broadcast(&pool->wake);
        return;
    }
    for (int64_t i = 1; i < n; i++)
        pthread_cond_signal(&pool->wake);
}

static void pool_for(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int32_t worker),
                     void *arg)
{
    qkv_pool *pool = ctx;
    const loop l = {n, fn, arg};

    if (n <= 1 || pool->n_workers == 1 || pthread_mutex_trylock(&pool->busy) != 0) {
        run_alone(&l);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->current = l;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = 1;
    pool->generation++;
    wake_workers(pool, n);
    pthread_mutex_unlock(&pool->lock);

    take_indices(pool, &l, 0);

    pthread_mutex_lock(&pool->lock);
    pool->open = 0;
    while (pool->joined > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->busy);
}

/* Signals belong to the program's own threads, so workers are born with all of them blocked. */
static int start_workers(qkv_pool *pool)
{
    int failed = 0;

#if !defined(__wasi__) /* where there are no signals, and no thread starts */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    while (!failed && pool->n_started < pool->n_workers - 1) {
        worker *w = &pool->workers[pool->n_started];
        w->pool = pool;
        w->index = pool->n_started + 1;
        failed = pthread_create(&w->thread, NULL, worker_main, w);
        pool->n_started += !failed;
    }
#if !defined(__wasi__)
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
    return failed;
}

qkv_status qkv_pool_create(int32_t n_workers, const qkv_allocator *allocator, qkv_pool **out)
{
    const qkv_allocator standard = {default_alloc, default_free, NULL};
    const qkv_allocator a = allocator ? *allocator : standard;

    if (!out)
        return QKV_ERR_ARGUMENT;
    *out = NULL;
    if (n_workers < 1 || n_workers > MAX_WORKERS || !a.alloc || !a.free)
        return QKV_ERR_ARGUMENT;
    const size_t bytes = sizeof(qkv_pool) + (size_t)(n_workers - 1) * sizeof(worker);
    qkv_pool *pool = a.alloc(a.ctx, bytes);
    if (!pool)
        return QKV_ERR_MEMORY;
    memset(pool, 0, bytes);
    pool->allocator = a;
    pool->n_workers = n_workers;
    pthread_mutex_init(&pool->busy, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    if (start_workers(pool)) {
        qkv_pool_destroy(pool);
        return QKV_ERR_SYSTEM;
    }
    *out = pool;
    return QKV_OK;
}

void qkv_pool_destroy(qkv_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->busy);
    const qkv_allocator a = pool->allocator;
    a.free(a.ctx, pool);
}

qkv_parallel qkv_pool_parallel(qkv_pool *pool)
{
    const qkv_parallel parallel = {pool->n_workers, pool_for, pool};
    return parallel;
}
