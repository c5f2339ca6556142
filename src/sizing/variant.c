/* sizing/variant.c - a model with another attention. */
#include "sizing/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)

enum { LATENT = 512, ROTARY = 64 /* DeepSeek's, and what larger heads are given at most */ };

static qkv_status to_heads(qkv_layer_desc *l, const qkv_size_variant_of *v, qkv_say say)
{
    const int32_t heads = v->n_kv_heads > 0 ? v->n_kv_heads : l->n_q_heads;

    if (v->n_kv_heads < 0 || heads > l->n_q_heads || l->n_q_heads % heads != 0)
        REFUSE("n_kv_heads is %d; accepted are divisors of the %d query heads, and 0 for all",
               v->n_kv_heads, l->n_q_heads);
    l->kind = QKV_LAYER_ATTENTION;
    l->n_kv_heads = heads;
    l->q_lora_rank = l->kv_lora_rank = l->rope_dim = 0;
    return QKV_OK;
}

static int32_t at_most(int32_t a, int32_t b) { return a < b ? a : b; }

static void to_latent(qkv_layer_desc *l, const qkv_size_variant_of *v)
{
    const int mla = l->kind == QKV_LAYER_MLA;
    const int32_t n = mla ? l->head_dim - l->rope_dim : l->head_dim;
    const int32_t q = at_most(12 * n, 3 * LATENT);

    l->kind = QKV_LAYER_MLA;
    l->n_kv_heads = l->n_q_heads;
    l->rope_dim = v->rope_dim > 0 ? v->rope_dim : at_most((n + 1) / 2, ROTARY);
    l->head_dim = n + l->rope_dim;
    l->kv_lora_rank = v->kv_lora_rank > 0 ? v->kv_lora_rank : at_most(4 * n, LATENT);
    /* A latent as wide as what it is made from would save nothing. */
    l->q_lora_rank = v->q_lora_rank > 0 ? v->q_lora_rank : q < l->d_model ? q : 0;
    l->q_bias = l->k_bias = l->v_bias = 0;
    l->qk_norm = l->o_gate = l->v_from_k = l->sinks = l->relative_buckets = 0;
    l->latent_norm = QKV_NORM_RMS;
}

qkv_status qkv_size_vary_layer(qkv_layer_desc *l, const qkv_size_variant_of *v, qkv_say say)
{
    if (v->variant == QKV_VARIANT_MLA)
        to_latent(l, v);
    else if (v->variant == QKV_VARIANT_HEADS) {
        const qkv_status status = to_heads(l, v, say);
        if (status != QKV_OK)
            return status;
    } else {
        REFUSE("variant is %d; accepted are QKV_VARIANT_HEADS and QKV_VARIANT_MLA", v->variant);
    }
    l->rope.type = QKV_ROPE_NONE; /* its widths would be others */
    return qkv_layer_desc_check(l, say.text, say.bytes);
}

qkv_status qkv_size_variant(const qkv_model *model, const qkv_size_variant_of *variant,
                            qkv_model *other, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_status status = qkv_size_check_model(model, say);

    if (status != QKV_OK)
        return status;
    if (!variant || !other)
        REFUSE("variant or other is NULL");
    *other = *model;
    for (int32_t i = 0; status == QKV_OK && i < other->n_kinds; i++) {
        qkv_layer_desc *l = &other->kinds[i];
        if (l->kind != QKV_LAYER_STATE && !l->cross && l->n_q_heads > 0)
            status = qkv_size_vary_layer(l, variant, say);
    }
    return status == QKV_OK ? qkv_accept(say) : status;
}
