/*
 * cache/codec.c - single rows between floats and the formats of a page.
 *
 * Source rows of other types are widened into a row of f32 first; it is read once more from L1,
 * which is nothing beside the division of the codes.
 */
#include <string.h>

#include "core/convert_rows.h"
#include "cache/internal.h"

void qkv_cache_put(const qkv_cache_map *map, int side, unsigned char *page, int64_t head,
                   int64_t token, const void *x, int32_t type)
{
    const qkv_cache_side *s = &map->side[side];
    const int at = side * QKV_PER_SIDE;
    unsigned char *codes = qkv_cache_row(map, page, at + QKV_CODES, head, token);
    void *scales = qkv_cache_row(map, page, at + QKV_SCALES, head, token);
    const int32_t as_float = qkv_cache_float_type(s->format), kind = qkv_cache_fp8_kind(s->format);
    float wide[QKV_CACHE_MAX_DIM];

    if (as_float != QKV_NONE) {
        qkv_row_convert(codes, as_float, x, type, s->dim);
        return;
    }
    if (type != QKV_F32) {
        qkv_row_convert(wide, QKV_F32, x, type, s->dim);
        x = wide;
    }
    if (s->format == QKV_FORMAT_INT8)
        qkv_int8_encode(x, s->dim, s->group, (int8_t *)codes, scales);
    else if (s->format == QKV_FORMAT_INT4)
        qkv_int4_encode(x, s->dim, s->n_groups == 1 ? 0 : s->group, codes, scales,
                        (void *)qkv_cache_row(map, page, at + QKV_MINS, head, token));
    else if (s->scale_per == QKV_SCALE_HEAD)
        qkv_fp8_encode_scaled(x, s->dim, *(const float *)scales, kind, codes);
    else
        qkv_fp8_encode(x, s->dim, s->group, kind, codes, scales);
}

void qkv_cache_get(const qkv_cache_map *map, int side, unsigned char *page, int64_t head,
                   int64_t token, float *x)
{
    const qkv_cache_side *s = &map->side[side];
    const int at = side * QKV_PER_SIDE;
    const unsigned char *codes = qkv_cache_row(map, page, at + QKV_CODES, head, token);
    const void *scales = qkv_cache_row(map, page, at + QKV_SCALES, head, token);
    const int32_t as_float = qkv_cache_float_type(s->format);

    if (as_float != QKV_NONE)
        qkv_row_convert(x, QKV_F32, codes, as_float, s->dim);
    else if (s->format == QKV_FORMAT_INT8)
        qkv_int8_decode((const int8_t *)codes, scales, s->dim, s->group, x);
    else if (s->format == QKV_FORMAT_INT8_CHANNEL)
        qkv_int8_channel_decode((const int8_t *)codes, scales, 1, s->dim, x);
    else if (s->format == QKV_FORMAT_INT4)
        qkv_int4_decode(codes, scales,
                        (const void *)qkv_cache_row(map, page, at + QKV_MINS, head, token), s->dim,
                        s->n_groups == 1 ? 0 : s->group, x);
    else
        qkv_fp8_decode(codes, scales, s->dim, s->group, qkv_cache_fp8_kind(s->format), x);
}

void qkv_cache_get_key(const qkv_cache_map *map, unsigned char *page, int64_t head, int64_t token,
                       float *x)
{
    qkv_cache_get(map, QKV_SIDE_K, page, head, token, x);
    if (map->side[QKV_SIDE_ROPE].dim > 0)
        qkv_cache_get(map, QKV_SIDE_ROPE, page, head, token, x + map->side[QKV_SIDE_K].dim);
}
