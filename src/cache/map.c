/* cache/map.c - where things lie inside a page, and pages copied token by token. */
#include <string.h>

#include "cache/internal.h"

int32_t qkv_cache_float_type(int32_t format)
{
    return format == QKV_FORMAT_F32    ? QKV_F32
           : format == QKV_FORMAT_F16  ? QKV_F16
           : format == QKV_FORMAT_BF16 ? QKV_BF16
                                       : QKV_NONE;
}

int32_t qkv_cache_fp8_kind(int32_t format)
{
    return format == QKV_FORMAT_E4M3 ? QKV_FP8_E4M3 : format == QKV_FORMAT_E5M2 ? QKV_FP8_E5M2 : -1;
}

static int32_t format_of_type(int32_t type)
{
    return type == QKV_F32 ? QKV_FORMAT_F32 : type == QKV_F16 ? QKV_FORMAT_F16 : QKV_FORMAT_BF16;
}

static qkv_cache_side side_of(int32_t format, int32_t dim, int32_t group, int32_t scale_per)
{
    qkv_cache_side s = {format, dim, group ? group : dim, 1, scale_per};

    if (format == QKV_FORMAT_INT8_CHANNEL)
        s.group = 1;
    if (dim > 0)
        s.n_groups = (dim + s.group - 1) / s.group;
    return s;
}

/* Bytes of a row of codes. */
static int64_t code_bytes(const qkv_cache_side *s)
{
    const int32_t type = qkv_cache_float_type(s->format);
    if (type != QKV_NONE)
        return (int64_t)s->dim * (int64_t)qkv_type_size((qkv_type)type);
    return s->format == QKV_FORMAT_INT4 ? (s->dim + 1) / 2 : s->dim;
}

static void add_array(qkv_cache_map *map, int array, int64_t row, int per_token)
{
    const qkv_cache_array a = {map->bytes, row, per_token};
    const int64_t bytes = row * map->heads * (per_token ? map->tokens : 1);

    map->array[array] = a;
    map->bytes += (bytes + QKV_CACHE_ALIGN - 1) / QKV_CACHE_ALIGN * QKV_CACHE_ALIGN;
    map->token_bytes += per_token ? row * map->heads : 0;
}

static void add_side(qkv_cache_map *map, int side)
{
    const qkv_cache_side *s = &map->side[side];
    const int at = side * QKV_PER_SIDE;
    /* One scale a page: a page's channels, or a head's (each page has a copy of its sequence's). */
    const int shared = s->format == QKV_FORMAT_INT8_CHANNEL || s->scale_per == QKV_SCALE_HEAD;

    if (s->dim == 0)
        return;
    add_array(map, at + QKV_CODES, code_bytes(s), 1);
    if (s->format == QKV_FORMAT_INT4) {
        add_array(map, at + QKV_SCALES, 2 * (int64_t)s->n_groups, 1);
        add_array(map, at + QKV_MINS, 2 * (int64_t)s->n_groups, 1);
    } else if (qkv_cache_float_type(s->format) == QKV_NONE) {
        add_array(map, at + QKV_SCALES, 4 * (int64_t)s->n_groups, !shared);
    }
}

void qkv_cache_map_of(const qkv_cache_config *c, int open, qkv_cache_map *map)
{
    const int latent = c->flags & QKV_CACHE_LATENT;
    const int narrow = latent && qkv_cache_float_type(c->k_format) == QKV_NONE;
    const int32_t k_format = open ? format_of_type(c->float_type) : c->k_format;
    const int32_t rope = narrow ? c->head_dim - c->head_dim_v : 0;

    memset(map, 0, sizeof *map);
    map->heads = c->n_kv_heads;
    map->tokens = c->page_tokens;
    map->side[QKV_SIDE_K] = side_of(k_format, c->head_dim - rope, c->k_group, c->k_scale);
    map->side[QKV_SIDE_V] =
        side_of(c->v_format, latent ? 0 : c->head_dim_v, c->v_group, c->v_scale);
    map->side[QKV_SIDE_ROPE] = side_of(format_of_type(c->float_type), rope, 0, QKV_SCALE_TOKEN);
    for (int side = 0; side < QKV_N_SIDES; side++)
        add_side(map, side);
    if (c->flags & QKV_CACHE_KEY_BOUNDS)
        add_array(map, QKV_BOUNDS, 4 * (int64_t)c->head_dim, 0);
}

void qkv_cache_copy_tokens(const qkv_cache_map *map, unsigned char *dst, unsigned char *src,
                           int64_t n)
{
    for (int i = 0; i < QKV_N_ARRAYS; i++) {
        const int64_t row = map->array[i].row;
        const int64_t bytes = map->array[i].per_token ? n * row : row;
        for (int64_t h = 0; row > 0 && h < map->heads; h++)
            memcpy(qkv_cache_row(map, dst, i, h, 0), qkv_cache_row(map, src, i, h, 0),
                   (size_t)bytes);
    }
}

void qkv_cache_image(const qkv_cache_map *map, unsigned char *dst, unsigned char *src, int64_t n)
{
    memset(dst, 0, (size_t)map->bytes);
    if (n > 0)
        qkv_cache_copy_tokens(map, dst, src, n);
}
