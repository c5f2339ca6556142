/*
 * threads.c - several threads, each with its own sequences, in one cache.
 *
 * Every thread forks a common prefix, appends, reads back, truncates and releases.  What it reads
 * must be what it wrote, and the prefix must stay.  One more attends the prefix all the while and
 * must get the same bits each time.  The race detector watches the rest.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { THREADS = 4, HEADS = 2, D = 8, PREFIX = 37, LAYERS = 2 };

typedef struct job {
    qkv_cache *cache;
    int32_t prefix;
    int index, rounds;
    atomic_int *errors, *full;
} job;

static float number(int who, int64_t token, int layer, int head, int c, int side)
{
    return (float)((((who * 131 + token) * 7 + layer) * 5 + head) * 3 + side) + (float)c / 16;
}

static int put(qkv_cache *cache, int32_t seq, int who, int64_t from, int64_t count)
{
    float k[64 * HEADS * D], v[64 * HEADS * D];
    qkv_cache_rows r;

    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.k = k;
    r.v = v;
    r.k_stride[1] = r.v_stride[1] = D;
    r.k_stride[2] = r.v_stride[2] = HEADS * D;
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int64_t t = 0; t < count; t++)
            for (int h = 0; h < HEADS; h++)
                for (int c = 0; c < D; c++) {
                    k[(t * HEADS + h) * D + c] = number(who, from + t, layer, h, c, 0);
                    v[(t * HEADS + h) * D + c] = number(who, from + t, layer, h, c, 1);
                }
        if (qkv_cache_write(cache, layer, &r, NULL, 0) != QKV_OK)
            return 0;
    }
    return 1;
}

/* Tokens from .. to-1 as they were written by `who`. */
static int check(qkv_cache *cache, int32_t seq, int who, int64_t from, int64_t to)
{
    float k[HEADS * D], v[HEADS * D];
    const int64_t stride[2] = {D, HEADS * D};

    for (int layer = 0; layer < LAYERS; layer++)
        for (int64_t t = from; t < to; t++) {
            if (qkv_cache_read(cache, layer, seq, t, 1, QKV_F32, k, stride, v, stride, NULL, 0) !=
                QKV_OK)
                return 0;
            for (int h = 0; h < HEADS; h++)
                for (int c = 0; c < D; c++)
                    if (k[h * D + c] != number(who, t, layer, h, c, 0) ||
                        v[h * D + c] != number(who, t, layer, h, c, 1))
                        return 0;
        }
    return 1;
}

/* The view's first table entry must name the prefix's page as long as nothing was written to it. */
static int check_view(qkv_cache *cache, int32_t seq, int64_t length)
{
    _Alignas(8) unsigned char mem[4096];
    const qkv_cache_view *view;
    qkv_cache_select select;
    qkv_desc d;
    qkv_args a;

    qkv_cache_select_init(&select);
    select.seqs = &seq;
    if (qkv_cache_view_init(mem, sizeof mem, cache, &select, &view, NULL, 0) != QKV_OK)
        return 0;
    qkv_desc_init(&d);
    qkv_args_init(&a);
    return qkv_cache_view_desc(view, 0, &d) == QKV_OK &&
           qkv_cache_view_args(view, 0, 1, &a) == QKV_OK && d.kv_len == length && a.k && a.v &&
           a.block_table;
}

static void one_round(job *j, t_rng *rng)
{
    const int32_t count = (int32_t)t_between(rng, 1, 40);
    qkv_cache_stats stats;
    int32_t seq = 0, other = 0;
    int ok = 1;

    if (qkv_cache_fork(j->cache, j->prefix, &seq, NULL, 0) != QKV_OK) {
        atomic_fetch_add(j->full, 1);
        return;
    }
    if (qkv_cache_reserve(j->cache, 1, &seq, &count, NULL, 0) == QKV_OK) {
        ok &= put(j->cache, seq, j->index + 1, PREFIX, count);
        ok &= check_view(j->cache, seq, PREFIX + count);
        ok &= qkv_cache_fork(j->cache, seq, &other, NULL, 0) != QKV_OK ||
              (check(j->cache, other, j->index + 1, PREFIX, PREFIX + count) &&
               qkv_cache_release(j->cache, other) == QKV_OK);
        ok &= qkv_cache_commit(j->cache, 1, &seq, NULL, NULL, 0) == QKV_OK;
        ok &= check(j->cache, seq, 0, 0, PREFIX);
        ok &= check(j->cache, seq, j->index + 1, PREFIX, PREFIX + count);
        ok &= qkv_cache_truncate(j->cache, seq, PREFIX + count / 2, NULL, 0) == QKV_OK;
        ok &= check(j->cache, seq, j->index + 1, PREFIX, PREFIX + count / 2);
    } else {
        atomic_fetch_add(j->full, 1);
    }
    ok &= qkv_cache_stats_get(j->cache, &stats) == QKV_OK && stats.used_pages >= 3;
    ok &= qkv_cache_release(j->cache, seq) == QKV_OK;
    atomic_fetch_add(j->errors, !ok);
}

static void *run(void *arg)
{
    job *j = arg;
    t_rng rng = t_rng_of(t_seed() + (uint64_t)j->index);

    for (int i = 0; i < j->rounds; i++)
        one_round(j, &rng);
    return NULL;
}

/* ---- the thread that attends ------------------------------------------------------------ */

typedef struct watcher {
    qkv_cache *cache;
    int32_t prefix;
    atomic_int *done;
    int rounds, wrong;
} watcher;

/* One query a head that sees the prefix in layer 1; 0 if something is refused. */
static int attend(qkv_cache *cache, int32_t prefix, float o[HEADS * D])
{
    static const int32_t one = 1;
    static _Thread_local _Alignas(64) unsigned char mem[4096], plans[16384], work[1 << 20];
    float q[HEADS * D];
    const qkv_cache_view *view;
    const qkv_plan *plan;
    qkv_cache_select select;
    qkv_desc d;
    qkv_args a;

    for (int i = 0; i < HEADS * D; i++)
        q[i] = (float)(i % 5) / 64;
    qkv_cache_select_init(&select);
    select.seqs = &prefix;
    select.q_lens = &one;
    if (qkv_cache_view_init(mem, sizeof mem, cache, &select, &view, NULL, 0) != QKV_OK)
        return 0;
    qkv_desc_init(&d);
    qkv_args_init(&a);
    d.n_q_heads = HEADS;
    d.q.stride[1] = d.o.stride[1] = D;
    if (qkv_cache_view_desc(view, 0, &d) != QKV_OK ||
        qkv_cache_view_args(view, 0, 1, &a) != QKV_OK ||
        qkv_plan_init(plans, sizeof plans, &d, &plan) != QKV_OK)
        return 0;
    a.q = q;
    a.o = o;
    a.workspace = work;
    a.workspace_bytes = sizeof work;
    if (qkv_args_check(plan, &a, 1, NULL, 0) != QKV_OK)
        return 0;
    qkv_run(plan, &a);
    return 1;
}

static void *watch(void *arg)
{
    watcher *w = arg;
    float first[HEADS * D], again[HEADS * D];

    w->wrong = !attend(w->cache, w->prefix, first) || !(first[0] == first[0]);
    do {
        w->wrong += !attend(w->cache, w->prefix, again) || memcmp(first, again, sizeof first) != 0;
        w->rounds++;
    } while (!atomic_load(w->done));
    return NULL;
}

/* ---- all of them ------------------------------------------------------------------------ */

static void together(qkv_cache *cache)
{
    pthread_t threads[THREADS], watching;
    job jobs[THREADS];
    atomic_int errors = 0, full = 0, done = 0;
    const int32_t count = PREFIX;
    int32_t prefix = 0;
    qkv_cache_stats s;

    qkv_cache_add(cache, &prefix, NULL, 0);
    expect(qkv_cache_reserve(cache, 1, &prefix, &count, TEXT), QKV_OK);
    t_check(put(cache, prefix, 0, 0, PREFIX), "the prefix");
    expect(qkv_cache_commit(cache, 1, &prefix, NULL, TEXT), QKV_OK);
    watcher w = {cache, prefix, &done, 0, 0};
    t_check(pthread_create(&watching, NULL, watch, &w) == 0, "no thread");
    for (int i = 0; i < THREADS; i++) {
        const job j = {cache, prefix, i, t_times(800), &errors, &full};
        jobs[i] = j;
        t_check(pthread_create(&threads[i], NULL, run, &jobs[i]) == 0, "no thread");
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&done, 1);
    pthread_join(watching, NULL);
    t_check(w.wrong == 0 && w.rounds > 0, "%d of %d results of attention are wrong", w.wrong,
            w.rounds);
    t_check(atomic_load(&errors) == 0, "%d rounds went wrong", atomic_load(&errors));
    t_check(check(cache, prefix, 0, 0, PREFIX), "the prefix changed");
    qkv_cache_stats_get(cache, &s);
    t_check(s.n_seqs == 1 && s.used_pages == 3, "%d sequences and %d pages are left", s.n_seqs,
            s.used_pages);
    if (t_verbose())
        t_check(1, "%d times full", atomic_load(&full));
}

void test_threads(void)
{
    for (int scarce = 0; scarce < 2; scarce++)
        if (t_case(scarce ? "few pages" : "enough pages")) {
            qkv_cache_config c = small_config();
            c.n_pages = scarce ? 9 : 40;
            c.max_seqs = scarce ? 4 : 1 + 2 * THREADS;
            qkv_cache *cache = make_cache(&c);
            if (cache)
                together(cache);
            qkv_cache_destroy(cache);
        }
}
