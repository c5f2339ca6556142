/* sparse.c - attention over chosen pages only, against the formula. */
#include <math.h>
#include <string.h>

#include "small.h"

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
    const qkv_cache_config c = small_heads(format);
    t_rng rng = t_rng_of(t_seed() + (uint64_t)format);
    qkv_cache_pick *p = &w->pick;

    w->cache = make_cache(&c);
    for (int b = 0; b < SEQS; b++) {
        qkv_cache_add(w->cache, &w->ids[b], NULL, 0);
        w->lens[b] = 1 + 65 * b;
        small_append(w->cache, &rng, w->ids[b], w->lens[b]);
    }
    w->q = small_numbers(&rng, SEQS * HQ * D);
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
    const qkv_cache_view *view = small_view(w->cache, &s);
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
    small_run(&d, &a);
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
