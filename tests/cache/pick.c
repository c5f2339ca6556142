/*
 * pick.c - key bounds hold, and the pages chosen are those with the highest bounds.
 *
 * Bounds are recomputed here from what qkv_cache_read gives, so quantised keys count as they are
 * stored; the cache's own may be looser by one step of bf16, never tighter.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { P = 16, D = 40, HEADS = 2, GROUP = 3, MAX = 30 };

typedef struct world {
    qkv_cache *cache;
    int32_t seq;
    int pages;
    float q[HEADS * GROUP * D];
    float k[MAX * P][HEADS][D]; /* as stored */
} world;

static void make_world(world *w, t_rng *rng, int32_t format, int tokens)
{
    static float rows[MAX * P * HEADS * D];
    qkv_cache_config c = small_config();
    const int64_t stride[2] = {D, HEADS * D};
    const int32_t count = tokens;
    qkv_cache_rows r;

    c.flags |= QKV_CACHE_KEY_BOUNDS;
    c.n_layers = 1;
    c.n_kv_heads = HEADS;
    c.head_dim = c.head_dim_v = D;
    c.k_format = format;
    c.n_pages = MAX + 1;
    w->cache = make_cache(&c);
    w->pages = (tokens + P - 1) / P;
    for (int i = 0; i < tokens * HEADS * D; i++)
        rows[i] = (float)(t_normal(rng) * (i / (P * HEADS * D) % 4 + 1));
    for (int i = 0; i < HEADS * GROUP * D; i++)
        w->q[i] = t_chance(rng, 10) ? 0 : (float)t_normal(rng);
    expect(qkv_cache_add(w->cache, &w->seq, TEXT), QKV_OK);
    expect(qkv_cache_reserve(w->cache, 1, &w->seq, &count, TEXT), QKV_OK);
    qkv_cache_rows_init(&r);
    r.seqs = &w->seq;
    r.k = r.v = rows;
    r.k_stride[1] = r.v_stride[1] = D;
    r.k_stride[2] = r.v_stride[2] = HEADS * D;
    expect(qkv_cache_write(w->cache, 0, &r, TEXT), QKV_OK);
    expect(qkv_cache_read(w->cache, 0, w->seq, 0, tokens, QKV_F32, w->k, stride, NULL, NULL, TEXT),
           QKV_OK);
}

/* The highest score a page could give, from its true ranges; and the highest it does give. */
static double true_bound(const world *w, int page, int tokens, int head, double *score)
{
    double best = -INFINITY;
    *score = -INFINITY;
    for (int g = 0; g < GROUP; g++) {
        const float *q = w->q + (head * GROUP + g) * D;
        double bound = 0;
        for (int c = 0; c < D; c++) {
            double low = INFINITY, high = -INFINITY;
            for (int t = page * P; t < tokens && t < (page + 1) * P; t++) {
                low = fmin(low, (double)w->k[t][head][c]);
                high = fmax(high, (double)w->k[t][head][c]);
            }
            bound += fmax((double)q[c] * low, (double)q[c] * high);
        }
        best = fmax(best, bound);
        for (int t = page * P; t < tokens && t < (page + 1) * P; t++) {
            double s = 0;
            for (int c = 0; c < D; c++)
                s += (double)q[c] * (double)w->k[t][head][c];
            *score = fmax(*score, s);
        }
    }
    return best;
}

/* What a step of bf16 in every channel may add. */
static double loose(double bound) { return 0.01 * fabs(bound) + 0.02 * D; }

static void check_head(const world *w, const qkv_cache_pick *p, int head, int tokens)
{
    const int32_t *logical = p->logical + head * p->n_pages;
    const float *bounds = p->bounds + head * p->n_pages;
    const int n = p->n_pages < w->pages ? p->n_pages : w->pages;
    double least = INFINITY, score;

    for (int i = 0; i < n; i++) {
        const double bound = true_bound(w, logical[i], tokens, head, &score);
        t_check(i == 0 || logical[i] > logical[i - 1], "pages %d, %d", logical[i - 1], logical[i]);
        t_check((double)bounds[i] >= score - 1e-4, "page %d: bound %g, score %g", logical[i],
                (double)bounds[i], score);
        t_check(logical[i] == w->pages - 1 || fabs((double)bounds[i] - bound) < loose(bound),
                "page %d: bound %g, not %g", logical[i], (double)bounds[i], bound);
        least = fmin(least, (double)bounds[i]);
    }
    t_check(logical[n - 1] == w->pages - 1, "the newest page is missing");
    for (int page = 0, i = 0; page < w->pages; page++) { /* those left out have lower bounds */
        i += i < n && logical[i] < page;
        if (i < n && logical[i] == page)
            continue;
        t_check(true_bound(w, page, tokens, head, &score) <= least + loose(least),
                "page %d is left out", page);
    }
    for (int i = n; i < p->n_pages; i++)
        t_check(logical[i] == -1 &&
                    p->table[head * p->n_pages + i] == p->table[head * p->n_pages + n - 1],
                "entry %d", i);
}

static qkv_cache_pick pick_of(const world *w, int n, int32_t *table, int32_t *logical,
                              float *bounds, int32_t *kv_len)
{
    qkv_cache_pick p;

    qkv_cache_pick_init(&p);
    p.seqs = &w->seq;
    p.n_q_heads = HEADS * GROUP;
    p.q = w->q;
    p.q_stride[1] = D;
    p.n_pages = n;
    p.table = table;
    p.logical = logical;
    p.bounds = bounds;
    p.kv_lens = kv_len;
    return p;
}

static void one(t_rng *rng, int32_t format, int tokens, int n_pages)
{
    static world w;
    qkv_cache_pick p;
    int32_t kv_len = 0;

    make_world(&w, rng, format, tokens);
    p = pick_of(&w, n_pages, t_alloc(sizeof(int32_t) * (size_t)(HEADS * n_pages), 4, T_END, 0x77),
                t_alloc(sizeof(int32_t) * (size_t)(HEADS * n_pages), 4, T_END, 0x77),
                t_alloc(sizeof(float) * (size_t)(HEADS * n_pages), 4, T_END, 0x77), &kv_len);
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_OK);
    const int n = n_pages < w.pages ? n_pages : w.pages;
    t_check(kv_len == (n - 1) * P + tokens - (w.pages - 1) * P, "kv_len %d", kv_len);
    for (int h = 0; h < HEADS; h++)
        check_head(&w, &p, h, tokens);
    qkv_cache_destroy(w.cache);
}

static void refusals(t_rng *rng)
{
    static world w;
    qkv_cache_pick p;
    int32_t table[HEADS], kv_len;
    float bounds[HEADS];

    make_world(&w, rng, QKV_FORMAT_F32, 20);
    qkv_cache_pick_init(&p);
    p.seqs = &w.seq;
    p.n_q_heads = HEADS;
    p.q = w.q;
    p.n_pages = 1;
    p.table = table;
    p.bounds = bounds;
    p.kv_lens = &kv_len;
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_OK);
    expect(qkv_cache_pick_pages(w.cache, 1, &p, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_pick_pages(w.cache, 0, NULL, TEXT), QKV_ERR_ARGUMENT);
    p.n_q_heads = 3;
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_ERR_ARGUMENT);
    p.n_q_heads = HEADS;
    p.n_pages = 0;
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_ERR_ARGUMENT);
    p.n_pages = 1;
    p.q = NULL;
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_ERR_ARGUMENT);
    p.q = w.q;
    expect(qkv_cache_reset(w.cache, w.seq), QKV_OK);
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_config c = small_config();
    qkv_cache *plain = make_cache(&c);
    expect(qkv_cache_pick_pages(plain, 0, &p, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(plain);
    c.flags |= QKV_CACHE_KEY_BOUNDS;
    c.k_format = QKV_FORMAT_INT8_CHANNEL;
    plain = make_cache(&c);
    expect(qkv_cache_pick_pages(plain, 0, &p, TEXT), QKV_ERR_UNSUPPORTED);
    qkv_cache_destroy(plain);
    qkv_cache_destroy(w.cache);
}

/* Where all keys of a page are one key, its bound is that key's score, rounded outwards. */
static void outwards(t_rng *rng)
{
    static world w;
    static float rows[4 * P][HEADS][D];
    const int32_t count = 4 * P;
    int32_t table[4 * HEADS], logical[4 * HEADS], kv_len;
    float bounds[4 * HEADS];
    double score;
    qkv_cache_rows r;
    qkv_cache_pick p;

    make_world(&w, rng, QKV_FORMAT_F32, 1);
    expect(qkv_cache_reset(w.cache, w.seq), QKV_OK);
    expect(qkv_cache_reserve(w.cache, 1, &w.seq, &count, TEXT), QKV_OK);
    for (int t = 0; t < 4 * P; t++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < D; i++)
                rows[t][h][i] = t % P ? rows[t - 1][h][i] : (float)t_normal(rng);
    memcpy(w.k, rows, sizeof rows);
    qkv_cache_rows_init(&r);
    r.seqs = &w.seq;
    r.k = r.v = rows;
    r.k_stride[1] = r.v_stride[1] = D;
    r.k_stride[2] = r.v_stride[2] = HEADS * D;
    expect(qkv_cache_write(w.cache, 0, &r, TEXT), QKV_OK);
    p = pick_of(&w, 4, table, logical, bounds, &kv_len);
    expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_OK);
    for (int h = 0; h < HEADS; h++)
        for (int page = 0; page < 3; page++) {
            true_bound(&w, page, 4 * P, h, &score);
            t_check((double)bounds[4 * h + page] > score, "bound %g of a score %g",
                    (double)bounds[4 * h + page], score);
        }
    qkv_cache_destroy(w.cache);
}

/* A key that is no number must not be passed over. */
static void not_a_number(t_rng *rng)
{
    static world w;
    qkv_cache_pick p;
    int32_t table[2 * HEADS], logical[2 * HEADS], kv_len;
    float bounds[2 * HEADS], row[HEADS * D];
    const int64_t stride[3] = {0, D, 0};
    qkv_cache_rows r;

    make_world(&w, rng, QKV_FORMAT_F32, 5 * P);
    expect(qkv_cache_truncate(w.cache, w.seq, 2 * P + 3, TEXT), QKV_OK);
    for (int i = 0; i < HEADS * D; i++)
        row[i] = i % D == 7 ? NAN : 0;
    for (int i = 0; i < 40; i++) {
        expect(qkv_cache_reserve(w.cache, 1, &w.seq, NULL, TEXT), QKV_OK);
        qkv_cache_rows_init(&r);
        r.seqs = &w.seq;
        r.k = r.v = row;
        memcpy(r.k_stride, stride, sizeof stride);
        memcpy(r.v_stride, stride, sizeof stride);
        const int32_t one = 1;
        r.counts = &one;
        expect(qkv_cache_write(w.cache, 0, &r, TEXT), QKV_OK);
        row[7] = row[D + 7] = 0; /* only the first */
    }
    p = pick_of(&w, 2, table, logical, bounds, &kv_len);
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < HEADS * GROUP * D; i++)
            w.q[i] = (float)sign * 1e-6f;
        expect(qkv_cache_pick_pages(w.cache, 0, &p, TEXT), QKV_OK);
        for (int h = 0; h < HEADS; h++)
            t_check(logical[2 * h] == 2 && bounds[2 * h] == INFINITY, "head %d picked page %d", h,
                    logical[2 * h]);
    }
    qkv_cache_destroy(w.cache);
}

void test_pick(void)
{
    static const int32_t formats[] = {QKV_FORMAT_F32, QKV_FORMAT_BF16, QKV_FORMAT_INT8,
                                      QKV_FORMAT_INT4, QKV_FORMAT_E4M3};
    t_rng rng = t_rng_of(t_seed());

    for (int f = 0; f < 5; f++)
        for (int tokens = 1; tokens <= MAX * P; tokens = tokens * 3 + 7)
            for (int n = 1; n <= 40; n = 3 * n + 1)
                if (t_case("%s T%d n%d", qkv_format_name(formats[f]), tokens, n))
                    one(&rng, formats[f], tokens, n);
    if (t_case("refusals"))
        refusals(&rng);
    if (t_case("outwards"))
        outwards(&rng);
    if (t_case("NaN"))
        not_a_number(&rng);
}
