/* attend.c - attention over views of every kind against the oracle. */
#include <string.h>

#include "attend.h"
#include "small.h"

static const qkv_cache_view *view_of_all(world *w)
{
    qkv_cache_select s;

    qkv_cache_select_init(&s);
    s.n_seqs = B;
    s.seqs = w->ids;
    return small_view(w->cache, &s);
}

/* q and o [B][Hq][Tq][D], lse; everything else is the view's. */
static qkv_desc queries(const world *w, int sinks, double cap)
{
    qkv_desc d;

    qkv_desc_init(&d);
    d.n_seqs = B;
    d.n_q_heads = w->hq;
    d.n_kv_heads = w->c.n_kv_heads;
    d.head_dim = w->c.head_dim;
    d.head_dim_v = w->c.head_dim_v;
    d.q_len = w->tq;
    d.softcap = cap;
    d.lse.type = QKV_F32;
    if (sinks) {
        d.sinks.type = QKV_F32;
        d.sinks.stride[1] = 1;
    }
    qkv_desc_dense(&d, QKV_F32, QKV_BHTD);
    return d;
}

static void attend(world *w, const int64_t *start, int parts, qkv_pool *pool)
{
    const qkv_cache_view *view = view_of_all(w);
    const int with_sinks = t_chance(&w->rng, 40);
    const double cap = t_chance(&w->rng, 30) ? 15 : 0;
    const qkv_desc d = queries(w, with_sinks, cap);
    const size_t rows = (size_t)(B * w->hq * w->tq);
    const float *q = numbers(&w->rng, rows * (size_t)w->c.head_dim, 1.5);
    const float *sinks = with_sinks ? numbers(&w->rng, (size_t)w->hq, 2) : NULL;
    const size_t bytes = view ? qkv_cache_plan_size(view, &d) : 0;
    const qkv_cache_plan *plan = NULL;
    const qkv_parallel parallel = pool ? qkv_pool_parallel(pool) : (qkv_parallel){1, NULL, NULL};
    char text[256] = "";
    qkv_args a;

    if (!view)
        return;
    t_check(qkv_cache_view_parts(view) == parts, "%d parts", qkv_cache_view_parts(view));
    if (qkv_cache_plan_init(t_alloc(bytes, 64, T_END, 0x77), bytes, view, &d, &plan, text,
                            sizeof text) != QKV_OK) {
        t_fail("no plan: %s", text);
        return;
    }
    qkv_args_init(&a);
    a.q = q;
    a.sinks = sinks;
    a.workspace_bytes = qkv_cache_workspace_size(plan, parallel.n_workers);
    a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0xff);
    const uint8_t *mask = world_mask(w, start);
    for (int layer = 0; layer < w->c.n_layers; layer++) {
        dense want;
        a.o = t_alloc(rows * (size_t)w->c.head_dim_v * 4, 4, T_END, 0x77);
        a.lse = t_alloc(rows * 4, 4, T_END, 0x77);
        expect(qkv_cache_run(plan, layer, &a, pool ? &parallel : NULL, TEXT), QKV_OK);
        world_solve(w, layer, q, mask, sinks, cap, &want);
        world_compare(w, &want, a.o, a.lse, layer);
    }
    expect(qkv_cache_run(plan, w->c.n_layers, &a, NULL, TEXT), QKV_ERR_ARGUMENT);
    a.workspace_bytes -= 64;
    expect(qkv_cache_run(plan, 0, &a, pool ? &parallel : NULL, TEXT), QKV_ERR_BUFFER);
}

/* ---- kinds of caches -------------------------------------------------------------------- */

static qkv_cache_config base(int32_t k_format, int32_t v_format)
{
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = QKV_CACHE_POISON;
    c.n_layers = LAYERS;
    c.n_kv_heads = 2;
    c.head_dim = 48;
    c.head_dim_v = 40;
    c.k_format = k_format;
    c.v_format = v_format;
    c.page_tokens = 16;
    c.n_pages = c.n_open_pages = 80;
    c.max_seqs = B;
    return c;
}

static void run(const qkv_cache_config *c, int group, int tq, int parts, int64_t evict,
                qkv_pool *pool)
{
    world w;
    int64_t start[B] = {0, 0, 0};

    w.rng = t_rng_of(t_seed() * 31 + (uint64_t)(c->k_format * 9 + c->v_format + tq));
    world_grow(&w, c, group, tq);
    for (int b = 1; evict > 0 && b < B; b++) {
        expect(qkv_cache_evict(w.cache, w.ids[b], evict, TEXT), QKV_OK);
        start[b] = evict;
    }
    attend(&w, start, parts, pool);
    qkv_cache_destroy(w.cache);
}

static void formats(void)
{
    for (int32_t k = QKV_FORMAT_F32; k <= QKV_FORMAT_E5M2; k++)
        for (int tq = 1; tq <= 20; tq += 19)
            if (t_case("k=%s v=%s Tq%d", qkv_format_name(k),
                       qkv_format_name(k == QKV_FORMAT_INT8_CHANNEL ? QKV_FORMAT_INT8 : k), tq)) {
                const qkv_cache_config c =
                    base(k, k == QKV_FORMAT_INT8_CHANNEL ? QKV_FORMAT_INT8 : k);
                run(&c, 3, tq, k == QKV_FORMAT_INT8_CHANNEL ? 2 : 1, 0, NULL);
            }
    for (int32_t k = QKV_FORMAT_INT8; k <= QKV_FORMAT_E5M2; k++)
        if (k != QKV_FORMAT_INT8_CHANNEL &&
            t_case("%s in groups, or by head", qkv_format_name(k))) {
            qkv_cache_config c = base(k, k);
            c.k_group = c.v_group = k >= QKV_FORMAT_E4M3 ? 0 : 32;
            c.k_scale = c.v_scale = k >= QKV_FORMAT_E4M3 ? QKV_SCALE_HEAD : QKV_SCALE_TOKEN;
            run(&c, 4, 2, 1, 0, NULL);
        }
    if (t_case("mixed")) {
        const qkv_cache_config c = base(QKV_FORMAT_INT4, QKV_FORMAT_F16);
        run(&c, 2, 3, 1, 0, NULL);
    }
}

static void layouts(qkv_pool *pool)
{
    for (int32_t p = 16; p <= 256; p *= 4)
        if (t_case("pages of %d, threads", p)) {
            qkv_cache_config c = base(QKV_FORMAT_BF16, QKV_FORMAT_INT8);
            c.page_tokens = p;
            run(&c, 4, 5, 1, 0, pool);
        }
    if (t_case("contiguous")) {
        qkv_cache_config c = base(QKV_FORMAT_BF16, QKV_FORMAT_BF16);
        c.flags |= QKV_CACHE_CONTIGUOUS;
        c.page_tokens = 400;
        c.n_pages = 4;
        run(&c, 4, 5, 1, 0, pool);
    }
    for (int32_t k = QKV_FORMAT_BF16; k <= QKV_FORMAT_E4M3; k++)
        if (t_case("latent %s", qkv_format_name(k))) {
            qkv_cache_config c = base(k, QKV_FORMAT_BF16);
            c.flags |= QKV_CACHE_LATENT;
            c.n_kv_heads = 1;
            c.head_dim = 160;
            c.head_dim_v = 128;
            c.k_group = k == QKV_FORMAT_BF16 || k == QKV_FORMAT_INT8_CHANNEL ? 0 : 64;
            run(&c, 12, 2, k == QKV_FORMAT_INT8_CHANNEL ? 2 : 1, 0, pool);
        }
}

static void windows(void)
{
    static const int32_t ks[] = {QKV_FORMAT_F32, QKV_FORMAT_INT8_CHANNEL};

    for (int f = 0; f < 2; f++)
        for (int sinks = 0; sinks <= 21; sinks += 7)
            for (int window = 0; window <= 200; window = window * 2 + 19)
                if (t_case("%s window %d, %d sinks", qkv_format_name(ks[f]), window, sinks)) {
                    qkv_cache_config c = base(ks[f], QKV_FORMAT_F32);
                    c.window_left = window;
                    c.sink_tokens = sinks;
                    run(&c, 2, 4, (sinks ? 2 : 1) * (f ? 2 : 1), 0, NULL);
                }
    for (int sinks = 0; sinks <= 9; sinks += 9)
        if (t_case("evicted, %d sinks", sinks)) {
            qkv_cache_config c = base(QKV_FORMAT_INT8, QKV_FORMAT_F32);
            c.sink_tokens = sinks;
            run(&c, 2, 4, sinks ? 2 : 1, 77, NULL);
        }
}

/* ---- same bits -------------------------------------------------------------------------- */

/* One sequence, in steps of 10 tokens; all but the last 10 are committed. */
static void grow_one(world *w, const qkv_cache_config *c, int tokens)
{
    w->rng = t_rng_of(5);
    w->c = *c;
    w->cache = make_cache(c);
    w->hq = 4;
    expect(qkv_cache_add(w->cache, &w->ids[0], TEXT), QKV_OK);
    for (int i = 0; i < tokens; i += 10) {
        world_append(w, w->ids[0], 10);
        if (i + 10 < tokens)
            expect(qkv_cache_commit(w->cache, 1, w->ids, NULL, TEXT), QKV_OK);
    }
}

/* A decoding step after 820 tokens.  With a window the cache evicts; without one it does not, and
 * the window is only described.  Returns o. */
static float *step(int32_t page_tokens, int evicts, int64_t window)
{
    static const int32_t one = 1;
    qkv_cache_config c = base(QKV_FORMAT_BF16, QKV_FORMAT_INT8);
    qkv_cache_select s;
    qkv_desc d;
    qkv_args a;
    world w;

    c.page_tokens = page_tokens;
    c.window_left = evicts ? window : QKV_UNBOUNDED;
    grow_one(&w, &c, 820);
    qkv_cache_select_init(&s);
    s.seqs = w.ids;
    s.q_lens = &one;
    const qkv_cache_view *view = small_view(w.cache, &s);
    qkv_desc_init(&d);
    qkv_args_init(&a);
    d.n_q_heads = w.hq;
    d.q.stride[1] = c.head_dim;
    d.o.stride[1] = c.head_dim_v;
    expect(qkv_cache_view_desc(view, 0, &d), QKV_OK);
    expect(qkv_cache_view_args(view, 0, 0, &a), QKV_OK);
    d.window_left = window;
    a.q = numbers(&w.rng, (size_t)(w.hq * c.head_dim), 1.5);
    a.o = t_scratch((size_t)(w.hq * c.head_dim_v) * 4);
    small_run(&d, &a);
    qkv_cache_destroy(w.cache);
    return a.o;
}

/* What was evicted, and how pages are cut, must not show in a single bit. */
static void same_bits(void)
{
    static const int64_t left[] = {0, 15, 100, 300};

    for (int i = 0; i < 4; i++)
        if (t_case("same bits, window %d", (int)left[i])) {
            const float *want = step(16, 0, left[i]);
            for (int32_t p = 16; p <= 256; p = p == 16 ? 48 : p * 2) {
                const float *got = step(p, 1, left[i]);
                t_check(memcmp(want, got, 4 * 40 * sizeof *got) == 0, "pages of %d", p);
            }
        }
}

void test_attend(void)
{
    qkv_pool *pool = NULL;

    formats();
    windows();
    same_bits();
    qkv_pool_create(2, NULL, &pool);
    layouts(pool);
    qkv_pool_destroy(pool);
}
