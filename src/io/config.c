/* io/config.c - config.json as a qkv_config: jansson answers the questions of qkv/model.h. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "qkv/io.h"

/* The largest published ones have about 100 KB. */
#define LARGEST_CONFIG (4 << 20)

struct qkv_config_file {
    char *path;
    json_t *table;
};

/* ---- answers -------------------------------------------------------------------------------- */

/* The next key of a path, into key; returns what is behind it, or NULL if it does not fit. */
static const char *next_key(const char *path, char key[256])
{
    const char *end = strchr(path, '/');
    const size_t n = end != NULL ? (size_t)(end - path) : strlen(path);

    if (n >= 256)
        return NULL;
    memcpy(key, path, n);
    key[n] = '\0';
    return end != NULL ? end + 1 : path + n;
}

static const json_t *item_of(const json_t *list, const char *key)
{
    size_t index = 0;

    if (*key == '\0')
        return NULL;
    for (; *key != '\0'; key++) {
        if (*key < '0' || *key > '9' || index > 100000000)
            return NULL;
        index = 10 * index + (size_t)(*key - '0');
    }
    return json_array_get(list, index);
}

static const json_t *find(const json_t *at, const char *path)
{
    char key[256];

    while (at != NULL && *path != '\0') {
        path = next_key(path, key);
        if (path == NULL)
            return NULL;
        at = json_is_object(at) ? json_object_get(at, key)
             : json_is_array(at) ? item_of(at, key)
                                 : NULL;
    }
    return at;
}

static void get(void *ctx, const char *path, qkv_config_value *value)
{
    const json_t *v = find(ctx, path);

    memset(value, 0, sizeof *value);
    if (v == NULL)
        return;
    switch (json_typeof(v)) {
    case JSON_NULL:
        value->kind = QKV_CONFIG_NULL;
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        value->kind = QKV_CONFIG_BOOL;
        value->integer = json_is_true(v);
        break;
    case JSON_INTEGER:
        value->kind = QKV_CONFIG_INTEGER;
        value->integer = json_integer_value(v);
        value->real = (double)value->integer;
        break;
    case JSON_REAL:
        value->kind = QKV_CONFIG_REAL;
        value->real = json_real_value(v);
        break;
    case JSON_STRING:
        value->kind = QKV_CONFIG_TEXT;
        value->text = json_string_value(v);
        break;
    case JSON_ARRAY:
        value->kind = QKV_CONFIG_LIST;
        value->count = (int64_t)json_array_size(v);
        break;
    case JSON_OBJECT:
        value->kind = QKV_CONFIG_TABLE;
        value->count = (int64_t)json_object_size(v);
        break;
    }
}

/* Walks from the first key, because an iterator that is kept would not be thread-safe. */
static const char *key_at(void *ctx, const char *path, int64_t index)
{
    json_t *table = ctx;
    const char *key;
    json_t *value;

    if (*path != '\0') {
        /* find only reads; json_object_foreach wants a table that is not const. */
        const json_t *found = find(ctx, path);
        memcpy(&table, &found, sizeof table);
    }
    json_object_foreach(table, key, value) if (index-- == 0) return key;
    return NULL;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A table that is deeper or wider than a configuration is. */
static qkv_status check_shape(const char *name, json_t *value, int depth, qkv_say say)
{
    qkv_status status = QKV_OK;
    const char *key;
    size_t i;
    json_t *inner;

    if (depth > QKV_IO_JSON_DEPTH)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: nested more than %d deep", name,
                          QKV_IO_JSON_DEPTH);
    if (json_object_size(value) > QKV_IO_JSON_KEYS)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: a table has %zu keys; accepted are up to %d",
                          name, json_object_size(value), QKV_IO_JSON_KEYS);
    json_object_foreach(value, key, inner) if (status == QKV_OK) status =
        check_shape(name, inner, depth + 1, say);
    json_array_foreach(value, i, inner) if (status == QKV_OK) status =
        check_shape(name, inner, depth + 1, say);
    return status;
}

static qkv_status make(const char *name, json_t *table, qkv_config_file **file, qkv_say say)
{
    qkv_status status = check_shape(name, table, 0, say);
    qkv_config_file *f = status == QKV_OK ? calloc(1, sizeof *f) : NULL;

    if (f != NULL)
        f->path = strdup(name);
    if (f != NULL && f->path != NULL) {
        f->table = table;
        *file = f;
        return qkv_accept(say);
    }
    free(f);
    json_decref(table);
    return status != QKV_OK ? status
                            : qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", name);
}

qkv_status qkv_config_parse(const char *name, const void *data, size_t data_bytes,
                            qkv_config_file **file, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    json_t *table;

    if (name == NULL || file == NULL || (data == NULL && data_bytes > 0))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_config_parse: name, data or file is NULL");
    *file = NULL;
    if (data_bytes > LARGEST_CONFIG)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: has %zu bytes; accepted are up to %d", name,
                          data_bytes, LARGEST_CONFIG);
    const qkv_status status =
        qkv_io_json_parse(name, data_bytes > 0 ? data : "", data_bytes, &table, say);
    return status == QKV_OK ? make(name, table, file, say) : status;
}

qkv_status qkv_config_open(const char *path, qkv_config_file **file, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    json_t *table = NULL;

    if (path == NULL || file == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_config_open: path or file is NULL");
    *file = NULL;
    char *inside = qkv_io_is_directory(path) ? qkv_io_join(path, "config.json") : strdup(path);
    if (inside == NULL)
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory", path);
    qkv_status status = qkv_io_json_read(inside, LARGEST_CONFIG, &table, say);
    if (status == QKV_OK)
        status = make(inside, table, file, say);
    free(inside);
    return status;
}

void qkv_config_close(qkv_config_file *file)
{
    if (file == NULL)
        return;
    json_decref(file->table);
    free(file->path);
    free(file);
}

const char *qkv_config_path(const qkv_config_file *file) { return file->path; }

qkv_config qkv_config_of(const qkv_config_file *file)
{
    return (qkv_config){get, key_at, file->table};
}
