/* attention/extent.c - where strided tensors lie: how far they reach, whether elements collide. */
#include "attention/internal.h"

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

int qkv_extent_bytes(const qkv_extent *e, int64_t *first, int64_t *end)
{
    const int64_t limit = INT64_MAX / 2;
    int64_t low = 0, high = 0;

    *first = *end = 0;
    for (int i = 0; i < 4; i++)
        if (e->n[i] <= 0)
            return 1;
    for (int i = 0; i < 4; i++) {
        const int64_t steps = e->n[i] - 1;
        int64_t reach;
        if (__builtin_mul_overflow(steps, e->stride[i], &reach) ||
            __builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high))
            return 0;
    }
    if (__builtin_mul_overflow(low, e->element, &low) ||
        __builtin_mul_overflow(high + 1, e->element, &high))
        return 0;
    if (low < -limit || high > limit)
        return 0;
    *first = low;
    *end = high;
    return 1;
}

/* Walk the dimensions from the smallest stride up: each must step over all that the smaller ones
 * reach together.  Exotic layouts that interleave without colliding are not recognised. */
int qkv_extent_is_injective(const qkv_extent *e)
{
    int done[4] = {0, 0, 0, 0};
    int64_t reach = 0;

    for (int i = 0; i < 4; i++)
        if (e->n[i] <= 0)
            return 1;
    for (int round = 0; round < 4; round++) {
        int at = -1;
        for (int i = 0; i < 4; i++)
            if (!done[i] && (at < 0 || magnitude(e->stride[i]) < magnitude(e->stride[at])))
                at = i;
        done[at] = 1;
        if (e->n[at] == 1)
            continue;
        if (magnitude(e->stride[at]) <= reach)
            return 0;
        reach += (e->n[at] - 1) * magnitude(e->stride[at]);
    }
    return 1;
}

static qkv_extent extent(const qkv_layout *layout, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
    const qkv_extent e = {{n0, n1, n2, n3},
                          {layout->stride[0], layout->stride[1], layout->stride[2], layout->stride[3]},
                          (int64_t)qkv_type_size((qkv_type)layout->type)};
    return e;
}

/* U4 has two channels an element. */
static int64_t elements(const qkv_layout *layout, int64_t channels)
{
    return layout->type == QKV_U4 ? (channels + 1) / 2 : channels;
}

void qkv_tensors(const qkv_desc *d, const qkv_rows *rows, qkv_named_layout out[QKV_N_TENSORS])
{
    const int64_t b = d->n_seqs, hq = d->n_q_heads, hkv = d->n_kv_heads;
    const int64_t qb = rows->packed_q && b > 0 ? 1 : b, kb = rows->packed_k && b > 0 ? 1 : b;
    const int64_t tq = rows->q;
    /* Keys lie in sequences or in pages. */
    const int64_t ks = d->page_tokens > 0 ? d->n_pages : kb;
    const int64_t tk = d->page_tokens > 0 ? d->page_tokens : rows->kv;
    const int64_t k_groups = qkv_scale_groups(qkv_k_dim(d), d->k_group);
    const int64_t v_groups = qkv_scale_groups(d->head_dim_v, d->v_group);
    const qkv_named_layout all[QKV_N_TENSORS] = {
        {"q", &d->q, extent(&d->q, qb, hq, tq, d->head_dim), 0},
        {"k", &d->k, extent(&d->k, ks, hkv, tk, elements(&d->k, qkv_k_dim(d))), 0},
        {"v", &d->v, extent(&d->v, ks, hkv, tk, elements(&d->v, d->head_dim_v)), 0},
        {"o", &d->o, extent(&d->o, qb, hq, tq, d->head_dim_v), 1},
        {"mask", &d->mask, extent(&d->mask, b, hq, d->q_len, d->kv_len), 0},
        {"bias", &d->bias, extent(&d->bias, b, hq, d->q_len, d->kv_len), 0},
        {"sinks", &d->sinks, extent(&d->sinks, b, hq, 1, 1), 0},
        {"slopes", &d->slopes, extent(&d->slopes, b, hq, 1, 1), 0},
        {"k_scale", &d->k_scale, extent(&d->k_scale, ks, hkv, tk, k_groups), 0},
        {"k_min", &d->k_min, extent(&d->k_min, ks, hkv, tk, k_groups), 0},
        {"v_scale", &d->v_scale, extent(&d->v_scale, ks, hkv, tk, v_groups), 0},
        {"v_min", &d->v_min, extent(&d->v_min, ks, hkv, tk, v_groups), 0},
        {"k_rope", &d->k_rope, extent(&d->k_rope, ks, hkv, tk, d->rope_dim), 0},
        {"lse", &d->lse, extent(&d->lse, qb, hq, tq, 1), 1},
        {"weights", &d->weights, extent(&d->weights, b, hq, d->q_len, d->kv_len), 1},
    };
    for (int i = 0; i < QKV_N_TENSORS; i++)
        out[i] = all[i];
}
