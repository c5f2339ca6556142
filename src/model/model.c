/* model/model.c - layers of a model that was read. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/say.h"
#include "qkv/model.h"

static const char *const part_names[] = {"decoder", "encoder", "cross"};

static int32_t layers_of(const qkv_model *m, int32_t part)
{
    if (part == QKV_PART_DECODER)
        return m->n_layers;
    return m->encoder_layers == 0            ? 0
           : part == QKV_PART_ENCODER ? m->encoder_layers
                                      : m->n_layers;
}

static qkv_status check(const qkv_model *m, int32_t part, int32_t layer, qkv_say say)
{
    if (m == NULL || m->struct_size < offsetof(qkv_model, unpriced))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "model is NULL, or no qkv_model_read filled it");
    if (part < QKV_PART_DECODER || part > QKV_PART_CROSS)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "part is %d; accepted are %d to %d", part,
                          QKV_PART_DECODER, QKV_PART_CROSS);
    const int32_t n = layers_of(m, part);
    if (n == 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "part is %s; a %s model has a decoder only",
                          part_names[part], m->family);
    if (layer < 0 || layer >= n)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is %d; accepted are 0 to %d", layer, n - 1);
    return QKV_OK;
}

qkv_status qkv_model_layer_sized(const qkv_model *model, int32_t part, int32_t layer,
                                 qkv_layer_desc *desc, size_t struct_size, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = check(model, part, layer, say);
    qkv_layer_desc d;

    if (status != QKV_OK)
        return status;
    if (desc == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "desc is NULL");
    d = model->kinds[model->kind_of[part][layer]];
    if (d.rope.type == QKV_ROPE_LONGROPE) {
        d.rope.short_factor = model->rope_factors[0];
        d.rope.long_factor = model->rope_factors[1];
    }
    if (model->scale_by_layer)
        d.scale = qkv_layer_scale(&d) / (layer + 1);
    d.struct_size = (uint32_t)(struct_size < sizeof d ? struct_size : sizeof d);
    memset(desc, 0, struct_size);
    memcpy(desc, &d, d.struct_size);
    return qkv_accept(say);
}
