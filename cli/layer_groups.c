/* layer_groups.c - which layers of a model are alike, and what a decoder keeps. */
#include "layer.h"

int32_t cli_layers_of(const qkv_model *m, int32_t part)
{
    if (part == QKV_PART_DECODER)
        return m->n_layers;
    return m->encoder_layers == 0 ? 0 : part == QKV_PART_ENCODER ? m->encoder_layers : m->n_layers;
}

int cli_in_group(const qkv_model *m, const cli_layers *group, int32_t i)
{
    return m->kind_of[group->part][i] == group->kind;
}

/* An encoder-decoder's encoder first, as data flows. */
int32_t cli_group_layers(const qkv_model *m, int32_t only, cli_layers groups[CLI_LAYER_GROUPS])
{
    static const int32_t order[] = {QKV_PART_ENCODER, QKV_PART_DECODER, QKV_PART_CROSS};
    int32_t n = 0;

    for (int p = 0; p < 3; p++) {
        const int32_t begin = n;
        for (int32_t i = 0; i < cli_layers_of(m, order[p]); i++) {
            int known = only >= 0 && i != only;
            for (int32_t g = begin; g < n; g++)
                known |= cli_in_group(m, &groups[g], i);
            if (known)
                continue;
            groups[n] = (cli_layers){order[p], i, m->kind_of[order[p]][i], {0}};
            qkv_model_layer(m, order[p], i, &groups[n].desc, NULL, 0);
            n++;
        }
    }
    return n;
}

cli_kept cli_what_is_kept(const qkv_model *m)
{
    cli_kept kept = {0, 0, 0, 0};
    qkv_layer_desc l;

    for (int32_t i = 0; i < m->n_layers; i++) {
        qkv_model_layer(m, QKV_PART_DECODER, i, &l, NULL, 0);
        const int64_t n = m->cache_of[i] == i ? qkv_layer_cache_elements(&l) : 0;
        kept.state += l.kind == QKV_LAYER_STATE ? l.state_elements : 0;
        kept.token += l.causal ? n : 0;
        kept.far_token +=
            l.causal && l.window_left == QKV_UNBOUNDED && l.chunk_tokens == 0 ? n : 0;
        if (m->encoder_layers > 0) {
            qkv_model_layer(m, QKV_PART_CROSS, i, &l, NULL, 0);
            kept.memory_token += (int64_t)l.n_kv_heads * (l.head_dim + l.head_dim_v);
        }
    }
    return kept;
}
