/* attention/desc.c - descriptors: defaults, dense layouts, sizes that follow from them. */
#include <string.h>

#include "attention/internal.h"

void qkv_desc_init_sized(qkv_desc *desc, size_t struct_size)
{
    qkv_desc d;

    memset(&d, 0, sizeof d);
    d.struct_size = (uint32_t)(struct_size < sizeof d ? struct_size : sizeof d);
    d.cpu_mask = QKV_CPU_ALL;
    d.n_seqs = d.n_q_heads = d.n_kv_heads = 1;
    d.q.type = d.k.type = d.v.type = d.o.type = QKV_F32;
    d.q.stride[3] = d.k.stride[3] = d.v.stride[3] = d.o.stride[3] = 1;
    d.cu_seqlens_type = QKV_I32;
    d.stage = QKV_STAGE_WEIGHTS;
    d.window_left = d.window_right = QKV_UNBOUNDED;
    d.scale = QKV_SCALE_DEFAULT;
    d.block_q = d.block_k = 64;
    /* A program compiled with a later header has a longer struct: what this library does not know
     * is zero, and qkv_explain refuses what it cannot honour. */
    memset(desc, 0, struct_size);
    memcpy(desc, &d, d.struct_size);
    if (struct_size > sizeof d)
        desc->struct_size = (uint32_t)struct_size;
}

void qkv_args_init_sized(qkv_args *args, size_t struct_size)
{
    memset(args, 0, struct_size);
    args->struct_size = (uint32_t)struct_size;
}

static void set_dense(qkv_layout *layout, int32_t order, int64_t heads, int64_t tokens, int64_t dim)
{
    layout->stride[0] = heads * tokens * dim;
    layout->stride[1] = order == QKV_BTHD ? dim : tokens * dim;
    layout->stride[2] = order == QKV_BTHD ? heads * dim : dim;
    layout->stride[3] = 1;
}

void qkv_desc_dense(qkv_desc *desc, qkv_type type, int32_t order)
{
    desc->q.type = desc->k.type = desc->v.type = desc->o.type = (int32_t)type;
    set_dense(&desc->q, order, desc->n_q_heads, desc->q_len, desc->head_dim);
    set_dense(&desc->k, order, desc->n_kv_heads, desc->kv_len, desc->head_dim);
    set_dense(&desc->v, order, desc->n_kv_heads, desc->kv_len, desc->head_dim_v);
    set_dense(&desc->o, order, desc->n_q_heads, desc->q_len, desc->head_dim_v);
    if (desc->lse.type != QKV_NONE) {
        set_dense(&desc->lse, QKV_BHTD, desc->n_q_heads, desc->q_len, 1);
        desc->lse.stride[3] = 0;
    }
    if (desc->weights.type != QKV_NONE)
        set_dense(&desc->weights, QKV_BHTD, desc->n_q_heads, desc->q_len, desc->kv_len);
}

qkv_rows qkv_rows_of(const qkv_desc *d)
{
    qkv_rows rows = {d->cu_seqlens_q != NULL, d->cu_seqlens_k != NULL, d->q_len, d->kv_len};
    if (rows.packed_q)
        rows.q = qkv_cu_at(d, d->cu_seqlens_q, d->n_seqs);
    if (rows.packed_k)
        rows.kv = qkv_cu_at(d, d->cu_seqlens_k, d->n_seqs);
    return rows;
}

static int64_t blocks_of(int64_t tokens, int64_t size) { return (tokens + size - 1) / size; }

int64_t qkv_block_bit_count(const qkv_desc *desc)
{
    const int64_t rows = blocks_of(desc->q_len, desc->block_q);
    const int64_t columns = blocks_of(desc->kv_len, desc->block_k);

    if (!desc->block_bits || desc->n_seqs == 0 || rows == 0 || columns == 0)
        return 0;
    return (desc->n_seqs - 1) * desc->block_stride[0] +
           (desc->n_q_heads - 1) * desc->block_stride[1] + (rows - 1) * desc->block_stride[2] +
           columns;
}
