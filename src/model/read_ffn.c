/* model/read_ffn.c - what stands beside the attention: feed-forward blocks, embeddings, norms.
 * They are context for parameters and work, so what a file does not say is left at 0. */
#include <string.h>

#include "model/reader.h"

#define WIDEST (1 << 24)

/* The width of a dense block.  A list, one a layer, counts if all are equal. */
static int32_t read_width(reader *r, field f, int64_t d_model)
{
    char path[READER_PATH], item[READER_PATH];
    const qkv_config_value v = qkv_value_at(r, qkv_field_path(r, f, path));
    int64_t width = 0;

    if (r->f->quirks & Q_D_FF_IS_FACTOR)
        return (int32_t)(d_model * qkv_integer_of(r, f, 1, 64, 4));
    if (v.kind != QKV_CONFIG_LIST) {
        width = qkv_integer_at(r, path, 1, WIDEST, 0);
        return (int32_t)(width == 0 && (r->f->quirks & Q_D_FF_FOUR) ? 4 * d_model : width);
    }
    for (int64_t i = 0; i < v.count && i < QKV_MODEL_MAX_LAYERS; i++) {
        const qkv_say say = {item, sizeof item};
        qkv_refuse(say, QKV_OK, "%s/%lld", path, (long long)i);
        const int64_t x = qkv_integer_at(r, item, 1, WIDEST, 0);
        if (i > 0 && x != width) {
            qkv_unpriced(r, path);
            return 0;
        }
        width = x;
    }
    return (int32_t)width;
}

/* Llama 4 lists the layers with experts; the list must say what the interval says. */
static void check_expert_layers(reader *r)
{
    qkv_model *m = r->model;
    char path[READER_PATH], item[READER_PATH];
    qkv_config_value v = qkv_value_at(r, qkv_field_path(r, F_MOE_LAYERS, path));
    int regular = v.count == m->n_layers / m->expert_every;

    for (int64_t i = 0; v.kind == QKV_CONFIG_LIST && regular && i < v.count; i++) {
        const qkv_say say = {item, sizeof item};
        qkv_refuse(say, QKV_OK, "%s/%lld", path, (long long)i);
        regular = qkv_integer_at(r, item, 0, m->n_layers - 1, -1) == (i + 1) * m->expert_every - 1;
    }
    if (v.kind == QKV_CONFIG_LIST && !regular)
        qkv_unpriced(r, path);
    v = qkv_value_at(r, qkv_field_path(r, F_DENSE_LAYERS, path));
    if (!qkv_value_is_nothing(&v))
        qkv_unpriced(r, path);
}

static void read_experts(reader *r)
{
    qkv_model *m = r->model;

    m->n_experts = (int32_t)qkv_integer_of(r, F_EXPERTS, 0, 65536, 0);
    m->expert_every = 1;
    if (m->n_experts == 0)
        return;
    m->n_experts_used = (int32_t)qkv_integer_of(r, F_EXPERTS_USED, 1, m->n_experts, 0);
    m->n_experts_shared = (int32_t)qkv_integer_of(r, F_EXPERTS_SHARED, 0, 65536, 0);
    m->d_ff_expert = (int32_t)qkv_integer_of(r, F_D_FF_EXPERT, 1, WIDEST, 0);
    m->first_dense_layers = (int32_t)qkv_integer_of(r, F_FIRST_DENSE, 0, m->n_layers, 0);
    if (r->f->fields[F_EXPERT_EVERY] != NULL)
        m->expert_every = (int32_t)qkv_demand(r, F_EXPERT_EVERY, 1, 1 << 20);
    m->d_ff_shared = r->f->fields[F_D_FF_SHARED] == NULL
                         ? (int32_t)((int64_t)m->n_experts_shared * m->d_ff_expert)
                         : (int32_t)qkv_integer_of(r, F_D_FF_SHARED, 0, WIDEST, 0);
    check_expert_layers(r);
}

/* Falcon has one norm or two before a layer's branches. */
static int32_t falcon_norms(reader *r)
{
    const int parallel = qkv_bool_at(r, "parallel_attn", 1);
    const int grouped = qkv_bool_of(r, F_NEW_DECODER);
    const int64_t n = qkv_integer_at(r, "num_ln_in_parallel_attn", 1, 2, grouped ? 2 : 1);

    return !parallel || n == 2 ? 4 : 2;
}

void qkv_read_ffn(reader *r)
{
    qkv_model *m = r->model;
    char path[READER_PATH];
    const qkv_config_value kind = qkv_value_at(r, qkv_field_path(r, F_FFN_KIND, path));

    m->d_ff = read_width(r, F_D_FF, m->d_model);
    m->ffn_gated = (r->f->quirks & Q_GATED) != 0 ||
                   (kind.kind == QKV_CONFIG_TEXT && strncmp(kind.text, "gated", 5) == 0);
    m->ffn_bias = (r->f->quirks & Q_FFN_BIAS) != 0 || qkv_bool_of(r, F_MLP_BIAS);
    if ((r->f->quirks & Q_FALCON_NORMS) != 0)
        m->ffn_bias = qkv_bool_of(r, F_BIAS);
    read_experts(r);
    m->norms_a_layer = (r->f->quirks & Q_FALCON_NORMS) ? falcon_norms(r) : r->f->norms[0];
    m->norms_an_encoder_layer = r->f->norms[1];
    m->norms_besides = r->f->norms[2];
    m->token_types = (int32_t)qkv_integer_of(r, F_TOKEN_TYPES, 0, 1 << 20, 0);
    if (r->f->quirks & Q_LEARNED) /* BART: two tables, each with two rows that are never used */
        m->position_embeddings = (r->f->quirks & Q_ENC_DEC) ? 2 * (m->max_positions + 2)
                                                            : m->max_positions;
}
