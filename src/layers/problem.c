/*
 * layers/problem.c - a step as a problem of attention: where q, k, v and o lie in the workspace.
 *
 *     MHA, GQA     one row of `in` is [q heads | k heads | v heads]
 *     cross        `in` is [q heads], one row of `memory` is [k heads | v heads]
 *     MLA          expanded: q [H][n + r], keys [H][n + r] and values in rows [H][n + Dv]
 *                  absorbed: q [H][c + r], one key head, which is the latent row [c | r]
 */
#include <string.h>

#include "layers/internal.h"

static void lay(qkv_layout *l, int64_t seq, int64_t head, int64_t token)
{
    l->type = QKV_F32;
    l->stride[0] = seq;
    l->stride[1] = head;
    l->stride[2] = token;
    l->stride[3] = 1;
}

/* What does not depend on where keys come from. */
static void describe_step(const qkv_layer_desc *d, const qkv_layer_step *s,
                          const qkv_layer_plan *plan, qkv_desc *a)
{
    a->n_seqs = s->n_seqs;
    a->n_q_heads = d->n_q_heads;
    a->q_len = plan->q_len;
    a->q_lens = plan->packed ? NULL : plan->q_lens;
    a->cu_seqlens_q = s->cu_seqlens;
    a->scale = d->scale;
    a->softcap = d->softcap;
    a->precision = s->precision;
    a->cpu_mask = s->cpu_mask;
    a->causal = d->causal ? QKV_CAUSAL_INCLUSIVE : QKV_CAUSAL_NONE;
    a->window_left = d->window_left;
    a->window_right = d->causal ? QKV_UNBOUNDED : d->window_right;
    a->align = QKV_ALIGN_TOP_LEFT;
    if (d->sinks) {
        a->sinks.type = QKV_F32;
        a->sinks.stride[1] = 1;
    }
    if (d->alibi) {
        a->slopes.type = QKV_F32;
        a->slopes.stride[1] = 1;
    }
}

static void describe_heads(const qkv_layer *layer, const qkv_layer_step *s,
                           const qkv_layer_plan *plan, qkv_desc *a)
{
    const qkv_layer_desc *d = &layer->desc;
    const int64_t row = layer->in.rows, o = (int64_t)d->n_q_heads * d->head_dim_v;
    const int64_t key_row = d->cross ? layer->memory.rows : row;

    a->n_kv_heads = d->n_kv_heads;
    a->head_dim = d->head_dim;
    a->head_dim_v = d->head_dim_v;
    a->kv_len = d->cross ? s->memory_len : plan->q_len;
    a->kv_lens = s->kv_lens;
    a->kv_starts = s->kv_starts;
    a->cu_seqlens_k = d->cross ? NULL : s->cu_seqlens;
    lay(&a->q, plan->q_len * row, d->head_dim, row);
    lay(&a->k, a->kv_len * key_row, d->head_dim, key_row);
    lay(&a->v, a->kv_len * key_row, d->head_dim_v, key_row);
    lay(&a->o, plan->q_len * o, d->head_dim_v, o);
}

static void describe_expanded(const qkv_layer *layer, const qkv_layer_step *s,
                              const qkv_layer_plan *plan, qkv_desc *a)
{
    const qkv_layer_desc *d = &layer->desc;
    const int64_t heads = d->n_q_heads, q = heads * d->head_dim;
    const int64_t q_row = d->q_lora_rank ? q : layer->in.rows;
    const int64_t up = qkv_layer_nope(d) + d->head_dim_v, o = heads * d->head_dim_v;

    describe_heads(layer, s, plan, a);
    a->n_kv_heads = d->n_q_heads;
    lay(&a->q, plan->q_len * q_row, d->head_dim, q_row);
    lay(&a->k, plan->q_len * q, d->head_dim, q);
    lay(&a->v, plan->q_len * heads * up, up, heads * up);
    lay(&a->o, plan->q_len * o, d->head_dim_v, o);
    if (s->cache) { /* keys of all tokens, sequence after sequence */
        a->cu_seqlens_k = plan->cu_k;
        a->align = QKV_ALIGN_BOTTOM_RIGHT;
        a->kv_len = 0;
        for (int32_t b = 0; b < s->n_seqs; b++)
            if (plan->cu_k[b + 1] - plan->cu_k[b] > a->kv_len)
                a->kv_len = plan->cu_k[b + 1] - plan->cu_k[b];
    }
}

static void describe_absorbed(const qkv_layer *layer, const qkv_layer_step *s,
                              const qkv_layer_plan *plan, qkv_desc *a)
{
    const qkv_layer_desc *d = &layer->desc;
    const int64_t heads = d->n_q_heads, latent = qkv_layer_latent(d), row = layer->in.rows;

    describe_heads(layer, s, plan, a);
    a->n_kv_heads = 1;
    a->head_dim = (int32_t)latent;
    a->head_dim_v = d->kv_lora_rank;
    lay(&a->q, plan->q_len * heads * latent, latent, heads * latent);
    lay(&a->k, plan->q_len * row, 0, row);
    lay(&a->v, plan->q_len * row, 0, row);
    lay(&a->o, plan->q_len * heads * d->kv_lora_rank, d->kv_lora_rank, heads * d->kv_lora_rank);
}

/* T5's bias and the mask of chunks: a row of distances each, which keys and queries share. */
static void describe_distances(const qkv_layer_desc *d, const qkv_layer_step *s,
                               qkv_layer_plan *plan, qkv_desc *a)
{
    const int64_t seq = plan->cache ? 1 : 0; /* offsets differ by sequence */
    const int64_t chunks = plan->cache || s->kv_starts ? 1 : 0; /* so do starts */

    if (d->relative_buckets) {
        plan->bias_len = plan->q_len + a->kv_len;
        a->bias.type = QKV_F32;
        a->bias.stride[0] = seq * d->n_q_heads * plan->bias_len;
        a->bias.stride[1] = plan->bias_len;
        a->bias.stride[2] = -1;
        a->bias.stride[3] = 1;
        plan->shape.bias = (seq ? plan->n_seqs : 1) * d->n_q_heads * plan->bias_len;
    }
    if (d->chunk_tokens) {
        plan->mask_len = a->kv_len;
        a->mask.type = QKV_BOOL;
        a->mask.stride[0] = chunks * plan->q_len * a->kv_len;
        a->mask.stride[2] = a->kv_len;
        a->mask.stride[3] = 1;
        plan->shape.mask = (chunks ? plan->n_seqs : 1) * plan->q_len * a->kv_len;
    }
}

qkv_status qkv_step_problem(const qkv_layer *layer, const qkv_layer_step *step,
                            qkv_layer_plan *plan, qkv_desc *desc, qkv_say say)
{
    const qkv_layer_desc *d = &layer->desc;

    qkv_desc_init(desc);
    describe_step(d, step, plan, desc);
    if (d->kind != QKV_LAYER_MLA)
        describe_heads(layer, step, plan, desc);
    else if (plan->mla == QKV_MLA_EXPANDED)
        describe_expanded(layer, step, plan, desc);
    else
        describe_absorbed(layer, step, plan, desc);
    if (plan->view) {
        desc->cu_seqlens_k = NULL;
        const qkv_status status = qkv_cache_view_desc(plan->view, 0, desc);
        if (status != QKV_OK)
            return qkv_refuse(say, status, "the cache cannot be viewed");
    }
    describe_distances(d, step, plan, desc);
    return QKV_OK;
}
