/*
 * model/read_rope.c - rotations of a configuration.
 *
 * Three forms are in use.  Version 4 of Transformers has rope_theta and, if the rotation is scaled,
 * a table rope_scaling; version 5 has one table rope_parameters, or in it one a type of layer.
 * Gemma's two rotations are in the first form rope_theta and rope_scaling for full layers and
 * rope_local_base_freq for the others.
 */
#include <math.h>
#include <string.h>

#include "model/reader.h"

/* Which layers a rotation is for, by the names that rope_parameters uses. */
static const char *const layer_types[] = {"full_attention", "sliding_attention",
                                          "chunked_attention"};
#define FULL layer_types[0]
#define SLIDING layer_types[1]

static const char known_keys[] =
    "rope_type type rope_theta factor attention_factor beta_fast beta_slow mscale mscale_all_dim "
    "truncate low_freq_factor high_freq_factor original_max_position_embeddings short_factor "
    "long_factor partial_rotary_factor mrope_section mrope_interleaved finetuned";

/* The path of a key of the table at `table`. */
static const char *key_path(const char *table, const char *key, char path[READER_PATH])
{
    if (!qkv_join(path, READER_PATH, table, "/", key))
        path[0] = '\0';
    return path;
}

static int two_rotations(const reader *r) { return r->f->defaults[F_LOCAL_THETA] != 0; }

/* ---- where it stands ------------------------------------------------------------------------ */

/* Is rope_parameters a table of tables, one a type of layer? */
static int is_by_type(reader *r)
{
    char path[READER_PATH];

    for (size_t i = 0; i < sizeof layer_types / sizeof layer_types[0]; i++)
        if (qkv_value_at(r, key_path("rope_parameters", layer_types[i], path)).kind ==
            QKV_CONFIG_TABLE)
            return 1;
    return 0;
}

/* A table, or nothing: null, missing. */
static int is_table(reader *r, const char *path)
{
    const qkv_config_value v = qkv_value_at(r, path);
    char words[VALUE_WORDS];

    if (v.kind == QKV_CONFIG_TABLE)
        return v.count > 0;
    if (v.kind != QKV_CONFIG_MISSING && v.kind != QKV_CONFIG_NULL)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s; accepted are a table and null", r->base, path,
               qkv_value_words(&v, words));
    return 0;
}

/* The table for a type of layer; "" if there is none.  *none: it says that nothing turns. */
static void find_table(reader *r, const char *layer_type, char path[READER_PATH], int *none)
{
    const int v5 = is_table(r, "rope_parameters"), v4 = is_table(r, "rope_scaling");

    *none = 0;
    path[0] = '\0';
    if (v4 && v5)
        REFUSE(r, QKV_ERR_FORMAT, "%srope_scaling and %srope_parameters are both given; accepted "
                                  "is one of them",
               r->base, r->base);
    if (v5 && is_by_type(r)) {
        key_path("rope_parameters", layer_type, path);
        *none = qkv_value_at(r, path).kind == QKV_CONFIG_NULL;
        if (*none || !is_table(r, path)) {
            if (!*none && !two_rotations(r))
                REFUSE(r, QKV_ERR_FORMAT, "%s%s is missing", r->base, path);
            path[0] = '\0';
        }
    } else if (v5 && two_rotations(r)) {
        REFUSE(r, QKV_ERR_FORMAT, "%srope_parameters has no full_attention and sliding_attention; "
                                  "a %s model has a rotation for each",
               r->base, r->f->name);
    } else if (v5) {
        qkv_join(path, READER_PATH, "rope_parameters", "", "");
    } else if (v4 && !(two_rotations(r) && layer_type == SLIDING)) {
        qkv_join(path, READER_PATH, "rope_scaling", "", "");
    }
}

/* ---- what it says --------------------------------------------------------------------------- */

/* A rope_type as the configuration spells it, in today's words. */
static int32_t type_named(const reader *r, const char *name)
{
    if (strcmp(name, "su") == 0 ||
        (strcmp(name, "yarn") == 0 && (r->f->quirks & Q_YARN_IS_LONGROPE)))
        return QKV_ROPE_LONGROPE;
    if (strcmp(name, "mrope") == 0) /* three positions a token, which are equal for text */
        return QKV_ROPE_DEFAULT;
    for (int32_t type = QKV_ROPE_DEFAULT; type <= QKV_ROPE_PROPORTIONAL; type++)
        if (type != QKV_ROPE_NTK && strcmp(name, qkv_rope_type_name(type)) == 0)
            return type;
    return QKV_ROPE_NONE;
}

static int32_t read_type(reader *r, const char *table)
{
    char path[READER_PATH], words[VALUE_WORDS];
    qkv_config_value v = qkv_value_at(r, key_path(table, "rope_type", path));

    if (v.kind == QKV_CONFIG_MISSING || v.kind == QKV_CONFIG_NULL)
        v = qkv_value_at(r, key_path(table, "type", path));
    if (v.kind == QKV_CONFIG_MISSING || v.kind == QKV_CONFIG_NULL)
        return QKV_ROPE_DEFAULT;
    const int32_t type = v.kind == QKV_CONFIG_TEXT ? type_named(r, v.text) : QKV_ROPE_NONE;
    if (type == QKV_ROPE_NONE)
        REFUSE(r, v.kind == QKV_CONFIG_TEXT ? QKV_ERR_UNSUPPORTED : QKV_ERR_FORMAT,
               "%s%s is %s; accepted are default, linear, dynamic, yarn, longrope, llama3 and "
               "proportional",
               r->base, path, qkv_value_words(&v, words));
    return type;
}

/* A number that stands in the table, or beside it; both must agree. */
static double table_or_field(reader *r, const char *table, const char *key, field f,
                             double otherwise)
{
    char inner[READER_PATH], outer[READER_PATH];
    const double a = *table ? qkv_real_at(r, key_path(table, key, inner), 0, NAN) : NAN;
    const double b = qkv_real_at(r, qkv_field_path(r, f, outer), 0, NAN);

    if (!isnan(a) && !isnan(b) && a != b)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %.9g and %s%s is %.9g; they mean the same", r->base,
               inner, a, r->base, outer, b);
    return !isnan(a) ? a : !isnan(b) ? b : otherwise;
}

static double number(reader *r, const char *table, const char *key, double above, double otherwise)
{
    char path[READER_PATH];
    return qkv_real_at(r, key_path(table, key, path), above, otherwise);
}

static double needed(reader *r, const char *table, const char *key)
{
    const double x = number(r, table, key, 0, NAN);

    if (isnan(x))
        REFUSE(r, QKV_ERR_FORMAT, "%s%s/%s is missing; this rope_type needs it", r->base, table,
               key);
    return x;
}

static void read_factors(reader *r, const char *table, const char *key, int32_t which, int32_t n)
{
    char path[READER_PATH];
    const qkv_config_value v = qkv_value_at(r, key_path(table, key, path));

    if (r->status == QKV_OK && (v.kind != QKV_CONFIG_LIST || v.count != n))
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s of %lld; longrope needs a list of %d numbers, one a "
                                  "pair of channels",
               r->base, path, v.kind == QKV_CONFIG_LIST ? "a list" : "no list", (long long)v.count,
               n);
    for (int32_t i = 0; i < n && i < QKV_MODEL_MAX_FACTORS && r->status == QKV_OK; i++) {
        const qkv_say say = {path, sizeof path};
        qkv_refuse(say, QKV_OK, "%s/%s/%d", table, key, i);
        r->model->rope_factors[which][i] = qkv_real_at(r, path, 0, NAN);
        if (isnan(r->model->rope_factors[which][i]))
            REFUSE(r, QKV_ERR_FORMAT, "%s%s is null; accepted are numbers above 0", r->base, path);
    }
}

static void read_scaling(reader *r, const char *table, qkv_rope *rope)
{
    char path[READER_PATH];

    rope->factor = number(r, table, "factor", 0, NAN);
    if (rope->type == QKV_ROPE_LINEAR || rope->type == QKV_ROPE_DYNAMIC ||
        rope->type == QKV_ROPE_LLAMA3)
        rope->factor = needed(r, table, "factor");
    rope->attention_factor = number(r, table, "attention_factor", 0, NAN);
    if (rope->type == QKV_ROPE_LLAMA3) {
        rope->low_freq_factor = needed(r, table, "low_freq_factor");
        rope->high_freq_factor = needed(r, table, "high_freq_factor");
    }
    if (rope->type == QKV_ROPE_YARN) {
        rope->beta_fast = number(r, table, "beta_fast", 0, rope->beta_fast);
        rope->beta_slow = number(r, table, "beta_slow", 0, rope->beta_slow);
        rope->mscale = number(r, table, "mscale", -HUGE_VAL, 0);
        rope->mscale_all_dim = number(r, table, "mscale_all_dim", -HUGE_VAL, 0);
        rope->truncate = qkv_bool_at(r, key_path(table, "truncate", path), 1);
    }
    if (rope->type == QKV_ROPE_LLAMA3 || rope->type == QKV_ROPE_YARN ||
        rope->type == QKV_ROPE_LONGROPE) {
        const double missing = r->f->defaults[F_ORIGINAL_POSITIONS];
        const double x = table_or_field(r, table, "original_max_position_embeddings",
                                        F_ORIGINAL_POSITIONS,
                                        missing != 0 ? missing : (double)rope->max_positions);
        if (x > 1e15 || x != floor(x))
            REFUSE(r, QKV_ERR_FORMAT, "%s%s/original_max_position_embeddings is %.9g; accepted "
                                      "are whole numbers",
                   r->base, table, x);
        else
            rope->original_max_positions = (int64_t)x;
    }
    if (rope->type == QKV_ROPE_LONGROPE) {
        rope->n_factors = rope->rotary_dim / 2;
        read_factors(r, table, "short_factor", 0, rope->n_factors);
        read_factors(r, table, "long_factor", 1, rope->n_factors);
    }
}

/* How many channels of a head turn. */
static void read_partial(reader *r, const char *table, int local, qkv_rope *rope)
{
    const int own = local || (*table && (r->f->quirks & Q_PROPORTIONAL));
    double otherwise = own ? 1 : r->f->defaults[F_PARTIAL];
    otherwise = otherwise != 0 ? otherwise : 1;
    const double part = table_or_field(r, table, "partial_rotary_factor", F_PARTIAL, otherwise);

    if (part > 1)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s/partial_rotary_factor is %.9g; accepted are numbers above "
                                  "0 up to 1",
               r->base, *table ? table : "", part);
    rope->rotary_dim = (int32_t)(rope->head_dim * (part > 1 ? 1 : part));
    if (rope->type == QKV_ROPE_PROPORTIONAL)
        rope->rotary_dim -= rope->rotary_dim % 2;
    else if (rope->rotary_dim % 2 && r->f->fields[F_ROTARY_DIM] == NULL)
        REFUSE(r, QKV_ERR_UNSUPPORTED,
               "%s%s/partial_rotary_factor %.9g of %d channels is %d, which is odd; an even number "
               "of channels turns", r->base, *table ? table : "", part, (int)rope->head_dim,
               (int)rope->rotary_dim);
    if (r->f->fields[F_ROTARY_DIM] != NULL)
        rope->rotary_dim = (int32_t)qkv_demand(r, F_ROTARY_DIM, 2, rope->head_dim);
}

static void note_unknown(reader *r, const char *table)
{
    char whole[READER_PATH + sizeof r->base], path[READER_PATH];
    const char *key;

    if (!qkv_join(whole, sizeof whole, r->base, table, ""))
        return;
    for (int64_t i = 0; (key = r->config->key(r->config->ctx, whole, i)) != NULL; i++)
        if (!qkv_words_have(known_keys, key))
            qkv_unpriced(r, *key_path(table, key, path) != '\0' ? path : table);
}

static void read_one(reader *r, const char *layer_type, int32_t head_dim, qkv_rope *rope)
{
    const int local = layer_type == SLIDING && two_rotations(r);
    char table[READER_PATH];
    int none;

    qkv_rope_init(rope);
    find_table(r, layer_type, table, &none);
    if (none) {
        rope->type = QKV_ROPE_NONE;
        return;
    }
    if (*table == '\0' && (r->f->quirks & Q_ROPE_DEMANDED))
        REFUSE(r, QKV_ERR_FORMAT, "%srope_scaling is missing; a %s model needs it, or "
                                  "rope_parameters",
               r->base, r->f->name);
    rope->head_dim = head_dim;
    rope->max_positions = r->model->max_positions;
    rope->pairing = r->f->pairing;
    if (r->f->fields[F_INTERLEAVE] != NULL && !qkv_bool_of(r, F_INTERLEAVE))
        rope->pairing = QKV_ROPE_HALF_SPLIT;
    if (*table)
        rope->type = read_type(r, table);
    else if ((r->f->quirks & Q_PROPORTIONAL) && !local)
        rope->type = QKV_ROPE_PROPORTIONAL;
    rope->theta = table_or_field(r, table, "rope_theta", local ? F_LOCAL_THETA : F_THETA,
                                 r->f->defaults[local ? F_LOCAL_THETA : F_THETA]);
    read_partial(r, table, local, rope);
    if (*table) {
        read_scaling(r, table, rope);
        note_unknown(r, table);
    }
}

void qkv_read_rope_of(reader *r, int other, int32_t head_dim, qkv_rope *rope)
{
    read_one(r, !other ? FULL : r->f->other == OTHER_CHUNKED ? layer_types[2] : SLIDING, head_dim,
             rope);
}

void qkv_read_rope(reader *r)
{
    const int32_t head_dim = r->layer.kind == QKV_LAYER_MLA ? r->layer.rope_dim : r->layer.head_dim;

    qkv_rope_init(&r->full);
    r->full.type = QKV_ROPE_NONE;
    r->local = r->full;
    if (r->f->pairing < 0) {
        if (is_table(r, "rope_parameters") || is_table(r, "rope_scaling"))
            REFUSE(r, QKV_ERR_UNSUPPORTED, "%srope_%s is given; a %s model has no rotation",
                   r->base, is_table(r, "rope_scaling") ? "scaling" : "parameters", r->f->name);
        return;
    }
    if (r->layer.alibi != QKV_ALIBI_NONE || r->status != QKV_OK || head_dim < 1)
        return;
    qkv_read_rope_of(r, 0, head_dim, &r->full);
    if (r->f->other == OTHER_SLIDING || r->f->other == OTHER_CHUNKED)
        qkv_read_rope_of(r, 1, head_dim, &r->local);
}
