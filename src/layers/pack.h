/* layers/pack.h - how create.c puts weights into the layer's block: counted first, then copied. */
#ifndef QKV_LAYERS_PACK_H
#define QKV_LAYERS_PACK_H

#include "layers/internal.h"

typedef struct qkv_packer {
    qkv_carver carver;
    const qkv_layer_weight *weights;
    int32_t format;      /* QKV_WEIGHTS_ of matrices that may be narrow */
    void *scratch;       /* for a piece of a narrow matrix: numbers, then codes */
    size_t scratch_bytes; /* counted */
    qkv_status status;   /* the first failure */
} qkv_packer;

/* One of the weights that are stacked in a matrix. */
typedef struct qkv_slab {
    int32_t role;
    int64_t rows, head_rows;
} qkv_slab;

/* Stacks weights that read the same input into one matrix, so that one product computes them. */
void qkv_pack_matrix(qkv_packer *p, qkv_matrix *m, int32_t format, const qkv_slab *slabs, int n,
                     int64_t cols);

#endif
