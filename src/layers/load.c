/* layers/load.c - a layer from a checkpoint: the weights that its family's row names. */
#include <string.h>

#include "layers/internal.h"

/* Where the elements of a weight are in the mapped file. */
static qkv_layer_weight place(const qkv_weight *at, const qkv_safetensors_entry *entry,
                              const qkv_safetensors_entry *bias)
{
    qkv_layer_weight w;

    memset(&w, 0, sizeof w);
    w.data = entry->data;
    w.type = entry->type;
    w.bias = bias->data;
    w.bias_type = bias->data ? bias->type : QKV_F32;
    w.row_stride = at->transposed ? 1 : at->columns > 0 ? at->columns : 1;
    w.col_stride = at->transposed ? at->rows : 1;
    w.first = at->first;
    w.group_heads = at->group_heads;
    w.group_stride = at->group_stride;
    w.head_stride = at->head_stride;
    return w;
}

qkv_status qkv_layer_load_as(const qkv_checkpoint *checkpoint, const qkv_model *model, int32_t part,
                             int32_t layer, int32_t kept, const qkv_allocator *allocator,
                             qkv_layer **made, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_layer_weight weights[QKV_ROLE_COUNT];
    qkv_layer_desc desc;

    if (!made)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "made is NULL");
    *made = NULL;
    if (!checkpoint || !model)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "checkpoint or model is NULL");
    memset(weights, 0, sizeof weights);
    qkv_status status = qkv_model_layer(model, part, layer, &desc, text, bytes);
    for (int32_t role = 0; status == QKV_OK && role < QKV_ROLE_COUNT; role++) {
        qkv_safetensors_entry entry, bias;
        qkv_weight at;
        status = qkv_model_weight(model, part, layer, role, &at, text, bytes);
        if (status != QKV_OK || at.n_names == 0)
            continue;
        status = qkv_checkpoint_weight(checkpoint, &at, &entry, &bias, text, bytes);
        if (status == QKV_OK)
            weights[role] = place(&at, &entry, &bias);
    }
    if (status != QKV_OK)
        return status;
    desc.weights = kept;
    return qkv_layer_create(&desc, weights, allocator, made, text, bytes);
}

qkv_status qkv_layer_load(const qkv_checkpoint *checkpoint, const qkv_model *model, int32_t part,
                          int32_t layer, const qkv_allocator *allocator, qkv_layer **made,
                          char *text, size_t bytes)
{
    return qkv_layer_load_as(checkpoint, model, part, layer, QKV_WEIGHTS_F32, allocator, made, text,
                             bytes);
}
