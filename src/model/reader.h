/*
 * model/reader.h - a configuration on its way into a qkv_model.
 *
 * The first failure is kept and everything after it does nothing, so that the code that reads
 * fields is a list of them.  Paths are relative to the part of the configuration that describes the
 * model, `base`; sentences have them in full.
 */
#ifndef QKV_MODEL_READER_H
#define QKV_MODEL_READER_H

#include "core/say.h"
#include "model/family.h"

#define READER_PATH 192

typedef struct reader {
    const qkv_config *config;
    const family *f;
    qkv_model *model;
    qkv_say say;
    qkv_status status;
    char base[16];        /* "" or "text_config/" */
    qkv_layer_desc layer; /* what all layers have in common */
    qkv_rope full, local; /* of full layers, and of those with a window */
    int64_t window;       /* keys that a query of a windowed layer sees; 0: none */
    int32_t decoder_heads;
} reader;

/* Keeps the first refusal. */
#define REFUSE(r, code, ...)                                                                       \
    ((r)->status = (r)->status != QKV_OK ? (r)->status : qkv_refuse((r)->say, code, __VA_ARGS__))

/* ---- source.c: values ----------------------------------------------------------------------- */

/* The value at a path below base; MISSING also after a failure and for a path that is too long. */
qkv_config_value qkv_value_at(reader *r, const char *path);

/* A value in words ("\"abc\"", "null", "a list"), for a sentence. */
#define VALUE_WORDS 64
const char *qkv_value_words(const qkv_config_value *value, char words[VALUE_WORDS]);

/* Missing, null, false, 0, an empty text, list or table. */
int qkv_value_is_nothing(const qkv_config_value *value);

/* A whole number in [low, high], a finite number above `above`, a yes or no; `otherwise` if it is
 * missing or null. */
int64_t qkv_integer_at(reader *r, const char *path, int64_t low, int64_t high, int64_t otherwise);
double qkv_real_at(reader *r, const char *path, double above, double otherwise);
int qkv_bool_at(reader *r, const char *path, int otherwise);

/* The path of a field: of its alternatives the one that is there, else the first; "" if the family
 * has no such field.  Alternatives that are both there must agree. */
const char *qkv_field_path(reader *r, field f, char path[READER_PATH]);

/* QKV_CONFIG_ kind of a field; MISSING if the family has no such field. */
int32_t qkv_field_kind(reader *r, field f);

/* As above, by field; missing: the row's default.  demand refuses what is missing without default,
 * and null. */
int64_t qkv_demand(reader *r, field f, int64_t low, int64_t high);
int64_t qkv_integer_of(reader *r, field f, int64_t low, int64_t high, int64_t if_null);
double qkv_real_of(reader *r, field f, double above, double if_null);
int qkv_bool_of(reader *r, field f);

/* ---- the other files ------------------------------------------------------------------------ */

void qkv_read_rope(reader *r);   /* read_rope.c: full and local */

/* The rotation of heads of another width, of a full layer or of another. */
void qkv_read_rope_of(reader *r, int other, int32_t head_dim, qkv_rope *rope);
void qkv_read_layers(reader *r); /* read_layers.c: kinds of layers */

/* make_layer.c: layer i, which is a full one or of the family's other sort; does it rotate? */
void qkv_make_layer(reader *r, int32_t i, int other, qkv_layer_desc *layer);
int qkv_rotates(reader *r, int32_t i);
const char *qkv_item_path(const char *list, int32_t i, char path[READER_PATH]);

void qkv_read_ffn(reader *r);    /* read_ffn.c: feed-forward blocks, embeddings, norms */
void qkv_read_rules(reader *r);  /* rules.c: fields that must not say something else */
void qkv_read_unknown(reader *r); /* rules.c: fields that nobody has looked at */

/* Adds a name to the model's unpriced. */
void qkv_unpriced(reader *r, const char *name);

/* Joins words into text of n bytes; 0 if they do not fit. */
int qkv_join(char *text, size_t n, const char *a, const char *b, const char *c);

#endif
