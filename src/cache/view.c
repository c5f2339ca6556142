/* cache/view.c - tables and lengths of some sequences, gathered into the caller's memory. */
#include <string.h>

#include "cache/view.h"

/* Kernels sum over keys in blocks of this many.  Tables begin at a multiple of it, so that evicted
 * pages in front do not change a result's bits. */
enum { KEY_BLOCK = 128 };

void qkv_cache_select_init_sized(qkv_cache_select *select, size_t struct_size)
{
    qkv_cache_select s;

    memset(&s, 0, sizeof s);
    s.struct_size = (uint32_t)struct_size;
    s.n_seqs = 1;
    s.to = INT64_MAX;
    s.causal = QKV_CAUSAL_INCLUSIVE;
    memset(select, 0, struct_size);
    memcpy(select, &s, struct_size < sizeof s ? struct_size : sizeof s);
}

/* ---- checks ----------------------------------------------------------------------------- */

static int64_t queries_of(const qkv_cache_select *sel, const qkv_cache_state *s, int32_t i)
{
    return sel->q_lens ? sel->q_lens[i] : s->length - s->committed;
}

static qkv_status check_seq(const qkv_cache *cache, const qkv_cache_select *sel, int32_t i,
                            qkv_say say)
{
    const qkv_cache_seq *seq = qkv_cache_find(cache, sel->seqs[i]);
    if (!seq)
        return qkv_cache_refuse_id(sel->seqs[i], say);
    const qkv_cache_state *s = &seq->now;
    const int64_t q = queries_of(sel, s, i),
                  page = (int64_t)s->first_page * cache->config.page_tokens;
    if (q < 0 || (sel->causal != QKV_CAUSAL_NONE && q > s->length))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "q_lens[%d] is %lld; sequence %d has %d tokens", i,
                          (long long)q, sel->seqs[i], s->length);
    if (cache->config.window_left == QKV_UNBOUNDED || s->first_page == cache->head_pages || q == 0)
        return QKV_OK;
    /* Below `page` pages are gone; what was evicted by name is not missed. */
    const int64_t oldest = s->length - q - cache->config.window_left;
    if (s->start < page && oldest < page)
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "sequence %d: a window of %lld before query %lld needs tokens from %lld, but "
            "those below %lld were evicted; make the view before the commit",
            sel->seqs[i], (long long)cache->config.window_left, (long long)(s->length - q),
            (long long)oldest, (long long)page);
    return QKV_OK;
}

static qkv_status check(const qkv_cache *cache, const qkv_cache_select *sel, qkv_say say)
{
    qkv_status status = QKV_OK;

    if (!sel || sel->struct_size != sizeof *sel)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "select is NULL or was not set up by qkv_cache_select_init");
    if (sel->n_seqs < 0 || (sel->n_seqs > 0 && !sel->seqs))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "n_seqs is %d and seqs is %p; n_seqs must be 0 or more", sel->n_seqs,
                          (const void *)sel->seqs);
    if (sel->from < 0 || sel->to < sel->from)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "from and to are %lld and %lld; both must be 0 or more, "
                          "in that order",
                          (long long)sel->from, (long long)sel->to);
    if (sel->causal != QKV_CAUSAL_INCLUSIVE && sel->causal != QKV_CAUSAL_NONE)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "causal is %d; it must be QKV_CAUSAL_INCLUSIVE or QKV_CAUSAL_NONE",
                          sel->causal);
    if (sel->causal == QKV_CAUSAL_NONE && cache->config.window_left != QKV_UNBOUNDED)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "causal is QKV_CAUSAL_NONE; a cache with a window needs positions");
    for (int32_t i = 0; status == QKV_OK && i < sel->n_seqs; i++)
        status = check_seq(cache, sel, i, say);
    return status;
}

/* ---- one part of one sequence ----------------------------------------------------------- */

/* Tokens lo .. hi-1 of a sequence that belong to a part. */
typedef struct range {
    int64_t lo, hi;
} range;

static range range_of(const qkv_cache_view *v, const qkv_view_part *part,
                      const qkv_cache_select *sel, const qkv_cache_state *s)
{
    const qkv_cache *c = v->cache;
    const int64_t closed = (int64_t)s->n_closed * c->config.page_tokens;
    const int64_t sinks = c->config.sink_tokens, kept = qkv_cache_kept_from(c, s);
    range r = {sel->from, sel->to < s->length ? sel->to : s->length};

    if (part->sinks) {
        r.hi = r.hi < sinks ? r.hi : sinks;
    } else {
        const int64_t after = v->n_parts > 1 + c->has_open ? sinks : 0;
        r.lo = r.lo > after ? r.lo : after;
        r.lo = r.lo > kept ? r.lo : kept;
    }
    if (part->open)
        r.lo = r.lo > closed ? r.lo : closed;
    else
        r.hi = r.hi < closed ? r.hi : closed;
    r.hi = r.hi > r.lo ? r.hi : r.lo;
    return r;
}

/* The logical page a table begins with. */
static int64_t base_page(const qkv_cache *cache, int64_t lo)
{
    const int64_t tokens = cache->config.page_tokens;
    int64_t n = lo / tokens;
    while (n * tokens % KEY_BLOCK != 0)
        n--;
    return n;
}

static int64_t entries_of(const qkv_cache *cache, range r)
{
    return r.hi == r.lo ? 0 : qkv_cache_pages_for(cache, r.hi) - base_page(cache, r.lo);
}

/* Row i of a part. */
static void fill_row(qkv_cache_view *v, qkv_view_part *part, const qkv_cache_select *sel, int32_t i)
{
    qkv_cache *c = v->cache;
    const qkv_cache_state *s = &qkv_cache_find(c, sel->seqs[i])->now;
    const range r = range_of(v, part, sel, s);
    const int64_t tokens = c->config.page_tokens, base = base_page(c, r.lo), first = r.lo / tokens;
    int32_t *row = part->table + i * v->stride;
    const int64_t n = entries_of(c, r);

    for (int64_t at = 0; at < v->stride; at++) {
        /* Entries that nobody may see still name a page that is there. */
        const int64_t logical = base + at < first ? first : at < n ? base + at : first;
        row[at] = n == 0       ? 0
                  : part->open ? s->open[logical - s->n_closed]
                               : *qkv_cache_entry(c, s, logical);
    }
    part->kv_lens[i] = n == 0 ? 0 : (int32_t)(r.hi - base * tokens);
    part->kv_starts[i] = n == 0 ? 0 : (int32_t)(r.lo - base * tokens);
    part->q_offsets[i] = (int32_t)(s->length - queries_of(sel, s, i) - base * tokens);
    part->any_start |= part->kv_starts[i] > 0;
    part->kv_len = part->kv_len > part->kv_lens[i] ? part->kv_len : part->kv_lens[i];
}

/* ---- memory ----------------------------------------------------------------------------- */

/* Parts, stride and longest queries of a checked selection. */
static void measure(qkv_cache_view *v, qkv_cache *cache, const qkv_cache_select *sel)
{
    int two = cache->config.sink_tokens > 0 && cache->config.window_left != QKV_UNBOUNDED;

    memset(v, 0, sizeof *v);
    v->cache = cache;
    v->n_seqs = sel->n_seqs;
    v->causal = sel->causal;
    v->equal = 1;
    for (int32_t i = 0; i < sel->n_seqs; i++) {
        const qkv_cache_state *s = &qkv_cache_find(cache, sel->seqs[i])->now;
        const int64_t q = queries_of(sel, s, i);
        two |= cache->config.sink_tokens > 0 && qkv_cache_kept_from(cache, s) > 0;
        v->equal &= i == 0 || q == v->q_len;
        v->q_len = q > v->q_len ? q : v->q_len;
    }
    for (int sinks = two; sinks >= 0; sinks--)
        for (int open = 0; open <= cache->has_open; open++) {
            v->part[v->n_parts].sinks = sinks;
            v->part[v->n_parts++].open = open;
        }
    for (int32_t i = 0; i < sel->n_seqs; i++)
        for (int32_t p = 0; p < v->n_parts; p++) {
            const qkv_cache_state *s = &qkv_cache_find(cache, sel->seqs[i])->now;
            const int64_t n = entries_of(cache, range_of(v, &v->part[p], sel, s));
            v->stride = n > v->stride ? n : v->stride;
        }
}

static size_t bytes_of(const qkv_cache_view *v)
{
    const size_t n = (size_t)v->n_seqs;
    const size_t words = (size_t)v->n_parts * n * ((size_t)v->stride + 3) + n;
    return sizeof *v + (words * sizeof(int32_t) + 7) / 8 * 8;
}

static void fill(qkv_cache_view *v, const qkv_cache_select *sel)
{
    int32_t *words = (void *)(v + 1);

    for (int32_t p = 0; p < v->n_parts; p++) {
        qkv_view_part *part = &v->part[p];
        part->table = words;
        part->kv_lens = part->table + v->n_seqs * v->stride;
        part->kv_starts = part->kv_lens + v->n_seqs;
        part->q_offsets = part->kv_starts + v->n_seqs;
        words = part->q_offsets + v->n_seqs;
        for (int32_t i = 0; i < v->n_seqs; i++)
            fill_row(v, part, sel, i);
    }
    v->q_lens = words;
    for (int32_t i = 0; i < v->n_seqs; i++)
        v->q_lens[i] = (int32_t)queries_of(sel, &qkv_cache_find(v->cache, sel->seqs[i])->now, i);
}

size_t qkv_cache_view_size(qkv_cache *cache, const qkv_cache_select *select)
{
    const qkv_say nobody = {NULL, 0};
    qkv_cache_view v;
    size_t bytes = 0;

    qkv_cache_lock(cache);
    if (check(cache, select, nobody) == QKV_OK) {
        measure(&v, cache, select);
        bytes = bytes_of(&v);
    }
    qkv_cache_unlock(cache);
    return bytes;
}

static qkv_status make(qkv_cache_view *v, size_t bytes, qkv_cache *cache,
                       const qkv_cache_select *select, qkv_say say)
{
    const qkv_status status = check(cache, select, say);
    qkv_cache_view measured;

    if (status != QKV_OK)
        return status;
    measure(&measured, cache, select);
    if (!v || bytes < bytes_of(&measured) || (uintptr_t)v % 8 != 0)
        return qkv_refuse(say, QKV_ERR_BUFFER,
                          "mem is %p with %zu bytes; this view needs %zu, aligned to 8", (void *)v,
                          bytes, bytes_of(&measured));
    *v = measured;
    fill(v, select);
    return qkv_accept(say);
}

qkv_status qkv_cache_view_init(void *mem, size_t bytes, qkv_cache *cache,
                               const qkv_cache_select *select, const qkv_cache_view **view,
                               char *text, size_t text_bytes)
{
    const qkv_say say = {text, text_bytes};

    if (!view)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "view is NULL");
    qkv_cache_lock(cache);
    const qkv_status status = make(mem, bytes, cache, select, say);
    qkv_cache_unlock(cache);
    if (status == QKV_OK)
        *view = mem;
    return status;
}

int32_t qkv_cache_view_parts(const qkv_cache_view *view) { return view->n_parts; }
