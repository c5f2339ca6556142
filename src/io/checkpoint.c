/*
 * io/checkpoint.c - a folder with config.json and weights: model.safetensors, or several files and
 * model.safetensors.index.json, which says which tensor is in which.
 *
 *     {"metadata": {...},
 *      "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", ...}}
 */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "qkv/io.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define SUFFIX ".safetensors"

/* DeepSeek-V3's has 9 MB and 163 files. */
#define LARGEST_INDEX (128 << 20)
#define MOST_FILES 4096

typedef struct shard {
    char *name;
    qkv_safetensors *file;
} shard;

struct qkv_checkpoint {
    char *directory;
    qkv_config_file *config;
    json_t *index; /* NULL: one file */
    const json_t *map;
    shard *shards;
    int32_t n_shards;
};

/* ---- opening -------------------------------------------------------------------------------- */

/* A file's name and nothing that leads elsewhere. */
static int is_plain_name(const char *name)
{
    const size_t n = strlen(name), m = strlen(SUFFIX);

    return n > m && n < 256 && name[0] != '.' && strchr(name, '/') == NULL &&
           strchr(name, '\\') == NULL && strcmp(name + n - m, SUFFIX) == 0;
}

static shard *find_shard(const qkv_checkpoint *c, const char *name)
{
    for (int32_t i = 0; i < c->n_shards; i++)
        if (strcmp(c->shards[i].name, name) == 0)
            return &c->shards[i];
    return NULL;
}

static qkv_status open_shard(qkv_checkpoint *c, const char *name, qkv_say say)
{
    shard *larger = realloc(c->shards, ((size_t)c->n_shards + 1) * sizeof *larger);
    if (larger == NULL)
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", c->directory);
    c->shards = larger;
    shard *s = &c->shards[c->n_shards];
    char *path = qkv_io_join(c->directory, name);
    *s = (shard){strdup(name), NULL};
    c->n_shards++;
    qkv_status status = QKV_OK;
    if (path == NULL || s->name == NULL)
        status = qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", c->directory);
    else
        status = qkv_safetensors_open(path, &s->file, say.text, say.bytes);
    free(path);
    return status;
}

/* Opens each file that the index names, once.  Neighbours in the index mostly are in one file, so
 * the last one is asked first. */
static qkv_status open_shards(qkv_checkpoint *c, const char *path, qkv_say say)
{
    json_t *map = json_object_get(c->index, "weight_map");
    const char *tensor, *last = "";
    json_t *value;

    c->map = map;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: weight_map is no table with names", path);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || !is_plain_name(name))
            return qkv_refuse(say, QKV_ERR_FORMAT,
                              "%s: weight_map/%.80s is %s%.80s%s; accepted are names of "
                              "%s files beside the index",
                              path, tensor, name ? "\"" : "", name ? name : "no text",
                              name ? "\"" : "", SUFFIX);
        if (strcmp(name, last) == 0 || find_shard(c, name) != NULL) {
            last = name;
            continue;
        }
        if (c->n_shards == MOST_FILES)
            return qkv_refuse(say, QKV_ERR_FORMAT, "%s: names more than %d files", path,
                              MOST_FILES);
        const qkv_status status = open_shard(c, name, say);
        if (status != QKV_OK)
            return status;
        last = name;
    }
    return QKV_OK;
}

static qkv_status open_weights(qkv_checkpoint *c, qkv_say say)
{
    char *single = qkv_io_join(c->directory, SINGLE), *index = qkv_io_join(c->directory, INDEX);
    qkv_status status;

    if (single == NULL || index == NULL) {
        status = qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", c->directory);
    } else if (qkv_io_exists(single)) {
        status = open_shard(c, SINGLE, say);
    } else if (qkv_io_exists(index)) {
        status = qkv_io_json_read(index, LARGEST_INDEX, &c->index, say);
        if (status == QKV_OK)
            status = open_shards(c, index, say);
    } else {
        status = qkv_refuse(say, QKV_ERR_SYSTEM, "%s: has neither %s nor %s", c->directory, SINGLE,
                            INDEX);
    }
    free(single);
    free(index);
    return status;
}

qkv_status qkv_checkpoint_open(const char *directory, qkv_checkpoint **checkpoint, char *text,
                               size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (directory == NULL || checkpoint == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "qkv_checkpoint_open: directory or checkpoint is NULL");
    *checkpoint = NULL;
    if (!qkv_io_is_directory(directory))
        return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: is no folder; expected is one with config.json "
                                               "and %s",
                          directory, SINGLE);
    qkv_checkpoint *c = calloc(1, sizeof *c);
    if (c != NULL)
        c->directory = strdup(directory);
    if (c == NULL || c->directory == NULL) {
        free(c);
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", directory);
    }
    qkv_status status = qkv_config_open(directory, &c->config, text, bytes);
    if (status == QKV_OK)
        status = open_weights(c, say);
    if (status != QKV_OK) {
        qkv_checkpoint_close(c);
        return status;
    }
    *checkpoint = c;
    return QKV_OK;
}

void qkv_checkpoint_close(qkv_checkpoint *c)
{
    if (c == NULL)
        return;
    for (int32_t i = 0; i < c->n_shards; i++) {
        qkv_safetensors_close(c->shards[i].file);
        free(c->shards[i].name);
    }
    free(c->shards);
    json_decref(c->index);
    qkv_config_close(c->config);
    free(c->directory);
    free(c);
}

qkv_config qkv_checkpoint_config(const qkv_checkpoint *c) { return qkv_config_of(c->config); }

/* ---- tensors -------------------------------------------------------------------------------- */

static int find_in(const shard *s, const char *name, qkv_safetensors_entry *entry)
{
    const int64_t n = qkv_safetensors_count(s->file);

    for (int64_t i = 0; i < n; i++)
        if (qkv_safetensors_entry_at(s->file, i, entry) == QKV_OK && strcmp(entry->name, name) == 0)
            return 1;
    memset(entry, 0, sizeof *entry);
    return 0;
}

qkv_status qkv_checkpoint_tensor(const qkv_checkpoint *c, const char *name,
                                 qkv_safetensors_entry *entry, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (c == NULL || name == NULL || entry == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "qkv_checkpoint_tensor: checkpoint, name or entry is NULL");
    memset(entry, 0, sizeof *entry);
    const char *file = c->map != NULL ? json_string_value(json_object_get(c->map, name)) : SINGLE;
    const shard *s = file != NULL ? find_shard(c, file) : NULL;
    if (s != NULL && find_in(s, name, entry))
        return qkv_accept(say);
    if (s != NULL && c->map != NULL)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: the index says that %s is in %s, which has no such tensor",
                          c->directory, name, file);
    return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s: no tensor is named \"%s\"", c->directory, name);
}

/* rows by columns as a weight says, or a vector of rows. */
static int has_shape(const qkv_safetensors_entry *e, int64_t rows, int64_t columns)
{
    return columns == 0 ? e->rank == 1 && e->shape[0] == rows
                        : e->rank == 2 && e->shape[0] == rows && e->shape[1] == columns;
}

static qkv_status check_entry(const qkv_checkpoint *c, const qkv_safetensors_entry *e, int64_t rows,
                              int64_t columns, qkv_say say)
{
    char got[160] = "";
    size_t n = 0;

    if (e->type != QKV_F64 && e->type != QKV_F32 && e->type != QKV_F16 && e->type != QKV_BF16)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "%s: tensor %s has dtype %s; accepted are F64, F32, F16 and BF16",
                          c->directory, e->name, e->dtype);
    if (has_shape(e, rows, columns))
        return QKV_OK;
    for (int32_t i = 0; i < e->rank && n + 24 < sizeof got; i++) {
        qkv_refuse((qkv_say){got + n, sizeof got - n}, QKV_OK, i ? ", %lld" : "%lld",
                   (long long)e->shape[i]);
        n += strlen(got + n);
    }
    if (columns == 0)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: tensor %s has shape [%s]; config.json asks for "
                                               "[%lld]",
                          c->directory, e->name, got, (long long)rows);
    return qkv_refuse(say, QKV_ERR_FORMAT,
                      "%s: tensor %s has shape [%s]; config.json asks for [%lld, %lld]",
                      c->directory, e->name, got, (long long)rows, (long long)columns);
}

qkv_status qkv_checkpoint_weight(const qkv_checkpoint *c, const qkv_weight *w,
                                 qkv_safetensors_entry *entry, qkv_safetensors_entry *bias,
                                 char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_status status = QKV_ERR_ARGUMENT;
    int32_t i = 0;

    if (c == NULL || w == NULL || entry == NULL || bias == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "qkv_checkpoint_weight: checkpoint, weight, entry or bias is NULL");
    memset(entry, 0, sizeof *entry);
    memset(bias, 0, sizeof *bias);
    for (; i < w->n_names; i++) {
        status = qkv_checkpoint_tensor(c, w->names[i], entry, text, bytes);
        if (status != QKV_ERR_ARGUMENT)
            break;
    }
    if (i == w->n_names)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          w->n_names > 1 ? "%s: no tensor is named \"%s\" or, without what is in "
                                           "front, \"%s\""
                                         : "%s: no tensor is named \"%s\"",
                          c->directory, w->n_names > 0 ? w->names[0] : "(nothing)",
                          w->n_names > 1 ? w->names[w->n_names - 1] : "");
    if (status == QKV_OK)
        status = check_entry(c, entry, w->transposed ? w->columns : w->rows,
                             w->transposed ? w->rows : w->columns, say);
    if (status != QKV_OK || !w->has_bias)
        return status == QKV_OK ? qkv_accept(say) : status;
    status = qkv_checkpoint_tensor(c, w->biases[i], bias, text, bytes);
    if (status == QKV_ERR_ARGUMENT)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: no tensor is named \"%s\"", c->directory,
                          w->biases[i]);
    return status == QKV_OK ? check_entry(c, bias, w->rows, 0, say) : status;
}
