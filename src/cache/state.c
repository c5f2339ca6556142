/* cache/state.c - tables of sequences: sharing, dropping, closing and opening of pages. */
#include <string.h>

#include "core/convert_rows.h"
#include "cache/internal.h"

/* ---- finding ---------------------------------------------------------------------------- */

qkv_cache_seq *qkv_cache_find(const qkv_cache *cache, int32_t id)
{
    const int32_t place = (id & 0xffff) - 1;
    if (place < 0 || place >= cache->config.max_seqs)
        return NULL;
    qkv_cache_seq *s = &cache->seqs[place];
    return s->live && s->id == id ? s : NULL;
}

qkv_status qkv_cache_refuse_id(int32_t id, qkv_say say)
{
    return qkv_refuse(say, QKV_ERR_ARGUMENT,
                      "sequence %d is not alive: it was released, or never was in this cache", id);
}

qkv_status qkv_cache_check_list(qkv_cache *cache, int32_t n, const int32_t *seqs, qkv_say say)
{
    if (n < 0 || (n > 0 && !seqs))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "n is %d and seqs is %p; n must be 0 or more", n,
                          (const void *)seqs);
    const uint32_t stamp = ++cache->stamp;
    for (int32_t i = 0; i < n; i++) {
        qkv_cache_seq *s = qkv_cache_find(cache, seqs[i]);
        if (!s)
            return qkv_cache_refuse_id(seqs[i], say);
        if (s->stamp == stamp)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "sequence %d is in the list twice", seqs[i]);
        s->stamp = stamp;
    }
    return QKV_OK;
}

int64_t qkv_cache_kept_from(const qkv_cache *cache, const qkv_cache_state *s)
{
    int64_t from = s->start;
    if (s->first_page > cache->head_pages &&
        (int64_t)s->first_page * cache->config.page_tokens > from)
        from = (int64_t)s->first_page * cache->config.page_tokens;
    return from > cache->config.sink_tokens ? from : 0;
}

int64_t qkv_cache_used(const qkv_cache *cache, const qkv_cache_state *s, int64_t n)
{
    const int64_t rest = s->length - n * cache->config.page_tokens;
    return rest < 0 ? 0 : rest < cache->config.page_tokens ? rest : cache->config.page_tokens;
}

int32_t qkv_cache_locate(qkv_cache *cache, const qkv_cache_state *s, int64_t token,
                         qkv_page_set **set)
{
    const int64_t n = token / cache->config.page_tokens;
    const int closed = n < s->n_closed;
    *set = closed ? &cache->pages : &cache->open;
    return closed ? *qkv_cache_entry(cache, s, n) : s->open[n - s->n_closed];
}

/* ---- whole tables ----------------------------------------------------------------------- */

void qkv_cache_state_clear(const qkv_cache *cache, qkv_cache_state *s)
{
    s->length = s->committed = s->start = s->n_pages = s->n_closed = 0;
    s->first_page = cache->head_pages;
}

void qkv_cache_state_share(qkv_cache *cache, const qkv_cache_state *from, qkv_cache_state *to)
{
    int32_t *table = to->table, *open = to->open;

    *to = *from;
    to->table = table;
    to->open = open;
    for (int64_t n = 0; n < from->n_pages; n++) {
        if (qkv_cache_in_gap(cache, from, n))
            continue;
        const int32_t page = *qkv_cache_entry(cache, from, n);
        *qkv_cache_entry(cache, to, n) = page;
        qkv_page_share(&cache->pages, page);
        if (n >= from->n_closed) {
            open[n - from->n_closed] = from->open[n - from->n_closed];
            qkv_page_share(&cache->open, open[n - from->n_closed]);
        }
    }
}

void qkv_cache_drop_from(qkv_cache *cache, qkv_cache_state *s, int64_t from)
{
    /* The last page first: then the free list gives them out in their old order. */
    for (int64_t n = s->n_pages - 1; n >= from; n--) {
        if (qkv_cache_in_gap(cache, s, n))
            continue;
        if (n >= s->n_closed)
            qkv_page_drop(&cache->open, s->open[n - s->n_closed]);
        qkv_page_drop(&cache->pages, *qkv_cache_entry(cache, s, n));
    }
    s->n_pages = (int32_t)from;
    s->n_closed = s->n_closed < s->n_pages ? s->n_closed : s->n_pages;
}

void qkv_cache_evict_until(qkv_cache *cache, qkv_cache_state *s, int64_t end)
{
    end = end < s->n_pages - 1 ? end : s->n_pages - 1;
    const int64_t gone = end - s->first_page;
    if (gone <= 0)
        return;
    int32_t *first = qkv_cache_entry(cache, s, s->first_page);
    for (int64_t i = 0; i < gone; i++)
        qkv_page_drop(&cache->pages, first[i]);
    memmove(first, first + gone, (size_t)(s->n_pages - end) * sizeof *first);
    s->first_page = (int32_t)end;
    cache->evicted += (uint64_t)gone;
}

/* ---- open pages ------------------------------------------------------------------------- */

/* The keys of one head of a full open page as codes. */
static void close_head(qkv_cache *cache, unsigned char *from, unsigned char *to, int64_t head)
{
    const qkv_cache_map *map = &cache->pages.map;
    const int32_t dim = map->side[QKV_SIDE_K].dim;

    for (int64_t t = 0; t < map->tokens; t++)
        qkv_cache_get(&cache->open.map, QKV_SIDE_K, from, head, t, cache->scratch + t * dim);
    qkv_int8_channel_encode(cache->scratch, map->tokens, dim,
                            (int8_t *)qkv_cache_row(map, to, QKV_CODES, head, 0),
                            (void *)qkv_cache_row(map, to, QKV_SCALES, head, 0));
}

/* The values and rotary channels of n tokens from one kind of page to the other; they are stored
 * alike in both. */
static void copy_rest(const qkv_cache_map *from_map, unsigned char *from,
                        const qkv_cache_map *to_map, unsigned char *to, int64_t n)
{
    for (int i = QKV_SIDE_V * QKV_PER_SIDE; i < QKV_BOUNDS; i++)
        for (int64_t h = 0; from_map->array[i].row > 0 && h < from_map->heads; h++)
            memcpy(qkv_cache_row(to_map, to, i, h, 0), qkv_cache_row(from_map, from, i, h, 0),
                   (size_t)(from_map->array[i].row * (from_map->array[i].per_token ? n : 1)));
}

static void close_page(qkv_cache *cache, int32_t open, int32_t page)
{
    const int bounds = cache->pages.map.array[QKV_BOUNDS].row > 0;

    for (int32_t layer = 0; layer < cache->config.n_layers; layer++) {
        unsigned char *from = qkv_page_at(&cache->open, layer, open);
        unsigned char *to = qkv_page_at(&cache->pages, layer, page);
        for (int64_t h = 0; h < cache->config.n_kv_heads; h++)
            close_head(cache, from, to, h);
        copy_rest(&cache->open.map, from, &cache->pages.map, to, cache->config.page_tokens);
        if (bounds)
            qkv_cache_bounds_find(&cache->pages.map, to, cache->config.page_tokens);
    }
    cache->is_closed[page] = 1;
    cache->closed++;
}

void qkv_cache_close_pages(qkv_cache *cache, qkv_cache_state *s)
{
    while (cache->has_open &&
           ((int64_t)s->n_closed + 1) * cache->config.page_tokens <= s->committed) {
        const int32_t page = *qkv_cache_entry(cache, s, s->n_closed), open = s->open[0];
        /* A page whose other owner closed it first holds these very codes: both had the same
         * open page, and neither has written to it since. */
        if (!cache->is_closed[page])
            close_page(cache, open, page);
        qkv_page_drop(&cache->open, open);
        s->n_closed++;
        memmove(s->open, s->open + 1, (size_t)(s->n_pages - s->n_closed) * sizeof *s->open);
    }
}

/* The first n tokens of a closed page as an open one. */
static void open_page(qkv_cache *cache, int32_t page, int32_t open, int64_t n)
{
    const qkv_cache_map *map = &cache->open.map;
    float row[QKV_CACHE_MAX_DIM];

    for (int32_t layer = 0; layer < cache->config.n_layers; layer++) {
        unsigned char *from = qkv_page_at(&cache->pages, layer, page);
        unsigned char *to = qkv_page_at(&cache->open, layer, open);
        for (int64_t h = 0; h < map->heads; h++)
            for (int64_t t = 0; t < n; t++) {
                qkv_cache_get(&cache->pages.map, QKV_SIDE_K, from, h, t, row);
                qkv_cache_put(map, QKV_SIDE_K, to, h, t, row, QKV_F32);
            }
        copy_rest(&cache->pages.map, from, map, to, n);
        if (map->array[QKV_BOUNDS].row > 0)
            qkv_cache_bounds_find(map, to, n);
    }
    cache->opened++;
}

/* ---- the page that is appended to ------------------------------------------------------- */

/* The page an open one closes into belongs to one sequence alone and holds nothing yet. */
static void own_target(qkv_cache *cache, int32_t *page)
{
    if (qkv_page_refs(&cache->pages, *page) > 1) {
        const int32_t taken = qkv_page_take(&cache->pages);
        qkv_page_drop(&cache->pages, *page);
        *page = taken;
    }
    cache->is_closed[*page] = 0;
}

void qkv_cache_make_writable(qkv_cache *cache, qkv_cache_state *s)
{
    const int64_t n = s->n_pages - 1, used = s->length % cache->config.page_tokens;
    if (used == 0)
        return;
    int32_t *page = qkv_cache_entry(cache, s, n);

    if (!cache->has_open) {
        if (qkv_page_refs(&cache->pages, *page) > 1) {
            *page = qkv_page_copy(&cache->pages, *page, used);
            cache->copied++;
        }
        return;
    }
    if (n < s->n_closed) {
        s->open[0] = qkv_page_take(&cache->open);
        open_page(cache, *page, s->open[0], used);
        s->n_closed--;
    } else if (qkv_page_refs(&cache->open, s->open[n - s->n_closed]) > 1) {
        s->open[n - s->n_closed] = qkv_page_copy(&cache->open, s->open[n - s->n_closed], used);
        cache->copied++;
    }
    own_target(cache, page);
}
