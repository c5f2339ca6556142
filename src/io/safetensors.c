/*
 * io/safetensors.c - reading .safetensors files.
 *
 *     header bytes N, u64 little endian | N bytes of JSON | data
 *
 *     {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
 *      "__metadata__": {"key": "value", ...}}
 *
 * Offsets count from the start of the data.  What the format demands is checked when the file is
 * opened: sorted by offset the tensors cover the data from 0 to the end of the file without holes
 * or overlaps, each has the bytes its shape and dtype need, and no name stands twice.  jansson
 * parses the JSON; the data stays in the mapping.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file.h"
#include "io/tensor.h"

/* The format's own limit. */
#define LARGEST_HEADER 100000000

typedef struct entry {
    qkv_safetensors_entry info;
    uint64_t begin, end;
} entry;

struct qkv_safetensors {
    char *path;
    void *map;
    size_t map_bytes;
    json_t *header; /* owns the names and dtypes of the entries */
    entry *entries;
    int64_t count;
};

/* Every dtype of the format, with the bits an element takes. */
static const struct dtype {
    const char *name;
    int bits;
    qkv_type type;
} dtypes[] = {{"F64", 64, QKV_F64},         {"F32", 32, QKV_F32},     {"F16", 16, QKV_F16},
              {"BF16", 16, QKV_BF16},       {"BOOL", 8, QKV_BOOL},    {"I32", 32, QKV_I32},
              {"I64", 64, QKV_I64},         {"U64", 64, QKV_NONE},    {"U32", 32, QKV_NONE},
              {"U16", 16, QKV_NONE},        {"I16", 16, QKV_NONE},    {"U8", 8, QKV_NONE},
              {"I8", 8, QKV_NONE},          {"C64", 64, QKV_NONE},    {"F8_E4M3", 8, QKV_NONE},
              {"F8_E5M2", 8, QKV_NONE},     {"F8_E8M0", 8, QKV_NONE}, {"F8_E4M3FNUZ", 8, QKV_NONE},
              {"F8_E5M2FNUZ", 8, QKV_NONE}, {"F6_E2M3", 6, QKV_NONE}, {"F6_E3M2", 6, QKV_NONE},
              {"F4", 4, QKV_NONE}};

static const struct dtype *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

/* ---- one entry ---------------------------------------------------------------------------- */

static qkv_status read_shape(const char *path, const json_t *shape, qkv_safetensors_entry *e,
                             int64_t *elements, qkv_say say)
{
    if (!json_is_array(shape))
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: tensor \"%s\": shape is not an array", path,
                          e->name);
    const size_t rank = json_array_size(shape);
    if (rank > QKV_MAX_RANK)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "%s: tensor \"%s\" has %zu dimensions; accepted are up to %d", path,
                          e->name, rank, QKV_MAX_RANK);
    e->rank = (int32_t)rank;
    for (size_t r = 0; r < rank; r++) {
        const json_t *dimension = json_array_get(shape, r);
        if (!json_is_integer(dimension) || json_integer_value(dimension) < 0)
            return qkv_refuse(say, QKV_ERR_FORMAT,
                              "%s: tensor \"%s\": shape[%zu] is not a whole number from 0 up", path,
                              e->name, r);
        e->shape[r] = json_integer_value(dimension);
    }
    if (!qkv_io_count(e->rank, e->shape, elements))
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: tensor \"%s\": shape has more elements than 64 bits count", path,
                          e->name);
    return QKV_OK;
}

static qkv_status read_offsets(const char *path, const json_t *offsets, entry *e, qkv_say say)
{
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(begin) ||
        !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin))
        return qkv_refuse(
            say, QKV_ERR_FORMAT,
            "%s: tensor \"%s\": data_offsets is not [begin, end] with 0 <= begin <= end", path,
            e->info.name);
    e->begin = (uint64_t)json_integer_value(begin);
    e->end = (uint64_t)json_integer_value(end);
    return QKV_OK;
}

static qkv_status read_entry(const char *path, const char *name, const json_t *value, entry *e,
                             qkv_say say)
{
    e->info.name = name;
    if (!json_is_object(value))
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: tensor \"%s\" is not an object", path, name);
    const char *dtype_name = json_string_value(json_object_get(value, "dtype"));
    const struct dtype *dtype = dtype_name != NULL ? find_dtype(dtype_name) : NULL;
    if (dtype == NULL)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: tensor \"%s\": dtype is \"%s\", which the format does not have",
                          path, name, dtype_name != NULL ? dtype_name : "(none)");
    e->info.dtype = dtype->name;
    e->info.type = (int32_t)dtype->type;

    int64_t elements = 0, bits;
    qkv_status status = read_shape(path, json_object_get(value, "shape"), &e->info, &elements, say);
    if (status == QKV_OK)
        status = read_offsets(path, json_object_get(value, "data_offsets"), e, say);
    if (status != QKV_OK)
        return status;
    if (__builtin_mul_overflow(elements, (int64_t)dtype->bits, &bits))
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: tensor \"%s\": shape has more bits than 64 bits count", path, name);
    if (bits % 8 != 0 || (uint64_t)bits / 8 != e->end - e->begin)
        return qkv_refuse(
            say, QKV_ERR_FORMAT,
            "%s: tensor \"%s\": shape and dtype need %lld bits, data_offsets hold %llu "
            "bytes",
            path, name, (long long)bits, (unsigned long long)(e->end - e->begin));
    e->info.bytes = (size_t)(e->end - e->begin);
    return QKV_OK;
}

/* ---- the header --------------------------------------------------------------------------- */

static qkv_status check_metadata(const char *path, json_t *metadata, qkv_say say)
{
    const char *key;
    json_t *value;
    int ok = json_is_object(metadata);
    json_object_foreach(metadata, key, value) ok = ok && json_is_string(value);
    return ok ? QKV_OK
              : qkv_refuse(say, QKV_ERR_FORMAT, "%s: __metadata__ is not a map of strings", path);
}

/* Order of the data; tensors without data by name, so that the order is always the same one. */
static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->info.name, y->info.name);
}

/* The ranges cover the data exactly, and then have addresses. */
static qkv_status place_entries(qkv_safetensors *file, const char *data, uint64_t data_bytes,
                                qkv_say say)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < file->count; i++) {
        entry *e = &file->entries[i];
        if (e->begin != at)
            return qkv_refuse(
                say, QKV_ERR_FORMAT,
                "%s: tensor \"%s\" begins at byte %llu of the data; expected %llu (%s)", file->path,
                e->info.name, (unsigned long long)e->begin, (unsigned long long)at,
                e->begin > at ? "a hole" : "an overlap");
        if (e->end > data_bytes)
            return qkv_refuse(
                say, QKV_ERR_FORMAT,
                "%s: truncated: tensor \"%s\" ends at byte %llu of the data, the file "
                "has %llu",
                file->path, e->info.name, (unsigned long long)e->end,
                (unsigned long long)data_bytes);
        e->info.data = data + at;
        at = e->end;
    }
    if (at != data_bytes)
        return qkv_refuse(
            say, QKV_ERR_FORMAT,
            "%s: bytes left over: the tensors end at byte %llu of the data, the file has "
            "%llu",
            file->path, (unsigned long long)at, (unsigned long long)data_bytes);
    return QKV_OK;
}

static qkv_status read_entries(qkv_safetensors *file, qkv_say say)
{
    file->entries = calloc(json_object_size(file->header) + 1, sizeof *file->entries);
    if (file->entries == NULL)
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory for the header", file->path);
    const char *name;
    json_t *value;
    json_object_foreach(file->header, name, value)
    {
        const qkv_status status =
            strcmp(name, "__metadata__") == 0
                ? check_metadata(file->path, value, say)
                : read_entry(file->path, name, value, &file->entries[file->count++], say);
        if (status != QKV_OK)
            return status;
    }
    qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_entries);
    return QKV_OK;
}

static qkv_status read_header(qkv_safetensors *file, qkv_say say)
{
    const unsigned char *bytes = file->map;
    uint64_t n = 0;
    if (file->map_bytes < 8)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: not a .safetensors file: it has only %zu bytes",
                          file->path, file->map_bytes);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | bytes[i];
    if (n > LARGEST_HEADER)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: the header claims %llu bytes; the format allows %d", file->path,
                          (unsigned long long)n, LARGEST_HEADER);
    if (n > file->map_bytes - 8)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: truncated: the header should end at byte %llu of %zu", file->path,
                          (unsigned long long)n + 8, file->map_bytes);
    if (n == 0 || bytes[8] != '{')
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: the header does not begin with {", file->path);

    json_error_t error;
    file->header = json_loadb((const char *)bytes + 8, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(file->header))
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: the header is not valid JSON: %s", file->path,
                          error.text);
    const qkv_status status = read_entries(file, say);
    return status != QKV_OK
               ? status
               : place_entries(file, (const char *)bytes + 8 + n, file->map_bytes - 8 - n, say);
}

/* ---- public ------------------------------------------------------------------------------- */

static qkv_status map_file(qkv_safetensors *file, qkv_say say)
{
    int fd;
    int64_t size;
    const qkv_status status = qkv_io_open(file->path, &fd, &size, say);
    if (status != QKV_OK)
        return status;
    file->map = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    const int error = errno;
    close(fd);
    if (file->map == MAP_FAILED)
        file->map = NULL;
    if (file->map == NULL && size > 0)
        return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot map into memory: %s", file->path,
                          strerror(error));
    file->map_bytes = (size_t)size;
    return QKV_OK;
}

qkv_status qkv_safetensors_open(const char *path, qkv_safetensors **file, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (path == NULL || file == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_safetensors_open: path or file is NULL");
    *file = NULL;
    qkv_safetensors *f = calloc(1, sizeof *f);
    if (f != NULL)
        f->path = strdup(path);
    if (f == NULL || f->path == NULL) {
        free(f);
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory to open it", path);
    }
    qkv_status status = map_file(f, say);
    if (status == QKV_OK)
        status = read_header(f, say);
    if (status != QKV_OK) {
        qkv_safetensors_close(f);
        return status;
    }
    *file = f;
    return QKV_OK;
}

void qkv_safetensors_close(qkv_safetensors *file)
{
    if (file == NULL)
        return;
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    json_decref(file->header);
    free(file->entries);
    free(file->path);
    free(file);
}

int64_t qkv_safetensors_count(const qkv_safetensors *file) { return file->count; }

qkv_status qkv_safetensors_entry_at(const qkv_safetensors *file, int64_t index,
                                    qkv_safetensors_entry *entry_out)
{
    if (entry_out == NULL || index < 0 || index >= file->count)
        return QKV_ERR_ARGUMENT;
    *entry_out = file->entries[index].info;
    return QKV_OK;
}

/* The first names, for a sentence about one that is not there. */
static void list_names(const qkv_safetensors *file, char *list, size_t bytes)
{
    size_t n = 0;
    list[0] = '\0';
    for (int64_t i = 0; i < file->count; i++) {
        const char *name = file->entries[i].info.name;
        if (i == 8 || n + strlen(name) + 8 > bytes) {
            memcpy(list + n, ", ...", 6);
            return;
        }
        n += (size_t)snprintf(list + n, bytes - n, i == 0 ? "%s" : ", %s", name);
    }
}

qkv_status qkv_safetensors_read(const qkv_safetensors *file, const char *name, qkv_tensor *tensor,
                                char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (file == NULL || name == NULL || tensor == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "qkv_safetensors_read: file, name or tensor is NULL");
    memset(tensor, 0, sizeof *tensor);
    const qkv_safetensors_entry *e = NULL;
    for (int64_t i = 0; i < file->count && e == NULL; i++)
        if (strcmp(file->entries[i].info.name, name) == 0)
            e = &file->entries[i].info;
    if (e == NULL) {
        char list[256];
        list_names(file, list, sizeof list);
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s: no tensor is named \"%s\"; there %s %s",
                          file->path, name, file->count == 1 ? "is" : "are",
                          file->count > 0 ? list : "none");
    }
    if (e->type == QKV_NONE)
        return qkv_refuse(
            say, QKV_ERR_UNSUPPORTED,
            "%s: tensor \"%s\" has dtype %s; accepted are F64, F32, F16, BF16, BOOL, I32 "
            "and I64",
            file->path, name, e->dtype);
    const qkv_status status = qkv_io_tensor_new(tensor, (qkv_type)e->type, e->rank, e->shape);
    if (status != QKV_OK)
        return qkv_refuse(say, status, "%s: not enough memory for tensor \"%s\" of %zu bytes",
                          file->path, name, e->bytes);
    memcpy(tensor->data, e->data, e->bytes);
    if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
        qkv_io_swap(tensor->data, qkv_type_size((qkv_type)e->type), qkv_tensor_elements(tensor));
    return QKV_OK;
}
