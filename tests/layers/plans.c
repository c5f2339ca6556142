/* plans.c - what plans promise: counts, sharing, allocation, and three executions of MLA. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers_test.h"

static const variant *named(const char *name)
{
    for (int i = 0; i < n_variants; i++)
        if (strcmp(variants[i].name, name) == 0)
            return &variants[i];
    abort();
}

static qkv_cache *cache_of(const sample *s, int32_t pages, int32_t n_layers, int32_t *seq)
{
    qkv_cache_config c;
    qkv_cache *cache = NULL;

    qkv_cache_config_init(&c);
    qkv_layer_cache_config(s->layer, &c);
    c.k_format = c.v_format = QKV_FORMAT_F32;
    c.float_type = QKV_F32;
    c.n_pages = pages;
    c.n_layers = n_layers;
    qkv_cache_create(&c, NULL, &cache, NULL, 0);
    qkv_cache_add(cache, seq, NULL, 0);
    return cache;
}

/* ---- MLA -------------------------------------------------------------------------------- */

/* The work of a step of q tokens after k, and what is chosen. */
static qkv_layer_work work_of(const sample *s, int32_t q, int32_t before)
{
    int32_t seq = 0;
    qkv_cache *cache = cache_of(s, 16, 1, &seq);
    qkv_layer_step step;
    qkv_layer_plan *plan = NULL;
    qkv_layer_work work;
    char text[256];

    qkv_layer_step_init(&step);
    step.form = QKV_FORM_CACHED;
    step.q_len = q;
    step.cache = cache;
    step.seqs = &seq;
    qkv_cache_reserve(cache, 1, &seq, &before, NULL, 0);
    qkv_cache_commit(cache, 1, &seq, NULL, NULL, 0);
    qkv_cache_reserve(cache, 1, &seq, &q, NULL, 0);
    memset(&work, 0, sizeof work);
    t_check(qkv_layer_plan_create(s->layer, &step, NULL, &plan, text, sizeof text) == QKV_OK, "%s",
            text);
    if (plan)
        qkv_layer_work_get(plan, &work);
    qkv_layer_plan_destroy(plan);
    qkv_cache_destroy(cache);
    return work;
}

void test_mla(void)
{
    const qkv_layer_desc d = desc_of(named("mla")); /* H 6, n 6, r 4, v 5, c 9 */
    t_rng rng = t_rng_of(t_seed() + 400);
    if (t_case("counts")) {
        sample s = sample_of(&d, &rng);
        const qkv_layer_work w = work_of(&s, 3, 10);
        const int64_t pairs = 11 + 12 + 13, keys = 13;
        t_check(w.rows == 3 && w.pairs == pairs, "%lld rows, %lld pairs", (long long)w.rows,
                (long long)w.pairs);
        t_check(w.expanded == pairs * 6 * (10 + 5) + keys * 9 * 6 * 11, "expanded %lld",
                (long long)w.expanded);
        t_check(w.absorbed == pairs * 6 * (2 * 9 + 4) + 3 * 6 * 9 * 11, "absorbed %lld",
                (long long)w.absorbed);
        t_check(w.projections == 3 * (20 * (7 + 13) + 7 * 60 + 30 * 20), "projections %lld",
                (long long)w.projections);
        sample_end(&s);
    }
    if (t_case("choice")) {
        sample s = sample_of(&d, &rng);
        t_check(work_of(&s, 1, 100).mla == QKV_MLA_ABSORBED, "one token is not absorbed");
        t_check(work_of(&s, 200, 0).mla == QKV_MLA_EXPANDED, "a prefill is not expanded");
        for (int q = 1; q < 60; q += 3) {
            const qkv_layer_work w = work_of(&s, q, 50);
            t_check((w.mla == QKV_MLA_ABSORBED) == (w.absorbed < w.expanded), "%d tokens", q);
        }
        sample_end(&s);
    }
}

/* ---- chunks ----------------------------------------------------------------------------- */

/* 13 rows of which 13, 9 and 1 are tokens, in chunks of 5 that begin at the first of them. */
static void count_chunks(void)
{
    const qkv_layer_desc d = desc_of(named("chunks"));
    const int32_t starts[3] = {0, 4, 12};
    t_rng rng = t_rng_of(t_seed() + 410);
    sample s = sample_of(&d, &rng);
    qkv_layer_step step;
    qkv_layer_plan *plan = NULL;
    qkv_layer_work work;
    char text[256];

    qkv_layer_step_init(&step);
    step.n_seqs = 3;
    step.q_len = 13;
    step.kv_starts = starts;
    t_check(qkv_layer_plan_create(s.layer, &step, NULL, &plan, text, sizeof text) == QKV_OK, "%s",
            text);
    qkv_layer_work_get(plan, &work);
    t_check(work.pairs == (15 + 15 + 6) + (15 + 10) + 1, "%lld pairs", (long long)work.pairs);
    qkv_layer_plan_destroy(plan);
    sample_end(&s);
}

/* ---- plans ------------------------------------------------------------------------------ */

/* Three layers of one description with one plan a step, against each alone. */
static void share_a_plan(void)
{
    const qkv_layer_desc d = desc_of(named("norm"));
    t_rng rng = t_rng_of(t_seed() + 401);
    sample s[3];
    float *x = random_floats(&rng, 9 * 20), *out = t_scratch(9 * 80);
    double *wanted = t_scratch(9 * 160);
    int32_t seq = 0;
    const int32_t count = 9;
    qkv_layer_step step;
    qkv_layer_plan *plan = NULL;
    qkv_layer_args args;
    char text[256];

    for (int i = 0; i < 3; i++)
        s[i] = sample_of(&d, &rng);
    qkv_cache *cache = cache_of(&s[0], 4, 3, &seq);
    qkv_cache_reserve(cache, 1, &seq, &count, NULL, 0);
    qkv_layer_step_init(&step);
    step.form = QKV_FORM_CACHED;
    step.q_len = count;
    step.cache = cache;
    step.seqs = &seq;
    qkv_layer_plan_create(s[0].layer, &step, NULL, &plan, text, sizeof text);
    qkv_layer_args_init(&args);
    args.x = x;
    args.out = out;
    args.workspace_bytes = qkv_layer_workspace_size(plan, 1);
    args.workspace = t_alloc(args.workspace_bytes, 64, T_START, 0xff);
    for (int i = 0; i < 3; i++) {
        args.cache_layer = i;
        t_check(qkv_layer_run(plan, s[i].layer, &args, NULL, text, sizeof text) == QKV_OK, "%s",
                text);
        oracle(&s[i], x, count, NULL, 0, NULL, 0, wanted);
        t_check(difference(out, wanted, 9 * 20) < 5e-6, "layer %d", i);
    }
    qkv_layer_plan_destroy(plan);
    qkv_cache_destroy(cache);
    for (int i = 0; i < 3; i++)
        sample_end(&s[i]);
}

/* out may be x. */
static void in_place(void)
{
    const qkv_layer_desc d = desc_of(named("biases"));
    t_rng rng = t_rng_of(t_seed() + 402);
    sample s = sample_of(&d, &rng);
    float *x = random_floats(&rng, 9 * 20);
    double *wanted = t_scratch(9 * 160);
    qkv_layer_step step;
    char text[256];

    qkv_layer_step_init(&step);
    step.q_len = 9;
    oracle(&s, x, 9, NULL, 0, NULL, 0, wanted);
    t_check(run_step(&s, &step, x, NULL, x, NULL, text) == QKV_OK, "%s", text);
    t_check(difference(x, wanted, 9 * 20) < 5e-6, "in place, other numbers");
    sample_end(&s);
}

void test_plans(void)
{
    if (t_case("one plan, three layers"))
        share_a_plan();
    if (t_case("pairs of chunks"))
        count_chunks();
    if (t_case("in place"))
        in_place();
    for (int tokens = 0; tokens < 2; tokens++)
        if (t_case("%d tokens", tokens)) {
            const qkv_layer_desc d = desc_of(named("relative"));
            t_rng rng = t_rng_of(t_seed() + 403);
            sample s = sample_of(&d, &rng);
            float *x = random_floats(&rng, 20), out[20];
            double wanted[20];
            qkv_layer_step step;
            char text[256];
            qkv_layer_step_init(&step);
            step.q_len = tokens;
            t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
            oracle(&s, x, tokens, NULL, 0, NULL, 0, wanted);
            t_check(difference(out, wanted, tokens * 20) < 5e-6, "other numbers");
            sample_end(&s);
        }
}

/* ---- allocation ------------------------------------------------------------------------- */

typedef struct counter {
    int left, live, calls; /* left: allocations until one fails; -1: never */
} counter;

static void *counted_alloc(void *ctx, size_t bytes)
{
    counter *c = ctx;
    c->calls++;
    if (c->left == 0)
        return NULL;
    c->left -= c->left > 0;
    c->live++;
    return malloc(bytes);
}

static void counted_free(void *ctx, void *memory)
{
    ((counter *)ctx)->live -= memory != NULL;
    free(memory);
}

/* A layer and a step from the cache; the first status that is not QKV_OK. */
static qkv_status life(const sample *s, qkv_cache *cache, int32_t *seq, const qkv_allocator *a,
                       counter *c)
{
    qkv_layer *layer = NULL;
    qkv_layer_plan *plan = NULL;
    qkv_layer_step step;
    char text[256];
    qkv_status status =
        qkv_layer_create(&s->desc, s->weights, a, &layer, text, sizeof text);

    if (status != QKV_OK) {
        t_check(layer == NULL, "a layer in spite of %s", text);
        return status;
    }
    qkv_layer_step_init(&step);
    step.form = QKV_FORM_CACHED;
    step.q_len = 2;
    step.mla = QKV_MLA_ABSORBED; /* the one that makes a view */
    step.cache = cache;
    step.seqs = seq;
    status = qkv_layer_plan_create(layer, &step, a, &plan, text, sizeof text);
    t_check((plan == NULL) == (status != QKV_OK), "a plan in spite of %s", text);
    if (status == QKV_OK) {
        const int before = c->calls;
        float x[40] = {0}, out[40];
        qkv_layer_args args;
        qkv_layer_args_init(&args);
        args.x = x;
        args.out = out;
        args.workspace_bytes = qkv_layer_workspace_size(plan, 1);
        args.workspace = t_alloc(args.workspace_bytes, 64, T_END, 0xff);
        status = qkv_layer_run(plan, layer, &args, NULL, text, sizeof text);
        t_check(c->calls == before, "the run allocated");
    }
    qkv_layer_plan_destroy(plan);
    qkv_layer_destroy(layer);
    return status;
}

void test_failing_memory(void)
{
    static const char *const names[] = {"gqa", "mla", "relative"};
    /* The layer, scratch if it is narrow; the plan, its view, its attention. */
    const int calls = kept_as == QKV_WEIGHTS_F32 ? 4 : 5;
    for (int i = 0; i < 3; i++)
        for (int fail = 0; fail <= calls; fail++)
            if (t_case("%s%s/allocation %d", kept(), names[i], fail)) {
                const qkv_layer_desc d = desc_of(named(names[i]));
                t_rng rng = t_rng_of(t_seed() + 410);
                sample s = sample_of(&d, &rng);
                counter c = {fail, 0, 0};
                const qkv_allocator a = {counted_alloc, counted_free, &c};
                const int32_t count = 2;
                int32_t seq = 0;
                qkv_cache *cache = cache_of(&s, 2, 1, &seq);
                qkv_cache_reserve(cache, 1, &seq, &count, NULL, 0);
                const qkv_status status = life(&s, cache, &seq, &a, &c);
                t_check(status == (fail < calls ? QKV_ERR_MEMORY : QKV_OK), "%s",
                        qkv_status_name(status));
                t_check(c.live == 0, "%d allocations are left", c.live);
                t_check(c.calls == (fail < calls ? fail + 1 : calls), "%d calls", c.calls);
                qkv_cache_destroy(cache);
                sample_end(&s);
            }
}
