/* facts.c - numbers that are published or follow from a formula by hand. */
#include <math.h>

#include "sizing_test.h"

typedef unsigned long long u64;

static qkv_size_cache cache_of(const qkv_model *m, const qkv_size_setup *s)
{
    char text[256];
    qkv_size_cache c;
    const qkv_status status = qkv_size_cache_find(m, s, &c, TEXT);
    t_check(status == QKV_OK, "cache: %s", text);
    return c;
}

static uint64_t payload(const qkv_model *m, int64_t context, int32_t format)
{
    qkv_size_setup s = setup_of(context, 1);
    s.k_format = s.v_format = format;
    return cache_of(m, &s).payload;
}

/* LLaMA-2-70B-like: 80 layers, d = 8192, 64 heads of 128. */
void test_facts(void)
{
    const qkv_model mha = heads_model(80, 8192, 64, 64, 128);
    const qkv_model gqa = heads_model(80, 8192, 64, 8, 128);
    const qkv_model mla = latent_model();

    if (t_case("70b_at_64000")) {
        t_check(payload(&mha, 64000, QKV_FORMAT_BF16) == 167772160000ull, "MHA");
        t_check(payload(&gqa, 64000, QKV_FORMAT_BF16) == 20971520000ull, "GQA-8");
    }
    if (t_case("deepseek_v3_elements")) {
        const qkv_size_setup s = setup_of(1, 1);
        t_check(cache_of(&mla, &s).elements == 61 * 576, "latent");
        const qkv_size_variant_of heads = {QKV_VARIANT_HEADS, 0, 0, 0, 0, 0};
        qkv_model expanded;
        t_check(qkv_size_variant(&mla, &heads, &expanded, NULL, 0) == QKV_OK, "variant");
        t_check(cache_of(&expanded, &s).elements == 61 * 40960, "expanded");
    }
    if (t_case("one_layer_at_4096")) {
        const qkv_model one = heads_model(1, 8192, 64, 64, 128);
        qkv_size_setup s = setup_of(4096, 1);
        s.pairs = QKV_COUNT_SQUARE;
        const qkv_size_work w = work_of(&one, &s, QKV_STEP_PREFILL);
        const qkv_size_stage *g = w.stage;
        const uint64_t d = 8192, n = 4096;
        t_check(g[QKV_SIZE_PROJECT].multiply_adds == 3 * n * d * d, "projections");
        t_check(g[QKV_SIZE_SCORES].multiply_adds == n * n * d, "scores");
        t_check(g[QKV_SIZE_SOFTMAX].exponentials == n * n * 64, "softmax");
        t_check(g[QKV_SIZE_VALUES].multiply_adds == n * n * d, "values");
        t_check(g[QKV_SIZE_OUTPUT].multiply_adds == n * d * d, "output");
        t_check(w.all.multiply_adds == 4 * n * d * d + 2 * n * n * d, "total");
        t_check(4 * d * d == 268435456, "a token");
        t_check(g[QKV_SIZE_PROJECT].multiply_adds + g[QKV_SIZE_OUTPUT].multiply_adds ==
                    1099511627776ull,
                "1.1 T");
        t_check(g[QKV_SIZE_SCORES].multiply_adds + g[QKV_SIZE_VALUES].multiply_adds ==
                    274877906944ull,
                "274.9 G");
    }
    if (t_case("crossover")) {
        qkv_size_crossover x;
        t_check(qkv_size_crossover_find(&mha.kinds[0], 4096, &x, NULL, 0) == QKV_OK, "found");
        t_check(x.square == 16384 && x.rule == 16384 && x.visible == 32767, "MHA: %g", x.square);
        t_check(qkv_size_crossover_find(&gqa.kinds[0], 4096, &x, NULL, 0) == QKV_OK, "found");
        t_check(x.square == 9216, "GQA-8: (1 + 1/8) d, not 2 d: %g", x.square);
    }
    if (t_case("quadratic_without_cache")) {
        const qkv_size_setup s = setup_of(4096, 1);
        const qkv_size_work with = work_of(&mha, &s, QKV_STEP_DECODE);
        const qkv_size_work without = work_of(&mha, &s, QKV_STEP_RECOMPUTE);
        t_check(with.stage[QKV_SIZE_SCORES].multiply_adds == 80ull * 4096 * 8192, "t d");
        t_check(without.stage[QKV_SIZE_SCORES].multiply_adds == 80ull * 4096 * 4097 / 2 * 8192,
                "t (t + 1) / 2 d");
    }
}

/* A stack of full and windowed layers, `full` of `layers` being full. */
static qkv_model mixed(int32_t layers, int32_t full, int32_t kv, int32_t dim, int32_t kv_full,
                       int32_t dim_full, int64_t window)
{
    qkv_model m = heads_model(layers, 4096, 2 * kv * kv_full, kv, dim);
    m.kinds[1] = m.kinds[0];
    m.kinds[0].window_left = window - 1;
    m.kinds[1].n_kv_heads = kv_full;
    m.kinds[1].head_dim = m.kinds[1].head_dim_v = dim_full;
    m.n_kinds = 2;
    for (int32_t i = 0; i < full; i++)
        m.kind_of[QKV_PART_DECODER][i * (layers / full)] = 1;
    return m;
}

static qkv_model with_state(void)
{
    qkv_model m = heads_model(64, 5120, 24, 4, 256);
    m.kinds[1] = m.kinds[0];
    m.kinds[1].kind = QKV_LAYER_STATE;
    m.kinds[1].state_elements = 1000;
    m.kinds[1].state_type = QKV_F32;
    m.n_kinds = 2;
    for (int32_t i = 0; i < 64; i++)
        m.kind_of[QKV_PART_DECODER][i] = i % 4 != 3;
    return m;
}

static void check_bytes(const char *name, const qkv_model *m, int64_t context, int32_t format,
                        uint64_t bytes)
{
    if (t_case("%s", name)) {
        const uint64_t found = payload(m, context, format);
        t_check(found == bytes, "%llu, not %llu", (u64)found, (u64)bytes);
    }
}

/* Shapes of published models and the sizes that are published of them, in bytes. */
void test_vectors(void)
{
    const uint64_t mib = 1 << 20, gib = 1 << 30;
    const qkv_model llama8 = heads_model(32, 4096, 32, 8, 128);
    const qkv_model llama70 = heads_model(80, 8192, 64, 8, 128);
    const qkv_model qwen = heads_model(28, 1024, 16, 8, 128), v3 = latent_model();
    const qkv_model gemma27 = mixed(62, 10, 16, 128, 16, 128, 1024);
    const qkv_model gemma31 = mixed(60, 10, 16, 256, 4, 512, 1024);
    const qkv_model small = heads_model(30, 576, 9, 3, 64);
    const qkv_model tiny = mixed(18, 3, 1, 256, 1, 256, 512), state = with_state();

    check_bytes("llama_3_1_8b", &llama8, 131072, QKV_FORMAT_BF16, 16 * gib);
    check_bytes("llama_3_1_8b_q8_0", &llama8, 131072, QKV_SIZE_Q8_0, 17 * gib / 2);
    check_bytes("llama_3_1_8b_q4_0", &llama8, 131072, QKV_SIZE_Q4_0, 9 * gib / 2);
    check_bytes("llama_3_1_70b", &llama70, 131072, QKV_FORMAT_BF16, 40 * gib);
    check_bytes("qwen3_0_6b", &qwen, 40960, QKV_FORMAT_BF16, 35 * gib / 8);
    check_bytes("deepseek_v3", &v3, 163840, QKV_FORMAT_BF16, 70272ull * 163840);
    check_bytes("gemma_3_27b", &gemma27, 131072, QKV_FORMAT_BF16,
                (10ull * 131072 + 52ull * 1024) * 8192);
    check_bytes("gemma_4_31b", &gemma31, 262144, QKV_FORMAT_BF16, 20 * gib + 50ull * 1024 * 16384);
    check_bytes("smollm2_135m", &small, 8192, QKV_FORMAT_BF16, 180 * mib);
    check_bytes("gemma_3_270m", &tiny, 32768, QKV_FORMAT_BF16, 207 * mib / 2);
    check_bytes("qwen3_6_27b", &state, 262144, QKV_FORMAT_BF16, 16 * gib + 48ull * 1000 * 4);
    if (t_case("flashmla_row")) { /* 512 codes, 4 scales, 64 bf16 */
        qkv_size_setup s = setup_of(1, 1);
        s.k_format = QKV_FORMAT_E4M3;
        s.k_group = 128;
        t_check(cache_of(&v3, &s).token_bytes == 61 * 656, "656 bytes");
    }
}
