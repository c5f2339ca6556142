/* cache/reserve.c - room for new tokens: counted first, then taken. */
#include "cache/internal.h"

/* Pages that a call takes, of both kinds. */
typedef struct demand {
    int64_t pages, open;
} demand;

/*
 * Would `page` have to be replaced before a sequence may write to it, after the replacements that
 * earlier sequences of this call do?  Each of them gives its reference back, so of k owners in one
 * call k - 1 copy, and the last one stays.
 */
static int64_t must_replace(qkv_page_set *set, int32_t page)
{
    if (qkv_page_refs(set, page) - set->pending[page] <= 1)
        return 0;
    set->pending[page]++;
    return 1;
}

/* What qkv_cache_make_writable will take. */
static void add_tail(qkv_cache *cache, const qkv_cache_state *s, demand *d)
{
    const int64_t n = s->n_pages - 1;

    if (s->length % cache->config.page_tokens == 0)
        return;
    d->pages += must_replace(&cache->pages, *qkv_cache_entry(cache, s, n));
    if (!cache->has_open)
        return;
    d->open += n < s->n_closed ? 1 : must_replace(&cache->open, s->open[n - s->n_closed]);
}

static void forget_pending(qkv_cache *cache, const qkv_cache_state *s)
{
    const int64_t n = s->n_pages - 1;

    if (s->length % cache->config.page_tokens == 0)
        return;
    cache->pages.pending[*qkv_cache_entry(cache, s, n)] = 0;
    if (cache->has_open && n >= s->n_closed)
        cache->open.pending[s->open[n - s->n_closed]] = 0;
}

static qkv_status check_one(const qkv_cache *cache, const qkv_cache_seq *seq, int64_t count,
                            qkv_say say)
{
    const qkv_cache_state *s = &seq->now;
    const int64_t length = s->length + count, pages = qkv_cache_pages_for(cache, length);
    const int64_t gap = s->first_page - cache->head_pages;

    if (count < 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "counts is %lld for sequence %d; it must be 0 or more", (long long)count,
                          seq->id);
    if (length > INT32_MAX)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "sequence %d would have %lld tokens; positions end at 2147483647",
                          seq->id, (long long)length);
    if (pages - gap > cache->table_pages ||
        length - gap * cache->config.page_tokens > cache->config.max_tokens)
        return qkv_refuse(say, QKV_ERR_FULL,
                          "sequence %d is full: it would hold %lld tokens, max_tokens is %lld",
                          seq->id, (long long)(length - gap * cache->config.page_tokens),
                          (long long)cache->config.max_tokens);
    return QKV_OK;
}

static void grow(qkv_cache *cache, qkv_cache_state *s, int64_t count)
{
    const int64_t pages = qkv_cache_pages_for(cache, s->length + count);

    if (count == 0)
        return;
    qkv_cache_make_writable(cache, s);
    while (s->n_pages < pages) {
        const int32_t page = qkv_page_take(&cache->pages);
        *qkv_cache_entry(cache, s, s->n_pages) = page;
        cache->is_closed[page] = 0;
        if (cache->has_open)
            s->open[s->n_pages - s->n_closed] = qkv_page_take(&cache->open);
        else
            s->n_closed++;
        s->n_pages++;
    }
    s->length += (int32_t)count;
}

static int64_t count_of(const int32_t *counts, int32_t i) { return counts ? counts[i] : 1; }

static qkv_status reserve(qkv_cache *cache, int32_t n, const int32_t *seqs, const int32_t *counts,
                          qkv_say say)
{
    demand d = {0, 0};
    qkv_status status = qkv_cache_check_list(cache, n, seqs, say);

    for (int32_t i = 0; status == QKV_OK && i < n; i++)
        status = check_one(cache, qkv_cache_find(cache, seqs[i]), count_of(counts, i), say);
    if (status != QKV_OK)
        return status;
    for (int32_t i = 0; i < n; i++) {
        const qkv_cache_state *s = &qkv_cache_find(cache, seqs[i])->now;
        if (count_of(counts, i) == 0)
            continue;
        const int64_t new =
            qkv_cache_pages_for(cache, s->length + count_of(counts, i)) - s->n_pages;
        d.pages += new;
        d.open += cache->has_open ? new : 0;
        add_tail(cache, s, &d);
    }
    for (int32_t i = 0; i < n; i++)
        forget_pending(cache, &qkv_cache_find(cache, seqs[i])->now);
    if (d.pages > cache->pages.n_free)
        return qkv_refuse(say, QKV_ERR_FULL, "full: %lld pages needed, %d free", (long long)d.pages,
                          cache->pages.n_free);
    if (d.open > cache->open.n_free)
        return qkv_refuse(say, QKV_ERR_FULL, "full: %lld open pages needed, %d free",
                          (long long)d.open, cache->open.n_free);
    for (int32_t i = 0; i < n; i++)
        grow(cache, &qkv_cache_find(cache, seqs[i])->now, count_of(counts, i));
    return qkv_accept(say);
}

qkv_status qkv_cache_reserve(qkv_cache *cache, int32_t n, const int32_t *seqs,
                             const int32_t *counts, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    qkv_cache_lock(cache);
    const qkv_status status = reserve(cache, n, seqs, counts, say);
    qkv_cache_unlock(cache);
    return status;
}
