/* forms.c - every form of every variant against the oracle, on one thread and on two. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "layers_test.h"

enum { B = 3, T = 13, MEMORY = 7 };

/* Of the largest number.  int8: x is rounded to 16 bits of its row's largest number, on the way to
 * each product.  bf16: to 8 bits each. */
static double close_enough(const sample *s)
{
    return s->desc.weights == QKV_WEIGHTS_INT8   ? 5e-4
           : s->desc.weights == QKV_WEIGHTS_BF16 ? 3e-2
                                                 : 5e-6;
}

static int is_cross(const variant *v) { return desc_of(v).cross; }

/* Compares one sequence's rows of out. */
static void expect_rows(const sample *s, const char *what, int b, const float *out, const float *x,
                        int64_t tokens, const float *memory, int64_t n_memory,
                        const int64_t *positions, int64_t first)
{
    const int64_t n = tokens * s->desc.d_model;
    double *wanted = t_scratch((size_t)(n + 1) * sizeof *wanted);
    oracle(s, x, tokens, memory, n_memory, positions, first, wanted);
    const double e = difference(out + first * s->desc.d_model, wanted + first * s->desc.d_model,
                                n - first * s->desc.d_model);
    t_check(e <= close_enough(s), "%s, sequence %d: off by %.2g", what, b, e);
}

static void fill_nan(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = NAN;
}

static void expect_zeros(const float *x, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) {
            t_fail("%s: %g where 0 belongs", what, x[i]);
            return;
        }
}

/* ---- without a cache -------------------------------------------------------------------- */

static void whole(const sample *s, t_rng *rng, qkv_pool *pool)
{
    const int64_t d = s->desc.d_model, m = width_of_memory(&s->desc);
    const qkv_parallel two = qkv_pool_parallel(pool);
    float *x = random_floats(rng, B * T * d), *memory = random_floats(rng, B * MEMORY * m);
    float *out = t_alloc((size_t)(B * T * d) * 4, 4, T_END, 0xff), *again = t_scratch(B * T * 80);
    qkv_layer_step step;
    char text[256];

    qkv_layer_step_init(&step);
    step.n_seqs = B;
    step.q_len = T;
    step.memory_len = s->desc.cross ? MEMORY : 0;
    for (int mla = 0; mla <= (s->desc.kind == QKV_LAYER_MLA ? 2 : 0); mla++) {
        step.mla = mla;
        t_check(run_step(s, &step, x, memory, out, NULL, text) == QKV_OK, "%s", text);
        for (int b = 0; b < B; b++)
            expect_rows(s, "whole", b, out + b * T * d, x + b * T * d, T, memory + b * MEMORY * m,
                        MEMORY, NULL, 0);
        t_check(run_step(s, &step, x, memory, again, &two, text) == QKV_OK, "%s", text);
        t_check(memcmp(out, again, (size_t)(B * T * d) * 4) == 0, "two workers, other bits");
    }
}

void test_whole(void)
{
    qkv_pool *pool = NULL;
    qkv_pool_create(2, NULL, &pool);
    for (int i = 0; i < n_variants; i++)
        if (t_case("%s%s", kept(), variants[i].name)) {
            t_rng rng = t_rng_of(t_seed() + (uint64_t)i);
            const qkv_layer_desc d = desc_of(&variants[i]);
            sample s = sample_of(&d, &rng);
            if (s.layer)
                whole(&s, &rng, pool);
            sample_end(&s);
        }
    qkv_pool_destroy(pool);
}

/* ---- sequences of unequal lengths ------------------------------------------------------- */

/* Padded on the right with NaN, which may not show. */
static void padded(const sample *s, t_rng *rng)
{
    const int64_t d = s->desc.d_model, m = width_of_memory(&s->desc);
    const int32_t lens[B] = {13, 0, 6}, memory_lens[B] = {7, 3, 1};
    float *x = random_floats(rng, B * T * d), *memory = random_floats(rng, B * MEMORY * m);
    float *out = t_scratch((size_t)(B * T * d) * 4);
    qkv_layer_step step;
    char text[256];

    for (int b = 0; b < B; b++) {
        fill_nan(x + (b * T + lens[b]) * d, (T - lens[b]) * d);
        fill_nan(memory + (b * MEMORY + memory_lens[b]) * m, (MEMORY - memory_lens[b]) * m);
    }
    qkv_layer_step_init(&step);
    step.n_seqs = B;
    step.q_len = T;
    step.q_lens = lens;
    step.kv_lens = s->desc.cross ? memory_lens : lens;
    step.memory_len = s->desc.cross ? MEMORY : 0;
    t_check(run_step(s, &step, x, memory, out, NULL, text) == QKV_OK, "%s", text);
    for (int b = 0; b < B; b++) {
        expect_rows(s, "padded", b, out + b * T * d, x + b * T * d, lens[b],
                    memory + b * MEMORY * m, memory_lens[b], NULL, 0);
        expect_zeros(out + (b * T + lens[b]) * d, (T - lens[b]) * d, "a row past q_lens");
    }
}

/* Padded on the left, with positions that count tokens. */
static void padded_left(const sample *s, t_rng *rng)
{
    const int64_t d = s->desc.d_model;
    const int32_t starts[B] = {0, 4, 12};
    float *x = random_floats(rng, B * T * d), *out = t_scratch((size_t)(B * T * d) * 4);
    int64_t positions[B * T];
    qkv_layer_step step;
    char text[256];

    for (int b = 0; b < B; b++) {
        fill_nan(x + b * T * d, starts[b] * d);
        for (int t = 0; t < T; t++)
            positions[b * T + t] = t < starts[b] ? 0 : t - starts[b];
    }
    qkv_layer_step_init(&step);
    step.n_seqs = B;
    step.q_len = T;
    step.kv_starts = starts;
    step.positions = positions;
    t_check(run_step(s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    for (int b = 0; b < B; b++)
        expect_rows(s, "left", b, out + b * T * d, x + b * T * d, T, NULL, 0, positions + b * T,
                    starts[b]);
}

static void packed(const sample *s, t_rng *rng)
{
    const int64_t d = s->desc.d_model, m = width_of_memory(&s->desc);
    const int32_t cu[B + 2] = {0, 5, 5, 6, 17};
    float *x = random_floats(rng, cu[B + 1] * d), *memory = random_floats(rng, (B + 1) * MEMORY * m);
    float *out = t_scratch((size_t)(cu[B + 1] * d) * 4);
    int64_t positions[17];
    qkv_layer_step step;
    char text[256];

    for (int i = 0; i < 17; i++) /* gaps and a jump back */
        positions[i] = (i * 7) % 31;
    qkv_layer_step_init(&step);
    step.n_seqs = B + 1;
    step.cu_seqlens = cu;
    step.positions = positions;
    step.memory_len = s->desc.cross ? MEMORY : 0;
    step.rope_len = 40;
    t_check(run_step(s, &step, x, memory, out, NULL, text) == QKV_OK, "%s", text);
    for (int b = 0; b <= B; b++)
        expect_rows(s, "packed", b, out + cu[b] * d, x + cu[b] * d, cu[b + 1] - cu[b],
                    memory + b * MEMORY * m, MEMORY, positions + cu[b], 0);
}

void test_ragged(void)
{
    for (int i = 0; i < n_variants; i++)
        if (t_case("%s%s", kept(), variants[i].name)) {
            t_rng rng = t_rng_of(t_seed() + 100 + (uint64_t)i);
            const qkv_layer_desc d = desc_of(&variants[i]);
            sample s = sample_of(&d, &rng);
            if (s.layer) {
                padded(&s, &rng);
                packed(&s, &rng);
            }
            if (s.layer && !d.cross)
                padded_left(&s, &rng);
            sample_end(&s);
        }
}

/* ---- with a cache ----------------------------------------------------------------------- */

static qkv_cache *cache_for(const sample *s, int32_t *seqs)
{
    qkv_cache_config c;
    qkv_cache *cache = NULL;
    char text[256];

    qkv_cache_config_init(&c);
    qkv_layer_cache_config(s->layer, &c);
    c.k_format = c.v_format = QKV_FORMAT_F32;
    c.float_type = QKV_F32;
    c.flags |= QKV_CACHE_POISON;
    c.page_tokens = 16;
    c.n_pages = 12;
    c.n_layers = 2;
    c.max_seqs = B;
    t_check(qkv_cache_create(&c, NULL, &cache, text, sizeof text) == QKV_OK, "%s", text);
    for (int b = 0; cache && b < B; b++)
        qkv_cache_add(cache, &seqs[b], NULL, 0);
    return cache;
}

typedef struct cached {
    const sample *s;
    qkv_cache *cache;
    int32_t seqs[B];
    const float *x; /* [B][T][d_model] */
    float *out;
    int done[B];
} cached;

/* The next counts[b] tokens of each sequence in one step, padded or packed. */
static void advance(cached *c, const int32_t *counts, int pack, int mla)
{
    const int64_t d = c->s->desc.d_model;
    int32_t cu[B + 1] = {0}, longest = 0;
    qkv_layer_step step;
    char text[256] = "";

    for (int b = 0; b < B; b++) {
        cu[b + 1] = cu[b] + counts[b];
        longest = counts[b] > longest ? counts[b] : longest;
    }
    float *x = t_scratch((size_t)(B * T * d) * 4), *out = t_scratch((size_t)(B * T * d) * 4);
    fill_nan(x, B * T * d);
    for (int b = 0; b < B; b++)
        memcpy(x + (pack ? cu[b] : b * longest) * d, c->x + (b * T + c->done[b]) * d,
               (size_t)(counts[b] * d) * 4);
    qkv_layer_step_init(&step);
    step.form = QKV_FORM_CACHED;
    step.n_seqs = B;
    step.mla = mla;
    step.q_len = longest;
    step.q_lens = pack ? NULL : counts;
    step.cu_seqlens = pack ? cu : NULL;
    step.cache = c->cache;
    step.seqs = c->seqs;
    qkv_status status = QKV_OK;
    if (!c->s->desc.cross)
        status = qkv_cache_reserve(c->cache, B, c->seqs, counts, text, sizeof text);
    if (status == QKV_OK)
        status = run_step(c->s, &step, x, NULL, out, NULL, text);
    t_check(status == QKV_OK, "%s", text);
    if (!c->s->desc.cross)
        qkv_cache_commit(c->cache, B, c->seqs, NULL, NULL, 0);
    for (int b = 0; b < B; b++) {
        memcpy(c->out + (b * T + c->done[b]) * d, out + (pack ? cu[b] : b * longest) * d,
               (size_t)(counts[b] * d) * 4);
        c->done[b] += counts[b];
    }
}

/* Prefill, a chunk, single tokens: sequences of 13, 10 and 4 tokens. */
static void steps(cached *c, int pack, int mla)
{
    static const int32_t plan[][B] = {{7, 5, 0}, {4, 0, 2}, {1, 1, 1}, {0, 4, 0}, {1, 0, 1}};
    for (size_t i = 0; i < sizeof plan / sizeof *plan; i++)
        advance(c, plan[i], pack, mla);
}

static void run_cached(const sample *s, t_rng *rng, int pack, int mla)
{
    const int64_t d = s->desc.d_model;
    cached c = {.s = s, .x = random_floats(rng, B * T * d), .out = t_scratch(B * T * 80)};
    char what[40];

    c.cache = cache_for(s, c.seqs);
    if (!c.cache)
        return;
    steps(&c, pack, mla);
    snprintf(what, sizeof what, "%s, mla %d", pack ? "packed" : "padded", mla);
    for (int b = 0; b < B; b++)
        expect_rows(s, what, b, c.out + b * T * d, c.x + b * T * d, c.done[b], NULL, 0, NULL, 0);
    qkv_cache_destroy(c.cache);
}

void test_cached(void)
{
    for (int i = 0; i < n_variants; i++) {
        const qkv_layer_desc d = desc_of(&variants[i]);
        const int modes = d.kind == QKV_LAYER_MLA ? 3 : 1;
        if (!d.causal)
            continue;
        for (int mode = 0; mode < 2 * modes; mode++)
            if (t_case("%s%s/%d", kept(), variants[i].name, mode)) {
                t_rng rng = t_rng_of(t_seed() + 200 + (uint64_t)i);
                sample s = sample_of(&d, &rng);
                if (s.layer)
                    run_cached(&s, &rng, mode % 2, mode / 2);
                sample_end(&s);
            }
    }
}

/* A memory that is projected once, and queries of several steps. */
static void run_cross(const sample *s, t_rng *rng, int pack)
{
    const int64_t d = s->desc.d_model, m = width_of_memory(&s->desc);
    const int32_t lens[B] = {7, 2, 5};
    float *memory = random_floats(rng, B * MEMORY * m);
    cached c = {.s = s, .x = random_floats(rng, B * T * d), .out = t_scratch(B * T * 80)};
    qkv_layer_step step;
    char text[256];

    c.cache = cache_for(s, c.seqs);
    if (!c.cache)
        return;
    for (int b = 0; b < B; b++)
        fill_nan(memory + (b * MEMORY + lens[b]) * m, (MEMORY - lens[b]) * m);
    qkv_layer_step_init(&step);
    step.form = QKV_FORM_MEMORY;
    step.n_seqs = B;
    step.memory_len = MEMORY;
    step.kv_lens = lens;
    step.cache = c.cache;
    step.seqs = c.seqs;
    t_check(qkv_cache_reserve(c.cache, B, c.seqs, lens, text, sizeof text) == QKV_OK, "%s", text);
    t_check(run_step(s, &step, NULL, memory, NULL, NULL, text) == QKV_OK, "%s", text);
    qkv_cache_commit(c.cache, B, c.seqs, NULL, NULL, 0);
    steps(&c, pack, 0);
    for (int b = 0; b < B; b++)
        expect_rows(s, "cross", b, c.out + b * T * d, c.x + b * T * d, c.done[b],
                    memory + b * MEMORY * m, lens[b], NULL, 0);
    qkv_cache_destroy(c.cache);
}

void test_cross(void)
{
    for (int i = 0; i < n_variants; i++)
        for (int pack = 0; is_cross(&variants[i]) && pack < 2; pack++)
            if (t_case("%s%s/%d", kept(), variants[i].name, pack)) {
                t_rng rng = t_rng_of(t_seed() + 300 + (uint64_t)i);
                const qkv_layer_desc d = desc_of(&variants[i]);
                sample s = sample_of(&d, &rng);
                if (s.layer)
                    run_cross(&s, &rng, pack);
                sample_end(&s);
            }
}
