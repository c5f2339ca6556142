/* cache/stats.c - what is in a cache, counted. */
#include <string.h>

#include "cache/internal.h"

/* Raises the number of tokens known to be in a page.  pending serves as the counter: it is 0
 * between calls and nothing else uses it under the lock. */
static void note(qkv_page_set *set, int32_t page, int64_t used)
{
    set->pending[page] = set->pending[page] > used ? set->pending[page] : (int32_t)used;
}

static void note_tokens(qkv_cache *cache, const qkv_cache_state *s, qkv_cache_stats *stats)
{
    for (int64_t n = 0; n < s->n_pages; n++) {
        if (qkv_cache_in_gap(cache, s, n))
            continue;
        const int64_t used = qkv_cache_used(cache, s, n);
        if (n < s->n_closed)
            note(&cache->pages, *qkv_cache_entry(cache, s, n), used);
        else
            note(&cache->open, s->open[n - s->n_closed], used);
        stats->tokens += used;
    }
}

/* Adds what the noted tokens take, and clears the notes. */
static void add_payload(qkv_page_set *set, qkv_cache_stats *stats)
{
    int64_t per_page = 0;

    for (int i = 0; i < QKV_N_ARRAYS; i++)
        per_page += set->map.array[i].per_token ? 0 : set->map.array[i].row * set->map.heads;
    for (int32_t page = 0; page < set->n; page++) {
        const int64_t used = set->pending[page];
        set->pending[page] = 0;
        if (used == 0)
            continue;
        stats->stored_tokens += used;
        stats->payload += (uint64_t)((used * set->map.token_bytes + per_page) * set->n_layers);
    }
}

static void count(qkv_cache *cache, qkv_cache_stats *s)
{
    for (int32_t i = 0; i < cache->config.max_seqs; i++)
        if (cache->seqs[i].live) {
            s->n_seqs++;
            note_tokens(cache, &cache->seqs[i].now, s);
        }
    add_payload(&cache->pages, s);
    add_payload(&cache->open, s);
    s->pages = cache->pages.n;
    s->used_pages = cache->pages.n - cache->pages.n_free;
    for (int32_t i = 0; i < cache->pages.n; i++)
        s->shared_pages += qkv_page_refs(&cache->pages, i) > 1;
    s->open_pages = cache->open.n;
    s->used_open_pages = cache->open.n - cache->open.n_free;
    s->allocated = cache->allocated;
    s->copied = cache->copied;
    s->closed = cache->closed;
    s->opened = cache->opened;
    s->evicted = cache->evicted;
}

qkv_status qkv_cache_stats_get_sized(qkv_cache *cache, qkv_cache_stats *stats, size_t struct_size)
{
    qkv_cache_stats s;

    if (!cache || !stats)
        return QKV_ERR_ARGUMENT;
    memset(&s, 0, sizeof s);
    qkv_cache_lock(cache);
    count(cache, &s);
    qkv_cache_unlock(cache);
    memset(stats, 0, struct_size);
    memcpy(stats, &s, struct_size < sizeof s ? struct_size : sizeof s);
    return QKV_OK;
}
