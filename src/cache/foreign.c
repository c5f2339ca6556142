/* cache/foreign.c - paged memory of others, described. */
#include "cache/view.h"

static void set_layout(qkv_layout *l, int32_t order, int64_t heads, int64_t tokens, int64_t dim,
                       int64_t page)
{
    l->stride[0] = page;
    l->stride[1] = order == QKV_POOL_PTHD ? dim : tokens * dim;
    l->stride[2] = order == QKV_POOL_PTHD ? heads * dim : dim;
    l->stride[3] = 1;
}

int64_t qkv_desc_pool(qkv_desc *d, qkv_type k_type, qkv_type v_type, int32_t order, int32_t joined,
                      int32_t page_tokens, int32_t n_pages, int64_t table_stride)
{
    const int64_t tokens = page_tokens, heads = d->n_kv_heads;
    /* A row of U4 takes half as many bytes as it has channels, and bytes are what its strides
     * count. */
    const int64_t k_row = k_type == QKV_U4 ? (d->head_dim + 1) / 2 : d->head_dim;
    const int64_t v_row = v_type == QKV_U4 ? (d->head_dim_v + 1) / 2 : d->head_dim_v;
    const int64_t k_page = heads * tokens * k_row, v_page = heads * tokens * v_row;

    d->page_tokens = page_tokens;
    d->n_pages = n_pages;
    d->block_table_stride[0] = table_stride;
    d->block_table_stride[1] = 0;
    d->k.type = (int32_t)k_type;
    d->v.type = (int32_t)v_type;
    set_layout(&d->k, order, heads, tokens, k_row, joined ? k_page + v_page : k_page);
    set_layout(&d->v, order, heads, tokens, v_row, joined ? k_page + v_page : v_page);
    return joined ? k_page : 0;
}

qkv_status qkv_block_table_of_csr(int32_t n_seqs, const int32_t *indptr, const int32_t *indices,
                                  const int32_t *last_page_lens, int32_t page_tokens,
                                  int32_t *table, int64_t table_stride, int32_t *kv_lens,
                                  char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (n_seqs < 0 || page_tokens < 1 || table_stride < 0 ||
        (n_seqs > 0 && (!indptr || !last_page_lens || !table || !kv_lens)))
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "n_seqs, page_tokens, table_stride are %d, %d, %lld; they must be at least 0, "
            "1, 0, and no array NULL",
            n_seqs, page_tokens, (long long)table_stride);
    for (int32_t b = 0; b < n_seqs; b++) {
        const int64_t n = (int64_t)indptr[b + 1] - indptr[b], last = last_page_lens[b];
        if (indptr[b] < 0 || n < 0 || n > table_stride || (n > 0 && !indices))
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "sequence %d has %lld pages; a row of the table has %lld entries", b,
                              (long long)n, (long long)table_stride);
        if (last < (n > 0) || last > (n > 0 ? page_tokens : 0) ||
            (n - 1) * page_tokens + last > INT32_MAX)
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "last_page_lens[%d] is %lld; with %lld pages it must be %d .. %d", b,
                              (long long)last, (long long)n, n > 0, n > 0 ? page_tokens : 0);
    }
    for (int32_t b = 0; b < n_seqs; b++) {
        const int64_t n = (int64_t)indptr[b + 1] - indptr[b];
        for (int64_t k = 0; k < table_stride; k++)
            table[b * table_stride + k] = k < n ? indices[indptr[b] + k] : 0;
        kv_lens[b] = n == 0 ? 0 : (int32_t)((n - 1) * page_tokens + last_page_lens[b]);
    }
    return qkv_accept(say);
}
