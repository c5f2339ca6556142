/* test_sizing.c - the tests of qkv/sizing.h, and the models they share. */
#include "sizing_test.h"

qkv_model heads_model(int32_t layers, int32_t d_model, int32_t q, int32_t kv, int32_t dim)
{
    char text[256];
    qkv_layer_desc l;
    static qkv_model m;

    qkv_layer_desc_init(&l);
    l.d_model = d_model;
    l.n_q_heads = q;
    l.n_kv_heads = kv;
    l.head_dim = l.head_dim_v = dim;
    const qkv_status status = qkv_size_model_of(&l, layers, &m, TEXT);
    t_check(status == QKV_OK, "heads_model: %s", text);
    return m;
}

qkv_model latent_model(void)
{
    char text[256];
    qkv_layer_desc l;
    static qkv_model m;

    qkv_layer_desc_init(&l);
    l.kind = QKV_LAYER_MLA;
    l.d_model = 7168;
    l.n_q_heads = l.n_kv_heads = 128;
    l.head_dim = 192;
    l.head_dim_v = 128;
    l.q_lora_rank = 1536;
    l.kv_lora_rank = 512;
    l.rope_dim = 64;
    const qkv_status status = qkv_size_model_of(&l, 61, &m, TEXT);
    t_check(status == QKV_OK, "latent_model: %s", text);
    return m;
}

qkv_size_setup setup_of(int64_t context, int64_t batch)
{
    qkv_size_setup s;
    qkv_size_setup_init(&s);
    s.context = context;
    s.batch = batch;
    return s;
}

qkv_size_work work_of(const qkv_model *m, const qkv_size_setup *s, int32_t which)
{
    char text[256];
    qkv_size_step step;
    qkv_size_work w;
    t_check(qkv_size_step_of(s, which, &step, TEXT) == QKV_OK, "step: %s", text);
    t_check(qkv_size_work_find(m, s, &step, &w, TEXT) == QKV_OK, "work: %s", text);
    return w;
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"facts", test_facts},
                                   {"vectors", test_vectors},
                                   {"pages", test_pages},
                                   {"real_caches", test_real_caches},
                                   {"windows", test_windows},
                                   {"pairs", test_pairs},
                                   {"parameters", test_parameters},
                                   {"work", test_work},
                                   {"time", test_time},
                                   {"ranks", test_ranks},
                                   {"solve", test_solve},
                                   {"variants", test_variants},
                                   {"words", test_words},
                                   {"refusals", test_refusals}};
    return t_main(argc, argv, "sizing", tests, sizeof tests / sizeof tests[0]);
}
