/* cascade.c - a prefix read once for all sequences, against attention over everything. */
#include <math.h>

#include "small.h"

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
    small_run(&d, &a);
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

/* The prefix in one problem with the queries of all sequences as its rows, the rest in another. */
static void in_two_parts(qkv_cache *cache, const int32_t *ids, int64_t shared, const float *q,
                         float *joined)
{
    static const int32_t ones[SEQS] = {1, 1, 1, 1}, all = SEQS;
    float *o[2], *lse[2];
    qkv_cache_select s;

    for (int p = 0; p < 2; p++) {
        o[p] = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
        lse[p] = t_alloc(SEQS * HQ * 4, 4, T_END, 0x77);
    }
    qkv_cache_select_init(&s);
    s.n_seqs = SEQS;
    s.seqs = ids;
    s.q_lens = ones;
    s.from = shared;
    part(small_view(cache, &s), 0, q, o[0], lse[0]);
    qkv_cache_select_init(&s);
    s.seqs = ids;
    s.to = shared;
    s.q_lens = &all;
    s.causal = QKV_CAUSAL_NONE;
    part(small_view(cache, &s), 1, q, o[1], lse[1]);
    join(o, lse, joined);
}

static void cascade(int32_t format)
{
    static const int32_t ones[SEQS] = {1, 1, 1, 1};
    const qkv_cache_config c = small_heads(format);
    qkv_cache *cache = make_cache(&c);
    t_rng rng = t_rng_of(t_seed() + (uint64_t)format);
    int32_t parent = 0, ids[SEQS];
    int64_t shared = 0;
    qkv_cache_select s;

    qkv_cache_add(cache, &parent, NULL, 0);
    small_append(cache, &rng, parent, 150);
    for (int b = 0; b < SEQS; b++) {
        expect(qkv_cache_fork(cache, parent, &ids[b], TEXT), QKV_OK);
        small_append(cache, &rng, ids[b], 3 + 20 * b);
    }
    expect(qkv_cache_shared_prefix(cache, SEQS, ids, &shared, TEXT), QKV_OK);
    t_check(shared == 144, "%d tokens are shared", (int)shared);

    const float *q = small_numbers(&rng, SEQS * HQ * D);
    float *full = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
    float *joined = t_alloc(SEQS * HQ * D * 4, 4, T_END, 0x77);
    qkv_cache_select_init(&s);
    s.n_seqs = SEQS;
    s.seqs = ids;
    s.q_lens = ones;
    part(small_view(cache, &s), 0, q, full, t_alloc(SEQS * HQ * 4, 4, T_END, 0x77));
    in_two_parts(cache, ids, shared, q, joined);
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
