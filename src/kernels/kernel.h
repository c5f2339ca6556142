/*
 * kernels/kernel.h - what a kernel is.  Internal.
 *
 * A kernel computes attention for one tile: up to `lanes` queries that share a key/value head,
 * against runs of keys.  The caller (attention/run.c) decides which queries and which keys; the
 * kernel knows nothing of heads, batches or alignment.
 *
 *     begin   queries into the scratch, empty state
 *     keys    any number of runs of keys, in ascending order: the state absorbs them
 *     merge   one state into another (the keys were cut into parts)
 *     finish  sink, division, outputs
 *
 * A state is (m, l, o) for each lane: the largest score, the sum of exp(s - m), and the sum of
 * exp(s - m) v.  It is opaque to the caller, but its bytes may be stored and finished later by the
 * same kernel with the same number of lanes.
 */
#ifndef QKV_KERNELS_KERNEL_H
#define QKV_KERNELS_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "qkv/attention.h"

/* Kernels work on blocks of keys that begin at multiples of this.  Sums over keys run inside a block
 * first and across blocks then; because blocks lie at fixed places and hidden keys add exactly
 * nothing, a query's bits do not depend on which other queries share its tile. */
enum {
    QKV_BLOCK_KEYS = 128,
    QKV_PRODUCT_KEYS = 32 /* products begin at multiples of this, or of what divides it */
};

enum { QKV_MAX_HEAD_DIM = 1024 };

/* Bit n of a block mask (qkv_desc.block_bits). */
static inline int qkv_block_bit(const uint8_t *bits, int64_t n)
{
    return bits[n >> 3] >> (n & 7) & 1;
}

/* What a kernel is made for.  Both compute the same; see kernels.inc. */
typedef enum qkv_op { QKV_OP_ATTEND, QKV_OP_DECODE } qkv_op;

/* One query of a tile.  Row pointers are to the query's own row; NULL where there is none. */
typedef struct qkv_lane {
    const void *q;    /* D elements */
    void *o;          /* Dv elements */
    void *lse;        /* one element of the compute type */
    void *weights;    /* element of key 0; compute type */
    const uint8_t *mask; /* element of key 0 */
    const void *bias;    /* element of key 0 */
    int64_t lo, hi;      /* keys visible by lengths, causal and windows: lo <= j <= hi */
    int64_t position;    /* p, for ALiBi */
    int64_t block_row;   /* bit of the block mask that belongs to key block 0 */
    double slope, sink;
} qkv_lane;

/* What is the same for all tiles of a plan. */
typedef struct qkv_shape {
    int32_t head_dim, head_dim_v; /* D, Dv */
    int32_t q_type, o_type, bias_type;
    int32_t stage; /* of the weights; -1 if there are none */
    int32_t has_mask, has_bias, has_slopes, has_sinks;
    int32_t block_k; /* 0: no block mask */
    int64_t k_stride, v_stride; /* between tokens, in elements */
    int64_t mask_stride, bias_stride, weights_stride; /* between keys */
    int64_t kv_len;                                   /* Tk: keys a row of weights has */
    double scale, softcap;                            /* softcap 0: none */
    const uint8_t *block_bits;
    int32_t k_type, v_type;
    int32_t rope_dim, k_rope_type; /* channels of the keys that lie apart; 0: none */
    int64_t k_rope_stride;
    struct qkv_scales {
        int32_t type, group;   /* QKV_F32 or QKV_F16; channels a scale covers */
        int64_t token_stride, group_stride;
    } k_scales, v_scales; /* of codes */
} qkv_shape;

typedef struct qkv_scales qkv_scales;

/* One tile on its way through a kernel. */
typedef struct qkv_tile {
    const qkv_shape *shape;
    const qkv_lane *lanes; /* lo and hi never fall from one to the next */
    int32_t n_lanes; /* 1 .. kernel->lanes */
    int32_t mixed_blocks; /* a block of keys may be hidden in part: look at the block mask key by key */
    int32_t streams; /* keys and values come from memory more often than from a cache */
    void *scratch;   /* kernel->scratch_bytes, 64-byte aligned */
    void *state;     /* kernel->state_bytes, 64-byte aligned */
} qkv_tile;

/* Where the keys and values of one head lie: all in a row, or in pages that a block table names. */
typedef struct qkv_kv {
    const void *k, *v;      /* row of key 0; with pages, row 0 of page 0 */
    const int32_t *pages;   /* page n holds keys n page_tokens onwards; NULL: no pages */
    int64_t page_tokens;
    int64_t k_page, v_page; /* between pages, in elements */

    /* The first key to be looked at.  Kernels whose products begin at whole units of keys find its row
     * in place of those before it, which may lie in no page. */
    int64_t first;
    int64_t end; /* one past the last key this tile looks at, in this call or in later ones */

    /* Of codes: scale and min of key 0, or of row 0 of page 0; and the keys' other channels. */
    const void *k_scale, *k_min, *v_scale, *v_min, *k_rope;
    int64_t k_scale_page, v_scale_page, k_rope_page;
} qkv_kv;

/* Elements from kv->k (or v) to the row of key j. */
static inline int64_t qkv_kv_offset(const qkv_kv *kv, int64_t stride, int64_t page, int64_t j)
{
    j = j < kv->first ? kv->first : j;
    if (!kv->pages)
        return j * stride;
    return kv->pages[j / kv->page_tokens] * page + j % kv->page_tokens * stride;
}

/* Keys from j on, before end, whose rows are `stride` apart. */
static inline int64_t qkv_kv_run(const qkv_kv *kv, int64_t j, int64_t end)
{
    if (j < kv->first)
        return 1;
    if (!kv->pages)
        return end - j;
    const int64_t page_end = (j / kv->page_tokens + 1) * kv->page_tokens;
    return (page_end < end ? page_end : end) - j;
}

typedef struct qkv_kernel {
    const char *name; /* "attend_f32_bf16_bf16__avx512" */
    int32_t lanes;    /* queries a tile holds */

    /* Of attend kernels, beside the decode kernel for the same types.  A vector costs the same however
     * many queries are in it, a row of the decode kernel costs something by itself; so a few are
     * that one's.  By count, never by a clock: measured once for each tier. */
    int32_t vector; /* queries a vector holds */
    int32_t few;    /* the most queries of a sequence that are all the decode kernel's */
    int32_t rest;   /* the most beyond whole vectors that are, the others' keys being near; 0: none */

    size_t (*scratch_bytes)(int32_t head_dim, int32_t head_dim_v);
    size_t (*state_bytes)(int32_t n_lanes, int32_t head_dim_v);
    void (*begin)(const qkv_tile *tile);
    /* Keys j0 .. j1-1. */
    void (*keys)(const qkv_tile *tile, const qkv_kv *kv, int64_t j0, int64_t j1);
    /* tile->state absorbs other. */
    void (*merge)(const qkv_tile *tile, const void *other);
    void (*finish)(const qkv_tile *tile);
} qkv_kernel;

/* The types of a line of kernels.inc for all types. */
enum { QKV_ANY = QKV_NONE };

/* Declarations.  A kernel that is not listed cannot be reached, and one listed but not written
 * does not link. */
#define QKV_KERNEL(op, compute, k, v, tier, cpu, name) extern const qkv_kernel qkv_##name;
#include "kernels/kernels.inc"
#undef QKV_KERNEL

#endif
