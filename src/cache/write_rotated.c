/* cache/write_rotated.c - keys turned on their way into pages, a row at a time. */
#include "cache/internal.h"
#include "rope/turn.h"

typedef struct rotation {
    qkv_cache_filter filter; /* first: the address of one is that of the other */
    qkv_rope rope;
    qkv_rope_args args;
    qkv_rope_places places[QKV_N_SIDES];
    qkv_rope_turner turner;
    int32_t seq, type, own_length;
    float row[QKV_CACHE_MAX_DIM];
} rotation;

static qkv_status begin(qkv_cache_filter *filter, const qkv_cache_rows *rows, int32_t i,
                        int64_t count, qkv_say say)
{
    rotation *r = (rotation *)(void *)filter;
    const int64_t from = rows->first_rows ? rows->first_rows[i] : 0;

    if (r->rope.type == QKV_ROPE_NONE)
        return QKV_OK;
    const qkv_status status = qkv_rope_angles_check(&r->args, i, from, count, say);
    if (status != QKV_OK)
        return status;
    if (r->own_length)
        r->args.seq_len = qkv_rope_longest(&r->args, i, from, count);
    r->seq = i;
    r->type = rows->type;
    return QKV_OK;
}

static const void *turned(qkv_cache_filter *filter, int side, int64_t row, const void *x)
{
    rotation *r = (rotation *)(void *)filter;

    if (r->rope.type == QKV_ROPE_NONE)
        return x;
    r->turner.places = r->places[side];
    qkv_rope_turner_row(&r->turner, r->seq, row, r->row, r->type, x, r->type);
    return r->row;
}

static qkv_status prepare(const qkv_cache *cache, const qkv_rope *rope, const qkv_rope_args *args,
                          rotation *r, qkv_say say)
{
    const qkv_cache_config *c = &cache->config;
    const int latent = c->flags & QKV_CACHE_LATENT;
    const qkv_status status = qkv_rope_angles_load(rope, args, &r->rope, &r->args, say);

    if (status != QKV_OK)
        return status;
    if (r->rope.head_dim != c->head_dim)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rope.head_dim is %d; it must be that of the cache, %d", r->rope.head_dim,
                          c->head_dim);
    if (latent && r->rope.type != QKV_ROPE_NONE && r->rope.rotary_offset < c->head_dim_v)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rope.rotary_offset is %d; in a latent cache channels from head_dim_v on "
                          "may turn, %d or more",
                          r->rope.rotary_offset, c->head_dim_v);
    r->filter.begin = begin;
    r->filter.row = turned;
    r->own_length = r->args.seq_len == QKV_ROPE_AUTO && !r->args.cos;
    r->places[QKV_SIDE_K] = r->places[QKV_SIDE_ROPE] = qkv_rope_places_of(&r->rope);
    r->places[QKV_SIDE_ROPE].first -= c->head_dim_v;
    r->places[QKV_SIDE_ROPE].dim -= c->head_dim_v;
    qkv_rope_turner_init(&r->turner, &r->rope, &r->args, QKV_F32);
    return QKV_OK;
}

qkv_status qkv_cache_write_rotated(qkv_cache *cache, int32_t layer, const qkv_cache_rows *rows,
                                   const qkv_rope *rope, const qkv_rope_args *args, char *text,
                                   size_t bytes)
{
    const qkv_say say = {text, bytes};
    rotation r;
    const qkv_status status = prepare(cache, rope, args, &r, say);

    return status == QKV_OK ? qkv_cache_write_through(cache, layer, rows, &r.filter, say) : status;
}
