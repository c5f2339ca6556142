/*
 * cache/pick.c - the pages whose keys may score highest.
 *
 * The n best of all pages are kept in a heap whose root is the worst of them, so the cost is the
 * bounds themselves: 4 D bytes a page and head, 1/16 to 1/256 of the keys.
 */
#include <math.h>
#include <string.h>

#include "core/convert_rows.h"
#include "cache/view.h"

void qkv_cache_pick_init_sized(qkv_cache_pick *pick, size_t struct_size)
{
    qkv_cache_pick p;

    memset(&p, 0, sizeof p);
    p.struct_size = (uint32_t)struct_size;
    p.n_seqs = 1;
    p.q_type = QKV_F32;
    memset(pick, 0, struct_size);
    memcpy(pick, &p, struct_size < sizeof p ? struct_size : sizeof p);
}

/* ---- bounds ----------------------------------------------------------------------------- */

/* The highest that any key of a page can score against one query; infinity if that is unknown.
 * Eight sums side by side, because a compiler may not reorder one. */
static float bound_of(const uint16_t *ends, int64_t d, const float *q)
{
    float low[QKV_CACHE_MAX_DIM], high[QKV_CACHE_MAX_DIM], sum[8] = {0}, all = 0;
    const int64_t even = d / 8 * 8;

    qkv_row_convert(low, QKV_F32, ends, QKV_BF16, d);
    qkv_row_convert(high, QKV_F32, ends + d, QKV_BF16, d);
    for (int64_t i = 0; i < even; i += 8)
        for (int k = 0; k < 8; k++)
            sum[k] += q[i + k] * (q[i + k] < 0 ? low[i + k] : high[i + k]);
    for (int64_t i = even; i < d; i++)
        all += q[i] * (q[i] < 0 ? low[i] : high[i]);
    for (int k = 0; k < 8; k++)
        all += sum[k];
    return isnan(all) ? INFINITY : all;
}

/* ---- the best n ------------------------------------------------------------------------- */

/* The chosen pages of one sequence and head, as a heap: the worst at place 0. */
typedef struct choice {
    int32_t *page; /* logical */
    float *bound;
    int32_t n, room;
} choice;

/* Is page a with bound x worse than page b with bound y?  Of equal ones the older is. */
static int worse(float x, int32_t a, float y, int32_t b) { return x < y || (x == y && a < b); }

static int worse_at(const choice *c, int32_t i, int32_t k)
{
    return worse(c->bound[i], c->page[i], c->bound[k], c->page[k]);
}

static void swap(choice *c, int32_t i, int32_t k)
{
    const int32_t page = c->page[i];
    const float bound = c->bound[i];
    c->page[i] = c->page[k];
    c->bound[i] = c->bound[k];
    c->page[k] = page;
    c->bound[k] = bound;
}

static void sink_down(choice *c)
{
    for (int32_t i = 0;;) {
        int32_t least = i;
        for (int32_t k = 2 * i + 1; k <= 2 * i + 2 && k < c->n; k++)
            least = worse_at(c, k, least) ? k : least;
        if (least == i)
            return;
        swap(c, i, least);
        i = least;
    }
}

static void offer(choice *c, int32_t page, float bound)
{
    if (c->n < c->room) {
        int32_t i = c->n++;
        c->page[i] = page;
        c->bound[i] = bound;
        for (; i > 0 && worse_at(c, i, (i - 1) / 2); i = (i - 1) / 2)
            swap(c, i, (i - 1) / 2);
    } else if (worse(c->bound[0], c->page[0], bound, page)) {
        c->page[0] = page;
        c->bound[0] = bound;
        sink_down(c);
    }
}

/* Ascending by page (Shell 1959). */
static void sort_pages(choice *c)
{
    int32_t gap = 1;
    while (gap < c->n / 3)
        gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
        for (int32_t i = gap; i < c->n; i++)
            for (int32_t k = i; k >= gap && c->page[k - gap] > c->page[k]; k -= gap)
                swap(c, k, k - gap);
}

/* ---- one sequence and head -------------------------------------------------------------- */

/* A query as f32: where it is, or converted into scratch. */
static const float *query(const qkv_cache_pick *p, int64_t i, int64_t head, float *scratch,
                          int64_t d)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)p->q_type);
    const unsigned char *from =
        (const unsigned char *)p->q + (i * p->q_stride[0] + head * p->q_stride[1]) * size;
    if (p->q_type == QKV_F32)
        return (const float *)(const void *)from;
    qkv_row_convert(scratch, QKV_F32, from, p->q_type, d);
    return scratch;
}

static void choose(qkv_cache *cache, int32_t layer, const qkv_cache_pick *p,
                   const qkv_cache_state *s, int64_t i, int64_t head, choice *c)
{
    const int64_t d = cache->config.head_dim, group = p->n_q_heads / cache->config.n_kv_heads;
    const int32_t newest = s->n_pages - 1;
    float scratch[QKV_CACHE_MAX_DIM];

    offer(c, newest, INFINITY); /* first and best, so nothing takes its place */
    for (int32_t n = 0; n < newest; n++) {
        unsigned char *page = qkv_page_at(&cache->pages, layer, *qkv_cache_entry(cache, s, n));
        const uint16_t *ends = (void *)qkv_cache_row(&cache->pages.map, page, QKV_BOUNDS, head, 0);
        float top = -INFINITY;
        for (int64_t g = 0; g < group; g++) {
            const float bound = bound_of(ends, d, query(p, i, head * group + g, scratch, d));
            top = bound > top ? bound : top;
        }
        offer(c, n, top);
    }
    sort_pages(c);
}

static void pick_one(qkv_cache *cache, int32_t layer, const qkv_cache_pick *p, int64_t i,
                     int64_t head)
{
    const qkv_cache_state *s = &qkv_cache_find(cache, p->seqs[i])->now;
    const int64_t at = (i * cache->config.n_kv_heads + head) * p->n_pages;
    choice c = {p->table + at, p->bounds + at, 0, p->n_pages};

    choose(cache, layer, p, s, i, head, &c);
    for (int32_t k = 0; k < p->n_pages; k++) {
        if (p->logical)
            p->logical[at + k] = k < c.n ? c.page[k] : -1;
        if (k >= c.n)
            p->bounds[at + k] = -INFINITY;
    }
    for (int32_t k = 0; k < p->n_pages; k++)
        p->table[at + k] = k < c.n ? *qkv_cache_entry(cache, s, c.page[k]) : p->table[at + c.n - 1];
    p->kv_lens[i] = (int32_t)((c.n - 1) * (int64_t)cache->config.page_tokens +
                              qkv_cache_used(cache, s, s->n_pages - 1));
}

/* ---- the call --------------------------------------------------------------------------- */

static qkv_status check(qkv_cache *cache, int32_t layer, const qkv_cache_pick *p, qkv_say say)
{
    const qkv_cache_config *f = &cache->config;

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
    if (!p || p->struct_size != sizeof *p)
        REFUSE("pick is NULL or was not set up by qkv_cache_pick_init");
    if (!(f->flags & QKV_CACHE_KEY_BOUNDS))
        REFUSE("the cache was made without QKV_CACHE_KEY_BOUNDS");
    if (cache->has_open)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED, "pages of int8_channel keys cannot be picked");
    if (layer < 0 || layer >= f->n_layers)
        REFUSE("layer is %d; it must be 0 .. %d", layer, f->n_layers - 1);
    if (p->n_q_heads < 1 || p->n_q_heads % f->n_kv_heads != 0)
        REFUSE("n_q_heads is %d; it must be a multiple of n_kv_heads, which is %d", p->n_q_heads,
               f->n_kv_heads);
    if (p->q_type != QKV_F32 && p->q_type != QKV_F16 && p->q_type != QKV_BF16)
        REFUSE("q_type is %d (%s); it must be f32, f16 or bf16", p->q_type,
               qkv_type_name((qkv_type)p->q_type));
    if (p->n_seqs < 0 || p->n_pages < 1)
        REFUSE("n_seqs and n_pages are %d and %d; they must be at least 0 and 1", p->n_seqs,
               p->n_pages);
    if (p->n_seqs > 0 && (!p->seqs || !p->q || !p->table || !p->bounds || !p->kv_lens))
        REFUSE("seqs, q, table, bounds or kv_lens is NULL");
    for (int32_t i = 0; i < p->n_seqs; i++) {
        const qkv_cache_seq *seq = qkv_cache_find(cache, p->seqs[i]);
        if (!seq)
            return qkv_cache_refuse_id(p->seqs[i], say);
        if (seq->now.length == 0 || qkv_cache_kept_from(cache, &seq->now) > 0)
            REFUSE("sequence %d has %d tokens, and those below %lld were evicted", p->seqs[i],
                   seq->now.length, (long long)qkv_cache_kept_from(cache, &seq->now));
    }
    return QKV_OK;
#undef REFUSE
}

qkv_status qkv_cache_pick_pages(qkv_cache *cache, int32_t layer, const qkv_cache_pick *pick,
                                char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = check(cache, layer, pick, say);

    if (status != QKV_OK)
        return status;
    for (int32_t i = 0; i < pick->n_seqs; i++)
        for (int32_t h = 0; h < cache->config.n_kv_heads; h++)
            pick_one(cache, layer, pick, i, h);
    return qkv_accept(say);
}
