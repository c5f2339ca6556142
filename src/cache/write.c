/* cache/write.c - rows into pages, without a lock: only the sequence's own pages are touched. */
#include <string.h>

#include "core/convert_rows.h"
#include "cache/internal.h"

void qkv_cache_rows_init_sized(qkv_cache_rows *rows, size_t struct_size)
{
    qkv_cache_rows r;

    memset(&r, 0, sizeof r);
    r.struct_size = (uint32_t)struct_size;
    r.type = QKV_F32;
    r.n_seqs = 1;
    memset(rows, 0, struct_size);
    memcpy(rows, &r, struct_size < sizeof r ? struct_size : sizeof r);
}

/* One kind of rows of one sequence in the caller's memory. */
typedef struct source {
    const unsigned char *base; /* of token `start` of head 0 */
    int64_t head, token;       /* bytes from one to the next */
    int64_t first;             /* row number of that token */
    int32_t type, side;
    qkv_cache_filter *filter; /* NULL: rows are as they lie */
} source;

static source source_of(const qkv_cache_rows *r, const void *base, const int64_t stride[3],
                        int32_t i)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)r->type);
    const int64_t first = r->first_rows ? r->first_rows[i] : 0;
    const source s = {(const unsigned char *)base + (i * stride[0] + first * stride[2]) * size,
                      stride[1] * size, stride[2] * size, first, r->type, QKV_SIDE_K, NULL};
    return s;
}

/* Good until the next row that passes through the same filter. */
static const void *source_row(const source *s, int64_t head, int64_t row)
{
    const void *x = s->base + head * s->head + row * s->token;
    return s->filter ? s->filter->row(s->filter, s->side, s->first + row, x) : x;
}

/* The tokens of one sequence in one call. */
typedef struct span {
    const qkv_cache_state *state;
    int64_t start, count;
} span;

/* ---- checks ----------------------------------------------------------------------------- */

static qkv_status check_rows(const qkv_cache *cache, int32_t layer, const qkv_cache_rows *r,
                             qkv_say say)
{
    const int latent = cache->config.flags & QKV_CACHE_LATENT;

    if (!r || r->struct_size != sizeof *r)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rows is NULL or was not set up by qkv_cache_rows_init");
    if (layer < 0 || layer >= cache->config.n_layers)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is %d; it must be 0 .. %d", layer,
                          cache->config.n_layers - 1);
    if (r->type != QKV_F32 && r->type != QKV_F16 && r->type != QKV_BF16)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "type is %d (%s); it must be f32, f16 or bf16",
                          r->type, qkv_type_name((qkv_type)r->type));
    if (r->n_seqs < 0 || (r->n_seqs > 0 && (!r->seqs || !r->k || (!latent && !r->v))))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "n_seqs is %d, seqs %p, k %p, v %p; n_seqs must be 0 or more, the others "
                          "not NULL",
                          r->n_seqs, (const void *)r->seqs, r->k, r->v);
    if (r->k_rope && !latent)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "k_rope is given; it needs QKV_CACHE_LATENT");
    return QKV_OK;
}

/* Are all pages of the span this sequence's alone? */
static int owns(qkv_cache *cache, const span *s)
{
    const int64_t tokens = cache->config.page_tokens;

    for (int64_t n = s->start / tokens; n * tokens < s->start + s->count; n++) {
        qkv_page_set *set;
        const int32_t page = qkv_cache_locate(cache, s->state, n * tokens, &set);
        if (qkv_page_refs(set, page) > 1)
            return 0;
    }
    return 1;
}

static qkv_status find_span(qkv_cache *cache, const qkv_cache_rows *r, int32_t i, span *out,
                            qkv_say say)
{
    const qkv_cache_seq *seq = qkv_cache_find(cache, r->seqs[i]);
    if (!seq)
        return qkv_cache_refuse_id(r->seqs[i], say);
    const qkv_cache_state *s = &seq->now;
    const int64_t count = r->counts ? r->counts[i] : s->length - s->committed;
    const span found = {s, r->starts ? r->starts[i] : s->length - count, count};

    if (count < 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "counts[%d] is %lld; it must be 0 or more", i,
                          (long long)count);
    if (found.start < s->committed || found.start > s->length - count)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rows %lld .. %lld of sequence %d; only those from %d (committed) to %d "
                          "(reserved) can be written",
                          (long long)found.start, (long long)(found.start + count - 1), r->seqs[i],
                          s->committed, s->length - 1);
    if (count > 0 && !owns(cache, &found))
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "sequence %d was forked after its rows were reserved; fork what is written",
            r->seqs[i]);
    *out = found;
    return QKV_OK;
}

/* ---- scales of heads -------------------------------------------------------------------- */

/* The scale of one head: given, or that of the rows. */
static float first_scale(const qkv_cache *cache, int32_t layer, int side, int64_t head,
                         const source *from, int64_t count)
{
    const int32_t heads = cache->config.n_kv_heads;
    const qkv_cache_side *s = &cache->pages.map.side[side];
    const float given = cache->given[side][(int64_t)layer * heads + head];
    float row[QKV_CACHE_MAX_DIM], top = 0;

    if (given > 0)
        return given;
    for (int64_t t = 0; t < count; t++) {
        qkv_row_convert(row, QKV_F32, source_row(from, head, t), from->type, s->dim);
        const float scale = qkv_fp8_scale(row, s->dim, qkv_cache_fp8_kind(s->format));
        top = scale > top ? scale : top;
    }
    return top > 0 ? top : 1;
}

/* Every page that the span begins gets its sequence's scales. */
static void put_scales(qkv_cache *cache, int32_t layer, int side, const span *s, const source *from)
{
    const int64_t tokens = cache->config.page_tokens;
    const int array = side * QKV_PER_SIDE + QKV_SCALES;
    const qkv_cache_map *map = &cache->pages.map;
    qkv_page_set *set;

    for (int64_t h = 0; h < map->heads; h++) {
        float scale;
        if (s->start == 0) {
            scale = first_scale(cache, layer, side, h, from, s->count);
        } else {
            const int32_t before = qkv_cache_locate(cache, s->state, s->start - 1, &set);
            memcpy(&scale, qkv_cache_row(&set->map, qkv_page_at(set, layer, before), array, h, 0),
                   sizeof scale);
        }
        for (int64_t n = (s->start + tokens - 1) / tokens; n * tokens < s->start + s->count; n++) {
            const int32_t page = qkv_cache_locate(cache, s->state, n * tokens, &set);
            memcpy(qkv_cache_row(&set->map, qkv_page_at(set, layer, page), array, h, 0), &scale,
                   sizeof scale);
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------- */

/* Rows first .. first+count-1 of the span, which lie in one page from token `at` on. */
static void put_rows(const qkv_page_set *set, int side, unsigned char *page, int64_t at,
                     const source *from, int64_t first, int64_t count)
{
    for (int64_t h = 0; h < set->map.heads; h++)
        for (int64_t t = 0; t < count; t++)
            qkv_cache_put(&set->map, side, page, h, at + t, source_row(from, h, first + t),
                          from->type);
}

/* Latent rows in a float format whose rotary channels come from elsewhere: two pieces of one row.
 */
static void put_joined(const qkv_cache *cache, unsigned char *page, int64_t at,
                       const source from[QKV_N_SIDES], int64_t first, int64_t count)
{
    const qkv_cache_map *map = &cache->pages.map;
    const int32_t type = qkv_cache_float_type(map->side[QKV_SIDE_K].format);
    const int32_t c = cache->config.head_dim_v, r = cache->config.head_dim - c;

    for (int64_t t = 0; t < count; t++) {
        unsigned char *row = qkv_cache_row(map, page, QKV_CODES, 0, at + t);
        const source *k = &from[QKV_SIDE_K], *rope = &from[QKV_SIDE_ROPE];
        qkv_row_convert(row, type, source_row(k, 0, first + t), k->type, c);
        qkv_row_convert(row + c * (int64_t)qkv_type_size((qkv_type)type), type,
                        source_row(rope, 0, first + t), rope->type, r);
    }
}

static void write_span(qkv_cache *cache, int32_t layer, const span *s,
                       const source from[QKV_N_SIDES], int joined)
{
    const int64_t tokens = cache->config.page_tokens;
    qkv_page_set *set;

    for (int side = 0; side < QKV_N_SIDES; side++)
        if (cache->pages.map.side[side].scale_per == QKV_SCALE_HEAD &&
            cache->pages.map.side[side].dim > 0)
            put_scales(cache, layer, side, s, &from[side]);
    for (int64_t done = 0, n; done < s->count; done += n) {
        const int64_t at = (s->start + done) % tokens;
        const int32_t number = qkv_cache_locate(cache, s->state, s->start + done, &set);
        unsigned char *page = qkv_page_at(set, layer, number);
        n = s->count - done < tokens - at ? s->count - done : tokens - at;
        for (int side = 0; side < QKV_N_SIDES; side++)
            if (side == QKV_SIDE_K && joined)
                put_joined(cache, page, at, from, done, n);
            else if (set->map.side[side].dim > 0)
                put_rows(set, side, page, at, &from[side], done, n);
        for (int64_t h = 0; set->map.array[QKV_BOUNDS].row > 0 && h < set->map.heads; h++)
            for (int64_t t = 0; t < n; t++)
                qkv_cache_bounds_add(&set->map, page, h, at + t);
    }
}

/* The rows of the i-th sequence.  The filter sees keys with their rotary channels, or only these. */
static void sources_of(const qkv_cache *cache, const qkv_cache_rows *rows, int32_t i,
                       qkv_cache_filter *filter, source from[QKV_N_SIDES])
{
    memset(from, 0, QKV_N_SIDES * sizeof *from);
    from[QKV_SIDE_K] = source_of(rows, rows->k, rows->k_stride, i);
    if (rows->v)
        from[QKV_SIDE_V] = source_of(rows, rows->v, rows->v_stride, i);
    from[QKV_SIDE_ROPE] = from[QKV_SIDE_K];
    from[QKV_SIDE_ROPE].base +=
        (int64_t)cache->config.head_dim_v * (int64_t)qkv_type_size((qkv_type)rows->type);
    if (rows->k_rope)
        from[QKV_SIDE_ROPE] = source_of(rows, rows->k_rope, rows->k_rope_stride, i);
    from[QKV_SIDE_ROPE].side = QKV_SIDE_ROPE;
    from[QKV_SIDE_ROPE].filter = filter;
    if (!rows->k_rope && cache->pages.map.side[QKV_SIDE_ROPE].dim == 0)
        from[QKV_SIDE_K].filter = filter;
}

qkv_status qkv_cache_write_through(qkv_cache *cache, int32_t layer, const qkv_cache_rows *rows,
                                   qkv_cache_filter *filter, qkv_say say)
{
    const int is_float = qkv_cache_float_type(cache->config.k_format) != QKV_NONE;
    qkv_status status = check_rows(cache, layer, rows, say);
    source from[QKV_N_SIDES];
    span s;

    for (int32_t i = 0; status == QKV_OK && i < rows->n_seqs; i++) {
        status = find_span(cache, rows, i, &s, say);
        if (status == QKV_OK && filter)
            status = filter->begin(filter, rows, i, s.count, say);
    }
    if (status != QKV_OK)
        return status;
    for (int32_t i = 0; i < rows->n_seqs; i++) {
        find_span(cache, rows, i, &s, say);
        if (filter)
            filter->begin(filter, rows, i, s.count, say);
        sources_of(cache, rows, i, filter, from);
        write_span(cache, layer, &s, from, rows->k_rope && is_float);
    }
    return qkv_accept(say);
}

qkv_status qkv_cache_write(qkv_cache *cache, int32_t layer, const qkv_cache_rows *rows, char *text,
                           size_t bytes)
{
    const qkv_say say = {text, bytes};

    return qkv_cache_write_through(cache, layer, rows, NULL, say);
}
