/* view_pick.c - Views that read the pages whose keys may matter most to the queries.
 *
 * Which pages these are depends on the layer and on q, so they are picked in each run; how many
 * tokens they hold does not, so the plan is made once. */
#include <stdlib.h>
#include <string.h>

#include "view.h"

int32_t *qkvpy_pick_lengths(const view_object *v)
{
    const int64_t P = v->cache->config.page_tokens;
    int32_t *kv_lens = PyMem_Malloc((size_t)(v->B + 1) * sizeof *kv_lens);
    for (int32_t b = 0; kv_lens != NULL && b < v->B; b++) {
        const int64_t pages = (v->lengths[b] + P - 1) / P;
        const int64_t left_out = pages > v->pages ? (pages - v->pages) * P : 0;
        kv_lens[b] = (int32_t)(v->lengths[b] - left_out);
    }
    return kv_lens;
}

void qkvpy_pick_describe(const view_object *v, const int32_t *kv_lens, qkv_desc *d)
{
    d->q_lens = d->q_offsets = d->kv_starts = NULL;
    d->causal = QKV_CAUSAL_NONE;
    d->window_left = QKV_UNBOUNDED;
    d->kv_lens = kv_lens;
    d->kv_len = 0;
    for (int32_t b = 0; b < v->B; b++)
        d->kv_len = kv_lens[b] > d->kv_len ? kv_lens[b] : d->kv_len;
    d->block_table_stride[0] = (int64_t)d->n_kv_heads * v->pages;
    d->block_table_stride[1] = v->pages;
}

int32_t *qkvpy_pick(const view_object *v, int32_t layer, const tensor *q)
{
    const int32_t Hkv = v->cache->config.n_kv_heads;
    const size_t entries = (size_t)v->B * (size_t)Hkv * (size_t)v->pages;
    int32_t *table = malloc(entries * sizeof *table + 1);
    float *bounds = malloc(entries * sizeof *bounds + 1);
    int32_t *kv_lens = malloc((size_t)v->B * sizeof *kv_lens + 1);
    char text[TEXT] = "no memory for the picked pages";
    qkv_status status = QKV_ERR_MEMORY;
    if (table != NULL && bounds != NULL && kv_lens != NULL) {
        qkv_cache_pick pick;
        qkv_cache_pick_init(&pick);
        pick.n_seqs = v->B;
        pick.seqs = v->seqs;
        pick.n_q_heads = v->made_for.desc.n_q_heads;
        pick.q_type = q->type;
        pick.q = q->data;
        pick.q_stride[0] = q->stride[0];
        pick.q_stride[1] = q->stride[1];
        pick.n_pages = v->pages;
        pick.table = table;
        pick.bounds = bounds;
        pick.kv_lens = kv_lens;
        Py_BEGIN_ALLOW_THREADS
        status = qkv_cache_pick_pages(v->cache->cache, layer, &pick, text, sizeof text);
        Py_END_ALLOW_THREADS
    }
    free(bounds);
    free(kv_lens);
    if (status == QKV_OK)
        return table;
    free(table);
    qkvpy_raise(status, text);
    return NULL;
}
