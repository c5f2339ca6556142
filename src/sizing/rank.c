/* sizing/rank.c - heads or tokens shared out over machines: what each holds and sends. */
#include <string.h>

#include "sizing/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)

/* One rank's heads of a layer. */
static qkv_status share_heads(qkv_layer_desc *l, int32_t ranks, int32_t *copies, qkv_say say)
{
    if (l->n_q_heads % ranks != 0)
        REFUSE("ranks is %d; with heads split accepted are divisors of the %d query heads", ranks,
               l->n_q_heads);
    l->n_q_heads /= ranks;
    if (l->kind == QKV_LAYER_MLA) { /* a latent serves all heads, so every rank needs all of it */
        l->n_kv_heads = l->n_q_heads;
        *copies = ranks;
        return QKV_OK;
    }
    if (l->n_kv_heads % ranks != 0 && ranks % l->n_kv_heads != 0)
        REFUSE("ranks is %d; accepted are divisors and multiples of the %d key/value heads", ranks,
               l->n_kv_heads);
    const int32_t shared = ranks > l->n_kv_heads ? ranks / l->n_kv_heads : 1;
    *copies = shared > *copies ? shared : *copies;
    l->n_kv_heads = shared > 1 ? 1 : l->n_kv_heads / ranks;
    return QKV_OK;
}

/* Numbers a token's outputs take on their way, in all layers; each of f32 or the compute type. */
static uint64_t sent_numbers(const qkv_model *m, int32_t split, int32_t absorbed)
{
    uint64_t sum = 0;

    for (int32_t part = 0; part < 3; part += 2)
        for (int32_t i = 0; i < qkv_size_layers(m, part); i++) {
            const qkv_layer_desc *l = qkv_size_layer(m, part, i);
            const int wide = l->kind == QKV_LAYER_MLA && absorbed;
            if (l->kind == QKV_LAYER_STATE)
                continue;
            sum += split == QKV_SPLIT_HEADS
                       ? (uint64_t)l->d_model
                       : (uint64_t)l->n_q_heads *
                             (uint64_t)((wide ? l->kv_lora_rank : l->head_dim_v) + 1);
        }
    return sum;
}

static uint64_t ring(uint64_t bytes, uint64_t ranks, qkv_tally *t)
{
    return qkv_up(qkv_tally_mul3(t, 2, ranks - 1, bytes), ranks);
}

static qkv_status find_share(const qkv_model *model, qkv_size_setup *s, qkv_size_rank *r,
                             qkv_say say)
{
    const int32_t ranks = s->ranks;
    qkv_model mine = *model;
    qkv_size_cache cache;

    r->copies = 1;
    if (s->split == QKV_SPLIT_CONTEXT) {
        s->context = (s->context + ranks - 1) / ranks;
        s->memory_tokens = (s->memory_tokens + ranks - 1) / ranks;
        s->chunk = s->chunk < s->context ? s->chunk : s->context;
    }
    for (int32_t i = 0; i < mine.n_kinds; i++) {
        qkv_layer_desc *l = &mine.kinds[i];
        if (l->kind == QKV_LAYER_STATE || l->n_q_heads < 1)
            continue;
        if (s->split == QKV_SPLIT_HEADS && share_heads(l, ranks, &r->copies, say) != QKV_OK)
            return QKV_ERR_ARGUMENT;
        r->kv_heads = r->kv_heads == 0 ? l->kind == QKV_LAYER_MLA ? 1 : l->n_kv_heads : r->kv_heads;
    }
    const qkv_status status = qkv_size_cache_find(&mine, s, &cache, say.text, say.bytes);
    r->payload = cache.payload;
    r->allocated = cache.allocated;
    return status;
}

qkv_status qkv_size_rank_find(const qkv_model *model, const qkv_size_setup *setup,
                              qkv_size_rank *rank, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_size_setup full;
    qkv_tally t = {0};
    qkv_status status = qkv_size_resolve(model, setup, &full, say);

    if (status != QKV_OK)
        return status;
    if (!rank)
        REFUSE("rank is NULL");
    memset(rank, 0, sizeof *rank);
    const uint64_t ranks = (uint64_t)full.ranks, context = (uint64_t)full.context;
    const uint64_t wide = full.split == QKV_SPLIT_HEADS ? qkv_type_size((qkv_type)full.compute) : 4;
    const uint64_t step = qkv_tally_mul3(&t, wide, (uint64_t)full.batch,
                                         sent_numbers(model, full.split, full.absorbed != 0));
    /* Prefill expands, where absorbing would cost more; see qkv_size_crossover. */
    const uint64_t prefill =
        qkv_tally_mul3(&t, wide, context, sent_numbers(model, full.split, full.absorbed == 1));
    rank->sent_step = ring(step, ranks, &t);
    rank->sent_prefill = ring(prefill, ranks, &t);
    status = find_share(model, &full, rank, say);
    if (status != QKV_OK)
        return status;
    return t.over ? qkv_size_refuse_over(&full, say) : qkv_accept(say);
}
