/* refusals.c - weights in odd places, and what is refused, by name. */
#include <math.h>
#include <string.h>

#include "layers_test.h"

/* ---- weights ---------------------------------------------------------------------------- */

/* Runs a layer made from other tensors with the same numbers; bits must not change. */
static void expect_same(const sample *s, const qkv_layer_weight *weights, const char *what)
{
    t_rng rng = t_rng_of(t_seed() + 500);
    float *x = random_floats(&rng, 5 * 20), a[100], b[100];
    qkv_layer_step step;
    sample other = *s;
    char text[256];

    qkv_layer_step_init(&step);
    step.q_len = 5;
    t_check(qkv_layer_create(&s->desc, weights, NULL, &other.layer, text, sizeof text) == QKV_OK,
            "%s: %s", what, text);
    if (!other.layer)
        return;
    t_check(run_step(s, &step, x, NULL, a, NULL, text) == QKV_OK, "%s", text);
    t_check(run_step(&other, &step, x, NULL, b, NULL, text) == QKV_OK, "%s", text);
    t_check(memcmp(a, b, sizeof a) == 0, "%s: other numbers", what);
    sample_end(&other);
}

/* GPT-2's Conv1D: [in][out], q, k and v side by side; GPT-NeoX: q, k and v of a head together. */
static void fused(const sample *s, int by_head)
{
    qkv_layer_weight w[QKV_ROLE_COUNT];
    const int64_t D = 8, H = 6, in = 20, rows = 3 * H * D;
    float *joined = t_scratch((size_t)(rows * in) * 4), *bias = t_scratch((size_t)rows * 4);

    memcpy(w, s->weights, sizeof w);
    for (int role = QKV_ROLE_Q; role <= QKV_ROLE_V; role++) {
        for (int64_t r = 0; r < H * D; r++) {
            const int64_t to = by_head ? r / D * 3 * D + role * D + r % D : role * H * D + r;
            bias[to] = s->bias[role][r];
            for (int64_t c = 0; c < in; c++)
                joined[by_head ? to * in + c : c * rows + to] = s->matrix[role][r * in + c];
        }
        w[role].data = joined;
        w[role].bias = bias;
        w[role].row_stride = by_head ? in : 1;
        w[role].col_stride = by_head ? 1 : rows;
        w[role].first = by_head ? role * D : role * H * D;
        w[role].group_heads = by_head;
        w[role].group_stride = by_head ? 3 * D : 0;
    }
    expect_same(s, w, by_head ? "fused by head" : "transposed");
}

/* 16-bit tensors at odd addresses against the same numbers in f32. */
static void narrow(sample *s, qkv_type type)
{
    qkv_layer_weight w[QKV_ROLE_COUNT];

    memcpy(w, s->weights, sizeof w);
    for (int role = QKV_ROLE_Q; role <= QKV_ROLE_O; role++) {
        const size_t n = 20 * 48;
        unsigned char *odd = (unsigned char *)t_scratch(2 * n + 2) + 1, *even = t_scratch(2 * n);
        qkv_convert(even, type, s->matrix[role], QKV_F32, n);
        qkv_convert(s->matrix[role], QKV_F32, even, type, n);
        memcpy(odd, even, 2 * n);
        w[role].data = odd;
        w[role].type = type;
    }
    qkv_layer_destroy(s->layer);
    qkv_layer_create(&s->desc, s->weights, NULL, &s->layer, NULL, 0);
    expect_same(s, w, qkv_type_name(type));
}

void test_weights(void)
{
    for (int i = 0; i < 4; i++)
        if (t_case("%d", i)) {
            t_rng rng = t_rng_of(t_seed() + 501);
            qkv_layer_desc d = desc_of(&variants[1]);
            d.q_bias = d.k_bias = d.v_bias = 1;
            sample s = sample_of(&d, &rng);
            if (i < 2)
                fused(&s, i);
            else
                narrow(&s, i == 2 ? QKV_F16 : QKV_BF16);
            sample_end(&s);
        }
}

/* ---- refusals --------------------------------------------------------------------------- */

static void expect_create(const qkv_layer_desc *d, const qkv_layer_weight *w, qkv_status status,
                          const char *word)
{
    qkv_layer *layer = NULL;
    char text[256];
    const qkv_status got = qkv_layer_create(d, w, NULL, &layer, text, sizeof text);
    t_check(got == status && strstr(text, word) && !layer, "%s: %s (%s)", word, text,
            qkv_status_name(got));
    qkv_layer_destroy(layer);
}

static void refuse_layers(void)
{
    t_rng rng = t_rng_of(t_seed() + 502);
    qkv_layer_desc d = desc_of(&variants[0]);
    sample s = sample_weights(&d, &rng);
    qkv_layer_weight w[QKV_ROLE_COUNT];

    memcpy(w, s.weights, sizeof w);
    w[QKV_ROLE_K].data = NULL;
    expect_create(&d, w, QKV_ERR_ARGUMENT, "weight k is absent");
    memcpy(w, s.weights, sizeof w);
    w[QKV_ROLE_O].bias = w[QKV_ROLE_O].data;
    expect_create(&d, w, QKV_ERR_ARGUMENT, "bias of weight o is given");
    memcpy(w, s.weights, sizeof w);
    w[QKV_ROLE_SINKS] = w[QKV_ROLE_Q];
    expect_create(&d, w, QKV_ERR_ARGUMENT, "weight sinks is given");
    memcpy(w, s.weights, sizeof w);
    w[QKV_ROLE_V].type = QKV_I32;
    expect_create(&d, w, QKV_ERR_ARGUMENT, "weight v has type i32");
    w[QKV_ROLE_V].type = 77;
    expect_create(&d, w, QKV_ERR_ARGUMENT, "weight v has type ?");
    d.n_kv_heads = 4;
    expect_create(&d, s.weights, QKV_ERR_ARGUMENT, "n_kv_heads is 4");
    d = desc_of(&variants[0]);
    d.o_gate = 1;
    expect_create(&d, s.weights, QKV_ERR_UNSUPPORTED, "o_gate");
    d = desc_of(&variants[0]);
    d.cross = 1;
    d.causal = 0;
    d.alibi = QKV_ALIBI_PLAIN;
    expect_create(&d, s.weights, QKV_ERR_UNSUPPORTED, "cross");
    expect_create(NULL, s.weights, QKV_ERR_ARGUMENT, "NULL");
}

static void expect_plan(const sample *s, const qkv_layer_step *step, qkv_status status,
                        const char *word)
{
    qkv_layer_plan *plan = NULL;
    char text[256] = "";
    const qkv_status got = qkv_layer_plan_create(s->layer, step, NULL, &plan, text, sizeof text);
    t_check(got == status && strstr(text, word) && !plan, "%s: %s (%s)", word, text,
            qkv_status_name(got));
    qkv_layer_plan_destroy(plan);
}

#define TRY(field, value, status, word)                                                            \
    do {                                                                                           \
        qkv_layer_step t = step;                                                                   \
        t.field = value;                                                                           \
        expect_plan(&s, &t, status, word);                                                         \
    } while (0)

static void refuse_steps(void)
{
    t_rng rng = t_rng_of(t_seed() + 503);
    const qkv_layer_desc d = desc_of(&variants[6]);
    const int32_t long_lens[2] = {3, 9}, minus[2] = {0, -1}, down[3] = {0, 5, 4}, late[3] = {1, 5, 6};
    const int64_t far[16] = {0, INT64_MAX};
    sample s = sample_of(&d, &rng);
    qkv_layer_step step;

    qkv_layer_step_init(&step);
    step.n_seqs = 2;
    step.q_len = 8;
    TRY(struct_size, 4, QKV_ERR_ARGUMENT, "qkv_layer_step_init");
    TRY(form, 3, QKV_ERR_ARGUMENT, "form is 3");
    TRY(form, QKV_FORM_MEMORY, QKV_ERR_ARGUMENT, "form is QKV_FORM_MEMORY");
    TRY(form, QKV_FORM_CACHED, QKV_ERR_ARGUMENT, "cache and seqs");
    TRY(mla, -1, QKV_ERR_ARGUMENT, "mla is -1");
    TRY(n_seqs, 0, QKV_ERR_ARGUMENT, "n_seqs is 0");
    TRY(q_len, -1, QKV_ERR_ARGUMENT, "q_len is -1");
    TRY(q_len, INT64_MAX, QKV_ERR_ARGUMENT, "q_len is");
    TRY(memory_len, 4, QKV_ERR_ARGUMENT, "memory_len is 4");
    TRY(q_lens, long_lens, QKV_ERR_ARGUMENT, "q_lens[1] is 9");
    TRY(kv_lens, minus, QKV_ERR_ARGUMENT, "kv_lens[1] is -1");
    TRY(kv_starts, long_lens, QKV_ERR_ARGUMENT, "kv_starts[1] is 9");
    TRY(cu_seqlens, down, QKV_ERR_ARGUMENT, "cu_seqlens[1] is 5");
    TRY(cu_seqlens, late, QKV_ERR_ARGUMENT, "cu_seqlens[0] is 1");
    TRY(positions, far, QKV_ERR_ARGUMENT, "position");
    TRY(rope_len, -7, QKV_ERR_ARGUMENT, "rope_len is -7");
    sample_end(&s);
}

static void refuse_caches(void)
{
    t_rng rng = t_rng_of(t_seed() + 504);
    const qkv_layer_desc d = desc_of(&variants[0]);
    sample s = sample_of(&d, &rng);
    int32_t seq = 0, none = 12345;
    const int32_t one = 1;
    qkv_cache_config c;
    qkv_cache *cache = NULL;
    qkv_layer_step step;

    for (int i = 0; i < 3; i++) {
        qkv_cache_config_init(&c);
        qkv_layer_cache_config(s.layer, &c);
        c.n_pages = 2;
        c.head_dim += i == 0;
        c.window_left = i == 1 ? 7 : QKV_UNBOUNDED;
        qkv_cache_create(&c, NULL, &cache, NULL, 0);
        qkv_cache_add(cache, &seq, NULL, 0);
        qkv_cache_reserve(cache, 1, &seq, &one, NULL, 0);
        qkv_layer_step_init(&step);
        step.form = QKV_FORM_CACHED;
        step.q_len = 1;
        step.cache = cache;
        step.seqs = &seq;
        if (i < 2) {
            expect_plan(&s, &step, QKV_ERR_ARGUMENT, i == 0 ? "9 and 8 channels" : "window_left");
        } else {
            TRY(q_len, 2, QKV_ERR_ARGUMENT, "1 reserved tokens and the step 2");
            TRY(seqs, &none, QKV_ERR_ARGUMENT, "seqs[0] is 12345");
            TRY(kv_lens, &one, QKV_ERR_ARGUMENT, "kv_lens");
        }
        qkv_cache_destroy(cache);
    }
    sample_end(&s);
}

static void refuse_runs(void)
{
    t_rng rng = t_rng_of(t_seed() + 505);
    const qkv_layer_desc d = desc_of(&variants[0]), e = desc_of(&variants[1]);
    sample s = sample_of(&d, &rng), other = sample_of(&e, &rng);
    float x[40] = {0}, out[40];
    qkv_layer_step step;
    qkv_layer_plan *plan = NULL;
    qkv_layer_args args;
    char text[256];

    qkv_layer_step_init(&step);
    step.q_len = 2;
    qkv_layer_plan_create(s.layer, &step, NULL, &plan, text, sizeof text);
    qkv_layer_args_init(&args);
    args.out = out;
    args.workspace_bytes = qkv_layer_workspace_size(plan, 1);
    args.workspace = t_alloc(args.workspace_bytes, 64, T_END, 0);
    t_check(qkv_layer_run(plan, s.layer, &args, NULL, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "x or out"),
            "%s", text);
    args.x = x;
    t_check(qkv_layer_run(plan, other.layer, &args, NULL, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "another description"),
            "%s", text);
    args.workspace_bytes--;
    t_check(qkv_layer_run(plan, s.layer, &args, NULL, text, sizeof text) == QKV_ERR_BUFFER &&
                strstr(text, "workspace"),
            "%s", text);
    args.struct_size = 0;
    t_check(qkv_layer_run(plan, s.layer, &args, NULL, text, sizeof text) == QKV_ERR_ARGUMENT, "%s",
            text);
    qkv_layer_plan_destroy(plan);
    sample_end(&s);
    sample_end(&other);
}

void test_refusals(void)
{
    if (t_case("layers"))
        refuse_layers();
    if (t_case("steps"))
        refuse_steps();
    if (t_case("caches"))
        refuse_caches();
    if (t_case("runs"))
        refuse_runs();
}
