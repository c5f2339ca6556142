/*
 * model/weight.c - where a checkpoint has the weights of a layer.
 *
 * A name is a prefix, the pattern of the family's row with the layer's number for its *, and
 * ".weight" or ".bias" (a sink's has neither).  Which rows of a fused projection are whose follows
 * from FUSED_ and the numbers of heads.
 */
#include <stddef.h>
#include <string.h>

#include "core/say.h"
#include "model/family.h"

static const char *const role_names[QKV_ROLE_COUNT] = {
    "q",   "k",        "v",   "o",    "q_norm",    "k_norm", "sinks",
    "q_a", "q_a_norm", "q_b", "kv_a", "kv_a_norm", "kv_b",   "relative_bias"};

/* A language model inside of a multimodal one, as Transformers 5 and 4 name it. */
static const char *const nested_prefixes[] = {"model.language_model.", "language_model.model.",
                                              "language_model."};

const char *qkv_role_name(int32_t role)
{
    return role >= 0 && role < QKV_ROLE_COUNT ? role_names[role] : "?";
}

/* ---- names ---------------------------------------------------------------------------------- */

static void write_name(char name[QKV_WEIGHT_NAME], const char *prefix, const char *pattern,
                       int32_t layer, const char *suffix)
{
    const qkv_say say = {name, QKV_WEIGHT_NAME};
    const char *star = strchr(pattern, '*');

    if (star != NULL)
        qkv_refuse(say, QKV_OK, "%s%.*s%d%s%s", prefix, (int)(star - pattern), pattern, layer,
                   star + 1, suffix);
    else
        qkv_refuse(say, QKV_OK, "%s%s%s", prefix, pattern, suffix);
}

static void add_name(qkv_weight *w, const char *prefix, const char *pattern, int32_t layer)
{
    if (w->n_names == QKV_WEIGHT_NAMES)
        return;
    write_name(w->names[w->n_names], prefix, pattern, layer,
               w->role == QKV_ROLE_SINKS ? "" : ".weight");
    if (w->has_bias)
        write_name(w->biases[w->n_names], prefix, pattern, layer, ".bias");
    w->n_names++;
}

static void write_names(qkv_weight *w, const qkv_model *m, const family *f, const char *pattern,
                        int32_t layer)
{
    if (m->nested)
        for (size_t i = 0; i < sizeof nested_prefixes / sizeof nested_prefixes[0]; i++)
            add_name(w, nested_prefixes[i], pattern, layer);
    for (int i = 0; i < FAMILY_PREFIXES && f->prefixes[i] != NULL; i++)
        add_name(w, f->prefixes[i], pattern, layer);
}

/* ---- shapes --------------------------------------------------------------------------------- */

static void set_matrix(qkv_weight *w, int64_t heads, int64_t width, int64_t columns)
{
    w->heads = (int32_t)heads;
    w->width = (int32_t)width;
    w->columns = columns;
    w->rows = heads * width;
    w->group_heads = w->heads;
    w->head_stride = width;
}

/* The three of a fused projection; D = Dv in all of them. */
static void set_fused(qkv_weight *w, const qkv_layer_desc *l, int32_t fused)
{
    const int64_t d = l->head_dim, q = l->n_q_heads, kv = l->n_kv_heads, g = q / kv;

    w->rows = (q + 2 * kv) * d;
    if (fused == FUSED_BLOCKS) {
        w->first = w->role == QKV_ROLE_Q ? 0 : w->role == QKV_ROLE_K ? q * d : (q + kv) * d;
        return;
    }
    w->first = w->role == QKV_ROLE_Q ? 0 : w->role == QKV_ROLE_K ? g * d : (g + 1) * d;
    w->group_heads = w->role == QKV_ROLE_Q ? (int32_t)g : 1;
    w->group_stride = (g + 2) * d;
}

static int has_qkv_bias(const qkv_layer_desc *l, int32_t role)
{
    return role == QKV_ROLE_Q ? l->q_bias : role == QKV_ROLE_K ? l->k_bias : l->v_bias;
}

/* The weight of this role, or 0 if the layer has none. */
static int describe_attention(qkv_weight *w, const qkv_layer_desc *l, const family *f)
{
    const int64_t memory = l->cross && l->d_memory > 0 ? l->d_memory : l->d_model;

    switch (w->role) {
    case QKV_ROLE_Q:
        set_matrix(w, l->n_q_heads, l->head_dim, l->d_model);
        break;
    case QKV_ROLE_K:
        set_matrix(w, l->n_kv_heads, l->head_dim, memory);
        break;
    case QKV_ROLE_V:
        set_matrix(w, l->n_kv_heads, l->head_dim_v, memory);
        break;
    case QKV_ROLE_O:
        set_matrix(w, 1, l->d_model, (int64_t)l->n_q_heads * l->head_dim_v);
        w->has_bias = l->o_bias;
        break;
    case QKV_ROLE_Q_NORM:
    case QKV_ROLE_K_NORM:
        set_matrix(w, 1, l->head_dim, 0);
        return l->qk_norm != QKV_NORM_NONE;
    case QKV_ROLE_SINKS:
        set_matrix(w, 1, l->n_q_heads, 0);
        return l->sinks;
    case QKV_ROLE_RELATIVE_BIAS:
        set_matrix(w, 1, l->relative_buckets, l->n_q_heads);
        return l->relative_buckets > 0;
    default:
        return 0;
    }
    if (w->role != QKV_ROLE_O) {
        w->has_bias = has_qkv_bias(l, w->role);
        if (f->fused != FUSED_NOT)
            set_fused(w, l, f->fused);
    }
    w->transposed = (f->quirks & Q_CONV1D) != 0;
    return 1;
}

static int describe_mla(qkv_weight *w, const qkv_layer_desc *l)
{
    const int latent_q = l->q_lora_rank > 0;
    const int32_t n = l->head_dim - l->rope_dim;

    switch (w->role) {
    case QKV_ROLE_Q:
        set_matrix(w, l->n_q_heads, l->head_dim, l->d_model);
        return !latent_q;
    case QKV_ROLE_Q_A:
        set_matrix(w, 1, l->q_lora_rank, l->d_model);
        w->has_bias = l->q_bias;
        return latent_q;
    case QKV_ROLE_Q_A_NORM:
        set_matrix(w, 1, l->q_lora_rank, 0);
        return latent_q && l->latent_norm != QKV_NORM_NONE;
    case QKV_ROLE_Q_B:
        set_matrix(w, l->n_q_heads, l->head_dim, l->q_lora_rank);
        return latent_q;
    case QKV_ROLE_KV_A:
        set_matrix(w, 1, (int64_t)l->kv_lora_rank + l->rope_dim, l->d_model);
        w->has_bias = l->q_bias;
        return 1;
    case QKV_ROLE_KV_A_NORM:
        set_matrix(w, 1, l->kv_lora_rank, 0);
        return l->latent_norm != QKV_NORM_NONE;
    case QKV_ROLE_KV_B:
        set_matrix(w, l->n_q_heads, n + l->head_dim_v, l->kv_lora_rank);
        return 1;
    case QKV_ROLE_O:
        set_matrix(w, 1, l->d_model, (int64_t)l->n_q_heads * l->head_dim_v);
        w->has_bias = l->o_bias;
        return 1;
    default:
        return 0;
    }
}

static qkv_status describe(const qkv_model *m, int32_t part, int32_t layer, int32_t role,
                           qkv_weight *w, qkv_say say)
{
    const family *f = qkv_family_named(m->family);
    qkv_layer_desc l;

    const qkv_status status = qkv_model_layer(m, part, layer, &l, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    if (role < 0 || role >= QKV_ROLE_COUNT)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "role is %d; accepted are 0 to %d", role,
                          QKV_ROLE_COUNT - 1);
    if (m->sizing_only || f == NULL)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "a %s model is known for sizing only: its attention has parts that "
                          "layers do not compute",
                          m->family);
    memset(w, 0, sizeof *w);
    w->role = role;
    const char *pattern = f->weights[part][role];
    if (l.kind == QKV_LAYER_MLA ? !describe_mla(w, &l) : !describe_attention(w, &l, f))
        pattern = NULL;
    if (pattern != NULL)
        write_names(w, m, f, pattern, layer);
    return qkv_accept(say);
}

qkv_status qkv_model_weight_sized(const qkv_model *model, int32_t part, int32_t layer, int32_t role,
                                  qkv_weight *weight, size_t struct_size, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_weight w;

    if (weight == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "weight is NULL");
    const qkv_status status = describe(model, part, layer, role, &w, say);
    if (status != QKV_OK)
        return status;
    w.struct_size = (uint32_t)(struct_size < sizeof w ? struct_size : sizeof w);
    memset(weight, 0, struct_size);
    memcpy(weight, &w, w.struct_size);
    return QKV_OK;
}
