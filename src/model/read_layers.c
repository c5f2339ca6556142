/*
 * model/read_layers.c - which layer has which attention.
 *
 * A family has full layers and at most one other sort: with a window, in chunks, or with a state.
 * Which layer is which follows from the list layer_types or from a rule; where a family does
 * not look at the list, it must say the same as the rule.
 */
#include <string.h>

#include "model/reader.h"

static const char *const sorts[] = {"full_attention", "sliding_attention", "chunked_attention",
                                    "linear_attention"}; /* by OTHER_; the first is full */

/* ---- kinds ---------------------------------------------------------------------------------- */

/* Pointers to longrope's factors, which a kind does not have. */
static void point_to_factors(const qkv_model *m, qkv_layer_desc *layer)
{
    if (layer->rope.type == QKV_ROPE_LONGROPE) {
        layer->rope.short_factor = m->rope_factors[0];
        layer->rope.long_factor = m->rope_factors[1];
    }
}

static void check_kind(reader *r, qkv_layer_desc layer, const char *part, int32_t number)
{
    char sentence[320];

    point_to_factors(r->model, &layer);
    const qkv_status status = qkv_layer_desc_check(&layer, sentence, sizeof sentence);
    if (status != QKV_OK)
        REFUSE(r, QKV_ERR_FORMAT, "%slayer %d: %s", part, number, sentence);
}

/* Notes that a layer has this attention. */
static void put(reader *r, int32_t part, int32_t number, const qkv_layer_desc *layer)
{
    static const char *const parts[] = {"", "encoder ", "cross-attention of "};
    qkv_model *m = r->model;
    int32_t kind = 0;

    if (r->status != QKV_OK)
        return;
    while (kind < m->n_kinds && memcmp(&m->kinds[kind], layer, sizeof *layer) != 0)
        kind++;
    if (kind == QKV_MODEL_MAX_KINDS) {
        REFUSE(r, QKV_ERR_UNSUPPORTED, "the layers have more than %d kinds of attention",
               QKV_MODEL_MAX_KINDS);
        return;
    }
    if (kind == m->n_kinds) {
        check_kind(r, *layer, parts[part], number);
        m->kinds[m->n_kinds++] = *layer;
    }
    m->kind_of[part][number] = (uint8_t)kind;
}

/* ---- full or other -------------------------------------------------------------------------- */

/* By the family's rule: 0 full, 1 other. */
static int by_rule(reader *r, int32_t i)
{
    const family *f = r->f;

    if (f->other == OTHER_NONE)
        return 0;
    if (f->other == OTHER_SLIDING && r->window == 0 && f->defaults[F_PATTERN] == 0)
        return 0;
    if (f->quirks & Q_WINDOW_ALL)
        return 1;
    if (f->fields[F_WINDOW_FROM] != NULL)
        return i >= qkv_integer_of(r, F_WINDOW_FROM, 0, 1 << 30, 0);
    if (f->other == OTHER_CHUNKED)
        return qkv_rotates(r, i);
    const int32_t pattern = (int32_t)qkv_integer_of(r, F_PATTERN, 1, 1 << 30, 1);
    return pattern < 1 || (i + 1) % pattern != 0;
}

/* By layer_types; otherwise if there is no such list. */
static int by_list(reader *r, int32_t i, int otherwise)
{
    char path[READER_PATH], words[VALUE_WORDS];
    const qkv_config_value list = qkv_value_at(r, "layer_types");

    if (list.kind == QKV_CONFIG_MISSING || list.kind == QKV_CONFIG_NULL)
        return otherwise;
    if (list.kind != QKV_CONFIG_LIST || list.count != r->model->n_layers)
        REFUSE(r, QKV_ERR_FORMAT, "%slayer_types is %s of %lld; accepted are null and a list of "
                                  "%d texts, one a layer",
               r->base, list.kind == QKV_CONFIG_LIST ? "a list" : "no list", (long long)list.count,
               r->model->n_layers);
    const qkv_config_value v = qkv_value_at(r, qkv_item_path("layer_types", i, path));
    for (int sort = 0; v.kind == QKV_CONFIG_TEXT && sort < 4; sort++)
        if (strcmp(v.text, sorts[sort]) == 0 && (sort == 0 || sort == r->f->other))
            return sort != 0;
    REFUSE(r, QKV_ERR_UNSUPPORTED, "%s%s is %s; a %s model has full_attention%s%s", r->base, path,
           qkv_value_words(&v, words), r->f->name, r->f->other ? " and " : " only",
           r->f->other ? sorts[r->f->other] : "");
    return otherwise;
}

static int is_other(reader *r, int32_t i)
{
    const int rule = by_rule(r, i), list = by_list(r, i, rule);

    if ((r->f->quirks & Q_LAST_FULL) && i == r->model->n_layers - 1)
        return 0;
    if (list != rule && !(r->f->quirks & Q_LAYER_TYPES))
        REFUSE(r, QKV_ERR_FORMAT,
               "%slayer_types/%d is %s; a %s model does not look at that list, and by its other "
               "fields layer %d is %s",
               r->base, i, list ? sorts[r->f->other] : sorts[0], r->f->name, i,
               rule ? sorts[r->f->other] : sorts[0]);
    if (list && r->f->other == OTHER_SLIDING && r->window == 0)
        REFUSE(r, QKV_ERR_FORMAT,
               "layer %d is sliding_attention, and %s%s gives no window; a whole number from 1 is "
               "needed",
               i, r->base, r->f->fields[F_WINDOW]);
    return list;
}

/* ---- layers --------------------------------------------------------------------------------- */

/* The last layers may use keys and values of the last layer of their sort before them. */
static void share(reader *r, int32_t shared)
{
    qkv_model *m = r->model;
    const int32_t first = m->n_layers - shared;

    for (int32_t i = 0; i < m->n_layers; i++)
        m->cache_of[i] = (int16_t)i;
    for (int32_t i = first < 0 ? 0 : first; shared > 0 && i < m->n_layers; i++) {
        int32_t from = first - 1;
        while (from >= 0 && m->kind_of[0][from] != m->kind_of[0][i])
            from--;
        if (from < 0) {
            REFUSE(r, QKV_ERR_FORMAT,
                   "%s%s is %d, and no layer before layer %d is like layer %d, whose keys and "
                   "values it could use",
                   r->base, r->f->fields[F_SHARED_LAYERS], shared, first, i);
            return;
        }
        m->cache_of[i] = (int16_t)from;
    }
}

static void read_window(reader *r)
{
    const family *f = r->f;

    r->window = 0;
    if (f->fields[F_WINDOW] == NULL)
        return;
    if (f->fields[F_WINDOW_USED] == NULL || qkv_bool_of(r, F_WINDOW_USED))
        r->window = qkv_integer_of(r, F_WINDOW, 1, (int64_t)1 << 60, 0);
}

/* Encoder, decoder and cross-attention of T5 and BART: all layers of a part are alike. */
static void read_encoder_decoder(reader *r)
{
    qkv_layer_desc layer = r->layer;

    layer.rope = r->full;
    layer.causal = 0;
    layer.relative_bidirectional = layer.relative_buckets > 0;
    for (int32_t i = 0; i < r->model->encoder_layers; i++)
        put(r, QKV_PART_ENCODER, i, &layer);
    layer.n_q_heads = layer.n_kv_heads = r->decoder_heads;
    if (r->f->fields[F_HEAD_DIM] == NULL)
        layer.head_dim = layer.head_dim_v = r->model->d_model / r->decoder_heads;
    layer.causal = 1;
    layer.relative_bidirectional = 0;
    for (int32_t i = 0; i < r->model->n_layers; i++)
        put(r, QKV_PART_DECODER, i, &layer);
    layer.causal = 0;
    layer.cross = 1;
    layer.d_memory = r->model->d_model;
    layer.relative_buckets = layer.relative_max_distance = 0;
    for (int32_t i = 0; i < r->model->n_layers; i++)
        put(r, QKV_PART_CROSS, i, &layer);
}

void qkv_read_layers(reader *r)
{
    const qkv_config_value own = qkv_value_at(r, "per_layer_config");
    qkv_layer_desc layer;
    char words[VALUE_WORDS];

    if (!qkv_value_is_nothing(&own) &&
        (own.kind != QKV_CONFIG_TABLE || (r->f->quirks & (Q_ENC_DEC | Q_MLA))))
        REFUSE(r, QKV_ERR_UNSUPPORTED, "%sper_layer_config is %s; accepted for a %s model is %s",
               r->base, qkv_value_words(&own, words), r->f->name,
               r->f->quirks & (Q_ENC_DEC | Q_MLA) ? "null" : "a table");
    if (r->f->quirks & Q_ENC_DEC) {
        read_encoder_decoder(r);
        share(r, 0);
        return;
    }
    read_window(r);
    for (int32_t i = 0; i < r->model->n_layers && r->status == QKV_OK; i++) {
        qkv_make_layer(r, i, is_other(r, i), &layer);
        put(r, QKV_PART_DECODER, i, &layer);
    }
    if (r->status == QKV_OK)
        share(r, (int32_t)qkv_integer_of(r, F_SHARED_LAYERS, 0, r->model->n_layers, 0));
}
