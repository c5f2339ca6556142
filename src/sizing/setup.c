/* sizing/setup.c - what is asked: defaults, refusals. */
#include <string.h>

#include "sizing/internal.h"

enum { CHUNK = 2048 };

void qkv_size_setup_init_sized(qkv_size_setup *setup, size_t struct_size)
{
    qkv_size_setup s;

    memset(&s, 0, sizeof s);
    s.struct_size = (uint32_t)struct_size;
    s.k_format = s.v_format = QKV_FORMAT_BF16;
    s.k_scale = s.v_scale = QKV_SCALE_TOKEN;
    s.float_type = s.compute = QKV_BF16;
    s.page_tokens = 64;
    s.weight_bits = 16;
    s.pairs = QKV_COUNT_VISIBLE;
    s.absorbed = QKV_SIZE_AUTO;
    s.ranks = 1;
    s.split = QKV_SPLIT_HEADS;
    s.batch = 1;
    s.chunk = s.memory_tokens = QKV_SIZE_AUTO;
    memset(setup, 0, struct_size);
    memcpy(setup, &s, struct_size < sizeof s ? struct_size : sizeof s);
}

int qkv_size_is_foreign(int32_t format)
{
    return format == QKV_SIZE_Q8_0 || format == QKV_SIZE_Q4_0;
}

const char *qkv_size_format_name(int32_t format)
{
    static const char *const names[] = {"?",    "f32",  "f16", "bf16", "int8", "int8_channel",
                                        "int4", "e4m3", "e5m2"};
    if (qkv_size_is_foreign(format))
        return format == QKV_SIZE_Q8_0 ? "q8_0" : "q4_0";
    return format > 0 && format <= QKV_FORMAT_E5M2 ? names[format] : "?";
}

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define IN_RANGE(field, low, high)                                                                 \
    if (s->field < (low) || s->field > (high))                                                     \
    REFUSE(#field " is %lld; accepted are %lld to %lld", (long long)s->field, (long long)(low),    \
           (long long)(high))

static qkv_status check_counts(const qkv_size_setup *s, qkv_say say)
{
    IN_RANGE(context, 1, INT32_MAX);
    IN_RANGE(batch, 1, 65535);
    IN_RANGE(chunk, 1, INT32_MAX);
    IN_RANGE(memory_tokens, 1, INT32_MAX);
    IN_RANGE(ranks, 1, 65536);
    IN_RANGE(weight_bits, 0, 64);
    IN_RANGE(page_tokens, 16, 256);
    IN_RANGE(absorbed, QKV_SIZE_AUTO, 1);
    IN_RANGE(cache_only, 0, 1);
    if (s->page_tokens % 16 != 0)
        REFUSE("page_tokens is %d; accepted are multiples of 16", s->page_tokens);
    if (s->pairs != QKV_COUNT_VISIBLE && s->pairs != QKV_COUNT_SQUARE)
        REFUSE("pairs is %d; accepted are QKV_COUNT_VISIBLE and QKV_COUNT_SQUARE", s->pairs);
    if (s->split != QKV_SPLIT_HEADS && s->split != QKV_SPLIT_CONTEXT)
        REFUSE("split is %d; accepted are QKV_SPLIT_HEADS and QKV_SPLIT_CONTEXT", s->split);
    if (s->compute != QKV_F32 && s->compute != QKV_F16 && s->compute != QKV_BF16)
        REFUSE("compute is %d (%s); accepted are f32, f16 and bf16", s->compute,
               qkv_type_name((qkv_type)s->compute));
    if (s->reserve > INT64_MAX)
        REFUSE("reserve is %llu; accepted are 0 to %lld bytes", (unsigned long long)s->reserve,
               (long long)INT64_MAX);
    return QKV_OK;
}

/* Formats of a qkv_cache are checked with the shapes they are for; here only what is not one. */
static qkv_status check_names(const qkv_size_setup *s, qkv_say say)
{
    const int32_t format[2] = {s->k_format, s->v_format}, group[2] = {s->k_group, s->v_group};
    const int32_t scale[2] = {s->k_scale, s->v_scale};

    for (int i = 0; i < 2; i++) {
        const char *side = i == 0 ? "k" : "v";
        if (!qkv_size_is_foreign(format[i]) &&
            (format[i] < QKV_FORMAT_F32 || format[i] > QKV_FORMAT_E5M2))
            REFUSE("%s_format is %d; accepted are QKV_FORMAT_ and QKV_SIZE_Q8_0, QKV_SIZE_Q4_0",
                   side, format[i]);
        if (qkv_size_is_foreign(format[i]) && (group[i] != 0 || scale[i] != QKV_SCALE_TOKEN))
            REFUSE("%s_group and %s_scale are %d and %d; with %s both are 0", side, side, group[i],
                   scale[i], qkv_size_format_name(format[i]));
    }
    return QKV_OK;
}

/* ---- formats for a shape, as cache/config.c has it ---------------------------------------- */

static qkv_status check_format(const char *side, int32_t format, int32_t group, int32_t scale,
                               int32_t dim, qkv_say say)
{
    const int fp8 = format == QKV_FORMAT_E4M3 || format == QKV_FORMAT_E5M2;
    const int grouped =
        (fp8 && scale == QKV_SCALE_TOKEN) || format == QKV_FORMAT_INT8 || format == QKV_FORMAT_INT4;

    if (group != 0 && group != 32 && group != 64 && group != 128)
        REFUSE("%s_group is %d; accepted are 0, 32, 64 and 128", side, group);
    if (scale != QKV_SCALE_TOKEN && (scale != QKV_SCALE_HEAD || !fp8))
        REFUSE("%s_scale is %d with %s; accepted are QKV_SCALE_TOKEN, and QKV_SCALE_HEAD with e4m3 "
               "and e5m2",
               side, scale, qkv_size_format_name(format));
    if (group != 0 && !grouped)
        REFUSE("%s_group is %d with %s; accepted is 0", side, group, qkv_size_format_name(format));
    if (group > dim)
        REFUSE("%s_group is %d; accepted are up to %d, the channels there are", side, group, dim);
    return QKV_OK;
}

qkv_status qkv_size_check_formats(const qkv_size_setup *s, const qkv_size_group *g, qkv_say say)
{
    const int latent = g->kind == QKV_LAYER_MLA;
    qkv_status status = check_format("k", s->k_format, s->k_group, s->k_scale,
                                     latent ? g->head_dim_v : g->head_dim, say);

    if (status == QKV_OK && !latent)
        status = check_format("v", s->v_format, s->v_group, s->v_scale, g->head_dim_v, say);
    if (status != QKV_OK)
        return status;
    if (!latent && s->v_format == QKV_FORMAT_INT8_CHANNEL)
        REFUSE("v_format is int8_channel; that is for keys");
    if (s->float_type != QKV_F32 && s->float_type != QKV_F16 && s->float_type != QKV_BF16)
        REFUSE("float_type is %d; accepted are f32, f16 and bf16", s->float_type);
    return QKV_OK;
}

/* ---- models --------------------------------------------------------------------------- */

static qkv_status check_layer(const qkv_model *m, int32_t part, int32_t layer, qkv_say say)
{
    if (m->kind_of[part][layer] >= m->n_kinds)
        REFUSE("kind_of[%d][%d] is %d; accepted are 0 to %d", part, layer, m->kind_of[part][layer],
               m->n_kinds - 1);
    if (part == QKV_PART_DECODER && (m->cache_of[layer] < 0 || m->cache_of[layer] > layer))
        REFUSE("cache_of[%d] is %d; accepted are 0 to %d", layer, m->cache_of[layer], layer);
    return QKV_OK;
}

/* All but rotations, which cost nothing that is counted; qkv_model_layer would complete them. */
qkv_status qkv_size_check_layer(const qkv_layer_desc *layer, qkv_say say)
{
    qkv_layer_desc l = *layer;
    l.rope.type = QKV_ROPE_NONE;
    return qkv_layer_desc_check(&l, say.text, say.bytes);
}

static qkv_status check_kinds(const qkv_model *m, qkv_say say)
{
    char text[256];
    const qkv_say own = {text, sizeof text};

    for (int32_t i = 0; i < m->n_kinds; i++)
        if (qkv_size_check_layer(&m->kinds[i], own) != QKV_OK)
            REFUSE("kinds[%d]: %s", i, text);
    return QKV_OK;
}

static qkv_status check_blocks(const qkv_model *s, qkv_say say)
{
    IN_RANGE(d_model, 1, 1 << 20);
    IN_RANGE(vocab_size, 0, (int64_t)1 << 32);
    IN_RANGE(position_embeddings, 0, (int64_t)1 << 32);
    IN_RANGE(d_ff, 0, 1 << 26);
    IN_RANGE(d_ff_expert, 0, 1 << 26);
    IN_RANGE(d_ff_shared, 0, 1 << 26);
    IN_RANGE(n_experts, 0, 1 << 20);
    IN_RANGE(n_experts_used, 0, s->n_experts);
    IN_RANGE(first_dense_layers, 0, QKV_MODEL_MAX_LAYERS);
    IN_RANGE(expert_every, s->n_experts > 0 ? 1 : 0, QKV_MODEL_MAX_LAYERS);
    IN_RANGE(norms_a_layer, 0, 64);
    IN_RANGE(norms_an_encoder_layer, 0, 64);
    IN_RANGE(norms_besides, 0, 64);
    return QKV_OK;
}

qkv_status qkv_size_check_model(const qkv_model *model, qkv_say say)
{
    if (!model || model->struct_size != sizeof *model)
        REFUSE("model is NULL or was not set up by qkv_model_read or qkv_size_model_of");
    if (model->n_layers < 1 || model->n_layers > QKV_MODEL_MAX_LAYERS ||
        model->encoder_layers < 0 || model->encoder_layers > QKV_MODEL_MAX_LAYERS)
        REFUSE("n_layers and encoder_layers are %d and %d; accepted are 1 and 0 to %d",
               model->n_layers, model->encoder_layers, QKV_MODEL_MAX_LAYERS);
    if (model->n_kinds < 1 || model->n_kinds > QKV_MODEL_MAX_KINDS)
        REFUSE("n_kinds is %d; accepted are 1 to %d", model->n_kinds, QKV_MODEL_MAX_KINDS);
    for (int32_t part = 0; part < 3; part++)
        for (int32_t i = 0; i < qkv_size_layers(model, part); i++) {
            const qkv_status status = check_layer(model, part, i, say);
            if (status != QKV_OK)
                return status;
        }
    const qkv_status status = check_kinds(model, say);
    return status == QKV_OK ? check_blocks(model, say) : status;
}

qkv_status qkv_size_resolve(const qkv_model *model, const qkv_size_setup *in, qkv_size_setup *full,
                            qkv_say say)
{
    qkv_status status = qkv_size_check_model(model, say);

    if (status != QKV_OK)
        return status;
    if (!in || in->struct_size < offsetof(qkv_size_setup, k_format) ||
        in->struct_size > sizeof *full)
        REFUSE("setup is NULL or was not set up by qkv_size_setup_init");
    qkv_size_setup_init(full);
    memcpy(full, in, in->struct_size);
    full->struct_size = (uint32_t)sizeof *full;
    if (full->chunk == QKV_SIZE_AUTO)
        full->chunk = CHUNK;
    if (full->memory_tokens == QKV_SIZE_AUTO)
        full->memory_tokens = full->context;
    status = check_counts(full, say);
    if (status == QKV_OK)
        status = check_names(full, say);
    if (full->chunk > full->context)
        full->chunk = full->context;
    return status;
}

qkv_status qkv_size_refuse_over(const qkv_size_setup *s, qkv_say say)
{
    REFUSE("context is %lld and batch is %lld; counts of 2^63 or more are not exact, accepted are "
           "smaller ones",
           (long long)s->context, (long long)s->batch);
}

qkv_status qkv_size_model_of(const qkv_layer_desc *layer, int32_t n_layers, qkv_model *model,
                             char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = qkv_layer_desc_check(layer, text, bytes);

    if (status != QKV_OK)
        return status;
    if (!model)
        REFUSE("model is NULL");
    if (n_layers < 1 || n_layers > QKV_MODEL_MAX_LAYERS)
        REFUSE("n_layers is %d; accepted are 1 to %d", n_layers, QKV_MODEL_MAX_LAYERS);
    memset(model, 0, sizeof *model);
    model->struct_size = (uint32_t)sizeof *model;
    model->n_layers = n_layers;
    model->d_model = layer->d_model;
    model->expert_every = 1;
    model->n_kinds = 1;
    qkv_layer_desc_init(&model->kinds[0]);
    memcpy(&model->kinds[0], layer, layer->struct_size);
    model->kinds[0].struct_size = (uint32_t)sizeof model->kinds[0];
    for (int32_t i = 0; i < n_layers; i++)
        model->cache_of[i] = (int16_t)i;
    return qkv_accept(say);
}
