/* work.c - pairs, parameters, work and time against sums written out. */
#include <math.h>
#include <string.h>

#include "sizing_test.h"

typedef unsigned long long u64;

/* Does query p see key j?  The words of qkv/model.h. */
static int sees(const qkv_layer_desc *l, int64_t p, int64_t j)
{
    if (l->causal && j > p)
        return 0;
    if (l->window_left != QKV_UNBOUNDED && j < p - l->window_left)
        return 0;
    if (!l->causal && l->window_right != QKV_UNBOUNDED && j > p + l->window_right)
        return 0;
    return l->chunk_tokens == 0 || j / l->chunk_tokens == p / l->chunk_tokens;
}

/* Scores of one head divided by head_dim: the pairs that the library counts. */
static u64 counted(const qkv_model *m, const qkv_size_step *step, const qkv_size_setup *s)
{
    char text[256];
    qkv_size_work w;
    t_check(qkv_size_work_find(m, s, step, &w, TEXT) == QKV_OK, "%s", text);
    return w.pairs;
}

void test_pairs(void)
{
    for (int i = 0; i < t_times(2000); i++) {
        t_rng rng = t_rng_of(t_seed() + (uint64_t)i);
        qkv_model m = heads_model(1, 64, 1, 1, 8);
        qkv_layer_desc *l = &m.kinds[0];
        const int64_t past = t_below(&rng, 60), n = t_between(&rng, 1, 60);
        qkv_size_setup s = setup_of(past + n, 1);
        qkv_size_step step = {1, n, past, 0};
        u64 pairs = 0;
        if (!t_case("seed%llu", (u64)(t_seed() + (uint64_t)i)))
            continue;
        l->causal = t_chance(&rng, 70);
        if (t_chance(&rng, 50))
            l->window_left = t_below(&rng, 50);
        if (!l->causal) {
            step.past = 0;
            if (t_chance(&rng, 50))
                l->window_right = t_below(&rng, 50);
        } else if (t_chance(&rng, 40)) {
            l->chunk_tokens = t_between(&rng, 1, 40);
        }
        for (int64_t p = step.past; p < step.past + n; p++)
            for (int64_t j = 0; j < step.past + n; j++)
                pairs += (u64)sees(l, p, j);
        t_check(counted(&m, &step, &s) == pairs, "counted %llu, seen %llu", counted(&m, &step, &s),
                pairs);
        s.pairs = QKV_COUNT_SQUARE;
        t_check(counted(&m, &step, &s) == (u64)(n * (step.past + n)), "the rectangle");
    }
}

/* ---- parameters --------------------------------------------------------------------------- */

void test_parameters(void)
{
    char text[256];
    qkv_size_parameters p;

    if (t_case("deepseek_v3_layer")) {
        /* d 1536 + 1536 (128 x 192) + d 576 + 512 x 128 x 256 + 128 x 128 d, and norms. */
        const qkv_model m = latent_model();
        uint64_t matrices;
        const u64 all = qkv_size_layer_parameters(&m.kinds[0], &matrices);
        t_check(matrices == 187105280 && all == 187105280 + 1536 + 512, "%llu, %llu", (u64)matrices,
                all);
    }
    if (t_case("llama_3_1_8b")) {
        qkv_model m = heads_model(32, 4096, 32, 8, 128);
        m.d_ff = 14336;
        m.ffn_gated = 1;
        m.vocab_size = 128256;
        m.norms_a_layer = 2;
        m.norms_besides = 1;
        t_check(qkv_size_parameters_find(&m, &p, TEXT) == QKV_OK, "%s", text);
        t_check(p.total == 8030261248ull && p.missing == 0, "%llu", (u64)p.total);
        m.tied_embeddings = 1;
        t_check(qkv_size_parameters_find(&m, &p, TEXT) == QKV_OK, "%s", text);
        t_check(p.total == 8030261248ull - 128256ull * 4096 && p.head == 0, "tied");
    }
    if (t_case("experts")) { /* two of four layers have eight, of which a token uses two */
        qkv_model m = heads_model(4, 64, 4, 2, 16);
        m.d_ff = 100;
        m.ffn_gated = 1;
        m.n_experts = 8;
        m.n_experts_used = 2;
        m.d_ff_expert = 32;
        m.expert_every = 2;
        t_check(qkv_size_parameters_find(&m, &p, TEXT) == QKV_OK, "%s", text);
        const uint64_t dense = 3 * 64 * 100, expert = 3 * 64 * 32, router = 8 * 64;
        t_check(p.experts == 2 * 8 * expert, "experts %llu", (u64)p.experts);
        t_check(p.mlp == 2 * dense + 2 * (router + 8 * expert), "blocks %llu", (u64)p.mlp);
        t_check(p.active == p.total - 2 * 6 * expert, "active %llu", (u64)p.active);
        t_check(p.missing == QKV_SIZE_NO_VOCAB, "missing %d", p.missing);
    }
    if (t_case("biases_norms_gate")) {
        qkv_model m = heads_model(1, 64, 4, 2, 16);
        qkv_layer_desc *l = &m.kinds[0];
        uint64_t matrices;
        l->q_bias = l->k_bias = l->v_bias = l->o_bias = l->sinks = 1;
        l->qk_norm = QKV_NORM_RMS;
        l->o_gate = 1;
        const u64 all = qkv_size_layer_parameters(l, &matrices);
        t_check(matrices == 64 * 128 + 2 * 64 * 32 + 64 * 64, "matrices %llu", (u64)matrices);
        t_check(all == matrices + 128 + 32 + 32 + 64 + 32 + 4, "all %llu", all);
    }
}

/* ---- work --------------------------------------------------------------------------------- */

static void check_chunks(void)
{
    qkv_model m = heads_model(3, 256, 8, 2, 32);
    qkv_size_setup s = setup_of(1000, 1);
    qkv_size_work sum = {.pairs = 0}, w;
    qkv_size_step step;

    s.chunk = 96;
    m.kinds[0].window_left = 150;
    for (int64_t at = 0; at < 1000; at += 96) {
        const qkv_size_step one = {1, 1000 - at < 96 ? 1000 - at : 96, at, 0};
        t_check(qkv_size_work_find(&m, &s, &one, &w, NULL, 0) == QKV_OK, "chunk");
        sum.all.multiply_adds += w.all.multiply_adds;
        sum.pairs += w.pairs;
        sum.cache_read += w.cache_read;
        sum.cache_written += w.cache_written;
        sum.weights_read += w.weights_read;
    }
    t_check(qkv_size_step_of(&s, QKV_STEP_CHUNKED, &step, NULL, 0) == QKV_OK, "step");
    t_check(qkv_size_work_find(&m, &s, &step, &w, NULL, 0) == QKV_OK, "work");
    t_check(step.chunk == 96, "chunks of %lld", (long long)step.chunk);
    t_check(w.all.multiply_adds == sum.all.multiply_adds && w.pairs == sum.pairs, "work");
    t_check(w.cache_read == sum.cache_read && w.cache_written == sum.cache_written, "cache");
    t_check(w.weights_read == sum.weights_read, "weights");
}

static void check_latents(void)
{
    const qkv_model m = latent_model();
    qkv_size_setup s = setup_of(4096, 1);
    qkv_size_work a, e;

    s.absorbed = 1;
    a = work_of(&m, &s, QKV_STEP_DECODE);
    s.absorbed = 0;
    e = work_of(&m, &s, QKV_STEP_DECODE);
    t_check(a.stage[QKV_SIZE_SCORES].multiply_adds == 61ull * 4096 * 128 * 576, "scores, absorbed");
    t_check(a.stage[QKV_SIZE_VALUES].multiply_adds == 61ull * 4096 * 128 * 512, "values, absorbed");
    t_check(a.stage[QKV_SIZE_EXPAND].multiply_adds == 61ull * 128 * 512 * 256, "up and down");
    t_check(e.stage[QKV_SIZE_SCORES].multiply_adds == 61ull * 4096 * 128 * 192, "scores, expanded");
    t_check(e.stage[QKV_SIZE_EXPAND].multiply_adds == 61ull * 4096 * 128 * 512 * 256, "expanded");
    t_check(a.cache_read == 61ull * 4096 * 1152 && a.cache_read == e.cache_read, "read once");
    s.absorbed = QKV_SIZE_AUTO;
    t_check(work_of(&m, &s, QKV_STEP_DECODE).absorbed == 1, "decode absorbs");
    t_check(work_of(&m, &s, QKV_STEP_PREFILL).absorbed == 0, "prefill expands");
}

/* The number of new tokens where the two ways cost the same, by trying all. */
static void check_switch(void)
{
    const qkv_model m = latent_model();
    qkv_size_crossover x;
    qkv_size_setup s = setup_of(8192, 1);
    int64_t n = 1;

    s.pairs = QKV_COUNT_SQUARE;
    for (; n < 8192; n++) {
        const qkv_size_step step = {1, n, 8192 - n, 0};
        qkv_size_work w;
        t_check(qkv_size_work_find(&m, &s, &step, &w, NULL, 0) == QKV_OK, "work");
        if (!w.absorbed)
            break;
    }
    t_check(qkv_size_crossover_find(&m.kinds[0], 8192, &x, NULL, 0) == QKV_OK, "found");
    t_check(n >= (int64_t)x.mla_new && n <= (int64_t)x.mla_new + 1, "from %lld on, said %.2f",
            (long long)n, x.mla_new);
}

static void check_experts(void)
{
    qkv_model m = heads_model(1, 64, 4, 2, 16);
    qkv_size_setup s = setup_of(100, 3);
    m.n_experts = 8;
    m.n_experts_used = 2;
    m.d_ff_expert = 32;
    m.ffn_gated = 1;
    const uint64_t expert = 3 * 64 * 32 * 2, fixed = 8 * 64 * 2, states = 3 * 2 * 64 * 2;
    const qkv_size_work w = work_of(&m, &s, QKV_STEP_DECODE);
    t_check(w.stage[QKV_SIZE_MLP].bytes == 6 * expert + fixed + states, "all differ");
    t_check(w.stage[QKV_SIZE_MLP].bytes_least == 2 * expert + fixed + states, "all alike");
    t_check(w.stage[QKV_SIZE_MLP].multiply_adds == 3 * (2 * 3 * 64 * 32 + 8 * 64), "used ones");
}

static void check_cross(void)
{
    qkv_model m = heads_model(2, 64, 4, 4, 16);
    qkv_size_setup s = setup_of(10, 2);
    qkv_size_cache c;

    m.kinds[1] = m.kinds[2] = m.kinds[0];
    m.kinds[1].causal = m.kinds[2].causal = 0;
    m.kinds[2].cross = 1;
    m.n_kinds = 3;
    m.encoder_layers = 3;
    memset(m.kind_of[QKV_PART_ENCODER], 1, 3);
    memset(m.kind_of[QKV_PART_CROSS], 2, 2);
    s.memory_tokens = 50;
    t_check(qkv_size_cache_find(&m, &s, &c, NULL, 0) == QKV_OK, "cache");
    t_check(c.n_groups == 2 && c.payload == 2ull * 2 * 128 * 2 * (10 + 50), "payload %llu",
            (u64)c.payload);
    const qkv_size_work first = work_of(&m, &s, QKV_STEP_RECOMPUTE);
    const qkv_size_work step = work_of(&m, &s, QKV_STEP_DECODE);
    t_check(first.pairs == 2ull * 4 * (3 * 50 * 50 + 2 * 10 * 50 + 2 * 55), "pairs %llu",
            (u64)first.pairs);
    t_check(step.pairs == 2ull * 4 * 2 * (50 + 10), "pairs of a step %llu", (u64)step.pairs);
}

void test_work(void)
{
    if (t_case("chunks_add_up"))
        check_chunks();
    if (t_case("latents"))
        check_latents();
    if (t_case("latents_switch"))
        check_switch();
    if (t_case("experts"))
        check_experts();
    if (t_case("encoder_decoder"))
        check_cross();
    if (t_case("shared_caches")) { /* the last two layers read the cache of the second */
        qkv_model m = heads_model(4, 64, 4, 2, 16);
        qkv_size_setup s = setup_of(100, 1);
        qkv_size_cache c;
        m.cache_of[2] = m.cache_of[3] = 1;
        t_check(qkv_size_cache_find(&m, &s, &c, NULL, 0) == QKV_OK, "cache");
        t_check(c.group[0].n_layers == 2 && c.group[0].n_sharing == 2, "layers");
        t_check(c.payload == 2ull * 100 * 64 * 2, "payload %llu", (u64)c.payload);
        const qkv_size_work w = work_of(&m, &s, QKV_STEP_DECODE);
        t_check(w.cache_read == 4ull * 100 * 64 * 2 && w.cache_written == 2ull * 64 * 2, "moved");
        t_check(w.stage[QKV_SIZE_PROJECT].multiply_adds == 4 * 64 * 64 + 2 * 64 * 64, "projected");
    }
    if (t_case("decode_bytes")) {
        const qkv_model m = heads_model(1, 64, 4, 2, 16);
        qkv_size_setup s = setup_of(1000, 5);
        s.k_format = s.v_format = QKV_FORMAT_INT8;
        const qkv_size_work w = work_of(&m, &s, QKV_STEP_DECODE);
        t_check(w.cache_read == 5ull * 1000 * 2 * 2 * (16 + 4), "read %llu", (u64)w.cache_read);
        t_check(w.weights_read == 2 * (2 * 64 * 64 + 2 * 64 * 32), "weights %llu",
                (u64)w.weights_read);
    }
}
