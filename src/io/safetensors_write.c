/*
 * io/safetensors_write.c - writing .safetensors files.
 *
 * As the format's own writer does: larger elements first, so that every tensor is aligned to its
 * element, then by name; the header is padded with spaces so that the data begins on a multiple
 * of 8.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/tensor.h"

static const char *const dtype_of[] = {
    [QKV_F64] = "F64",   [QKV_F32] = "F32", [QKV_F16] = "F16", [QKV_BF16] = "BF16",
    [QKV_BOOL] = "BOOL", [QKV_I32] = "I32", [QKV_I64] = "I64"};

typedef struct item {
    const char *name;
    const qkv_tensor *tensor;
} item;

static int compare_items(const void *a, const void *b)
{
    const item *x = a, *y = b;
    const size_t p = qkv_type_size((qkv_type)x->tensor->type);
    const size_t q = qkv_type_size((qkv_type)y->tensor->type);
    if (p != q)
        return p > q ? -1 : 1;
    if (x->tensor->type != y->tensor->type)
        return x->tensor->type < y->tensor->type ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Adds one tensor's description; *at moves past its data.  False if memory or the name fails. */
static int describe(json_t *header, const item *it, int64_t *at)
{
    const int64_t end = *at + (int64_t)qkv_tensor_bytes(it->tensor);
    json_t *shape = json_array();
    for (int32_t r = 0; r < it->tensor->rank; r++)
        json_array_append_new(shape, json_integer(it->tensor->shape[r]));
    json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_of[it->tensor->type], "shape",
                              shape, "data_offsets", (json_int_t)*at, (json_int_t)end);
    *at = end;
    /* Refuses names that are not UTF-8; takes value in any case. */
    return value != NULL && json_array_size(shape) == (size_t)it->tensor->rank &&
           json_object_set_new(header, it->name, value) == 0;
}

static char *format_header(const item *items, int32_t n)
{
    json_t *header = json_object();
    int64_t at = 0;
    int ok = header != NULL;
    for (int32_t i = 0; i < n && ok; i++)
        ok = describe(header, &items[i], &at);
    char *text = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    return text;
}

static qkv_status write_all(const char *path, const item *items, int32_t n, const char *header,
                            qkv_say say)
{
    const size_t used = strlen(header);
    const size_t padding = (8 - used % 8) % 8;
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)(used + padding) >> 8 * i);

    qkv_io_output output;
    qkv_status status = qkv_io_output_open(&output, path, say);
    if (status == QKV_OK)
        status = qkv_io_output_write(&output, length, 8, say);
    if (status == QKV_OK)
        status = qkv_io_output_write(&output, header, used, say);
    if (status == QKV_OK)
        status = qkv_io_output_write(&output, "        ", padding, say);
    for (int32_t i = 0; i < n && status == QKV_OK; i++)
        status = qkv_io_output_write(&output, items[i].tensor->data,
                                     qkv_tensor_bytes(items[i].tensor), say);
    return status == QKV_OK ? qkv_io_output_commit(&output, say) : status;
}

static qkv_status check_items(const item *items, int32_t n, qkv_say say)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        if (items[i].name == NULL)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_safetensors_write: names[%d] is NULL",
                              (int)i);
        if (strcmp(items[i].name, "__metadata__") == 0)
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "a tensor may not be named __metadata__: the format reserves it");
        for (int32_t j = 0; j < i; j++)
            if (strcmp(items[i].name, items[j].name) == 0)
                return qkv_refuse(say, QKV_ERR_ARGUMENT, "two tensors are named \"%s\"",
                                  items[i].name);
        const qkv_status status = qkv_io_tensor_check(items[i].tensor, items[i].name, say);
        if (status != QKV_OK)
            return status;
        if (__builtin_add_overflow(sum, (int64_t)qkv_tensor_bytes(items[i].tensor), &sum))
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "the tensors have more bytes than 64 bits count");
    }
    return QKV_OK;
}

qkv_status qkv_safetensors_write(const char *path, int32_t n, const char *const *names,
                                 const qkv_tensor *tensors, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (path == NULL || n < 0 || (n > 0 && (names == NULL || tensors == NULL)))
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "qkv_safetensors_write: path, names or tensors is NULL, or n is negative");
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "%s: writing .safetensors needs a little-endian machine", path);
    item *items = calloc((size_t)n + 1, sizeof *items);
    if (items == NULL)
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory for the header", path);
    for (int32_t i = 0; i < n; i++)
        items[i] = (item){names[i], &tensors[i]};

    qkv_status status = check_items(items, n, say);
    if (status == QKV_OK) {
        qsort(items, (size_t)n, sizeof *items, compare_items);
        char *header = format_header(items, n);
        status = header != NULL
                     ? write_all(path, items, n, header, say)
                     : qkv_refuse(say, QKV_ERR_ARGUMENT,
                                  "%s: a tensor's name is not UTF-8, or memory ran out", path);
        free(header);
    }
    free(items);
    return status;
}
