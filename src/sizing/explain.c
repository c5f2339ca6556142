/* sizing/explain.c - formulas with the numbers in them. */
#include "sizing/internal.h"
#include "sizing/lines.h"

typedef unsigned long long u64;

/* ---- one kind of layer -------------------------------------------------------------------- */

static void cache_line(qkv_lines *out, const qkv_layer_desc *l, const char *name)
{
    const int64_t elements = qkv_layer_cache_elements(l);

    if (l->kind == QKV_LAYER_MLA)
        LINE(
            "%s: cache elements a token = c + r = %d + %d = %lld; expanded, Hq (D + Dv) = %d x (%d "
            "+ %d) = %lld, %.1f times as many",
            name, l->kv_lora_rank, l->rope_dim, (long long)elements, l->n_q_heads, l->head_dim,
            l->head_dim_v, (long long)l->n_q_heads * (l->head_dim + l->head_dim_v),
            (double)l->n_q_heads * (l->head_dim + l->head_dim_v) / (double)elements);
    else
        LINE("%s: cache elements a token = Hkv (D + Dv) = %d x (%d + %d) = %lld; MHA has Hq = %d "
             "heads, %.4g times as many",
             name, l->n_kv_heads, l->head_dim, l->head_dim_v,
             (long long)l->n_kv_heads * (l->head_dim + l->head_dim_v), l->n_q_heads,
             (double)l->n_q_heads / l->n_kv_heads);
}

static void parameter_lines(qkv_lines *out, const qkv_layer_desc *l, const char *name)
{
    const u64 d = (u64)l->d_model, h = (u64)l->n_q_heads, g = (u64)l->n_kv_heads;
    const u64 from = l->d_memory > 0 ? (u64)l->d_memory : d;
    const u64 dk = (u64)l->head_dim, dv = (u64)l->head_dim_v, q = h * dk * (l->o_gate ? 2 : 1);
    uint64_t matrices;
    const u64 all = qkv_size_layer_parameters(l, &matrices);

    if (l->kind == QKV_LAYER_MLA) {
        const u64 c = (u64)l->kv_lora_rank, r = (u64)l->rope_dim, rank = (u64)l->q_lora_rank;
        LINE("%s: parameters = queries %llu + latent d (c + r) = %llu x (%llu + %llu) = %llu + "
             "keys and values c Hq (n + v) = %llu + W_O Hq v d = %llu = %llu; all %llu",
             name, rank > 0 ? d * rank + rank * h * dk : d * h * dk, d, c, r, d * (c + r),
             c * h * (dk - r + dv), h * dv * d, (u64)matrices, all);
    } else {
        LINE(
            "%s: parameters = W_Q d Hq D%s = %llu + W_K d Hkv D = %llu + W_V d Hkv Dv = %llu + W_O "
            "Hq Dv d = %llu = %llu; with biases, norms and sinks %llu",
            name, l->o_gate ? " x 2 (gate)" : "", d * q, from * g * dk,
            l->v_from_k ? 0 : from * g * dv, h * dv * d, (u64)matrices, all);
    }
    LINE("%s: projections a token = %llu multiply-adds = %llu FLOPs", name, (u64)matrices,
         2 * (u64)matrices);
}

static void prefill_line(qkv_lines *out, const qkv_layer_desc *l, const qkv_size_setup *s,
                         const char *name)
{
    qkv_tally t = {0};
    const u64 n = (u64)s->context, h = (u64)l->n_q_heads;
    const u64 pairs = qkv_size_pairs(l, 0, n, (u64)s->memory_tokens, s->pairs, &t);
    const u64 qk = qkv_tally_mul3(&t, pairs, h, (u64)l->head_dim);
    const u64 pv = qkv_tally_mul3(&t, pairs, h, (u64)l->head_dim_v);

    if (t.over)
        return;
    LINE("%s: prefill of N = %llu has %llu pairs a head (%s); Q K^T pairs Hq D = pairs x %llu x %d "
         "= %llu, softmax %llu exponentials, P V pairs Hq Dv = %llu multiply-adds",
         name, n, pairs, s->pairs == QKV_COUNT_SQUARE ? "all of them" : "visible ones only", h,
         l->head_dim, qk, pairs * h, pv);
}

static void decode_lines(qkv_lines *out, const qkv_layer_desc *l, const qkv_size_setup *s,
                         const char *name)
{
    qkv_tally t = {0};
    const u64 n = (u64)s->context, h = (u64)l->n_q_heads, c = (u64)l->kv_lora_rank;
    const u64 last = qkv_size_pairs(l, n - 1, 1, (u64)s->memory_tokens, s->pairs, &t);
    const u64 both = last * h * ((u64)l->head_dim + (u64)l->head_dim_v);
    const u64 up = c * h * (u64)(l->head_dim - l->rope_dim + l->head_dim_v);

    LINE("%s: decode at t = %llu sees %llu keys; Q K^T and P V %llu Hq (D + Dv) = %llu "
         "multiply-adds",
         name, n, last, last, both);
    if (l->kind != QKV_LAYER_MLA)
        return;
    const u64 expanded = qkv_tally_mul(&t, last, up);
    if (!t.over)
        LINE("%s: absorbed, Q K^T and P V %llu Hq (2 c + r) = %llu and c Hq (n + v) = %llu for the "
             "query; expanded, %llu c Hq (n + v) = %llu before them",
             name, last, last * h * (2 * c + (u64)l->rope_dim), up, last, expanded);
}

static void crossover_lines(qkv_lines *out, const qkv_layer_desc *l, const qkv_size_setup *s,
                            const char *name)
{
    qkv_size_crossover x;

    if (qkv_size_crossover_find(l, s->context, &x, NULL, 0) != QKV_OK)
        return;
    LINE("%s: attention catches up with projections at N = parameters / (Hq (D + Dv)) = %.6g "
         "counting all pairs (the rule 2 d = %.6g is for MHA with Hq D = d), at %.6g counting "
         "visible ones",
         name, x.square, x.rule, x.visible);
    if (l->kind == QKV_LAYER_MLA)
        LINE("%s: over %lld tokens absorbing is fewer multiply-adds for steps of up to %.4g new "
             "tokens, expanding for longer ones",
             name, (long long)s->context, x.mla_new);
}

static void kind_lines(qkv_lines *out, const qkv_model *m, const qkv_size_setup *s)
{
    for (int32_t i = 0; i < m->n_kinds; i++) {
        const qkv_layer_desc *l = &m->kinds[i];
        char variant[32], name[64];
        const qkv_say say = {name, sizeof name};
        qkv_refuse(say, QKV_OK, "layer kind %d (%s)", (int)i,
                   qkv_layer_variant(l, variant, sizeof variant));
        if (l->kind == QKV_LAYER_STATE) {
            LINE("%s: %lld elements a sequence, whatever its length; %lld parameters", name,
                 (long long)l->state_elements, (long long)l->state_parameters);
            continue;
        }
        cache_line(out, l, name);
        parameter_lines(out, l, name);
        prefill_line(out, l, s, name);
        if (l->causal)
            decode_lines(out, l, s, name);
        crossover_lines(out, l, s, name);
    }
}

/* ---- caches ------------------------------------------------------------------------------- */

static void group_lines(qkv_lines *out, const qkv_size_setup *s, const qkv_size_group *g,
                        int32_t index)
{
    char name[32];
    const qkv_say say = {name, sizeof name};
    const u64 batch = (u64)s->batch, layers = (u64)g->n_layers;

    qkv_refuse(say, QKV_OK, "cache %d", (int)index);
    if (g->kind == QKV_LAYER_STATE) {
        LINE("%s: states of %llu layers x %llu sequences x %llu elements = %llu bytes", name,
             layers, batch, (u64)g->elements, (u64)g->payload);
        return;
    }
    if (layers == 0)
        return;
    LINE("%s: a row of %llu elements (%s, %s) with its scales = %llu bytes; %llu layers = %llu "
         "bytes a token",
         name, (u64)g->elements, qkv_size_format_name(s->k_format),
         g->kind == QKV_LAYER_MLA ? "latent" : qkv_size_format_name(s->v_format),
         (u64)g->token_bytes / layers, layers, (u64)g->token_bytes);
    if (g->window > 0)
        LINE("%s: tokens kept = min(context, window) = min(%lld, %lld) = %llu", name,
             (long long)s->context, (long long)g->window, (u64)g->tokens);
    LINE("%s: payload = %llu bytes x %llu tokens x %llu sequences = %llu bytes", name,
         (u64)g->token_bytes, (u64)g->tokens, batch, (u64)g->payload);
    if (g->allocated > 0)
        LINE("%s: allocated = %llu pages of %d tokens x %llu bytes + tables = %llu bytes", name,
             (u64)g->pages, s->page_tokens, (u64)g->page_bytes, (u64)g->allocated);
}

/* ---- all ---------------------------------------------------------------------------------- */

qkv_status qkv_size_explain(const qkv_model *model, const qkv_size_setup *setup, int32_t line,
                            char *text, size_t bytes)
{
    qkv_lines lines = {{text, bytes}, line, 0}, *out = &lines;
    qkv_size_setup full;
    qkv_size_cache cache;
    qkv_size_parameters p;
    qkv_tally t = {0};
    qkv_status status = qkv_size_resolve(model, setup, &full, lines.say);

    if (status == QKV_OK)
        status = qkv_size_cache_find(model, setup, &cache, text, bytes);
    if (status == QKV_OK)
        status = qkv_size_parameters_find(model, &p, text, bytes);
    if (status != QKV_OK)
        return status;
    kind_lines(out, model, &full);
    for (int32_t i = 0; i < cache.n_groups; i++)
        group_lines(out, &full, &cache.group[i], i);
    const u64 bits = qkv_tally_mul(&t, p.total, (u64)full.weight_bits);
    if (!t.over)
        LINE("weights = %llu parameters x %d bits / 8 = %llu bytes", (u64)p.total, full.weight_bits,
             (u64)qkv_up(bits, 8));
    return qkv_lines_end(out);
}
