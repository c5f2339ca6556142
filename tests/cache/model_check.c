/*
 * model_check.c - the cache read back: by qkv_cache_read, and through views as a kernel would.
 *
 * The second way follows qkv/attention.h and nothing else: block table, strides, types, scales.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* ---- qkv_cache_read --------------------------------------------------------------------- */

static int same(const float *a, const float *b, int n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

static void check_tokens(model *m, const m_seq *s, qkv_cache *cache, int32_t id, int from, int to)
{
    const int d = m->c.head_dim, dv = m->c.head_dim_v, heads = m->c.n_kv_heads, n = to - from;
    static float k[M_TOKENS * M_HEADS * M_DIM], v[M_TOKENS * M_HEADS * M_DIM];
    const int by_head = t_chance(&m->rng, 50);
    const int64_t k_stride[2] = {by_head ? (int64_t)n * d : d, by_head ? d : heads * d};
    const int64_t v_stride[2] = {by_head ? (int64_t)n * dv : dv, by_head ? dv : heads * dv};

    if (n <= 0)
        return;
    for (int layer = 0; layer < m->c.n_layers; layer++) {
        expect(qkv_cache_read(cache, layer, id, from, n, QKV_F32, k, k_stride, v, v_stride, TEXT),
               QKV_OK);
        for (int h = 0; h < heads; h++)
            for (int t = 0; t < n; t++) {
                const float *want = m_at(m, s, from + t, layer, h);
                t_check(same(k + h * k_stride[0] + t * k_stride[1], want, d),
                        "key %d of sequence %d, layer %d, head %d", from + t, id, layer, h);
                t_check(same(v + h * v_stride[0] + t * v_stride[1], want + d, dv),
                        "value %d of sequence %d, layer %d, head %d", from + t, id, layer, h);
            }
    }
}

void m_check_seq(model *m, const m_seq *s, qkv_cache *cache, int32_t id)
{
    const int kept = m_kept_from(m, s), sinks = m->c.sink_tokens;
    float x[M_HEADS * M_DIM];
    const int64_t stride[2] = {M_DIM, M_DIM};

    check_tokens(m, s, cache, id, 0, kept == 0 ? s->length : sinks < s->length ? sinks : s->length);
    if (kept == 0)
        return;
    check_tokens(m, s, cache, id, kept, s->length);
    expect(qkv_cache_read(cache, 0, id, kept - 1, 1, QKV_F32, x, stride, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
}

/* ---- views ------------------------------------------------------------------------------ */

/* One side of a part as attention sees it. */
typedef struct tensor {
    const qkv_layout *codes, *scale, *min;
    const void *base, *scales, *mins;
    int32_t group, dim;
} tensor;

static double number(const void *base, int32_t type, int64_t at)
{
    float x;
    if (type == QKV_F32)
        return (double)((const float *)base)[at];
    qkv_convert(&x, QKV_F32, (const uint16_t *)base + at, (qkv_type)type, 1);
    return (double)x;
}

/* Channel c of the row at page, head, token. */
static float value(const tensor *t, int64_t page, int64_t head, int64_t token, int c)
{
    const int64_t *s = t->codes->stride, at = page * s[0] + head * s[1] + token * s[2];
    const unsigned char *bytes = t->base;

    if (t->codes->type == QKV_F32 || t->codes->type == QKV_F16 || t->codes->type == QKV_BF16)
        return (float)number(t->base, t->codes->type, at + c);
    const int64_t *g = t->scale->stride;
    const int64_t scale_at = page * g[0] + head * g[1] + token * g[2] + c / t->group * g[3];
    const float scale = (float)number(t->scales, t->scale->type, scale_at);
    if (t->codes->type == QKV_I8)
        return (float)(int8_t)bytes[at + c] * scale;
    if (t->codes->type == QKV_E4M3)
        return qkv_f32_of_e4m3(bytes[at + c]) * scale;
    if (t->codes->type == QKV_E5M2)
        return qkv_f32_of_e5m2(bytes[at + c]) * scale;
    const float min = (float)number(t->mins, t->min->type, scale_at);
    return min + (float)(bytes[at + c / 2] >> (c % 2 * 4) & 15) * scale;
}

static tensor tensor_of(const qkv_layout *codes, const qkv_layout *scale, const qkv_layout *min,
                        const void *base, const void *scales, const void *mins, int32_t group,
                        int32_t dim)
{
    const tensor t = {codes, scale, min, base, scales, mins, group ? group : dim, dim};
    return t;
}

static void check_key(const model *m, const qkv_desc *d, const qkv_args *a, const m_seq *s,
                      int layer, int64_t page, int64_t at, int token)
{
    const int codes = d->head_dim - d->rope_dim;
    const tensor k =
        tensor_of(&d->k, &d->k_scale, &d->k_min, a->k, a->k_scale, a->k_min, d->k_group, codes);
    const tensor v = tensor_of(&d->v, &d->v_scale, &d->v_min, a->v, a->v_scale, a->v_min,
                               d->v_group, d->head_dim_v);
    const tensor rope = tensor_of(&d->k_rope, NULL, NULL, a->k_rope, NULL, NULL, 0, d->rope_dim);

    for (int h = 0; h < m->c.n_kv_heads; h++) {
        const float *want = m_at(m, s, token, layer, h);
        for (int c = 0; c < d->head_dim; c++) {
            const float got =
                c < codes ? value(&k, page, h, at, c) : value(&rope, page, h, at, c - codes);
            t_check(got == want[c],
                    "view: key %d of sequence %d, layer %d, head %d, channel %d is %g, not %g",
                    token, s->id, layer, h, c, (double)got, (double)want[c]);
        }
        for (int c = 0; c < d->head_dim_v; c++)
            t_check(value(&v, page, h, at, c) == want[d->head_dim + c],
                    "view: value %d of sequence %d, layer %d, head %d, channel %d", token, s->id,
                    layer, h, c);
    }
}

/* A selection that was viewed: the model's sequences and the number of queries of each. */
typedef struct selection {
    m_seq *list[M_SEQS];
    int32_t ids[M_SEQS], q_lens[M_SEQS];
    int n, from, to;
} selection;

/* Marks the tokens of sequence i that a part shows. */
static void check_row(model *m, const selection *sel, const qkv_desc *d, const qkv_args *a,
                      int layer, int i, uint8_t *seen)
{
    const m_seq *s = sel->list[i];
    const int first_query = s->length - sel->q_lens[i], shift = first_query - d->q_offsets[i];
    const int lo = d->kv_starts ? d->kv_starts[i] : 0, hi = d->kv_lens[i];

    t_check(lo <= hi && hi <= d->kv_len, "keys %d .. %d of %d", lo, hi, (int)d->kv_len);
    for (int j = lo; j < hi; j++) {
        const int32_t page = a->block_table[i * d->block_table_stride[0] + j / d->page_tokens];
        const int token = j + shift;
        t_check(page >= 0 && page < d->n_pages, "page %d of %d", page, d->n_pages);
        if (token < 0 || token >= s->length || page < 0 || page >= d->n_pages) {
            t_fail("token %d of %d", token, s->length);
            return;
        }
        t_check(!seen[token], "token %d is in two parts", token);
        seen[token] = 1;
        check_key(m, d, a, s, layer, page, j % d->page_tokens, token);
    }
    t_check(hi == lo || shift % 128 == 0 || (m->c.flags & QKV_CACHE_CONTIGUOUS), "shift %d", shift);
}

/* Every token that a query must see is in one part, and none that was evicted or not selected. */
static void check_seen(const model *m, const selection *sel, int i, const uint8_t *seen)
{
    const m_seq *s = sel->list[i];
    const int kept = m_kept_from(m, s), first = s->length - sel->q_lens[i];
    const int oldest = m->c.window_left == QKV_UNBOUNDED ? 0 : first - (int)m->c.window_left;

    for (int t = 0; t < s->length; t++) {
        const int selected = t >= sel->from && t < sel->to;
        const int there = t < m->c.sink_tokens || t >= kept;
        const int needed = selected && (t < m->c.sink_tokens || (t >= oldest && t >= s->start));
        t_check(!seen[t] || (selected && there), "token %d of sequence %d is shown", t, s->id);
        t_check(seen[t] || !needed || sel->q_lens[i] == 0, "token %d of sequence %d is not shown",
                t, s->id);
    }
}

static void check_parts(model *m, const selection *sel, const qkv_cache_view *view)
{
    const int parts = qkv_cache_view_parts(view);
    static uint8_t seen[M_SEQS][M_TOKENS];

    memset(seen, 0, sizeof seen);
    for (int p = 0; p < parts; p++) {
        const int layer = (int)t_below(&m->rng, m->c.n_layers);
        qkv_desc d;
        qkv_args a;
        qkv_desc_init(&d);
        qkv_args_init(&a);
        expect(qkv_cache_view_desc(view, p, &d), QKV_OK);
        expect(qkv_cache_view_args(view, p, layer, &a), QKV_OK);
        t_check(d.n_seqs == sel->n && d.n_kv_heads == m->c.n_kv_heads &&
                    d.head_dim == m->c.head_dim && d.head_dim_v == m->c.head_dim_v,
                "sizes");
        t_check(d.window_left == (parts > 1 + m_has_open(m) && p < 1 + m_has_open(m)
                                      ? QKV_UNBOUNDED
                                      : m->c.window_left),
                "window %d of part %d", (int)d.window_left, p);
        for (int i = 0; i < sel->n; i++) {
            t_check((d.q_lens ? d.q_lens[i] : d.q_len) == sel->q_lens[i], "queries of %d", i);
            check_row(m, sel, &d, &a, layer, i, seen[i]);
        }
    }
    for (int i = 0; i < sel->n; i++)
        check_seen(m, sel, i, seen[i]);
}

/* Does a window of one of the queries reach back to what is gone? */
static int too_late(const model *m, const selection *sel)
{
    for (int i = 0; i < sel->n; i++) {
        const m_seq *s = sel->list[i];
        const int page = s->first_page * m->c.page_tokens;
        const int oldest = s->length - sel->q_lens[i] - (int)m->c.window_left;
        if (sel->q_lens[i] > 0 && m->c.window_left != QKV_UNBOUNDED &&
            m_in_gap(m, s, m_head_pages(m)) && s->start < page && oldest < page)
            return 1;
    }
    return 0;
}

void m_check_view(model *m)
{
    selection sel;
    qkv_cache_select q;
    const qkv_cache_view *view = NULL;
    char text[256];

    memset(&sel, 0, sizeof sel);
    sel.to = INT32_MAX;
    qkv_cache_select_init(&q);
    const int by_default = t_chance(&m->rng, 50);
    for (int i = 0; i < M_SEQS; i++)
        if (m->seq[i].live && t_chance(&m->rng, 70)) {
            m_seq *s = &m->seq[i];
            sel.list[sel.n] = s;
            sel.ids[sel.n] = s->id;
            sel.q_lens[sel.n++] =
                by_default ? s->length - s->committed
                           : (int32_t)t_below(&m->rng, (s->length < 4 ? s->length : 4) + 1);
        }
    if (t_chance(&m->rng, 30)) {
        q.from = sel.from = (int)t_below(&m->rng, 100);
        q.to = sel.to = sel.from + (int)t_below(&m->rng, 200);
    }
    q.n_seqs = sel.n;
    q.seqs = sel.ids;
    q.q_lens = by_default ? NULL : sel.q_lens;
    const size_t bytes = qkv_cache_view_size(m->cache, &q);
    void *mem = t_alloc(bytes, 8, T_END, 0x77);
    const qkv_status want = too_late(m, &sel) ? QKV_ERR_ARGUMENT : QKV_OK;
    const qkv_status got = qkv_cache_view_init(mem, bytes, m->cache, &q, &view, text, sizeof text);
    t_check(got == want && (bytes == 0) == (want != QKV_OK), "view gave %s: %s",
            qkv_status_name(got), text);
    if (got == QKV_OK)
        check_parts(m, &sel, view);
    if (got == QKV_OK)
        expect(qkv_cache_view_init(mem, bytes - 8, m->cache, &q, &view, TEXT), QKV_ERR_BUFFER);
}
