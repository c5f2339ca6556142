/*
 * threads.c - what may be done at once: several threads run one plan on one layer, each with its own
 * arrays, make plans of it, and append to sequences of their own in one cache.
 *
 * Each must get the bits that it gets alone; the race detector watches the rest.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "layers_test.h"

enum { THREADS = 4, ROUNDS = 3, T = 9, WIDTH = 20, PIECES = 600 };

typedef struct job {
    const sample *s;
    const qkv_layer_plan *plan; /* shared; NULL: a plan of one's own each round */
    qkv_cache *cache;
    int32_t seq;
    const float *x;
    float *out;
    int failures;
} job;

static qkv_status make_plan(const job *j, qkv_layer_plan **plan)
{
    qkv_layer_step step;

    qkv_layer_step_init(&step);
    step.q_len = T;
    if (j->cache) {
        step.form = QKV_FORM_CACHED;
        step.cache = j->cache;
        step.seqs = &j->seq;
    }
    return qkv_layer_plan_create(j->s->layer, &step, NULL, plan, NULL, 0);
}

static qkv_status run(const job *j, const qkv_layer_plan *plan)
{
    qkv_layer_args args;

    qkv_layer_args_init(&args);
    args.x = j->x;
    args.out = j->out;
    args.workspace_bytes = (qkv_layer_workspace_size(plan, 1) + 63) / 64 * 64;
    args.workspace = aligned_alloc(64, args.workspace_bytes + 64);
    const qkv_status status = qkv_layer_run(plan, j->s->layer, &args, NULL, NULL, 0);
    free(args.workspace);
    return status;
}

static void *work(void *arg)
{
    job *j = arg;
    const int32_t count = T;

    for (int round = 0; round < ROUNDS; round++) {
        qkv_layer_plan *own = NULL;
        if (j->cache)
            j->failures += qkv_cache_truncate(j->cache, j->seq, 0, NULL, 0) != QKV_OK ||
                           qkv_cache_reserve(j->cache, 1, &j->seq, &count, NULL, 0) != QKV_OK;
        if (!j->plan && make_plan(j, &own) != QKV_OK) {
            j->failures++;
            continue;
        }
        j->failures += run(j, own ? own : j->plan) != QKV_OK;
        qkv_layer_plan_destroy(own);
    }
    return NULL;
}

/* All at once, and then each alone. */
static void together(job *jobs, const char *what)
{
    pthread_t threads[THREADS];
    float alone[T * WIDTH];

    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, &jobs[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        job again = jobs[i];
        again.out = alone;
        work(&again);
        t_check(jobs[i].failures == 0 && again.failures == 0, "%s: thread %d failed", what, i);
        t_check(memcmp(alone, jobs[i].out, sizeof alone) == 0, "%s: thread %d has other bits",
                what, i);
    }
}

static qkv_cache *cache_for(const sample *s, int32_t seqs[THREADS])
{
    qkv_cache_config c;
    qkv_cache *cache = NULL;
    char text[256] = "";

    qkv_cache_config_init(&c);
    qkv_layer_cache_config(s->layer, &c);
    c.k_format = c.v_format = QKV_FORMAT_F32;
    c.page_tokens = 16;
    c.n_pages = c.max_seqs = THREADS;
    t_check(qkv_cache_create(&c, NULL, &cache, text, sizeof text) == QKV_OK, "%s", text);
    for (int i = 0; i < THREADS; i++)
        qkv_cache_add(cache, &seqs[i], NULL, 0);
    return cache;
}

static void several(const variant *v, uint64_t seed)
{
    const qkv_layer_desc d = desc_of(v);
    t_rng rng = t_rng_of(seed);
    sample s = sample_of(&d, &rng);
    job jobs[THREADS];
    qkv_layer_plan *plan = NULL;
    int32_t seqs[THREADS];

    for (int i = 0; i < THREADS; i++)
        jobs[i] = (job){.s = &s, .x = random_floats(&rng, T * WIDTH),
                        .out = t_scratch(T * WIDTH * sizeof(float))};
    t_check(make_plan(&jobs[0], &plan) == QKV_OK, "no plan");
    for (int i = 0; i < THREADS; i++)
        jobs[i].plan = i % 2 ? plan : NULL;
    together(jobs, "whole");
    qkv_layer_plan_destroy(plan);
    if (!d.causal) {
        sample_end(&s);
        return;
    }
    qkv_cache *cache = cache_for(&s, seqs);
    for (int i = 0; i < THREADS; i++) {
        jobs[i].plan = NULL;
        jobs[i].cache = cache;
        jobs[i].seq = seqs[i];
    }
    together(jobs, "cached");
    qkv_cache_destroy(cache);
    sample_end(&s);
}

/* Products of several pieces, which a pool spreads: rows of x and columns of weights. */
static void pieces(void)
{
    qkv_layer_desc d;
    qkv_layer_desc_init(&d);
    d.d_model = 24;
    d.n_q_heads = d.n_kv_heads = 24;
    d.head_dim = d.head_dim_v = 16;
    t_rng rng = t_rng_of(t_seed() + 701);
    sample s = sample_of(&d, &rng);
    float *x = random_floats(&rng, PIECES * 24), *out = t_scratch(PIECES * 24 * sizeof *out);
    float *again = t_scratch(PIECES * 24 * sizeof *out);
    qkv_pool *pool = NULL;
    qkv_layer_step step;
    char text[256];

    qkv_pool_create(THREADS, NULL, &pool);
    const qkv_parallel four = qkv_pool_parallel(pool);
    qkv_layer_step_init(&step);
    for (int rows = 1; rows <= PIECES; rows += PIECES - 1) {
        step.q_len = rows;
        t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
        t_check(run_step(&s, &step, x, NULL, again, &four, text) == QKV_OK, "%s", text);
        t_check(memcmp(out, again, (size_t)rows * 24 * sizeof *out) == 0, "%d rows, other bits",
                rows);
    }
    qkv_pool_destroy(pool);
    sample_end(&s);
}

void test_threads(void)
{
    for (int i = 0; i < n_variants; i++) {
        const qkv_layer_desc d = desc_of(&variants[i]);
        if (!d.cross && d.d_model == WIDTH && t_case("%s", variants[i].name))
            several(&variants[i], t_seed() + 700 + (uint64_t)i);
    }
    if (t_case("pieces"))
        pieces();
}
