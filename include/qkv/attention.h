/*
 * qkv/attention.h - scaled dot-product attention.
 *
 *     o_i = sum_j w_ij v_j        w_i = softmax_j( cap(scale q_i . k_j) + alibi_ij + bias_ij )
 *
 * over the keys j that query i sees.  Three steps: describe the problem (qkv_desc), make a plan
 * (qkv_plan_init: everything that can fail, fails here), run the plan on tensors (qkv_run).  A
 * plan is immutable and knows no pointers to tensors, so one plan serves every layer of a step,
 * and any number of threads may run it at once on different tensors and workspaces.
 *
 * Letters: B sequences, Hq query heads, Hkv key/value heads (query head h reads key/value head
 * h / (Hq/Hkv), rounded down), Tq and Tk tokens, D channels of q and k, Dv channels of v and o.
 *
 * Visibility.  Query i stands at position p = q_offset + i; key j at position j.  Query i sees
 * key j when all of these hold:
 *     kv_start <= j < kv_len               the key exists
 *     j <= p   (or j < p if strict)        when causal
 *     p - window_left <= j                 when window_left is not -1
 *     j <= p + window_right                when window_right is not -1
 *     the block holding (i, j) is set      when there is a block mask
 *     mask[i][j] is not 0                  when there is a mask
 *     bias[i][j] is not -infinity          when there is a bias
 * q_offset is given per sequence, or follows from align with the sequence's own lengths: 0 for
 * QKV_ALIGN_TOP_LEFT, kv_len - q_len for QKV_ALIGN_BOTTOM_RIGHT.  It may be negative.
 *
 * Order: scale, soft-cap c tanh(s/c), ALiBi -slope |p - j|, bias, visibility, softmax with the
 * sink as one more logit (neither scaled nor capped, and without a value), times v.
 *
 * A query that sees no key gives o = 0 and lse = -infinity (the sink's logit if there is one).
 * Hidden keys and values never enter arithmetic, so what they hold (NaN, infinity) does not
 * matter; a NaN in a visible one gives NaN, as the formula does.
 *
 * The result has the same bits for any number of threads and for a sequence alone or inside any
 * batch, on one model of CPU with one cpu_mask.
 */
#ifndef QKV_ATTENTION_H
#define QKV_ATTENTION_H

#include "qkv/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- describe --------------------------------------------------------------------------- */

enum { QKV_CAUSAL_NONE = 0, QKV_CAUSAL_INCLUSIVE = 1, QKV_CAUSAL_STRICT = 2 };
enum { QKV_ALIGN_BOTTOM_RIGHT = 0, QKV_ALIGN_TOP_LEFT = 1 };

/* How far f32 inputs may be rounded before products, in PyTorch's words.  A permission, not a
 * demand: a tier without a faster product at that precision computes the more exact one. */
enum {
    QKV_PRECISION_HIGHEST = 0, /* true f32 */
    QKV_PRECISION_HIGH = 1,    /* f32 as a sum of bf16 parts, error near 1e-5 */
    QKV_PRECISION_MEDIUM = 2   /* bf16 */
};

/* What qkv_args.weights receives, from raw to final.  See qkv_desc.stage. */
enum {
    QKV_STAGE_SCORES = 0,  /* scale q . k */
    QKV_STAGE_CAPPED = 1,  /* after the soft-cap */
    QKV_STAGE_BIASED = 2,  /* after ALiBi, bias and visibility: -infinity where hidden */
    QKV_STAGE_WEIGHTS = 3  /* after the softmax: 0 where hidden, rows sum to 1 minus the sink */
};

#define QKV_UNBOUNDED (-1)                             /* a window without that side */
#define QKV_SCALE_DEFAULT (-1.7976931348623157e308)    /* 1/sqrt(D) */

/* How a tensor lies in memory: element type and strides in elements, 64-bit, of any sign and
 * order; 0 broadcasts (not for outputs).  What the four strides step over stands beside each
 * use below.  type QKV_NONE says that an optional tensor is absent. */
typedef struct qkv_layout {
    int32_t type; /* qkv_type */
    int32_t reserved;
    int64_t stride[4];
} qkv_layout;

/*
 * A problem.  Call qkv_desc_init first: it sets every default, and fields added by later
 * versions with them.  Then set the sizes and the layouts (or call qkv_desc_dense).
 *
 * Arrays are read by qkv_plan_init only and may be freed afterwards.
 */
typedef struct qkv_desc {
    uint32_t struct_size; /* set by qkv_desc_init */
    uint32_t cpu_mask;    /* tiers the plan may use; default QKV_CPU_ALL.  The scalar tier always may be */

    /* Sizes. */
    int32_t n_seqs;     /* B, 0 or more; default 1 */
    int32_t n_q_heads;  /* Hq, at least 1; default 1 */
    int32_t n_kv_heads; /* Hkv, divides Hq; default 1 */
    int32_t head_dim;   /* D, 1 .. 1024; no default */
    int32_t head_dim_v; /* Dv, 1 .. 1024; no default */
    int32_t precision;  /* QKV_PRECISION_; default HIGHEST */
    int64_t q_len;      /* Tq of the tensors, 0 .. 2^31-1; with cu_seqlens_q the longest allowed; default 0 */
    int64_t kv_len;     /* Tk likewise; default 0 */

    /* q, k, v, o: strides over sequence, head, token, channel.  The channel stride must be 1.
     * Types f32, f16, bf16 in any mixture, or f64 for all four; default f32; k and v may be
     * codes, see below.  o must not have two elements in one place. */
    qkv_layout q, k, v, o;

    /* Lengths: arrays of n_seqs int32, or NULL. */
    const int32_t *q_lens;    /* 0 .. q_len; NULL: all q_len.  Rows past it: o = 0, lse = -infinity.
                               * Not together with cu_seqlens_q, which says the lengths itself */
    const int32_t *kv_lens;   /* end index, 0 .. kv_len (packed: 0 .. own length); NULL: all there is */
    const int32_t *kv_starts; /* first key that exists, 0 .. kv_len; NULL: 0.  Left padding */
    const int32_t *q_offsets; /* position of query 0, overrides align; NULL: by align */

    /* Packed sequences: n_seqs + 1 ascending row numbers, int32 or int64 as cu_seqlens_type
     * says; sequence b owns rows cu[b] .. cu[b+1]-1 and the sequence stride is not used.  NULL:
     * padded.  The q side (q, o, lse) and the k side (k, v) are packed independently.  mask,
     * bias and weights keep their sequence stride and count tokens within the sequence. */
    const void *cu_seqlens_q;
    const void *cu_seqlens_k;
    int32_t cu_seqlens_type; /* QKV_I32 (default) or QKV_I64 */

    /* Masks. */
    int32_t causal;       /* QKV_CAUSAL_; default NONE */
    int32_t align;        /* QKV_ALIGN_; default BOTTOM_RIGHT */
    int32_t stage;        /* QKV_STAGE_ of weights; default WEIGHTS */
    int64_t window_left;  /* 0 or more keys before p; default QKV_UNBOUNDED */
    int64_t window_right; /* 0 or more keys after p; default QKV_UNBOUNDED */
    double scale;         /* any finite number; default QKV_SCALE_DEFAULT, 1/sqrt(D) */
    double softcap;       /* c > 0, or 0 for none; default 0 */

    /* Optional inputs: absent by default. */
    qkv_layout mask;   /* QKV_BOOL, not 0 is visible; strides over sequence, query head, query, key */
    qkv_layout bias;   /* any float type (f64 only with f64); strides as mask */
    qkv_layout sinks;  /* any float type (f64 only with f64); strides over sequence, query head, -, - */
    qkv_layout slopes; /* ALiBi, types and strides as sinks */

    /* Optional outputs: absent by default. */
    qkv_layout lse;     /* f32 (f64 with f64); strides over sequence, query head, query, - */
    qkv_layout weights; /* f32 (f64 with f64); strides over sequence, query head, query, key */

    /* Block-sparse pattern: bit n of the array is (block_bits[n / 8] >> n % 8) & 1, and the
     * block of queries qb and keys kb of query head h in sequence b is visible if bit
     * b * block_stride[0] + h * block_stride[1] + qb * block_stride[2] + kb is set.  Strides
     * in bits, 0 or more.  Query i is in block i / block_q, key j in block j / block_k. */
    const uint8_t *block_bits; /* NULL: none */
    int64_t block_stride[3];
    int32_t block_q, block_k; /* tokens a block, at least 1; default 64 */

    /* Pages.  With page_tokens > 0, k and v lie in n_pages pages of page_tokens tokens each: their
     * stride[0] steps over pages and stride[2] over the tokens of a page, and key j of a sequence
     * is token j % page_tokens of the page in entry j / page_tokens of its row of
     * args.block_table.  Strides of the table are in entries, over sequences and key/value heads
     * (0: they share a row).  The entries that are looked at are those from the first key that
     * lengths and windows show to the first query to the last key that they show to the last
     * query; with weights at stage SCORES or CAPPED, those of all keys that exist.  They must be
     * page numbers also where masks hide all of a page.  Not together with cu_seqlens_k. */
    int32_t page_tokens; /* 0 (default): no pages */
    int32_t n_pages;     /* 1 .. 2^31-1 */
    int64_t block_table_stride[2];

    /* Codes.  Keys or values of type I8, E4M3 or E5M2 stand for code * scale, U4 for
     * min + code * scale, one scale (and min) a group of k_group (v_group) channels; 0 (default):
     * one for all.  The last group may be shorter; a group of U4 is even, or all channels.  Scales
     * and mins are f32 or f16 and lie alike; strides over sequences (or pages), key/value heads,
     * tokens, groups; 0 shares, so one scale a channel and page is a group of 1 and stride[2] = 0.
     * q and o are then not f64. */
    qkv_layout k_scale, k_min, v_scale, v_min;
    int32_t k_group, v_group;

    /* The last rope_dim channels of the keys may lie apart from the first head_dim - rope_dim: the
     * rotary part of a latent row beside its codes.  A float type that is not f64; strides as k. */
    qkv_layout k_rope;
    int32_t rope_dim; /* 0 (default): k has all channels */
    int32_t reserved;
} qkv_desc;

/* Sets every field to its default.  Use the inline form below: it passes the size of the struct
 * this program was compiled with, so old programs keep working with newer libraries. */
QKV_API void qkv_desc_init_sized(qkv_desc *desc, size_t struct_size);
static inline void qkv_desc_init(qkv_desc *desc) { qkv_desc_init_sized(desc, sizeof *desc); }

/* Two usual orders of dense tensors. */
enum { QKV_BHTD = 0, QKV_BTHD = 1 };

/*
 * Sets the layouts of q, k, v and o to dense tensors of one type in the order given, from the
 * sizes already in desc; also those of lse ([B][Hq][Tq]) and weights ([B][Hq][Tq][Tk]) if their type
 * is not QKV_NONE.  With order QKV_BTHD and cu_seqlens the tensors are packed [T][H][D] as they
 * are, and lse is [B][Hq][Tq] only for the padded form: for packed queries set its strides.
 */
QKV_API void qkv_desc_dense(qkv_desc *desc, qkv_type type, int32_t order);

/*
 * qkv_explain - say what qkv_plan_init would.
 *
 * Writes one sentence that names the field, its value and what is accepted ("n_kv_heads is 3; it
 * must divide n_q_heads, which is 32"), or "ok".  Always terminated if bytes > 0; cut to fit.
 * Returns the status qkv_plan_init would return for a large enough memory.  Thread-safe.
 */
QKV_API qkv_status qkv_explain(const qkv_desc *desc, char *text, size_t bytes);

/* ---- plan ------------------------------------------------------------------------------- */

typedef struct qkv_plan qkv_plan;

/* Bytes of memory that qkv_plan_init needs for this descriptor; 0 if it refuses the descriptor.
 * Grows with n_seqs and with the size of the block-sparse pattern only.  Thread-safe. */
QKV_API size_t qkv_plan_size(const qkv_desc *desc);

/*
 * qkv_plan_init - check a problem once and fix how it will be run.
 *
 *   mem, bytes  Where the plan is built: qkv_plan_size(desc) bytes, 8-byte aligned.  It stays
 *               the caller's; there is nothing to destroy.  The plan must not be moved, nor used on
 *               another machine.
 *   desc        Read during the call only, with the arrays it points to.
 *   plan        Receives a pointer into mem; untouched on failure.
 *
 * The kernel follows from the types, cpu_mask and the CPU; the cut into tasks from each
 * sequence's own sizes.  Neither depends on threads, time or the rest of the batch.
 *
 * Returns QKV_OK; QKV_ERR_ARGUMENT or QKV_ERR_UNSUPPORTED (qkv_explain says why); QKV_ERR_BUFFER.
 * Thread-safe.  No allocation, no locks.
 */
QKV_API qkv_status qkv_plan_init(void *mem, size_t bytes, const qkv_desc *desc,
                                 const qkv_plan **plan);

/* Bytes of workspace for a run with this many workers (1 for qkv_run).  Does not grow with
 * q_len or kv_len.  n_workers below 1 counts as 1. */
QKV_API size_t qkv_workspace_size(const qkv_plan *plan, int32_t n_workers);

/* The name of the kernel that the plan's longest sequence of queries uses,
 * "attend_f32_bf16_bf16__avx512"; "decode_..." if none has more than a few.  Static storage. */
QKV_API const char *qkv_plan_kernel(const qkv_plan *plan);

/* Query-key pairs the plan's ranges leave visible (lengths, causal, window; the block mask by
 * whole blocks), summed over sequences and query heads.  A boolean mask and a bias are not counted.  The useful
 * work of a run is 2 (D + Dv) floating-point operations a pair.  Costs O(B Tq Tk/block_k) with a
 * block mask, O(B Tq) without. */
QKV_API int64_t qkv_plan_visible_pairs(const qkv_plan *plan);

/* Keys that the plan's tasks read, summed over tiles and key/value heads: a key counts once for each tile
 * of queries that passes over it.  Divided by the keys there are times Hkv it is how often K and V
 * are read; 1 for decoding.  Boolean and block masks are not looked at.  Costs O(B + tiles). */
QKV_API int64_t qkv_plan_key_reads(const qkv_plan *plan);

/* ---- run -------------------------------------------------------------------------------- */

/* Base pointers: element (sequence 0, head 0, token 0, channel 0) of each tensor, aligned to its
 * element.  Optional tensors that the descriptor declares absent are ignored. */
typedef struct qkv_args {
    uint32_t struct_size; /* set by qkv_args_init */
    uint32_t reserved;
    const void *q, *k, *v;
    void *o;
    const void *mask, *bias, *sinks, *slopes;
    void *lse, *weights;
    void *workspace; /* 64-byte aligned; its contents are never assumed and never kept */
    size_t workspace_bytes;
    const int32_t *block_table; /* page numbers; entry of sequence 0, head 0, page 0 */
    const void *k_scale, *k_min, *v_scale, *v_min, *k_rope;
} qkv_args;

/* Sets every pointer to NULL. */
QKV_API void qkv_args_init_sized(qkv_args *args, size_t struct_size);
static inline void qkv_args_init(qkv_args *args) { qkv_args_init_sized(args, sizeof *args); }

/*
 * qkv_args_check - check what running takes on trust.
 *
 * Pointers present and aligned, workspace large enough for n_workers and aligned, outputs not
 * overlapping inputs, one another or the workspace (by the extents of the tensors; slots that
 * interleave without touching, such as those of one packed q-k-v array, are told apart by their
 * common token stride).  text receives a sentence or "ok"; it may be NULL if bytes is 0.
 * Returns QKV_OK, QKV_ERR_ARGUMENT or QKV_ERR_BUFFER.  Thread-safe.
 */
QKV_API qkv_status qkv_args_check(const qkv_plan *plan, const qkv_args *args, int32_t n_workers,
                                  char *text, size_t bytes);

/* Run everything on the calling thread.  Cannot fail; does not allocate, lock, or call into the
 * system.  args must satisfy qkv_args_check, or the behaviour is undefined.  Needs less than 16 KiB
 * of stack. */
QKV_API void qkv_run(const qkv_plan *plan, const qkv_args *args);

/* Run on a parallel loop: the caller's own, or qkv_pool_parallel(pool).  The workspace must be that for
 * parallel->n_workers.  A phase of less work than it takes to wake a thread runs on the calling
 * thread, as worker 0, and does not call parallel->parallel_for. */
QKV_API void qkv_run_parallel(const qkv_plan *plan, const qkv_args *args,
                              const qkv_parallel *parallel);

/*
 * qkv_run_task - run piece by piece, on threads the caller spreads.
 *
 *     for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++)
 *         each task in [0, qkv_n_tasks(plan, phase)), in any order, on any thread:
 *             qkv_run_task(plan, &args, phase, task, worker);
 *
 * Tasks of a phase are independent; finish a phase before starting the next.  worker in
 * [0, n_workers) picks the scratch memory: no two running tasks may share one.
 */
QKV_API int32_t qkv_n_phases(const qkv_plan *plan);
QKV_API int64_t qkv_n_tasks(const qkv_plan *plan, int32_t phase);
QKV_API void qkv_run_task(const qkv_plan *plan, const qkv_args *args, int32_t phase, int64_t task,
                          int32_t worker);

/* The three steps in one call, for one-shot use: plan, check, run.  The plan is built at the start of the
 * workspace, so args->workspace must hold qkv_attention_workspace_size(desc, n_workers) bytes.
 * parallel NULL runs on the calling thread (n_workers 1).  Returns what plan and check return. */
QKV_API size_t qkv_attention_workspace_size(const qkv_desc *desc, int32_t n_workers);
QKV_API qkv_status qkv_attention(const qkv_desc *desc, const qkv_args *args,
                                 const qkv_parallel *parallel);

/* ---- merge ------------------------------------------------------------------------------ */

/*
 * Partial results of the same queries over disjoint sets of keys, to be made one:
 *     lse = log sum_n exp(lse_n)  (+ the sink)       o = sum_n exp(lse_n - lse) o_n
 * (FlashAttention-2, Dao 2023, section 3.1).  A part whose lse is -infinity is empty and its o
 * is not looked at.  If all parts are empty: o = 0, lse = -infinity or the sink (also for rows past
 * q_len: a merge cannot tell them from queries that saw no key).  Sinks enter here once, so make
 * the parts without them.
 *
 * o may be one of o_parts and lse one of lse_parts.  Set fields by name after
 * qkv_merge_init; all but sinks and lse must be given.
 */
typedef struct qkv_merge_args {
    uint32_t struct_size; /* set by qkv_merge_init */
    int32_t type;         /* QKV_F32 or QKV_F64, of o, lse, and sinks; default QKV_F32 */
    int32_t n_parts;      /* 0 or more */
    int32_t n_seqs;       /* B; default 1 */
    int32_t n_heads;      /* Hq; default 1 */
    int32_t head_dim_v;   /* Dv, 1 .. 1024 */
    int64_t n_tokens;     /* Tq */
    const void *const *o_parts;   /* n_parts base pointers */
    const void *const *lse_parts; /* n_parts base pointers */
    int64_t o_part_stride[3];     /* over sequence, head, token; channels are contiguous */
    int64_t lse_part_stride[3];
    void *o;
    int64_t o_stride[3];
    void *lse; /* NULL: not wanted */
    int64_t lse_stride[3];
    const void *sinks; /* n_heads logits, or NULL */
} qkv_merge_args;

/* Defaults: everything NULL or 0 but those named above. */
QKV_API void qkv_merge_init_sized(qkv_merge_args *args, size_t struct_size);
static inline void qkv_merge_init(qkv_merge_args *args) { qkv_merge_init_sized(args, sizeof *args); }

/* Returns QKV_OK or QKV_ERR_ARGUMENT; then nothing was written and text (may be NULL if bytes is 0) says why.
 * Thread-safe, no allocation. */
QKV_API qkv_status qkv_merge(const qkv_merge_args *args, char *text, size_t bytes);

/* ---- registry --------------------------------------------------------------------------- */

/* One kernel of this build, for `qkv info` and for tests.  Strings are static.  Grows like
 * qkv_tier.  index in [0, qkv_kernel_count()); QKV_ERR_ARGUMENT for another or a NULL info. */
typedef struct qkv_kernel_info {
    const char *name;     /* "attend_f32_bf16_bf16__avx512" */
    const char *op;       /* "attend" (tiles of many queries) or "decode" (a few queries) */
    const char *tier;     /* "avx512" */
    int32_t compute_type; /* of scores, softmax and accumulation */
    int32_t k_type, v_type; /* QKV_NONE: any that no kernel before it is for, codes among them */
    uint32_t cpu;      /* QKV_CPU_ bits it needs */
    int32_t available; /* 1 if this machine has them */
    int32_t precision; /* QKV_PRECISION_: plans that ask for a more exact one do not take it */
} qkv_kernel_info;

QKV_API int32_t qkv_kernel_count(void);
QKV_API qkv_status qkv_kernel_info_get_sized(int32_t index, qkv_kernel_info *info,
                                             size_t struct_size);
static inline qkv_status qkv_kernel_info_get(int32_t index, qkv_kernel_info *info)
{
    return qkv_kernel_info_get_sized(index, info, sizeof *info);
}

#ifdef __cplusplus
}
#endif
#endif /* QKV_ATTENTION_H */
