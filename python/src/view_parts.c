/* view_parts.c - the parts of a View: selections, descriptors, plans. */
#include <string.h>

#include "view.h"

/* A view of the selection, with its parts behind those there are.  It is always made as for causal
 * queries, which is what makes it say where each table begins. */
static int add_view(view_object *v, int which, int32_t n, const int32_t *q_lens, int64_t from,
                    int64_t to)
{
    char text[TEXT];
    qkv_cache_select s;
    const qkv_cache_view *view;
    qkv_cache_select_init(&s);
    s.n_seqs = n;
    s.seqs = v->seqs;
    s.q_lens = q_lens;
    s.from = from;
    s.to = to;
    const size_t bytes = qkv_cache_view_size(v->cache->cache, &s);
    v->memory[which] = bytes ? qkvpy_alloc(bytes) : NULL;
    if (bytes && v->memory[which] == NULL)
        return -1;
    const qkv_status status =
        qkv_cache_view_init(v->memory[which], bytes, v->cache->cache, &s, &view, text, sizeof text);
    if (status != QKV_OK)
        return qkvpy_raise(status, text);
    for (int32_t i = 0; i < qkv_cache_view_parts(view); i++) {
        view_part *part = &v->part[v->n_parts++];
        part->view = view;
        part->number = i;
        part->stacked = which == 1;
    }
    return 0;
}

/* Positions that are given must find the keys their windows show. */
static int check_offsets(const view_object *v)
{
    const long long window = v->cache->config.window_left;
    for (int32_t b = 0; v->offsets_given && window >= 0 && b < v->B; b++) {
        qkv_cache_seq_info info;
        if (qkv_cache_seq_info_get(v->cache->cache, v->seqs[b], &info) == QKV_OK &&
            v->q_lens[b] > 0 && info.kept_from > 0 && v->offsets[b] - window < info.kept_from) {
            PyErr_Format(PyExc_ValueError,
                         "q_offset[%d] is %d; a window of %lld before it needs "
                         "tokens below %lld, which were evicted",
                         b, v->offsets[b], window, (long long)info.kept_from);
            return -1;
        }
    }
    return 0;
}

int qkvpy_view_add(view_object *v)
{
    const int32_t none = 0;
    int32_t *q_lens = PyMem_Malloc((size_t)(v->B + 1) * sizeof *q_lens);
    if (q_lens == NULL)
        return -1;
    /* Without positions there may be more queries than tokens. */
    for (int32_t b = 0; b < v->B; b++)
        q_lens[b] =
            v->causal || v->q_lens[b] <= v->lengths[b] ? v->q_lens[b] : (int32_t)v->lengths[b];
    int failed = add_view(v, 0, v->B, q_lens, v->shared, INT64_MAX) < 0;
    if (!failed && v->shared > 0)
        failed = add_view(v, 1, 1, &none, 0, v->shared) < 0;
    for (int i = 0; !failed && i < v->n_parts; i++) {
        view_part *part = &v->part[i];
        qkv_desc_init(&part->desc);
        qkv_cache_view_desc(part->view, part->number, &part->desc);
        part->bases = part->stacked ? NULL : PyMem_Malloc((size_t)(v->B + 1) * sizeof *part->bases);
        for (int32_t b = 0; part->bases && b < v->B; b++)
            part->bases[b] = v->lengths[b] - q_lens[b] - part->desc.q_offsets[b];
        failed = !part->stacked && part->bases == NULL;
    }
    PyMem_Free(q_lens);
    return failed ? -1 : check_offsets(v);
}

static void describe_stacked(const view_object *v, qkv_desc *d)
{
    const qkv_desc *whole = &v->made_for.desc;
    d->cu_seqlens_q = NULL;
    d->q_lens = d->q_offsets = NULL;
    d->q_len = v->rows;
    if (!v->cu) { /* one query a sequence */
        d->q.stride[2] = whole->q.stride[0];
        d->q.stride[0] = 0;
    }
}

/* Where a part writes when it is not the only one: as densely as q would lie. */
static void describe_scratch(const view_object *v, const view_part *part, qkv_desc *d)
{
    const qkv_desc *w = &v->made_for.desc;
    const int64_t H = w->n_q_heads, T = w->q_len, Dv = w->head_dim_v;
    const int packed = v->cu != NULL, rows = packed || part->stacked;
    d->o.type = d->lse.type = QKV_F32;
    d->o.stride[0] = rows ? 0 : H * T * Dv;
    d->o.stride[1] = rows ? Dv : T * Dv;
    d->o.stride[2] = rows ? H * Dv : Dv;
    d->o.stride[3] = 1;
    d->lse.stride[0] = rows ? 0 : H * T;
    d->lse.stride[1] = packed ? v->rows : T;
    d->lse.stride[2] = part->stacked && !packed ? H : 1;
    d->sinks.type = QKV_NONE;
}

/* The descriptor of a part, of which only what the cache says is there. */
int qkvpy_view_plan(view_object *v, view_part *part)
{
    const qkv_desc *whole = &v->made_for.desc;
    qkv_desc *d = &part->desc;
    int32_t *offsets = PyMem_Malloc((size_t)(v->B + 1) * sizeof *offsets);
    if (offsets == NULL)
        return -1;
    for (int32_t b = 0; part->bases && b < v->B; b++) {
        const int64_t at = v->offsets_given ? v->offsets[b] : v->lengths[b] - v->q_lens[b];
        const int64_t in_part = at - part->bases[b];
        offsets[b] = in_part < INT32_MIN ? INT32_MIN : (int32_t)in_part;
    }
    *d = *whole;
    qkv_cache_view_desc(part->view, part->number, d);
    d->q_len = whole->q_len;
    d->q_lens = v->cu ? NULL : v->q_lens;
    d->q_offsets = v->causal ? offsets : NULL;
    d->causal = v->causal && !part->stacked ? QKV_CAUSAL_INCLUSIVE : QKV_CAUSAL_NONE;
    if (!v->causal)
        d->window_left = QKV_UNBOUNDED;
    if (v->window != OWN_WINDOW && (d->window_left < 0 || d->window_left > v->window))
        d->window_left = v->window;
    if (part->stacked) {
        describe_stacked(v, d);
    } else {
        qkvpy_shift_layout(v, part, &whole->mask, &d->mask);
        qkvpy_shift_layout(v, part, &whole->bias, &d->bias);
    }
    if (!is_direct(v))
        describe_scratch(v, part, d);
    int32_t *kv_lens = v->pages > 0 ? qkvpy_pick_lengths(v) : NULL;
    if (kv_lens != NULL)
        qkvpy_pick_describe(v, kv_lens, d);
    if (kv_lens != NULL || v->pages == 0)
        part->plan = qkvpy_plan_new(d, &part->memory);
    PyMem_Free(kv_lens);
    PyMem_Free(offsets);
    return part->plan ? 0 : -1;
}
