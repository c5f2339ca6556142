/* core/types.c - names and sizes of element types, and arrays converted between them. */
#include "core/convert.h"
#include "core/convert_rows.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [QKV_NONE] = {"none", 0}, [QKV_F64] = {"f64", 8},   [QKV_F32] = {"f32", 4},
    [QKV_F16] = {"f16", 2},   [QKV_BF16] = {"bf16", 2}, [QKV_BOOL] = {"bool", 1},
    [QKV_I32] = {"i32", 4},   [QKV_I64] = {"i64", 8},
    [QKV_I8] = {"i8", 1},     [QKV_U4] = {"u4", 1},     [QKV_E4M3] = {"e4m3", 1},
    [QKV_E5M2] = {"e5m2", 1},
};

static int known(qkv_type type) { return (int)type >= 0 && (int)type <= (int)QKV_E5M2; }

const char *qkv_type_name(qkv_type type) { return known(type) ? types[type].name : "?"; }

size_t qkv_type_size(qkv_type type) { return known(type) ? types[type].size : 0; }

qkv_status qkv_convert(void *dst, qkv_type dst_type, const void *src, qkv_type src_type, size_t n)
{
    if (!qkv_type_is_float(dst_type) || !qkv_type_is_float(src_type))
        return QKV_ERR_ARGUMENT;
    if (n > 0 && (!dst || !src))
        return QKV_ERR_ARGUMENT;
    if (dst_type == src_type) {
        if (n > 0)
            memmove(dst, src, n * qkv_type_size(src_type));
        return QKV_OK;
    }
    if (dst_type != QKV_F64 && src_type != QKV_F64) {
        qkv_row_convert(dst, dst_type, src, src_type, (int64_t)n);
        return QKV_OK;
    }
    for (size_t i = 0; i < n; i++)
        qkv_store_f64(dst, dst_type, (int64_t)i, qkv_load_f64(src, src_type, (int64_t)i));
    return QKV_OK;
}
