/* layer_stack.c - layers with random weights, and a cache for all of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layer_bench.h"
#include "memory.h"

enum { PAGE = 64, FILL_TOKENS = 256 };

/* Weights lie as the benchmarks' keys and values do: in huge pages, where the system gives them. */
static void *take(void *ctx, size_t bytes)
{
    (void)ctx;
    return bench_alloc(bytes);
}

static void give(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

static const qkv_allocator allocator = {take, give, NULL};

/* ---- what a layer is ---------------------------------------------------------------------- */

static void describe(qkv_layer_desc *d, const layer_options *o, int mla)
{
    qkv_layer_desc_init(d);
    d->d_model = o->d_model;
    d->n_q_heads = o->n_heads;
    d->n_kv_heads = mla ? o->n_heads : o->n_kv_heads;
    d->head_dim = mla ? o->nope_dim + o->rope_dim : o->head_dim;
    d->head_dim_v = mla ? o->value_dim : o->head_dim;
    if (mla) {
        d->kind = QKV_LAYER_MLA;
        d->kv_lora_rank = o->latent_dim;
        d->rope_dim = o->rope_dim;
    }
    const int32_t turning = mla ? o->rope_dim : o->head_dim;
    if (turning > 0) {
        d->rope.type = QKV_ROPE_DEFAULT;
        d->rope.head_dim = turning;
        d->rope.theta = 500000;
    }
}

/* Rows and columns of a weight; 0 rows: the layer has none. */
static int64_t rows_of(const qkv_layer_desc *d, int role, int64_t *cols)
{
    const int mla = d->kind == QKV_LAYER_MLA;
    const int64_t heads = d->n_q_heads, n = d->head_dim - d->rope_dim;

    *cols = d->d_model;
    switch (role) {
    case QKV_ROLE_Q: return heads * d->head_dim;
    case QKV_ROLE_K: return mla ? 0 : (int64_t)d->n_kv_heads * d->head_dim;
    case QKV_ROLE_V: return mla ? 0 : (int64_t)d->n_kv_heads * d->head_dim_v;
    case QKV_ROLE_O: *cols = heads * d->head_dim_v; return d->d_model;
    case QKV_ROLE_KV_A: return mla ? d->kv_lora_rank + d->rope_dim : 0;
    case QKV_ROLE_KV_A_NORM: *cols = 1; return mla ? d->kv_lora_rank : 0;
    case QKV_ROLE_KV_B: *cols = d->kv_lora_rank; return mla ? heads * (n + d->head_dim_v) : 0;
    default: return 0;
    }
}

/* Of variance 1 / columns, so that what comes out is as large as what goes in; norms are 1. */
static float *random_weight(int64_t rows, int64_t cols, int role)
{
    float *w = bench_alloc((size_t)(rows * cols) * sizeof *w);
    const float scale = 1 / sqrtf((float)cols);

    if (w == NULL)
        return NULL;
    bench_fill(w, QKV_F32, rows * cols, (uint64_t)role + 1);
    for (int64_t i = 0; i < rows * cols; i++)
        w[i] = cols == 1 ? 1 : w[i] * scale;
    return w;
}

/* ---- making ------------------------------------------------------------------------------- */

static int make_layers(layer_stack *s, const qkv_layer_weight *weights, size_t memory)
{
    char text[CLI_TEXT];

    for (s->n = 0; s->n == 0 || (size_t)s->n * s->bytes < memory; s->n++) {
        qkv_layer **more = realloc(s->layers, ((size_t)s->n + 1) * sizeof(qkv_layer *));
        if (more == NULL)
            return cli_complain_memory("layers", (size_t)s->n * sizeof(qkv_layer *));
        s->layers = more;
        if (qkv_layer_create(&s->desc, weights, &allocator, &s->layers[s->n], text,
                             sizeof text) != QKV_OK)
            return cli_complain("layer %d: %s", (int)s->n, text);
        s->bytes = qkv_layer_bytes(s->layers[0]);
    }
    return CLI_DONE;
}

int layer_stack_make(layer_stack *s, const layer_options *o, int mla)
{
    qkv_layer_weight weights[QKV_ROLE_COUNT] = {{.data = NULL}};
    int code = CLI_DONE;

    memset(s, 0, sizeof *s);
    describe(&s->desc, o, mla);
    for (int role = 0; code == CLI_DONE && role < QKV_ROLE_COUNT; role++) {
        int64_t cols;
        const int64_t rows = rows_of(&s->desc, role, &cols);
        if (rows == 0)
            continue;
        weights[role] =
            qkv_layer_weight_dense(random_weight(rows, cols, role), NULL, QKV_F32, cols);
        if (weights[role].data == NULL)
            code = cli_complain_memory("a weight", (size_t)(rows * cols) * sizeof(float));
    }
    if (code == CLI_DONE)
        code = make_layers(s, weights, o->common.memory);
    for (int role = 0; role < QKV_ROLE_COUNT; role++)
        free((void *)(uintptr_t)weights[role].data);
    return code;
}

void layer_stack_free(layer_stack *s)
{
    for (int32_t i = 0; i < s->n; i++)
        qkv_layer_destroy(s->layers[i]);
    free(s->layers);
    qkv_cache_destroy(s->cache);
    memset(s, 0, sizeof *s);
}

/* ---- its cache ---------------------------------------------------------------------------- */

static qkv_cache_config config_of(const qkv_layer_desc *d, const layer_options *o, int64_t tokens)
{
    const int latent = d->kind == QKV_LAYER_MLA, wide = o->format <= QKV_FORMAT_BF16;
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = latent ? QKV_CACHE_LATENT : 0;
    c.n_kv_heads = latent ? 1 : d->n_kv_heads;
    c.head_dim = latent ? d->kv_lora_rank + d->rope_dim : d->head_dim;
    c.head_dim_v = latent ? d->kv_lora_rank : d->head_dim_v;
    c.k_format = c.v_format = o->format;
    c.k_group = latent && !wide && o->latent_dim >= 128 ? 128 : 0;
    c.page_tokens = PAGE;
    c.n_pages = (int32_t)((tokens + PAGE - 1) / PAGE);
    c.max_seqs = 1;
    return c;
}

int layer_stack_check(const layer_options *o, int mla)
{
    qkv_layer_desc d;
    char text[CLI_TEXT];

    describe(&d, o, mla);
    const qkv_cache_config c = config_of(&d, o, o->decode + 1);
    if (qkv_layer_desc_check(&d, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    if (qkv_cache_config_check(&c, NULL, text, sizeof text) != QKV_OK)
        return cli_complain("--cache %s: %s", qkv_format_name(o->format), text);
    return CLI_DONE;
}

static int create_cache(layer_stack *s, const layer_options *o, int64_t tokens)
{
    qkv_cache_config c = config_of(&s->desc, o, tokens);
    char text[CLI_TEXT];

    c.n_layers = s->n;
    if (qkv_cache_create(&c, &allocator, &s->cache, text, sizeof text) != QKV_OK ||
        qkv_cache_add(s->cache, &s->seq, text, sizeof text) != QKV_OK)
        return cli_complain("the cache: %s", text);
    return CLI_DONE;
}

/* Random keys and values at `at`, other ones in each layer. */
static int write_layers(layer_stack *s, const float *source, int64_t at, int32_t count)
{
    const qkv_layer_desc *d = &s->desc;
    const int latent = d->kind == QKV_LAYER_MLA;
    const int64_t heads = latent ? 1 : d->n_kv_heads;
    const int64_t width = latent ? d->kv_lora_rank + d->rope_dim : d->head_dim;
    char text[CLI_TEXT];
    qkv_cache_rows r;

    for (int32_t layer = 0; layer < s->n; layer++) {
        qkv_cache_rows_init(&r);
        r.seqs = &s->seq;
        r.starts = &at;
        r.counts = &count;
        r.k = source + (at * 7919 + layer * 64ll) % BENCH_PERIOD;
        r.v = latent ? NULL : source + (at * 104729 + layer * 64ll + 31) % BENCH_PERIOD;
        r.k_stride[1] = width;
        r.v_stride[1] = d->head_dim_v;
        r.k_stride[2] = heads * width;
        r.v_stride[2] = heads * d->head_dim_v;
        if (qkv_cache_write(s->cache, layer, &r, text, sizeof text) != QKV_OK)
            return cli_complain("the cache: %s", text);
    }
    return CLI_DONE;
}

static int commit(layer_stack *s)
{
    char text[CLI_TEXT];

    if (qkv_cache_commit(s->cache, 1, &s->seq, NULL, text, sizeof text) != QKV_OK)
        return cli_complain("the cache: %s", text);
    return CLI_DONE;
}

static int fill(layer_stack *s, int64_t tokens)
{
    const qkv_layer_desc *d = &s->desc;
    const int64_t widest = d->head_dim > d->head_dim_v ? d->head_dim : d->head_dim_v;
    const int64_t row = d->kind == QKV_LAYER_MLA ? 1024 : d->n_kv_heads * widest;
    const int64_t n = BENCH_PERIOD + FILL_TOKENS * row;
    float *source = bench_alloc((size_t)n * sizeof *source);
    int code = CLI_DONE;

    if (source == NULL)
        return cli_complain_memory("rows for the cache", (size_t)n * sizeof *source);
    bench_fill(source, QKV_F32, n, 11);
    for (int64_t at = 0; code == CLI_DONE && at < tokens; at += FILL_TOKENS) {
        const int64_t left = tokens - at;
        const int32_t count = left < FILL_TOKENS ? (int32_t)left : FILL_TOKENS;
        code = layer_stack_reserve(s, count);
        if (code == CLI_DONE)
            code = write_layers(s, source, at, count);
        if (code == CLI_DONE)
            code = commit(s);
    }
    free(source);
    return code;
}

int layer_stack_cache(layer_stack *s, const layer_options *o, int64_t tokens, int filled)
{
    int code = create_cache(s, o, tokens + 1);
    if (code == CLI_DONE && filled)
        code = fill(s, tokens);
    return code;
}

int layer_stack_reserve(layer_stack *s, int64_t count)
{
    const int32_t n = (int32_t)count;
    char text[CLI_TEXT];

    if (qkv_cache_reserve(s->cache, 1, &s->seq, &n, text, sizeof text) != QKV_OK)
        return cli_complain("the cache: %s", text);
    return CLI_DONE;
}

int layer_stack_truncate(layer_stack *s, int64_t length)
{
    char text[CLI_TEXT];

    if (qkv_cache_truncate(s->cache, s->seq, length, text, sizeof text) != QKV_OK)
        return cli_complain("the cache: %s", text);
    return CLI_DONE;
}
