/*
 * core/convert_rows.h - rows between f32, f16 and bf16, vectors of them at a time.
 *
 * The same bits as core/convert.h, whose way through f64, one element after another, an append of
 * a token cannot afford.
 */
#ifndef QKV_CORE_CONVERT_ROWS_H
#define QKV_CORE_CONVERT_ROWS_H

#include "qkv/base.h"

/* n elements; both types are QKV_F32, QKV_F16 or QKV_BF16.  The arrays do not overlap,
 * but may be one if both types have 16 bits. */
void qkv_row_convert(void *dst, int32_t dst_type, const void *src, int32_t src_type, int64_t n);

#endif
