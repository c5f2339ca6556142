/*
 * cascade.c - a prefix read once for all sequences, and chosen pages only, against attention over
 * everything and against the formula.
 */
#include <math.h>
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { SEQS = 4, HQ = 6, HKV = 2, D = 32, P = 16 };

static qkv_cache_config config_of(int32_t format)
{
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = QKV_CACHE_POISON | QKV_CACHE_KEY_BOUNDS;
    c.n_kv_heads = HKV;
    c.head_dim = c.head_dim_v = D;
    c.k_format = c.v_format = format;
    c.page_tokens = P;
    c.n_pages = 60;
    c.max_seqs = SEQS + 1;
    return c;
}

static float *numbers(t_rng *rng, int n)
{
    float *x = t_scratch((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = (float)t_normal(rng);
    return x;
}

static void append(qkv_cache *cache, t_rng *rng, int32_t id, int32_t count)
{
    qkv_cache_rows r;

    expect(qkv_cache_reserve(cache, 1, &id, &count, TEXT), QKV_OK);
    qkv_cache_rows_init(&r);
    r.seqs = &id;
    r.k = numbers(rng, count * HKV * D);
    r.v = numbers(rng, count * HKV * D);
    r.k_stride[1] = r.v_stride[1] = D;
    r.k_stride[2] = r.v_stride[2] = HKV * D;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &id, NULL, TEXT), QKV_OK);
}

/* A plan in the memory of the case, run on one layer. */
static void run(const qkv_desc *d, qkv_args *a)
{
    const size_t bytes = qkv_plan_size(d);
    const qkv_plan *plan = NULL;
    char text[256] = "";

    t_check(qkv_explain(d, text, sizeof text) == QKV_OK, "%s", text);
    if (bytes == 0 || qkv_plan_init(t_scratch(bytes), bytes, d, &plan) != QKV_OK)
        return;
    a->workspace_bytes = qkv_workspace_size(plan, 1);
    a->workspace = t_alloc(a->workspace_bytes, 64, T_END, 0xff);
    expect(qkv_args_check(plan, a, 1, TEXT), QKV_OK);
    qkv_run(plan, a);
}

static const qkv_cache_view *view_of(qkv_cache *cache, const qkv_cache_select *s)
{
    const qkv_cache_view *view = NULL;
    const size_t bytes = qkv_cache_view_size(cache, s);
    expect(qkv_cache_view_init(t_alloc(bytes, 8, T_END, 0x77), bytes, cache, s, &view, TEXT),
           QKV_OK);
    return view;
}

/* One part's problem with q and o [rows][HQ][D] and lse [rows][HQ]; rows lie `row` apart as
 * sequences or, in a stack, as tokens. */
static void part(const qkv_cache_view *view, int stacked, const float *q, float *o, float *lse)
{
    qkv_desc d;
    qkv_args a;

    qkv_desc_init(&d);
    qkv_args_init(&a);
    d.n_q_heads = HQ;
    d.lse.type = QKV_F32;
    d.q.stride[stacked ? 2 : 0] = d.o.stride[stacked ? 2 : 0] = HQ * D;
    d.q.stride[stacked ? 0 : 2] = d.o.stride[stacked ? 0 : 2] = SEQS * HQ * D; /* one step */
    d.q.stride[1] = d.o.stride[1] = D;
    d.lse.stride[stacked ? 2 : 0] = HQ;
    d.lse.stride[stacked ? 0 : 2] = SEQS * HQ;
    d.lse.stride[1] = 1;
    expect(qkv_cache_view_desc(view, 0, &d), QKV_OK);
    expect(qkv_cache_view_args(view, 0, 0, &a), QKV_OK);
    a.q = q;
    a.o = o;
    a.lse = lse;
    run(&d, &a);
}

static void join(float *o[2], float *lse[2], float *out)
{
    const void *os[2] = {o[0], o[1]}, *ls[2] = {lse[0], lse[1]};
    qkv_merge_args m;

    qkv_merge_init(&m);
    m.n_parts = 2;
    m.n_heads = HQ;
    m.head_dim_v = D;
    m.n_tokens = SEQS;
    m.o_parts = os;
    m.lse_parts = ls;
    m.o_part_stride[1] = m.o_stride[1] = D;
    m.o_part_stride[2] = m.o_stride[2] = HQ * D;
    m.lse_part_stride[1] = 1;
    m.lse_part_stride[2] = HQ;
    m.o = out;
    expect(qkv_merge(&m, TEXT), QKV_OK);
}

static void cascade(int32_t format)
{
    const qkv_cache_config c = config_of(format);
    qkv_cache *cache = make_cache(&c);
    t_rng rng = t_rng_of(t_seed() + (uint64_t)format);
    int32_t parent = 0, ids[SEQS], ones[SEQS] = {1, 1, 1, 1}, all = SEQS;
    int64_t shared = 0;
    float *o[2], *lse[2];
    qkv_cache_select s;

    qkv_cache_add(cache, &parent, NULL, 0);
    append(cache, &rng, parent, 150);
    for (int b = 0; b < SEQS; b++) {
        expect(qkv_cache_fork(cache, parent, &ids[b], TEXT), QKV_OK);
        append(cache, &rng, ids[b], 3 + 20 * b);
    }
    const float *q = numbers(&rng, SEQS * HQ * D);
    float *full = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
    float *joined = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
    for (int p = 0; p < 2; p++) {
        o[p] = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
        lse[p] = t_alloc(SEQS * HQ * 4, 4, T_END, 0x77);
    }
    expect(qkv_cache_shared_prefix(cache, SEQS, ids, &shared, TEXT), QKV_OK);
    t_check(shared == 144, "%d tokens are shared", (int)shared);

    qkv_cache_select_init(&s);
    s.n_seqs = SEQS;
    s.seqs = ids;
    s.q_lens = ones;
    part(view_of(cache, &s), 0, q, full, lse[0]);
    s.from = shared;
    part(view_of(cache, &s), 0, q, o[0], lse[0]);
    qkv_cache_select_init(&s);
    s.seqs = ids;
    s.to = shared;
    s.q_lens = &all;
    s.causal = QKV_CAUSAL_NONE;
    part(view_of(cache, &s), 1, q, o[1], lse[1]);
    join(o, lse, joined);
    for (int i = 0; i < SEQS * HQ * D; i++)
        t_check(fabs((double)full[i] - (double)joined[i]) < 1e-5, "%d: %g, not %g", i,
                (double)joined[i], (double)full[i]);
    qkv_cache_destroy(cache);
}

void test_cascade(void)
{
    static const int32_t formats[] = {QKV_FORMAT_F32, QKV_FORMAT_BF16, QKV_FORMAT_INT8,
                                      QKV_FORMAT_INT4};
    for (int i = 0; i < 4; i++)
        if (t_case("%s", qkv_format_name(formats[i])))
            cascade(formats[i]);
}

/* ---- sparse ----------------------------------------------------------------------------- */

/* softmax over the tokens of the chosen pages, by the formula. */
static void formula(const float *q, const float *k, const float *v, const int32_t *logical, int n,
                    int length, double out[D])
{
    double sum = 0, top = -INFINITY, s[64 * P];
    int tokens[64 * P], count = 0;

    for (int i = 0; i < n && logical[i] >= 0; i++)
        for (int t = logical[i] * P; t < (logical[i] + 1) * P && t < length; t++)
            tokens[count++] = t;
    for (int i = 0; i < count; i++) {
        s[i] = 0;
        for (int c = 0; c < D; c++)
            s[i] += (double)q[c] * (double)k[tokens[i] * HKV * D + c];
        s[i] /= sqrt((double)D);
        top = fmax(top, s[i]);
    }
    memset(out, 0, D * sizeof *out);
    for (int i = 0; i < count; i++) {
        const double e = exp(s[i] - top);
        sum += e;
        for (int c = 0; c < D; c++)
            out[c] += e * (double)v[tokens[i] * HKV * D + c];
    }
    for (int c = 0; c < D; c++)
        out[c] /= sum;
}

/* Ragged sequences in one cache, and one query of each. */
typedef struct world {
    qkv_cache *cache;
    int32_t ids[SEQS], lens[SEQS], kv_lens[SEQS];
    const float *q;
    qkv_cache_pick pick;
} world;

static void make_world(world *w, int32_t format, int n)
{
    const qkv_cache_config c = config_of(format);
    t_rng rng = t_rng_of(t_seed() + (uint64_t)format);
    qkv_cache_pick *p = &w->pick;

    w->cache = make_cache(&c);
    for (int b = 0; b < SEQS; b++) {
        qkv_cache_add(w->cache, &w->ids[b], NULL, 0);
        w->lens[b] = 1 + 65 * b;
        append(w->cache, &rng, w->ids[b], w->lens[b]);
    }
    w->q = numbers(&rng, SEQS * HQ * D);
    qkv_cache_pick_init(p);
    p->n_seqs = SEQS;
    p->seqs = w->ids;
    p->n_q_heads = HQ;
    p->q = w->q;
    p->q_stride[0] = HQ * D;
    p->q_stride[1] = D;
    p->n_pages = n;
    p->table = t_alloc((size_t)(SEQS * HKV * n) * 4, 4, T_END, 0x77);
    p->logical = t_alloc((size_t)(SEQS * HKV * n) * 4, 4, T_END, 0x77);
    p->bounds = t_alloc((size_t)(SEQS * HKV * n) * 4, 4, T_END, 0x77);
    p->kv_lens = w->kv_lens;
    expect(qkv_cache_pick_pages(w->cache, 0, p, TEXT), QKV_OK);
}

/* Attention over the chosen pages, as qkv/cache_view.h says. */
static void run_sparse(const world *w, float *o)
{
    const int32_t n = w->pick.n_pages;
    qkv_cache_select s;
    qkv_desc d;
    qkv_args a;

    qkv_cache_select_init(&s);
    s.n_seqs = SEQS;
    s.seqs = w->ids;
    const qkv_cache_view *view = view_of(w->cache, &s);
    qkv_desc_init(&d);
    qkv_args_init(&a);
    d.n_q_heads = HQ;
    d.q.stride[0] = d.o.stride[0] = d.q.stride[2] = d.o.stride[2] = HQ * D;
    d.q.stride[1] = d.o.stride[1] = D;
    qkv_cache_view_desc(view, 0, &d);
    qkv_cache_view_args(view, 0, 0, &a);
    d.q_len = 1;
    d.q_lens = d.q_offsets = d.kv_starts = NULL;
    d.kv_lens = w->kv_lens;
    d.kv_len = n * P;
    d.block_table_stride[0] = HKV * n;
    d.block_table_stride[1] = n;
    a.block_table = w->pick.table;
    a.q = w->q;
    a.o = o;
    run(&d, &a);
}

static void check_sparse(const world *w, int b, const float *o)
{
    const int64_t stride[2] = {D, HKV * D};
    const int n = w->pick.n_pages, length = w->lens[b];
    float *k = t_scratch((size_t)length * HKV * D * 4),
          *v = t_scratch((size_t)length * HKV * D * 4);
    double want[D];

    expect(qkv_cache_read(w->cache, 0, w->ids[b], 0, length, QKV_F32, k, stride, v, stride, TEXT),
           QKV_OK);
    for (int h = 0; h < HQ; h++) {
        const int g = h / (HQ / HKV);
        const int32_t *logical = w->pick.logical + (b * HKV + g) * n;
        formula(w->q + (b * HQ + h) * D, k + g * D, v + g * D, logical, n, length, want);
        for (int i = 0; i < D; i++)
            t_check(fabs((double)o[(b * HQ + h) * D + i] - want[i]) < 1e-5, "sequence %d head %d",
                    b, h);
    }
}

static void sparse(int32_t format, int n)
{
    float *o = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
    world w;

    make_world(&w, format, n);
    run_sparse(&w, o);
    for (int b = 0; b < SEQS; b++)
        check_sparse(&w, b, o);
    qkv_cache_destroy(w.cache);
}

void test_sparse(void)
{
    static const int32_t formats[] = {QKV_FORMAT_F32, QKV_FORMAT_BF16, QKV_FORMAT_INT8};
    for (int i = 0; i < 3; i++)
        for (int n = 1; n <= 16; n = n * 2 + 1)
            if (t_case("%s %d pages", qkv_format_name(formats[i]), n))
                sparse(formats[i], n);
}
