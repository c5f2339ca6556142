/*
 * cache/load.c - bytes to sequences.
 *
 * Nothing in a file is believed: every number is compared with what it must be before it is used.
 * Pages and sequences are taken at the start and belong to the load until all is read and
 * checked; then the sequences get their tables.  A failure gives everything back.
 */
#include <string.h>

#include "cache/load.h"

/* ---- reading ---------------------------------------------------------------------------- */

static qkv_status get(loading *l, void *data, size_t bytes, const char *what)
{
    if (bytes > 0 && l->reader->read(l->reader->ctx, data, bytes) != 0)
        return qkv_refuse(l->say, QKV_ERR_SYSTEM, "reading failed, or the file ends, in %s", what);
    l->sum = qkv_crc32c_add(l->crc, l->sum, data, bytes);
    return QKV_OK;
}

static qkv_status check_sum(loading *l, const char *what)
{
    const uint32_t sum = l->sum;
    uint32_t stored = 0;
    const qkv_status status = get(l, &stored, sizeof stored, what);

    l->sum = 0;
    if (status == QKV_OK && stored != sum)
        return qkv_refuse(l->say, QKV_ERR_FORMAT, "the file is damaged: wrong checksum in %s",
                          what);
    return status;
}

/* ---- tables ----------------------------------------------------------------------------- */

/* Pages that a sequence has in its table, by its record. */
static int64_t pages_of(const loading *l, const qkv_cache_record *r)
{
    return r->gap_end ? r->n_pages - (r->gap_end - l->cache->head_pages) : r->n_pages;
}

static int record_is_sound(const loading *l, const qkv_cache_record *r)
{
    const qkv_cache *c = l->cache;
    const int64_t tokens = c->config.page_tokens;

    if (r->length < 0 || r->committed < 0 || r->committed > r->length || r->start < 0 ||
        r->start > r->committed || r->n_pages != qkv_cache_pages_for(c, r->length))
        return 0;
    if (r->gap_end != 0 && (r->gap_end <= c->head_pages || r->gap_end >= r->n_pages ||
                            r->gap_end * tokens > r->committed))
        return 0;
    if (r->n_closed < 0 || r->n_closed > r->n_pages || (r->gap_end && r->n_closed < r->gap_end))
        return 0;
    /* Tokens that may still change are in open pages. */
    if (c->has_open ? r->n_closed * tokens > r->committed && r->committed < r->length
                    : r->n_closed != r->n_pages)
        return 0;
    return pages_of(l, r) <= l->header.longest && pages_of(l, r) <= c->table_pages;
}

/* Do n numbers lie in [0, limit)?  Marks them as used. */
static int numbers_are_sound(const int32_t *numbers, int64_t n, int32_t limit, uint8_t *seen)
{
    for (int64_t i = 0; i < n; i++) {
        if (numbers[i] < 0 || numbers[i] >= limit)
            return 0;
        seen[numbers[i]] = 1;
    }
    return 1;
}

/* All tables in their place and nothing behind them, and every page in one of them. */
static int tables_are_sound(loading *l)
{
    const int64_t words = l->header.table_bytes / 4, per = sizeof(qkv_cache_record) / 4;
    const int32_t pages = l->header.n_pages, opens = l->header.n_open;
    int64_t at = 0;

    memset(l->seen, 0, (size_t)pages + (size_t)opens);
    for (int32_t i = 0; i < l->header.n_seqs; i++) {
        qkv_cache_record r;
        if (words - at < per)
            return 0;
        memcpy(&r, l->tables + at, sizeof r);
        at += per;
        if (!record_is_sound(l, &r))
            return 0;
        const int64_t n = pages_of(l, &r), open = r.n_pages - r.n_closed;
        if (words - at < n + open || !numbers_are_sound(l->tables + at, n, pages, l->seen) ||
            !numbers_are_sound(l->tables + at + n, open, opens, l->seen + pages))
            return 0;
        at += n + open;
    }
    return at == words && !memchr(l->seen, 0, (size_t)pages + (size_t)opens);
}

static qkv_status read_tables(loading *l)
{
    qkv_status status = get(l, l->tables, (size_t)l->header.table_bytes, "the tables");

    if (status == QKV_OK)
        status = check_sum(l, "the tables");
    if (status == QKV_OK && !tables_are_sound(l))
        status = qkv_refuse(l->say, QKV_ERR_FORMAT, "the tables contradict themselves");
    return status;
}

/* ---- pages ------------------------------------------------------------------------------ */

static qkv_status read_page(loading *l, qkv_page_set *set, int32_t page, int32_t *closed)
{
    qkv_cache_page_head head = {0, 0};
    qkv_status status = get(l, &head, sizeof head, "a page");

    for (int32_t layer = 0; status == QKV_OK && layer < set->n_layers; layer++)
        status = get(l, qkv_page_at(set, layer, page), (size_t)set->map.bytes, "a page");
    if (status == QKV_OK)
        status = check_sum(l, "a page");
    *closed = head.closed;
    return status;
}

static qkv_status read_pages(loading *l)
{
    qkv_cache *c = l->cache;
    qkv_status status = QKV_OK;
    int32_t closed;

    for (int32_t i = 0; status == QKV_OK && i < l->header.n_pages; i++) {
        status = read_page(l, &c->pages, l->pages[i], &closed);
        if (status == QKV_OK)
            c->is_closed[l->pages[i]] = closed != 0;
    }
    for (int32_t i = 0; status == QKV_OK && i < l->header.n_open; i++)
        status = read_page(l, &c->open, l->open[i], &closed);
    return status;
}

/* ---- sequences -------------------------------------------------------------------------- */

/* The i-th sequence from its record on; returns what follows its tables. */
static const int32_t *attach(loading *l, int32_t i, const int32_t *from)
{
    qkv_cache *c = l->cache;
    qkv_cache_state *s = &qkv_cache_find(c, l->seqs[i])->now;
    qkv_cache_record r;

    memcpy(&r, from, sizeof r);
    from += sizeof r / sizeof *from;
    s->length = r.length;
    s->committed = r.committed;
    s->start = r.start;
    s->first_page = r.gap_end ? r.gap_end : c->head_pages;
    s->n_pages = r.n_pages;
    s->n_closed = r.n_closed;
    for (int64_t n = 0; n < r.n_pages; n++) {
        if (qkv_cache_in_gap(c, s, n))
            continue;
        const int32_t page = l->pages[*from++];
        *qkv_cache_entry(c, s, n) = page;
        qkv_page_share(&c->pages, page);
    }
    for (int64_t n = r.n_closed; n < r.n_pages; n++) {
        const int32_t page = l->open[*from++];
        s->open[n - r.n_closed] = page;
        qkv_page_share(&c->open, page);
    }
    return from;
}

/* Takes what the file needs; all or nothing. */
static qkv_status take(loading *l)
{
    qkv_cache *c = l->cache;
    const qkv_cache_header *h = &l->header;

    if (h->n_seqs > c->n_free_seqs)
        return qkv_refuse(l->say, QKV_ERR_FULL, "full: %d sequences needed, %d free", h->n_seqs,
                          c->n_free_seqs);
    if (h->n_pages > c->pages.n_free)
        return qkv_refuse(l->say, QKV_ERR_FULL, "full: %d pages needed, %d free", h->n_pages,
                          c->pages.n_free);
    if (h->n_open > c->open.n_free)
        return qkv_refuse(l->say, QKV_ERR_FULL, "full: %d open pages needed, %d free", h->n_open,
                          c->open.n_free);
    for (int32_t i = 0; i < h->n_seqs; i++)
        l->seqs[i] = qkv_cache_take_seq(c)->id;
    for (int32_t i = 0; i < h->n_pages; i++)
        l->pages[i] = qkv_page_take(&c->pages);
    for (int32_t i = 0; i < h->n_open; i++)
        l->open[i] = qkv_page_take(&c->open);
    return QKV_OK;
}

/* The load's own references go; without attached sequences that frees the pages. */
static void finish(loading *l, int good)
{
    qkv_cache *c = l->cache;
    const int32_t *from = l->tables;

    for (int32_t i = 0; good && i < l->header.n_seqs; i++)
        from = attach(l, i, from);
    for (int32_t i = l->header.n_open; i-- > 0;)
        qkv_page_drop(&c->open, l->open[i]);
    for (int32_t i = l->header.n_pages; i-- > 0;)
        qkv_page_drop(&c->pages, l->pages[i]);
    for (int32_t i = l->header.n_seqs; !good && i-- > 0;)
        qkv_cache_end_seq(c, qkv_cache_find(c, l->seqs[i]));
}

qkv_status qkv_cache_load_body(loading *l)
{
    qkv_cache_lock(l->cache);
    qkv_status status = take(l);
    qkv_cache_unlock(l->cache);
    if (status != QKV_OK)
        return status;
    status = read_tables(l);
    if (status == QKV_OK)
        status = read_pages(l);
    qkv_cache_lock(l->cache);
    finish(l, status == QKV_OK);
    qkv_cache_unlock(l->cache);
    return status;
}
