/* cache/seq.c - sequences: made, forked, reordered, shortened, ended. */
#include <string.h>

#include "cache/internal.h"

/* ---- made and ended --------------------------------------------------------------------- */

qkv_cache_seq *qkv_cache_take_seq(qkv_cache *cache)
{
    qkv_cache_seq *s = &cache->seqs[cache->free_seqs[--cache->n_free_seqs]];
    s->live = 1;
    return s;
}

void qkv_cache_end_seq(qkv_cache *cache, qkv_cache_seq *s)
{
    const int32_t place = (s->id & 0xffff) - 1, generation = s->id >> 16;

    qkv_cache_drop_from(cache, &s->now, 0);
    qkv_cache_state_clear(cache, &s->now);
    s->live = 0;
    s->id = (generation == 0x7fff ? 0 : generation + 1) << 16 | (place + 1);
    cache->free_seqs[cache->n_free_seqs++] = place;
}

static qkv_status add(qkv_cache *cache, const int32_t *parent, int32_t *seq, qkv_say say)
{
    const qkv_cache_seq *from = parent ? qkv_cache_find(cache, *parent) : NULL;
    if (parent && !from)
        return qkv_cache_refuse_id(*parent, say);
    if (cache->n_free_seqs == 0)
        return qkv_refuse(say, QKV_ERR_FULL, "full: there are %d sequences, max_seqs",
                          cache->config.max_seqs);
    qkv_cache_seq *s = qkv_cache_take_seq(cache);
    if (from)
        qkv_cache_state_share(cache, &from->now, &s->now);
    *seq = s->id;
    return qkv_accept(say);
}

qkv_status qkv_cache_add(qkv_cache *cache, int32_t *seq, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!seq)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "seq is NULL");
    qkv_cache_lock(cache);
    const qkv_status status = add(cache, NULL, seq, say);
    qkv_cache_unlock(cache);
    return status;
}

qkv_status qkv_cache_fork(qkv_cache *cache, int32_t seq, int32_t *child, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!child)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "child is NULL");
    qkv_cache_lock(cache);
    const qkv_status status = add(cache, &seq, child, say);
    qkv_cache_unlock(cache);
    return status;
}

qkv_status qkv_cache_release(qkv_cache *cache, int32_t seq)
{
    qkv_cache_lock(cache);
    qkv_cache_seq *s = qkv_cache_find(cache, seq);
    if (s)
        qkv_cache_end_seq(cache, s);
    qkv_cache_unlock(cache);
    return s ? QKV_OK : QKV_ERR_ARGUMENT;
}

qkv_status qkv_cache_reset(qkv_cache *cache, int32_t seq)
{
    return qkv_cache_truncate(cache, seq, 0, NULL, 0);
}

/* ---- beams ------------------------------------------------------------------------------ */

static qkv_status reorder(qkv_cache *cache, int32_t n, const int32_t *seqs, const int32_t *parents,
                          qkv_say say)
{
    const qkv_status status = qkv_cache_check_list(cache, n, seqs, say);

    if (status != QKV_OK)
        return status;
    for (int32_t i = 0; i < n; i++)
        if (!parents || parents[i] < 0 || parents[i] >= n)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "parents[%d] is %d; it must be 0 .. %d", i,
                              parents ? parents[i] : -1, n - 1);
    /* Every new table first, so that no page is free in between. */
    for (int32_t i = 0; i < n; i++)
        qkv_cache_state_share(cache, &qkv_cache_find(cache, seqs[parents[i]])->now,
                              &qkv_cache_find(cache, seqs[i])->next);
    for (int32_t i = 0; i < n; i++) {
        qkv_cache_seq *s = qkv_cache_find(cache, seqs[i]);
        const qkv_cache_state old = s->now;
        qkv_cache_drop_from(cache, &s->now, 0);
        s->now = s->next;
        s->next = old;
    }
    return qkv_accept(say);
}

qkv_status qkv_cache_reorder(qkv_cache *cache, int32_t n, const int32_t *seqs,
                             const int32_t *parents, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    qkv_cache_lock(cache);
    const qkv_status status = reorder(cache, n, seqs, parents, say);
    qkv_cache_unlock(cache);
    return status;
}

/* ---- final tokens ----------------------------------------------------------------------- */

static qkv_status commit(qkv_cache *cache, int32_t n, const int32_t *seqs, const int64_t *lengths,
                         qkv_say say)
{
    const qkv_status status = qkv_cache_check_list(cache, n, seqs, say);

    if (status != QKV_OK)
        return status;
    for (int32_t i = 0; lengths && i < n; i++) {
        const int64_t length = qkv_cache_find(cache, seqs[i])->now.length;
        if (lengths[i] < 0 || lengths[i] > length)
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "lengths[%d] is %lld; sequence %d has %lld tokens", i,
                              (long long)lengths[i], seqs[i], (long long)length);
    }
    for (int32_t i = 0; i < n; i++) {
        qkv_cache_state *s = &qkv_cache_find(cache, seqs[i])->now;
        const int32_t to = lengths ? (int32_t)lengths[i] : s->length;
        s->committed = to > s->committed ? to : s->committed;
        qkv_cache_close_pages(cache, s);
        if (cache->config.window_left != QKV_UNBOUNDED)
            qkv_cache_evict_until(
                cache, s, (s->committed - cache->config.window_left) / cache->config.page_tokens);
    }
    return qkv_accept(say);
}

qkv_status qkv_cache_commit(qkv_cache *cache, int32_t n, const int32_t *seqs,
                            const int64_t *lengths, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    qkv_cache_lock(cache);
    const qkv_status status = commit(cache, n, seqs, lengths, say);
    qkv_cache_unlock(cache);
    return status;
}

/* ---- tokens taken back and forgotten ---------------------------------------------------- */

/*
 * The shortest length above the sinks whose next query finds all it needs: a window's keys, unless
 * they were evicted by name; a whole page at least, from which its successor takes its scale.
 */
static int64_t shortest(const qkv_cache *cache, const qkv_cache_state *s)
{
    const int64_t page = (int64_t)s->first_page * cache->config.page_tokens;
    const int64_t window = cache->config.window_left;

    if (s->first_page == cache->head_pages) /* no page is gone */
        return s->start;
    const int by_window = s->start < page;
    const int64_t least = page + (by_window && window > 1 ? window : 1);
    return s->start > least ? s->start : least;
}

static qkv_status truncate_to(qkv_cache *cache, int32_t id, int64_t length, qkv_say say)
{
    qkv_cache_seq *seq = qkv_cache_find(cache, id);
    if (!seq)
        return qkv_cache_refuse_id(id, say);
    qkv_cache_state *s = &seq->now;
    if (length < 0 || length > s->length)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "length is %lld; sequence %d has %d tokens",
                          (long long)length, id, s->length);
    if (length > cache->config.sink_tokens && length < shortest(cache, s))
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "length is %lld; tokens below %lld of sequence %d were evicted, so it must be "
            "%lld or more, or %d or less",
            (long long)length, (long long)qkv_cache_kept_from(cache, s), id,
            (long long)shortest(cache, s), cache->config.sink_tokens);
    qkv_cache_drop_from(cache, s, qkv_cache_pages_for(cache, length));
    s->length = (int32_t)length;
    s->committed = s->committed < s->length ? s->committed : s->length;
    if (length <= cache->config.sink_tokens) {
        s->first_page = cache->head_pages;
        s->start = 0;
    }
    return qkv_accept(say);
}

qkv_status qkv_cache_truncate(qkv_cache *cache, int32_t seq, int64_t length, char *text,
                              size_t bytes)
{
    const qkv_say say = {text, bytes};

    qkv_cache_lock(cache);
    const qkv_status status = truncate_to(cache, seq, length, say);
    qkv_cache_unlock(cache);
    return status;
}

static qkv_status evict(qkv_cache *cache, int32_t id, int64_t before, qkv_say say)
{
    qkv_cache_seq *seq = qkv_cache_find(cache, id);
    if (!seq)
        return qkv_cache_refuse_id(id, say);
    qkv_cache_state *s = &seq->now;
    if (before < 0 || before > s->committed)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "before is %lld; sequence %d has %d committed tokens", (long long)before,
                          id, s->committed);
    if (before > cache->config.sink_tokens && before > s->start)
        s->start = (int32_t)before;
    qkv_cache_evict_until(cache, s, before / cache->config.page_tokens);
    return qkv_accept(say);
}

qkv_status qkv_cache_evict(qkv_cache *cache, int32_t seq, int64_t before, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    qkv_cache_lock(cache);
    const qkv_status status = evict(cache, seq, before, say);
    qkv_cache_unlock(cache);
    return status;
}

/* ---- looked at -------------------------------------------------------------------------- */

static void describe(const qkv_cache *cache, const qkv_cache_state *s, qkv_cache_seq_info *info)
{
    info->length = s->length;
    info->committed = s->committed;
    info->kept_from = qkv_cache_kept_from(cache, s);
    info->n_pages = info->n_shared = 0;
    for (int64_t n = 0; n < s->n_pages; n++) {
        if (qkv_cache_in_gap(cache, s, n))
            continue;
        info->n_pages++;
        info->n_shared += qkv_page_refs(&cache->pages, *qkv_cache_entry(cache, s, n)) > 1;
    }
}

qkv_status qkv_cache_seq_info_get_sized(qkv_cache *cache, int32_t seq, qkv_cache_seq_info *out,
                                        size_t struct_size)
{
    qkv_cache_seq_info info;

    if (!out)
        return QKV_ERR_ARGUMENT;
    qkv_cache_lock(cache);
    const qkv_cache_seq *s = qkv_cache_find(cache, seq);
    if (s)
        describe(cache, &s->now, &info);
    qkv_cache_unlock(cache);
    if (!s)
        return QKV_ERR_ARGUMENT;
    memset(out, 0, struct_size);
    memcpy(out, &info, struct_size < sizeof info ? struct_size : sizeof info);
    return QKV_OK;
}

int64_t qkv_cache_length(qkv_cache *cache, int32_t seq)
{
    qkv_cache_lock(cache);
    const qkv_cache_seq *s = qkv_cache_find(cache, seq);
    const int64_t length = s ? s->now.length : -1;
    qkv_cache_unlock(cache);
    return length;
}
