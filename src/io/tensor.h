/* io/tensor.h - checked sizes, shared by the readers and writers of files. */
#ifndef QKV_IO_TENSOR_H
#define QKV_IO_TENSOR_H

#include "core/say.h"
#include "qkv/io.h"

/* Elements of a shape.  False if a dimension is negative or if the product of the dimensions other
 * than 0 does not fit, so that the answer does not depend on where a 0 stands. */
int qkv_io_count(int32_t rank, const int64_t *shape, int64_t *elements);

/* A tensor whose data is not set yet, for readers that fill all of it.  Same returns as
 * qkv_tensor_alloc. */
qkv_status qkv_io_tensor_new(qkv_tensor *tensor, qkv_type type, int32_t rank, const int64_t *shape);

/* Whether a caller's tensor can be written: known type, rank, shape, data.  what names it. */
qkv_status qkv_io_tensor_check(const qkv_tensor *tensor, const char *what, qkv_say say);

/* Reverses the bytes of each of n elements of that size, in place. */
void qkv_io_swap(void *data, size_t size, int64_t n);

#endif
