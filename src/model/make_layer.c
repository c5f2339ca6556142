/* model/make_layer.c - the attention of one layer, once it is known whether it is a full one. */
#include <string.h>

#include "model/reader.h"

const char *qkv_item_path(const char *list, int32_t i, char path[READER_PATH])
{
    const qkv_say say = {path, READER_PATH};
    qkv_refuse(say, QKV_OK, "%s/%d", list, i);
    return path;
}

/* A list of 0 and 1, or every so many layers one that does not. */
int qkv_rotates(reader *r, int32_t i)
{
    char list[READER_PATH], path[READER_PATH];
    const qkv_config_value v = qkv_value_at(r, qkv_field_path(r, F_NO_ROPE, list));

    if (v.kind == QKV_CONFIG_LIST && v.count > 0)
        return (int)qkv_integer_at(r, qkv_item_path(list, i, path), 0, 1, 1);
    if (r->f->fields[F_NO_ROPE] == NULL)
        return 1;
    return (i + 1) % (int32_t)qkv_integer_of(r, F_NO_ROPE_EVERY, 1, 1 << 30, 1) != 0;
}

/* A gated delta rule's state: a matrix a head of values, and the inputs that its convolution still
 * needs.  Transformers keeps the matrix in f32. */
static void make_state(reader *r, qkv_layer_desc *layer)
{
    const int64_t k_heads = qkv_demand(r, F_STATE_K_HEADS, 1, 65536);
    const int64_t v_heads = qkv_demand(r, F_STATE_V_HEADS, 1, 65536);
    const int64_t k_dim = qkv_demand(r, F_STATE_K_DIM, 1, 65536);
    const int64_t v_dim = qkv_demand(r, F_STATE_V_DIM, 1, 65536);
    const int64_t taps = qkv_demand(r, F_STATE_CONV, 1, 1024);
    const int64_t mixed = 2 * k_heads * k_dim + v_heads * v_dim;
    const int64_t d_model = r->model->d_model;

    qkv_layer_desc_init(layer);
    layer->kind = QKV_LAYER_STATE;
    layer->d_model = (int32_t)d_model;
    layer->state_elements = v_heads * k_dim * v_dim + mixed * (taps - 1);
    layer->state_type = QKV_F32;
    layer->state_parameters = d_model * (mixed + v_heads * v_dim + 2 * v_heads) + mixed * taps +
                              2 * v_heads + v_dim + v_heads * v_dim * d_model;
}

/* Gemma 4's full layers have other heads. */
static void make_global(reader *r, qkv_layer_desc *layer)
{
    layer->v_from_k = qkv_bool_of(r, F_K_EQ_V);
    if (qkv_value_at(r, "per_layer_config").kind == QKV_CONFIG_TABLE)
        return; /* a file that Transformers 5 saved: it says so itself */
    layer->head_dim =
        (int32_t)qkv_integer_of(r, F_GLOBAL_HEAD_DIM, 1, 1024, r->layer.head_dim);
    layer->head_dim_v = layer->head_dim;
    if (layer->v_from_k && qkv_field_kind(r, F_GLOBAL_KV_HEADS) == QKV_CONFIG_INTEGER)
        layer->n_kv_heads =
            (int32_t)qkv_integer_of(r, F_GLOBAL_KV_HEADS, 1, layer->n_q_heads, 1);
}

/* The layer's table in per_layer_config, whose keys are numbers with zeros in front or without. */
static int own_table(reader *r, int32_t i, char path[READER_PATH])
{
    const qkv_say say = {path, READER_PATH};

    for (int digits = 1; digits <= 4; digits++) {
        qkv_refuse(say, QKV_OK, "per_layer_config/%0*d", digits, i);
        if (qkv_value_at(r, path).kind == QKV_CONFIG_TABLE)
            return 1;
    }
    return 0;
}

/* What Transformers 5 says of single layers.  Other fields than these would change what is said
 * here, but for the width of the feed-forward block. */
static void make_own(reader *r, int32_t i, qkv_layer_desc *layer)
{
    char table[READER_PATH], path[READER_PATH], whole[READER_PATH + sizeof r->base];
    const char *key;

    if (!own_table(r, i, table) || !qkv_join(whole, sizeof whole, r->base, table, ""))
        return;
    for (int64_t n = 0; (key = r->config->key(r->config->ctx, whole, n)) != NULL; n++) {
        const int known = qkv_join(path, sizeof path, table, "/", key);
        if (known && strcmp(key, "head_dim") == 0)
            layer->head_dim = layer->head_dim_v =
                (int32_t)qkv_integer_at(r, path, 1, 1024, layer->head_dim);
        else if (known && strcmp(key, "num_key_value_heads") == 0)
            layer->n_kv_heads =
                (int32_t)qkv_integer_at(r, path, 1, layer->n_q_heads, layer->n_kv_heads);
        else if (known && strcmp(key, "intermediate_size") == 0)
            qkv_unpriced(r, "per_layer_config");
        else
            REFUSE(r, QKV_ERR_UNSUPPORTED, "%s/%.60s is given; accepted in these tables are "
                                           "head_dim, num_key_value_heads and intermediate_size",
                   whole, key);
    }
}

void qkv_make_layer(reader *r, int32_t i, int other, qkv_layer_desc *layer)
{
    *layer = r->layer;
    if (!other) {
        layer->rope = r->full;
        if (r->f->fields[F_GLOBAL_HEAD_DIM] != NULL)
            make_global(r, layer);
    } else if (r->f->other == OTHER_STATE) {
        make_state(r, layer);
        return;
    } else if (r->f->other == OTHER_CHUNKED) {
        layer->rope = r->local;
        layer->chunk_tokens = qkv_integer_of(r, F_CHUNK, 1, (int64_t)1 << 60, 0);
    } else {
        layer->rope = r->local;
        layer->window_left = r->window - 1;
    }
    if (layer->kind == QKV_LAYER_ATTENTION)
        make_own(r, i, layer);
    if (layer->head_dim != r->layer.head_dim && layer->rope.type != QKV_ROPE_NONE)
        qkv_read_rope_of(r, other, layer->head_dim, &layer->rope);
    if (!qkv_rotates(r, i)) {
        qkv_rope_init(&layer->rope);
        layer->rope.type = QKV_ROPE_NONE;
    }
}
