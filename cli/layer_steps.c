/* layer_steps.c - the steps of qkv layer run. */
#include <stdlib.h>
#include <string.h>

#include "layer_run.h"

/* ---- one step ----------------------------------------------------------------------------- */

static int run_step(layer_run *r, const qkv_layer_step *step, const float *x, float *out)
{
    char text[CLI_TEXT];
    qkv_layer_plan *plan = NULL;
    qkv_layer_args args;
    const qkv_parallel parallel = qkv_pool_parallel(r->pool);

    if (qkv_layer_plan_create(r->layer, step, NULL, &plan, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    qkv_layer_args_init(&args);
    args.x = x;
    args.memory = r->memory;
    args.out = out;
    args.workspace_bytes = qkv_layer_workspace_size(plan, parallel.n_workers);
    args.workspace = aligned_alloc(64, (args.workspace_bytes + 127) & ~(size_t)63);
    int code = CLI_DONE;
    if (args.workspace == NULL)
        code = cli_complain_memory("the workspace", args.workspace_bytes);
    else if (qkv_layer_run(plan, r->layer, &args, &parallel, text, sizeof text) != QKV_OK)
        code = cli_complain("%s", text);
    free(args.workspace);
    qkv_layer_plan_destroy(plan);
    return code;
}

static int is_cross(const layer_run *r) { return qkv_layer_desc_of(r->layer)->cross; }

int layer_run_whole(layer_run *r)
{
    qkv_layer_step step;

    qkv_layer_step_init(&step);
    step.n_seqs = (int32_t)r->B;
    step.q_len = r->T;
    step.memory_len = is_cross(r) ? r->Tm : 0;
    step.q_lens = is_cross(r) ? NULL : r->kv_lens;
    step.kv_lens = r->kv_lens;
    step.kv_starts = is_cross(r) ? NULL : r->kv_starts;
    step.positions = r->positions;
    step.rope_len = r->rope_len;
    step.mla = r->mla;
    const int code = run_step(r, &step, r->x, r->out);
    /* Rows in front of a sequence are no tokens, as those behind it. */
    for (int64_t b = 0; code == CLI_DONE && !is_cross(r) && b < r->B; b++)
        memset(r->out + b * r->T * r->d, 0, (size_t)(r->kv_starts[b] * r->d) * sizeof *r->out);
    return code;
}

/* ---- from a cache ------------------------------------------------------------------------- */

typedef struct cached {
    layer_run *r;
    qkv_cache *cache;
    int32_t *seqs;  /* [B] */
    int64_t *first; /* [B] the next token of each sequence, and where it ends */
    int64_t *end;
    /* One step, packed: */
    int32_t *ids, *cu, *counts;
    int64_t *positions;
    float *x, *out;
} cached;

static void *array(int64_t n, size_t size) { return calloc((size_t)(n > 0 ? n : 1), size); }

static int make_arrays(cached *c)
{
    const layer_run *r = c->r;
    const int64_t rows = r->B * r->T;

    c->seqs = array(r->B, sizeof *c->seqs);
    c->first = array(r->B, sizeof *c->first);
    c->end = array(r->B, sizeof *c->end);
    c->ids = array(r->B, sizeof *c->ids);
    c->cu = array(r->B + 1, sizeof *c->cu);
    c->counts = array(r->B, sizeof *c->counts);
    c->positions = array(rows, sizeof *c->positions);
    c->x = array(rows * r->d, sizeof *c->x);
    c->out = array(rows * r->d, sizeof *c->out);
    if (!c->seqs || !c->first || !c->end || !c->ids || !c->cu || !c->counts || !c->positions ||
        !c->x || !c->out)
        return cli_complain_memory("the steps", (size_t)(rows * r->d) * 2 * sizeof *c->x);
    for (int64_t b = 0; b < r->B; b++) {
        c->first[b] = is_cross(r) ? 0 : r->kv_starts[b];
        c->end[b] = is_cross(r) ? r->T : r->kv_lens[b];
    }
    return CLI_DONE;
}

static int make_cache(cached *c)
{
    const layer_run *r = c->r;
    const int64_t tokens = is_cross(r) ? r->Tm : r->T;
    char text[CLI_TEXT];
    qkv_cache_config f;

    qkv_cache_config_init(&f);
    qkv_layer_cache_config(r->layer, &f);
    f.k_format = r->format;
    f.v_format = r->format == QKV_FORMAT_INT8_CHANNEL ? QKV_FORMAT_INT8 : r->format;
    f.float_type = r->format == QKV_FORMAT_F32   ? QKV_F32
                   : r->format == QKV_FORMAT_F16 ? QKV_F16
                                                 : QKV_BF16;
    f.max_seqs = (int32_t)r->B;
    f.n_pages = (int32_t)(r->B * ((tokens + f.page_tokens - 1) / f.page_tokens + 1));
    if (qkv_cache_create(&f, NULL, &c->cache, text, sizeof text) != QKV_OK)
        return cli_complain("--cache %s: %s", qkv_format_name(r->format), text);
    for (int64_t b = 0; b < r->B; b++)
        if (qkv_cache_add(c->cache, &c->seqs[b], text, sizeof text) != QKV_OK)
            return cli_complain("%s", text);
    return CLI_DONE;
}

/* Cross-attention: keys and values of the memory, once. */
static int store_memory(cached *c)
{
    layer_run *r = c->r;
    char text[CLI_TEXT];
    qkv_layer_step step;

    qkv_layer_step_init(&step);
    step.form = QKV_FORM_MEMORY;
    step.n_seqs = (int32_t)r->B;
    step.memory_len = r->Tm;
    step.kv_lens = r->kv_lens;
    step.cache = c->cache;
    step.seqs = c->seqs;
    if (qkv_cache_reserve(c->cache, (int32_t)r->B, c->seqs, r->kv_lens, text, sizeof text) !=
        QKV_OK)
        return cli_complain("%s", text);
    const int code = run_step(r, &step, NULL, NULL);
    if (code == CLI_DONE)
        qkv_cache_commit(c->cache, (int32_t)r->B, c->seqs, NULL, text, sizeof text);
    return code;
}

/* Packs the next tokens, up to `most` a sequence but leaving `rest`; how many sequences have any. */
static int32_t gather(cached *c, int64_t most, int64_t rest)
{
    const layer_run *r = c->r;
    int32_t n = 0;

    for (int64_t b = 0; b < r->B; b++) {
        int64_t count = c->end[b] - c->first[b] - rest;
        count = count < most ? count : most;
        if (count <= 0)
            continue;
        const int64_t from = b * r->T + c->first[b], to = c->cu[n];
        memcpy(c->x + to * r->d, r->x + from * r->d, (size_t)(count * r->d) * sizeof *c->x);
        memcpy(c->positions + to, r->positions + from, (size_t)count * sizeof *c->positions);
        c->ids[n] = c->seqs[b];
        c->counts[n] = (int32_t)count;
        c->cu[++n] = (int32_t)(to + count);
    }
    return n;
}

static void scatter(cached *c, int32_t n)
{
    const layer_run *r = c->r;

    for (int64_t b = 0, i = 0; b < r->B && i < n; b++) {
        if (c->ids[i] != c->seqs[b])
            continue;
        memcpy(r->out + (b * r->T + c->first[b]) * r->d, c->out + c->cu[i] * r->d,
               (size_t)(c->counts[i] * r->d) * sizeof *c->out);
        c->first[b] += c->counts[i++];
    }
}

static int advance(cached *c, int64_t most, int64_t rest)
{
    layer_run *r = c->r;
    char text[CLI_TEXT];
    qkv_layer_step step;
    const int32_t n = gather(c, most, rest);

    if (n == 0)
        return CLI_DONE;
    if (!is_cross(r) &&
        qkv_cache_reserve(c->cache, n, c->ids, c->counts, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    qkv_layer_step_init(&step);
    step.form = QKV_FORM_CACHED;
    step.n_seqs = n;
    step.cu_seqlens = c->cu;
    step.positions = c->positions;
    step.rope_len = r->rope_len;
    step.mla = r->mla;
    step.cache = c->cache;
    step.seqs = c->ids;
    const int code = run_step(r, &step, c->x, c->out);
    if (code != CLI_DONE)
        return code;
    if (!is_cross(r))
        qkv_cache_commit(c->cache, n, c->ids, NULL, text, sizeof text);
    scatter(c, n);
    return CLI_DONE;
}

int layer_run_cached(layer_run *r)
{
    const int64_t decode = r->decode > 0 ? r->decode : 0;
    cached c = {.r = r};
    int code = make_arrays(&c);

    if (code == CLI_DONE)
        code = make_cache(&c);
    if (code == CLI_DONE && is_cross(r))
        code = store_memory(&c);
    if (code == CLI_DONE)
        code = advance(&c, r->T, decode);
    for (int64_t i = decode; code == CLI_DONE && i > 0; i--)
        code = advance(&c, 1, i - 1);
    qkv_cache_destroy(c.cache);
    free(c.seqs);
    free(c.first);
    free(c.end);
    free(c.ids);
    free(c.cu);
    free(c.counts);
    free(c.positions);
    free(c.x);
    free(c.out);
    return code;
}
