/*
 * cache/format_float.h - rows between f32, f16 and bf16, vectors of them at a time.
 *
 * qkv_convert goes through f64 one element after another, which an append of a token cannot
 * afford.  Same bits.
 */
#ifndef QKV_CACHE_FORMAT_FLOAT_H
#define QKV_CACHE_FORMAT_FLOAT_H

#include "qkv/base.h"

/* n elements; both types are QKV_F32, QKV_F16 or QKV_BF16.  The arrays do not overlap. */
void qkv_row_convert(void *dst, int32_t dst_type, const void *src, int32_t src_type, int64_t n);

#endif
