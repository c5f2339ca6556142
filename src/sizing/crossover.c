/* sizing/crossover.c - where attention costs as much as the projections around it. */
#include <math.h>

#include "sizing/internal.h"

/*
 * A step of n new tokens over a cache of t, one head, multiply-adds, a = n + v and r of MLA:
 *     expanded   n t (a + r) + t c a       keys and values made once for all new tokens
 *     absorbed   n t (2 c + r) + n c a
 * Expanding is fewer where n (t (2 c - a) + c a) > t c a.
 */
static double mla_new(const qkv_layer_desc *l, double t)
{
    const double c = l->kv_lora_rank, a = l->head_dim - l->rope_dim + l->head_dim_v;
    const double gain = t * (2 * c - a) + c * a;
    return gain > 0 ? t * c * a / gain : INFINITY;
}

qkv_status qkv_size_crossover_find(const qkv_layer_desc *l, int64_t context,
                                   qkv_size_crossover *found, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = l ? qkv_size_check_layer(l, say) : QKV_ERR_ARGUMENT;
    uint64_t matrices;

    if (!l)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is NULL");
    if (status != QKV_OK)
        return status;
    if (!found || context < 1)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "found is NULL, or context is %lld; accepted are "
                          "from 1",
                          (long long)context);
    if (l->kind == QKV_LAYER_STATE)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "kind is QKV_LAYER_STATE; that has no pairs");
    qkv_size_layer_parameters(l, &matrices);
    const double pair = (double)l->n_q_heads * ((double)l->head_dim + l->head_dim_v);
    found->square = (double)matrices / pair;
    found->visible = 2 * found->square - 1;
    found->rule = 2 * (double)l->d_model;
    found->mla_new = l->kind == QKV_LAYER_MLA ? mla_new(l, (double)context) : 0;
    return qkv_accept(say);
}
