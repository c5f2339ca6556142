/*
 * attend_oracle.c - the oracle on a dense copy of what a cache holds.
 *
 * The copy comes from qkv_cache_read, who sees whom from a mask written out here, and the oracle
 * gets nothing but dense f32; so tables, lengths, shifts, scales and the joining of parts are all
 * on the other side.
 */
#include <math.h>
#include <string.h>

#include "attend.h"

float *numbers(t_rng *rng, size_t n, double size)
{
    float *x = t_scratch(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(t_normal(rng) * size);
    return x;
}

void world_append(world *w, int32_t id, int32_t count)
{
    const int64_t d = w->c.head_dim, dv = w->c.head_dim_v, heads = w->c.n_kv_heads;
    qkv_cache_rows r;

    expect(qkv_cache_reserve(w->cache, 1, &id, &count, TEXT), QKV_OK);
    qkv_cache_rows_init(&r);
    r.seqs = &id;
    r.counts = &count;
    r.k_stride[1] = d;
    r.k_stride[2] = heads * d;
    r.v_stride[1] = dv;
    r.v_stride[2] = heads * dv;
    for (int layer = 0; layer < w->c.n_layers; layer++) {
        r.k = numbers(&w->rng, (size_t)(count * heads * d), 1);
        r.v = w->c.flags & QKV_CACHE_LATENT ? NULL
                                            : numbers(&w->rng, (size_t)(count * heads * dv), 1);
        expect(qkv_cache_write(w->cache, layer, &r, TEXT), QKV_OK);
    }
}

void world_grow(world *w, const qkv_cache_config *c, int group, int tq)
{
    static const int lens[B] = {1, 150, 390};

    w->c = *c;
    w->cache = make_cache(c);
    w->hq = c->n_kv_heads * group;
    w->tq = tq;
    for (int b = 0; b < B; b++) {
        const int rest = lens[b] < tq ? 1 : b == 1 ? tq : (int)t_between(&w->rng, 1, tq);
        int left = lens[b] - rest;
        expect(qkv_cache_add(w->cache, &w->ids[b], TEXT), QKV_OK);
        while (left > 0) {
            const int n = left < 100 ? left : 100;
            world_append(w, w->ids[b], n);
            expect(qkv_cache_commit(w->cache, 1, &w->ids[b], NULL, TEXT), QKV_OK);
            left -= n;
        }
        world_append(w, w->ids[b], rest);
        w->lens[b] = lens[b];
        w->q_lens[b] = rest;
    }
}

/* Keys and values of one layer as [B][Hkv][T][D]; what was evicted is NaN. */
static void gather(world *w, int layer, float *k, float *v)
{
    const int64_t d = w->c.head_dim, dv = w->c.head_dim_v, heads = w->c.n_kv_heads;
    const int64_t ks[2] = {MAX_T * d, d}, vs[2] = {MAX_T * dv, dv};

    for (int64_t i = 0; i < B * heads * MAX_T * d; i++)
        k[i] = NAN;
    for (int64_t i = 0; i < B * heads * MAX_T * dv; i++)
        v[i] = NAN;
    for (int b = 0; b < B; b++) {
        qkv_cache_seq_info info;
        float *kb = k + b * heads * MAX_T * d, *vb = v + b * heads * MAX_T * dv;
        qkv_cache_seq_info_get(w->cache, w->ids[b], &info);
        const int64_t sinks = w->c.sink_tokens < w->lens[b] ? w->c.sink_tokens : w->lens[b];
        if (info.kept_from > 0)
            expect(
                qkv_cache_read(w->cache, layer, w->ids[b], 0, sinks, QKV_F32, kb, ks, vb, vs, TEXT),
                QKV_OK);
        expect(qkv_cache_read(w->cache, layer, w->ids[b], info.kept_from,
                              w->lens[b] - info.kept_from, QKV_F32, kb + info.kept_from * d, ks,
                              vb + info.kept_from * dv, vs, TEXT),
               QKV_OK);
    }
}

uint8_t *world_mask(const world *w, const int64_t *start)
{
    uint8_t *mask = t_scratch((size_t)(B * w->tq * MAX_T));
    memset(mask, 0, (size_t)(B * w->tq * MAX_T));
    for (int b = 0; b < B; b++)
        for (int i = 0; i < w->q_lens[b]; i++)
            for (int j = 0; j < w->lens[b]; j++) {
                const int64_t p = w->lens[b] - w->q_lens[b] + i;
                const int near = (w->c.window_left == QKV_UNBOUNDED || p - w->c.window_left <= j) &&
                                 j >= start[b];
                mask[(b * w->tq + i) * MAX_T + j] = j <= p && (near || j < w->c.sink_tokens);
            }
    return mask;
}

void world_solve(world *w, int layer, const float *q, const uint8_t *mask, const float *sinks,
                 double cap, dense *out)
{
    const size_t heads = (size_t)w->c.n_kv_heads, rows = (size_t)(B * w->hq * w->tq);
    qkv_desc *d = &out->desc;
    float *k = t_scratch(B * heads * MAX_T * (size_t)w->c.head_dim * 4);
    float *v = t_scratch(B * heads * MAX_T * (size_t)w->c.head_dim_v * 4);

    gather(w, layer, k, v);
    qkv_desc_init(d);
    d->n_seqs = B;
    d->n_q_heads = w->hq;
    d->n_kv_heads = w->c.n_kv_heads;
    d->head_dim = w->c.head_dim;
    d->head_dim_v = w->c.head_dim_v;
    d->q_len = w->tq;
    d->kv_len = MAX_T;
    d->kv_lens = w->lens;
    d->q_lens = w->q_lens;
    d->softcap = cap;
    d->mask.type = QKV_BOOL;
    d->mask.stride[0] = w->tq * MAX_T;
    d->mask.stride[2] = MAX_T;
    d->mask.stride[3] = 1;
    d->lse.type = QKV_F32;
    if (sinks) {
        d->sinks.type = QKV_F32;
        d->sinks.stride[1] = 1;
    }
    qkv_desc_dense(d, QKV_F32, QKV_BHTD);
    qkv_args_init(&out->args);
    out->args.q = q;
    out->args.k = k;
    out->args.v = v;
    out->args.mask = mask;
    out->args.sinks = sinks;
    out->out.o = t_scratch(rows * (size_t)w->c.head_dim_v * 8);
    out->out.lse = t_scratch(rows * 8);
    out->out.weights = NULL;
    out->out.o_budget = t_scratch(rows * (size_t)w->c.head_dim_v * 8);
    out->out.lse_budget = t_scratch(rows * 8);
    expect(qkv_ref_attention(d, &out->args, &out->out, t_scratch(qkv_ref_scratch_size(d))), QKV_OK);
}

void world_compare(const world *w, const dense *want, const float *o, const float *lse, int layer)
{
    const int64_t rows = (int64_t)B * w->hq * w->tq, dv = w->c.head_dim_v;

    for (int64_t i = 0; i < rows; i++) {
        const double l = want->out.lse[i], lb = want->out.lse_budget[i];
        t_check(isinf(l) ? (double)lse[i] == l : fabs((double)lse[i] - l) <= 2 * lb + 1e-6,
                "layer %d row %d: lse %g, not %g", layer, (int)i, (double)lse[i], l);
        for (int64_t c = 0; c < dv; c++) {
            const double x = want->out.o[i * dv + c], budget = want->out.o_budget[i * dv + c];
            t_check(fabs((double)o[i * dv + c] - x) <= 2 * budget + 1e-7,
                    "layer %d row %d channel %d: %g, not %g (budget %g)", layer, (int)i, (int)c,
                    (double)o[i * dv + c], x, budget);
        }
    }
}
