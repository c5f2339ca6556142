/* cache/view_desc.c - a view in the words of qkv/attention.h. */
#include <string.h>

#include "cache/view.h"

static int32_t code_type(int32_t format)
{
    switch (format) {
    case QKV_FORMAT_INT8:
    case QKV_FORMAT_INT8_CHANNEL:
        return QKV_I8;
    case QKV_FORMAT_INT4:
        return QKV_U4;
    case QKV_FORMAT_E4M3:
        return QKV_E4M3;
    case QKV_FORMAT_E5M2:
        return QKV_E5M2;
    default:
        return qkv_cache_float_type(format);
    }
}

/* Strides over pages, heads, tokens and within a row; absent arrays have no type. */
static qkv_layout layout_of(const qkv_cache_map *map, int array, int32_t type)
{
    const qkv_cache_array *a = &map->array[array];
    qkv_layout l;

    memset(&l, 0, sizeof l);
    if (a->row == 0)
        return l;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    l.type = type;
    l.stride[0] = map->bytes / size;
    l.stride[1] = a->row / size * (a->per_token ? map->tokens : 1);
    l.stride[2] = a->per_token ? a->row / size : 0;
    l.stride[3] = 1;
    return l;
}

/* Codes, scales, mins and group of one side. */
static void set_side(const qkv_cache_map *map, int side, qkv_layout *codes, qkv_layout *scale,
                     qkv_layout *min, int32_t *group)
{
    const qkv_cache_side *s = &map->side[side];
    const int at = side * QKV_PER_SIDE;
    const int32_t scale_type = s->format == QKV_FORMAT_INT4 ? QKV_F16 : QKV_F32;

    *codes = layout_of(map, at + QKV_CODES, code_type(s->format));
    *scale = layout_of(map, at + QKV_SCALES, scale_type);
    *min = layout_of(map, at + QKV_MINS, scale_type);
    *group = scale->type == QKV_NONE || s->group == s->dim ? 0 : s->group;
}

static const qkv_page_set *set_of(const qkv_cache_view *v, int32_t part)
{
    return v->part[part].open ? &v->cache->open : &v->cache->pages;
}

static void set_pages(const qkv_cache_view *v, int32_t part, qkv_desc *d)
{
    const qkv_cache_map *map = &set_of(v, part)->map;
    const int latent = v->cache->config.flags & QKV_CACHE_LATENT;

    d->n_kv_heads = map->heads;
    d->head_dim = v->cache->config.head_dim;
    d->head_dim_v = v->cache->config.head_dim_v;
    d->page_tokens = map->tokens;
    d->n_pages = set_of(v, part)->n;
    d->block_table_stride[0] = v->stride;
    d->block_table_stride[1] = 0;
    set_side(map, QKV_SIDE_K, &d->k, &d->k_scale, &d->k_min, &d->k_group);
    set_side(map, latent ? QKV_SIDE_K : QKV_SIDE_V, &d->v, &d->v_scale, &d->v_min, &d->v_group);
    d->rope_dim = map->side[QKV_SIDE_ROPE].dim;
    d->k_rope = layout_of(map, QKV_SIDE_ROPE * QKV_PER_SIDE + QKV_CODES,
                          code_type(map->side[QKV_SIDE_ROPE].format));
}

qkv_status qkv_cache_view_desc(const qkv_cache_view *v, int32_t part, qkv_desc *d)
{
    if (!v || !d || part < 0 || part >= v->n_parts ||
        d->struct_size < offsetof(qkv_desc, rope_dim) + sizeof d->rope_dim)
        return QKV_ERR_ARGUMENT;
    const qkv_view_part *p = &v->part[part];
    const int positions = v->causal != QKV_CAUSAL_NONE;

    d->n_seqs = v->n_seqs;
    d->q_len = v->q_len;
    d->q_lens = v->equal || d->cu_seqlens_q ? NULL : v->q_lens;
    d->kv_len = p->kv_len;
    d->kv_lens = p->kv_lens;
    d->kv_starts = p->any_start ? p->kv_starts : NULL;
    d->q_offsets = positions ? p->q_offsets : NULL;
    d->causal = v->causal;
    d->window_left = p->sinks ? QKV_UNBOUNDED : v->cache->config.window_left;
    set_pages(v, part, d);
    return QKV_OK;
}

/* The first element of an array in page 0; NULL if it is absent. */
static const void *first(const qkv_page_set *set, int32_t layer, int side, int array)
{
    const qkv_cache_array *a = &set->map.array[side * QKV_PER_SIDE + array];
    return a->row == 0 ? NULL : set->memory[layer] + a->offset;
}

qkv_status qkv_cache_view_args(const qkv_cache_view *v, int32_t part, int32_t layer, qkv_args *args)
{
    if (!v || !args || part < 0 || part >= v->n_parts || layer < 0 ||
        layer >= v->cache->config.n_layers ||
        args->struct_size < offsetof(qkv_args, k_rope) + sizeof args->k_rope)
        return QKV_ERR_ARGUMENT;
    const qkv_page_set *set = set_of(v, part);
    const int v_side = v->cache->config.flags & QKV_CACHE_LATENT ? QKV_SIDE_K : QKV_SIDE_V;

    args->block_table = v->part[part].table;
    args->k = first(set, layer, QKV_SIDE_K, QKV_CODES);
    args->k_scale = first(set, layer, QKV_SIDE_K, QKV_SCALES);
    args->k_min = first(set, layer, QKV_SIDE_K, QKV_MINS);
    args->k_rope = first(set, layer, QKV_SIDE_ROPE, QKV_CODES);
    args->v = first(set, layer, v_side, QKV_CODES);
    args->v_scale = first(set, layer, v_side, QKV_SCALES);
    args->v_min = first(set, layer, v_side, QKV_MINS);
    return QKV_OK;
}
