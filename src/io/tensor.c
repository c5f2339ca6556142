/* io/tensor.c - dense tensors in memory.  See tensor.h and qkv/io.h. */
#include "io/tensor.h"

#include <stdlib.h>
#include <string.h>

/* Cache line and widest vector; also what qkv_args.workspace asks for. */
#define ALIGNMENT 64

int qkv_io_count(int32_t rank, const int64_t *shape, int64_t *elements)
{
    int64_t product = 1;
    int empty = 0;
    for (int32_t r = 0; r < rank; r++) {
        if (shape[r] < 0)
            return 0;
        if (shape[r] == 0)
            empty = 1;
        else if (__builtin_mul_overflow(product, shape[r], &product))
            return 0;
    }
    *elements = empty ? 0 : product;
    return 1;
}

int64_t qkv_tensor_elements(const qkv_tensor *tensor)
{
    int64_t elements = 0;
    if (tensor->type == QKV_NONE || !qkv_io_count(tensor->rank, tensor->shape, &elements))
        return 0;
    return elements;
}

size_t qkv_tensor_bytes(const qkv_tensor *tensor)
{
    return (size_t)qkv_tensor_elements(tensor) * qkv_type_size((qkv_type)tensor->type);
}

qkv_status qkv_io_tensor_new(qkv_tensor *tensor, qkv_type type, int32_t rank, const int64_t *shape)
{
    memset(tensor, 0, sizeof *tensor);
    const size_t size = qkv_type_size(type);
    int64_t elements, bytes;
    if (size == 0 || rank < 0 || rank > QKV_MAX_RANK || !qkv_io_count(rank, shape, &elements) ||
        __builtin_mul_overflow(elements, (int64_t)size, &bytes) || bytes > PTRDIFF_MAX - ALIGNMENT)
        return QKV_ERR_ARGUMENT;

    /* Never nothing, so that an empty tensor has an address too. */
    const size_t padded = ((size_t)bytes / ALIGNMENT + 1) * ALIGNMENT;
    tensor->data = aligned_alloc(ALIGNMENT, padded);
    if (tensor->data == NULL)
        return QKV_ERR_MEMORY;
    tensor->type = (int32_t)type;
    tensor->rank = rank;
    for (int32_t r = 0; r < rank; r++)
        tensor->shape[r] = shape[r];
    return QKV_OK;
}

qkv_status qkv_tensor_alloc(qkv_tensor *tensor, qkv_type type, int32_t rank, const int64_t *shape)
{
    const qkv_status status = qkv_io_tensor_new(tensor, type, rank, shape);
    if (status == QKV_OK)
        memset(tensor->data, 0, qkv_tensor_bytes(tensor));
    return status;
}

void qkv_tensor_free(qkv_tensor *tensor)
{
    free(tensor->data);
    memset(tensor, 0, sizeof *tensor);
}

qkv_status qkv_io_tensor_check(const qkv_tensor *tensor, const char *what, qkv_say say)
{
    const size_t size = qkv_type_size((qkv_type)tensor->type);
    int64_t elements, bytes;
    if (size == 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s: its type is %d, which is no qkv_type", what,
                          (int)tensor->type);
    if (tensor->rank < 0 || tensor->rank > QKV_MAX_RANK)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s: its rank is %d; accepted are 0 to %d", what,
                          (int)tensor->rank, QKV_MAX_RANK);
    if (!qkv_io_count(tensor->rank, tensor->shape, &elements) ||
        __builtin_mul_overflow(elements, (int64_t)size, &bytes))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "%s: its shape has a negative dimension or more bytes than 64 bits count",
                          what);
    if (elements > 0 && tensor->data == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s: its data is NULL", what);
    return QKV_OK;
}

void qkv_io_swap(void *data, size_t size, int64_t n)
{
    unsigned char *p = data;
    for (int64_t i = 0; i < n; i++, p += size) {
        for (size_t a = 0, b = size - 1; a < b; a++, b--) {
            const unsigned char byte = p[a];
            p[a] = p[b];
            p[b] = byte;
        }
    }
}
