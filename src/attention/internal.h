/* attention/internal.h - what the files of attention/ share: the checked descriptor, the plan. */
#ifndef QKV_ATTENTION_INTERNAL_H
#define QKV_ATTENTION_INTERNAL_H

#include "attention/visibility.h"
#include "core/say.h"
#include "kernels/kernel.h"

/* ---- desc.c, check.c ---------------------------------------------------------------------- */

/* A full-size copy of the caller's descriptor (which may be older and shorter), checked. */
qkv_status qkv_desc_check(const qkv_desc *in, qkv_desc *full, qkv_say say);

/* QKV_F64 or QKV_F32: what scores and sums are kept in. */
static inline int32_t qkv_compute_type(const qkv_desc *desc)
{
    return desc->q.type == QKV_F64 ? QKV_F64 : QKV_F32;
}

/* Entry i of a cu_seqlens array. */
static inline int64_t qkv_cu_at(const qkv_desc *desc, const void *cu, int64_t i)
{
    return desc->cu_seqlens_type == QKV_I64 ? ((const int64_t *)cu)[i] : ((const int32_t *)cu)[i];
}

/* Tokens that the tensors hold on each side: Tq and Tk, or the last entries of cu_seqlens. */
typedef struct qkv_rows {
    int packed_q, packed_k;
    int64_t q, kv;
} qkv_rows;
qkv_rows qkv_rows_of(const qkv_desc *desc);

/* Bits of the block mask, counted to the last one that is addressed; 0 without one. */
int64_t qkv_block_bit_count(const qkv_desc *desc);

/* The bit of the block mask for query i of head h in sequence b and key block 0. */
static inline int64_t qkv_block_row(const qkv_desc *d, int64_t b, int64_t h, int64_t i)
{
    return b * d->block_stride[0] + h * d->block_stride[1] + i / d->block_q * d->block_stride[2];
}

/* ---- args.c ------------------------------------------------------------------------------- */

/* A full-size copy of the caller's arguments (which may be older and shorter); 0 if they were not
 * set up by qkv_args_init, or by a newer one. */
int qkv_args_load(const qkv_args *in, qkv_args *full);

/* ---- extent.c ------------------------------------------------------------------------------ */

/* The dimensions of a strided tensor: number of steps and stride of each. */
typedef struct qkv_extent {
    int64_t n[4], stride[4];
    int64_t element; /* bytes */
} qkv_extent;

/* Bytes from the base pointer to the lowest byte (0 or less) and past the highest.  Returns 0 if
 * they do not fit 62 bits.  An empty tensor has first = end = 0. */
int qkv_extent_bytes(const qkv_extent *e, int64_t *first, int64_t *end);

/* 1 if no two elements can share a place (sufficient: strides nest). */
int qkv_extent_is_injective(const qkv_extent *e);

/* The tensors of a problem, by name, in a fixed order; absent ones have type QKV_NONE. */
typedef struct qkv_named_layout {
    const char *name;
    const qkv_layout *layout;
    qkv_extent extent;
    int output;
} qkv_named_layout;
enum { QKV_N_TENSORS = 15 };
void qkv_tensors(const qkv_desc *desc, const qkv_rows *rows, qkv_named_layout out[QKV_N_TENSORS]);

/* Groups of channels that have a scale of their own, and channels of k beside those of k_rope. */
static inline int32_t qkv_scale_groups(int32_t dim, int32_t group)
{
    return group > 0 ? (dim + group - 1) / group : 1;
}
static inline int32_t qkv_k_dim(const qkv_desc *desc) { return desc->head_dim - desc->rope_dim; }

/* ---- registry.c ---------------------------------------------------------------------------- */

/* The best kernel for the descriptor's types that this CPU and its cpu_mask allow; the scalar tier
 * has every supported combination, so never NULL for a checked descriptor. */
const qkv_kernel *qkv_find_kernel(qkv_op op, const qkv_desc *desc);

/* ---- plan ----------------------------------------------------------------------------------- */

enum {
    QKV_PART_KEYS = 512, /* a part has at least this many keys */
    QKV_PART_UNIT = QKV_BLOCK_KEYS, /* parts begin at multiples of this */
    QKV_MAX_PARTS = 16,  /* parts of one (sequence, group): bounds the workspace */
    QKV_SPLIT_TASKS = 64, /* tiles of many rows are cut no further than makes this many tasks */
    QKV_MAX_SPLIT_BLOCKS = 4, /* only sequences with so few query blocks are cut by keys */
    QKV_STREAM_TILES = 8, /* a sequence of so few tiles waits for memory, and for its last rows */
    QKV_STREAM_BYTES = 1 << 20, /* of K and V of a head; more do not stay in a second-level cache */
    QKV_SMALL_RUN = 1 << 21, /* operations that are not worth a second thread: 10 to 40 us */
    QKV_ROW_UNIT = 16 /* rows that cost no more than fewer: the lanes of the widest vectors */
};

/* One sequence of a plan.  Its tasks of phase 0 are groups x blocks x parts, numbered from
 * first_task; if it has several parts, its tasks of phase 1 are groups x blocks from first_merge. */
typedef struct qkv_seq {
    qkv_span span;
    const qkv_kernel *kernel;
    int64_t q_row, k_row; /* first row in packed tensors; 0 if padded */
    int64_t blocks;       /* of queries; at least 1, so that rows past q_len are written */
    int64_t tile_rows;    /* rows of a block, which begin anew every cut_rows */
    int64_t cut_rows;
    int64_t rest;         /* last rows of the last block that are the decode kernel's, in its tile */
    int64_t parts;        /* of keys */
    int32_t streams;      /* keys and values come from afar: qkv_tile has it */
    int64_t part_lo, part_keys; /* part n holds keys part_lo + n part_keys onwards */
    int64_t first_task, first_merge;
    int64_t first_slot; /* partial states, numbered over the plan */
} qkv_seq;

struct qkv_plan {
    uint64_t magic;
    const qkv_kernel *attend, *decode; /* for sequences of many and of few queries */
    qkv_shape shape;
    qkv_rules rules;
    qkv_desc desc; /* its pointers are NULL: what they pointed to is in seqs and block_bits */
    qkv_rows rows;
    int32_t group;      /* G */
    int32_t head_group; /* query heads that share a tile: G, or 1 where block masks differ by head */
    int32_t n_groups;   /* Hq / head_group */
    int64_t n_tasks, n_merges, n_slots;
    int small[2];       /* of a phase: less work than waking a thread */
    size_t lanes_bytes, scratch_bytes, own_state_bytes; /* of one worker */
    size_t rest_scratch; /* where the decode kernel's scratch begins if both work on a tile */
    size_t state_bytes;                                 /* of one slot */
    qkv_seq *seqs;
    uint8_t *block_bits;
};

#define QKV_PLAN_MAGIC 0x6e616c702d766b71u /* "qkv-plan" */

/* Rows from .. end-1 of a sequence. */
typedef struct qkv_row_range {
    int64_t from, end;
} qkv_row_range;

/* Those of a block of queries; none in a sequence without queries. */
qkv_row_range qkv_rows_of_tile(const qkv_plan *plan, const qkv_seq *seq, int64_t block);

/* ---- lanes.c, run.c ------------------------------------------------------------------------ */

/* As numbers, because an empty tensor may have no address to add to. */
static inline void *qkv_at(const void *base, const qkv_layout *l, int64_t i0, int64_t i1, int64_t i2)
{
    const int64_t offset = i0 * l->stride[0] + i1 * l->stride[1] + i2 * l->stride[2];
    return (void *)((uintptr_t)base +
                    (uintptr_t)(offset * (int64_t)qkv_type_size((qkv_type)l->type)));
}

/* Writes the lanes of rows of one sequence and group; rows.end - rows.from of them, perhaps none. */
void qkv_fill_lanes(const qkv_plan *plan, const qkv_args *args, int64_t b, int64_t group,
                    qkv_row_range rows, qkv_lane *lanes);

/* qkv_workspace_size of the plan this (checked) descriptor would give, without building it. */
size_t qkv_dry_workspace_size(const qkv_desc *checked, int32_t n_workers);

static inline size_t qkv_align64(size_t n) { return (n + 63) / 64 * 64; }

#endif
