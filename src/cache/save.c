/* cache/save.c - sequences to bytes; cache/file_format.h says which. */
#include <string.h>

#include "cache/file_format.h"

/* A save on its way. */
typedef struct saving {
    qkv_cache *cache;
    const int32_t *seqs;
    int32_t n;
    const qkv_cache_writer *writer;
    qkv_cache_header header;
    qkv_crc32c *crc;
    uint32_t sum; /* checksum of the current part */
    /* Of pages, then of open pages: the file's number + 1, or 0; tokens that are to be saved. */
    int32_t *number, *used;
    unsigned char *image; /* of a page of one layer */
    int failed;
} saving;

static void put(saving *s, const void *data, size_t bytes)
{
    s->sum = qkv_crc32c_add(s->crc, s->sum, data, bytes);
    if (!s->failed && bytes > 0)
        s->failed = s->writer->write(s->writer->ctx, data, bytes) != 0;
}

static void put_sum(saving *s)
{
    const uint32_t sum = s->sum;
    put(s, &sum, sizeof sum);
    s->sum = 0;
}

static const qkv_cache_state *state_of(const saving *s, int32_t i)
{
    return &qkv_cache_find(s->cache, s->seqs[i])->now;
}

/* ---- what there is ---------------------------------------------------------------------- */

static void note(saving *s, int64_t at, int64_t used, int32_t *count)
{
    if (s->number[at] == 0)
        s->number[at] = ++*count;
    s->used[at] = s->used[at] > used ? s->used[at] : (int32_t)used;
}

/* Numbers the pages of a sequence and counts its tables. */
static void add_seq(saving *s, const qkv_cache_state *state)
{
    qkv_cache_header *h = &s->header;
    int32_t pages = 0;

    for (int64_t n = 0; n < state->n_pages; n++) {
        if (qkv_cache_in_gap(s->cache, state, n))
            continue;
        const int64_t used = qkv_cache_used(s->cache, state, n);
        const int closed = n < state->n_closed;
        pages++;
        h->tokens += used;
        note(s, *qkv_cache_entry(s->cache, state, n), closed ? used : 0, &h->n_pages);
        if (!closed)
            note(s, (int64_t)s->cache->pages.n + state->open[n - state->n_closed], used,
                 &h->n_open);
    }
    h->longest = h->longest > pages ? h->longest : pages;
    h->table_bytes +=
        (int64_t)sizeof(qkv_cache_record) + 4 * ((int64_t)pages + state->n_pages - state->n_closed);
}

static void set_header(saving *s)
{
    const qkv_cache_config *c = &s->cache->config;
    qkv_cache_header h = {
        .version = QKV_CACHE_VERSION,
        .byte_order = QKV_CACHE_BYTE_ORDER,
        .flags = c->flags & QKV_CACHE_STORED_FLAGS,
        .n_layers = c->n_layers,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .head_dim_v = c->head_dim_v,
        .k_format = c->k_format,
        .v_format = c->v_format,
        .k_group = c->k_group,
        .v_group = c->v_group,
        .k_scale = c->k_scale,
        .v_scale = c->v_scale,
        .float_type = c->float_type,
        .page_tokens = c->page_tokens,
        .sink_tokens = c->sink_tokens,
        .n_seqs = s->n,
        .window_left = c->window_left,
        .page_bytes = s->cache->pages.map.bytes,
        .open_bytes = s->cache->has_open ? s->cache->open.map.bytes : 0,
    };
    memcpy(h.magic, QKV_CACHE_MAGIC, sizeof h.magic);
    s->header = h;
    for (int32_t i = 0; i < s->n; i++)
        add_seq(s, state_of(s, i));
    s->header.bytes = (int64_t)sizeof h + s->header.table_bytes + 4 +
                      s->header.n_pages * qkv_cache_stored_page(&h, h.page_bytes) +
                      s->header.n_open * qkv_cache_stored_page(&h, h.open_bytes);
    s->header.crc = qkv_cache_header_crc(s->crc, &s->header);
}

/* ---- parts of the file ------------------------------------------------------------------ */

static void put_tables(saving *s)
{
    for (int32_t i = 0; i < s->n; i++) {
        const qkv_cache_state *state = state_of(s, i);
        const int gap = state->first_page > s->cache->head_pages;
        const qkv_cache_record r = {state->length,  state->committed,
                                    state->start,   gap ? state->first_page : 0,
                                    state->n_pages, state->n_closed};
        put(s, &r, sizeof r);
        for (int64_t n = 0; n < state->n_pages; n++) {
            if (qkv_cache_in_gap(s->cache, state, n))
                continue;
            const int32_t number = s->number[*qkv_cache_entry(s->cache, state, n)] - 1;
            put(s, &number, sizeof number);
        }
        for (int64_t n = state->n_closed; n < state->n_pages; n++) {
            const int32_t open = state->open[n - state->n_closed];
            const int32_t number = s->number[s->cache->pages.n + open] - 1;
            put(s, &number, sizeof number);
        }
    }
    put_sum(s);
}

static void put_page(saving *s, qkv_page_set *set, int32_t page, int32_t used, int32_t closed)
{
    const qkv_cache_page_head head = {used, closed};

    put(s, &head, sizeof head);
    for (int32_t layer = 0; layer < set->n_layers; layer++) {
        qkv_cache_image(&set->map, s->image, qkv_page_at(set, layer, page), used);
        put(s, s->image, (size_t)set->map.bytes);
    }
    put_sum(s);
}

/* Pages in the order of their numbers, which is the order of the tables. */
static void put_pages(saving *s, int open)
{
    qkv_page_set *set = open ? &s->cache->open : &s->cache->pages;
    const int64_t first = open ? s->cache->pages.n : 0;
    int32_t last = 0;

    for (int32_t i = 0; i < s->n; i++) {
        const qkv_cache_state *state = state_of(s, i);
        for (int64_t n = open ? state->n_closed : 0; n < state->n_pages && !s->failed; n++) {
            if (qkv_cache_in_gap(s->cache, state, n))
                continue;
            const int32_t page =
                open ? state->open[n - state->n_closed] : *qkv_cache_entry(s->cache, state, n);
            if (s->number[first + page] != last + 1)
                continue; /* it was written for an earlier sequence */
            last++;
            put_page(s, set, page, s->used[first + page],
                     !open && s->used[page] > 0 && s->cache->has_open);
        }
    }
}

static void put_all(saving *s)
{
    set_header(s);
    put(s, &s->header, sizeof s->header);
    s->sum = 0;
    put_tables(s);
    put_pages(s, 0);
    put_pages(s, 1);
}

/* ---- the call --------------------------------------------------------------------------- */

static qkv_status check(qkv_cache *cache, int32_t n, const int32_t *seqs,
                        const qkv_cache_writer *writer, qkv_say say)
{
    if (!writer || !writer->write)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "writer or writer.write is NULL");
    if (!qkv_cache_little_endian())
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "caches are saved on little-endian machines only");
    qkv_cache_lock(cache);
    const qkv_status status = qkv_cache_check_list(cache, n, seqs, say);
    qkv_cache_unlock(cache);
    return status;
}

qkv_status qkv_cache_save(qkv_cache *cache, int32_t n, const int32_t *seqs,
                          const qkv_cache_writer *writer, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = check(cache, n, seqs, writer, say);
    if (status != QKV_OK)
        return status;

    const qkv_allocator *a = &cache->allocator;
    const int64_t pages = (int64_t)cache->pages.n + cache->open.n;
    const int64_t closed = cache->pages.map.bytes, open = cache->open.map.bytes;
    const int64_t image = closed > open ? closed : open;
    const size_t scratch = sizeof(qkv_crc32c) + (size_t)(8 * pages + image);
    unsigned char *memory = a->alloc(a->ctx, scratch);
    if (!memory)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for %zu bytes of scratch", scratch);
    memset(memory, 0, scratch);
    saving s = {.cache = cache, .seqs = seqs, .n = n, .writer = writer};
    s.crc = (void *)memory;
    s.number = (void *)(memory + sizeof(qkv_crc32c));
    s.used = s.number + pages;
    s.image = (void *)(s.used + pages);
    qkv_crc32c_make(s.crc);
    put_all(&s);
    a->free(a->ctx, memory);
    return s.failed ? qkv_refuse(say, QKV_ERR_SYSTEM, "writing failed") : qkv_accept(say);
}
