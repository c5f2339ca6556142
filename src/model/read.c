/*
 * model/read.c - from a configuration to a qkv_model: which family, and what its layers share.
 */
#include <math.h>
#include <string.h>

#include "model/reader.h"

#define LARGEST_WIDTH (1 << 20)
#define LARGEST_HEADS 65536
#define LARGEST_HEAD 1024

/* ---- the family ----------------------------------------------------------------------------- */

/* All families, as "a, b, c". */
static const char *list_families(char *list, size_t bytes)
{
    size_t n = 0;

    list[0] = '\0';
    for (int32_t i = 0; i < qkv_family_count(); i++) {
        const char *name = qkv_family_name(i);
        if (n + strlen(name) + 3 > bytes)
            break;
        const qkv_say say = {list + n, bytes - n};
        qkv_refuse(say, QKV_OK, i == 0 ? "%s" : ", %s", name);
        n += strlen(list + n);
    }
    return list;
}

/* model_type of the part at base, or NULL. */
static const char *model_type_at(reader *r, const char *base)
{
    qkv_join(r->base, sizeof r->base, base, "", "");
    const qkv_config_value v = qkv_value_at(r, "model_type");
    char words[VALUE_WORDS];

    if (v.kind == QKV_CONFIG_TEXT)
        return v.text;
    if (v.kind != QKV_CONFIG_MISSING && v.kind != QKV_CONFIG_NULL)
        REFUSE(r, QKV_ERR_FORMAT, "%smodel_type is %s; accepted are texts", r->base,
               qkv_value_words(&v, words));
    return NULL;
}

/* Sets base, family and model_type.  A multimodal configuration has the language model in
 * text_config, with a model_type of its own or, in older files, without one. */
static void find_family(reader *r, const char *as)
{
    qkv_model *m = r->model;
    char list[400];
    const char *outer = model_type_at(r, ""), *inner = NULL;
    const qkv_config_value text = qkv_value_at(r, "text_config");

    m->nested = text.kind == QKV_CONFIG_TABLE;
    if (m->nested)
        inner = model_type_at(r, "text_config/");
    if (r->status != QKV_OK)
        return;
    const char *type = inner != NULL ? inner : outer;
    r->f = as != NULL ? qkv_family_named(as) : type != NULL ? qkv_family_of_type(type) : NULL;
    if (as != NULL && r->f == NULL)
        REFUSE(r, QKV_ERR_UNSUPPORTED, "there is no family %.40s; known are %s", as,
               list_families(list, sizeof list));
    else if (type == NULL && r->f == NULL)
        REFUSE(r, QKV_ERR_FORMAT, "%smodel_type is missing; known are %s, and a family may be "
                                  "given besides",
               r->base, list_families(list, sizeof list));
    else if (r->f == NULL)
        REFUSE(r, QKV_ERR_UNSUPPORTED,
               "%smodel_type is \"%.40s\", which is not known; known are %s", r->base, type,
               list_families(list, sizeof list));
    if (r->status != QKV_OK)
        return;
    const qkv_say family_name = {m->family, sizeof m->family};
    const qkv_say type_name = {m->model_type, sizeof m->model_type};
    qkv_refuse(family_name, QKV_OK, "%s", r->f->name);
    qkv_refuse(type_name, QKV_OK, "%.60s", type != NULL ? type : "");
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static int32_t read_kv_heads(reader *r, int32_t heads)
{
    const int32_t own = r->f->fields[F_KV_HEADS] == NULL
                            ? heads
                            : (int32_t)qkv_integer_of(r, F_KV_HEADS, 1, LARGEST_HEADS, heads);
    const int32_t kv = own == 0 ? heads : own;
    char path[READER_PATH], other[READER_PATH];

    if (r->f->fields[F_MULTI_QUERY] != NULL &&
        !(r->f->fields[F_NEW_DECODER] != NULL && qkv_bool_of(r, F_NEW_DECODER))) {
        if (qkv_bool_of(r, F_MULTI_QUERY))
            return 1;
        if (kv != heads) /* Falcon's third layout has a key head a query head */
            REFUSE(r, QKV_ERR_FORMAT, "%s%s is %d; without %s it is the number of heads, %d",
                   r->base, qkv_field_path(r, F_KV_HEADS, path), kv, r->f->fields[F_MULTI_QUERY],
                   heads);
    }
    if (heads % kv != 0)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %d; accepted are divisors of %s, %d", r->base,
               qkv_field_path(r, F_KV_HEADS, path), kv, qkv_field_path(r, F_HEADS, other), heads);
    return kv;
}

static int32_t read_head_dim(reader *r, int32_t heads)
{
    const int64_t d_model = r->model->d_model;
    const int32_t kind = qkv_field_kind(r, F_HEAD_DIM);
    char width[READER_PATH], count[READER_PATH];

    if (kind != QKV_CONFIG_NULL && (kind != QKV_CONFIG_MISSING || r->f->defaults[F_HEAD_DIM] != 0))
        return (int32_t)qkv_demand(r, F_HEAD_DIM, 1, LARGEST_HEAD);
    if (d_model % heads != 0 || d_model / heads > LARGEST_HEAD)
        REFUSE(r, QKV_ERR_FORMAT,
               "%s%s is %lld and %s is %d; without a width of heads the one divides the other, and "
               "heads have up to %d channels",
               r->base, qkv_field_path(r, F_D_MODEL, width), (long long)d_model,
               qkv_field_path(r, F_HEADS, count), heads, LARGEST_HEAD);
    return (int32_t)(d_model / heads);
}

static void read_mla(reader *r, qkv_layer_desc *l)
{
    const int32_t kind = qkv_field_kind(r, F_Q_LORA);

    if (kind == QKV_CONFIG_MISSING)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is missing; a %s model needs it: a whole number from 1, or "
                                  "null",
               r->base, r->f->fields[F_Q_LORA], r->f->name);
    l->kind = QKV_LAYER_MLA;
    l->q_lora_rank = (int32_t)qkv_integer_of(r, F_Q_LORA, 1, LARGEST_WIDTH, 0);
    l->kv_lora_rank = (int32_t)qkv_demand(r, F_KV_LORA, 1, LARGEST_HEAD);
    l->rope_dim = (int32_t)qkv_demand(r, F_ROPE_DIM, 0, LARGEST_HEAD);
    l->head_dim = (int32_t)qkv_demand(r, F_NOPE_DIM, 0, LARGEST_HEAD) + l->rope_dim;
    l->head_dim_v = (int32_t)qkv_demand(r, F_V_DIM, 1, LARGEST_HEAD);
    if (read_kv_heads(r, l->n_q_heads) != l->n_q_heads)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %d; with a latent all %d heads have keys of their own",
               r->base, r->f->fields[F_KV_HEADS], read_kv_heads(r, l->n_q_heads), l->n_q_heads);
    l->n_kv_heads = l->n_q_heads;
}

static void read_sizes(reader *r)
{
    qkv_model *m = r->model;
    qkv_layer_desc *l = &r->layer;

    m->d_model = l->d_model = (int32_t)qkv_demand(r, F_D_MODEL, 1, LARGEST_WIDTH);
    m->n_layers = (int32_t)qkv_demand(r, F_LAYERS, 1, QKV_MODEL_MAX_LAYERS);
    l->n_q_heads = (int32_t)qkv_demand(r, F_HEADS, 1, LARGEST_HEADS);
    m->max_positions = qkv_integer_of(r, F_POSITIONS, 1, (int64_t)1 << 48, 0);
    m->vocab_size = qkv_integer_of(r, F_VOCAB, 1, (int64_t)1 << 40, 0);
    if (r->status != QKV_OK)
        return;
    if (r->f->quirks & Q_MLA) {
        read_mla(r, l);
    } else {
        l->n_kv_heads = read_kv_heads(r, l->n_q_heads);
        l->head_dim = l->head_dim_v = read_head_dim(r, l->n_q_heads);
    }
    r->decoder_heads = l->n_q_heads;
    if ((r->f->quirks & Q_ENC_DEC) == 0)
        return;
    m->encoder_layers = m->n_layers;
    /* T5's decoder is as deep as its encoder unless something else is said; BART's says it. */
    if (qkv_field_kind(r, F_DECODER_LAYERS) > QKV_CONFIG_NULL ||
        r->f->fields[F_DECODER_HEADS] != NULL)
        m->n_layers = (int32_t)qkv_demand(r, F_DECODER_LAYERS, 1, QKV_MODEL_MAX_LAYERS);
    if (r->f->fields[F_DECODER_HEADS] != NULL)
        r->decoder_heads = (int32_t)qkv_demand(r, F_DECODER_HEADS, 1, LARGEST_HEADS);
    if (r->status == QKV_OK && r->f->fields[F_HEAD_DIM] == NULL &&
        m->d_model % r->decoder_heads != 0)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %d; accepted are divisors of the width, %d", r->base,
               r->f->fields[F_DECODER_HEADS], r->decoder_heads, m->d_model);
}

/* ---- attention ------------------------------------------------------------------------------ */

static double read_scale(reader *r)
{
    const family *f = r->f;

    if (f->quirks & Q_SCALE_ONE)
        return 1;
    if (f->fields[F_SCALAR] != NULL)
        return 1 / sqrt(qkv_real_of(r, F_SCALAR, 0, f->defaults[F_SCALAR]));
    if (f->fields[F_SCALED] != NULL && !qkv_bool_of(r, F_SCALED))
        return 1;
    if (f->fields[F_SCALE] != NULL && qkv_field_kind(r, F_SCALE) > QKV_CONFIG_NULL)
        return qkv_real_of(r, F_SCALE, -HUGE_VAL, NAN);
    return NAN;
}

static void read_attention(reader *r)
{
    const family *f = r->f;
    qkv_layer_desc *l = &r->layer;
    const int bias = f->fields[F_BIAS] == NULL || qkv_bool_of(r, F_BIAS);

    l->q_bias = bias && (f->biases & B_Q) != 0;
    l->k_bias = bias && (f->biases & B_K) != 0;
    l->v_bias = bias && (f->biases & B_V) != 0;
    l->o_bias = bias && (f->biases & B_O) != 0;
    l->qk_norm = f->qk_norm;
    l->o_gate = (f->quirks & Q_GATE) != 0;
    l->sinks = (f->quirks & Q_SINKS) != 0;
    l->causal = (f->quirks & Q_ENCODER) == 0;
    if (f->qk_norm != QKV_NORM_NONE)
        l->norm_eps = qkv_real_of(r, F_EPS, 0, f->defaults[F_EPS]);
    l->scale = read_scale(r);
    l->softcap = qkv_real_of(r, F_SOFTCAP, 0, 0);
    if (f->alibi && (f->fields[F_ALIBI] == NULL || qkv_bool_of(r, F_ALIBI)))
        l->alibi = f->quirks & Q_ALIBI_SCALED ? QKV_ALIBI_SCALED : QKV_ALIBI_PLAIN;
    if (f->fields[F_ALIBI_MAX] != NULL)
        l->alibi_max_bias = qkv_real_of(r, F_ALIBI_MAX, 0, f->defaults[F_ALIBI_MAX]);
    if (f->fields[F_BUCKETS] != NULL) {
        l->relative_buckets = (int32_t)qkv_demand(r, F_BUCKETS, 1, 65536);
        l->relative_max_distance = (int32_t)qkv_demand(r, F_MAX_DISTANCE, 1, 1 << 30);
    }
    r->model->scale_by_layer = qkv_bool_of(r, F_SCALE_BY_LAYER);
    r->model->sizing_only = (f->quirks & Q_SIZING_ONLY) != 0;
}

/* The type of the weights in the files, if it is one of ours. */
static int32_t read_weight_type(reader *r)
{
    static const struct {
        const char *name;
        int32_t type;
    } types[] = {{"float32", QKV_F32}, {"bfloat16", QKV_BF16}, {"float16", QKV_F16},
                 {"float64", QKV_F64}};
    qkv_config_value v = qkv_value_at(r, "dtype");

    if (v.kind != QKV_CONFIG_TEXT)
        v = qkv_value_at(r, "torch_dtype");
    for (size_t i = 0; v.kind == QKV_CONFIG_TEXT && i < sizeof types / sizeof types[0]; i++)
        if (strcmp(v.text, types[i].name) == 0)
            return types[i].type;
    return QKV_NONE;
}

/* Fields that multimodal files have beside text_config, or in it. */
static void read_outer(reader *r)
{
    qkv_model *m = r->model;
    char path[READER_PATH], inner[sizeof r->base];

    const int here = qkv_field_kind(r, F_TIED) > QKV_CONFIG_NULL;
    m->tied_embeddings = qkv_bool_of(r, F_TIED);
    m->weight_type = read_weight_type(r);
    if (!m->nested)
        return;
    memcpy(inner, r->base, sizeof inner);
    r->base[0] = '\0';
    if (!here)
        m->tied_embeddings =
            qkv_bool_at(r, qkv_field_path(r, F_TIED, path), m->tied_embeddings);
    if (m->weight_type == QKV_NONE)
        m->weight_type = read_weight_type(r);
    memcpy(r->base, inner, sizeof inner);
}

/* ---- public --------------------------------------------------------------------------------- */

qkv_status qkv_model_read_sized(const qkv_config *config, const char *as, qkv_model *model,
                                size_t struct_size, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_model m;
    reader r;

    if (config == NULL || config->get == NULL || config->key == NULL || model == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_model_read: config, its functions or model "
                                                 "is NULL");
    memset(&m, 0, sizeof m);
    memset(&r, 0, sizeof r);
    memset(model, 0, struct_size);
    r.config = config;
    r.model = &m;
    r.say = say;
    find_family(&r, as);
    if (r.status != QKV_OK)
        return r.status;
    qkv_layer_desc_init(&r.layer);
    qkv_read_rules(&r);
    read_sizes(&r);
    if (r.status == QKV_OK)
        read_attention(&r);
    if (r.status == QKV_OK)
        qkv_read_rope(&r);
    if (r.status == QKV_OK)
        qkv_read_layers(&r);
    if (r.status == QKV_OK)
        qkv_read_ffn(&r);
    if (r.status == QKV_OK)
        read_outer(&r);
    if (r.status == QKV_OK)
        qkv_read_unknown(&r);
    if (r.status != QKV_OK)
        return r.status;
    m.struct_size = (uint32_t)(struct_size < sizeof m ? struct_size : sizeof m);
    memcpy(model, &m, m.struct_size);
    return qkv_accept(say);
}
