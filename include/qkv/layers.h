/*
 * qkv/layers.h - complete attention layers: hidden states in, hidden states out.
 *
 *     x [rows][d_model]  -> projections -> norms, RoPE -> attention -> W_O ->  out [rows][d_model]
 *
 * A qkv_layer is a qkv_layer_desc (qkv/model.h) with its weights: MHA, MQA, GQA, cross-attention
 * and MLA.  x is what enters the projections (after a block's input norm), out what leaves W_O with
 * its bias, before the residual.  A step has one of these forms:
 *
 *     QKV_FORM_WHOLE   all tokens at once, keys and values are the step's own (training, encoders);
 *                      cross-attention: those of a memory that is given with it
 *     QKV_FORM_CACHED  the step's tokens join those of a qkv_cache and attend to all of them:
 *                      prefill, decode and anything between, as many tokens a sequence as it has;
 *                      cross-attention: queries attend to the memory that the cache holds
 *     QKV_FORM_MEMORY  cross-attention: the memory is projected into the cache, once
 *
 * Sequences lie padded, x [B][T][d_model], or packed, x [rows][d_model] with cu_seqlens.  All forms
 * give the same numbers within the rounding of f32 (and of the cache's format).
 *
 *     qkv_cache_reserve(cache, n, seqs, counts, ...);
 *     qkv_layer_plan_create(layer, &step, NULL, &plan, ...);
 *     for each layer: qkv_layer_run(plan, layer, &args, parallel, ...);
 *     qkv_layer_plan_destroy(plan);
 *     qkv_cache_commit(cache, n, seqs, NULL, ...);
 *
 * Hidden states are f32.  Matrix products are those of the BLAS that the library was linked with,
 * cut into pieces that do not depend on the number of workers.  A BLAS that starts threads by itself
 * should be told to use one, see qkv_layers_blas_threads.  Weights may be kept in 16 or 8 bits, or
 * packed (qkv_layer_desc.weights); then products are oneDNN's, on the workers' threads likewise.
 *
 * Part of libqkv_model.
 */
#ifndef QKV_LAYERS_H
#define QKV_LAYERS_H

#include "qkv/cache.h"
#include "qkv/io.h"
#include "qkv/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights ---------------------------------------------------------------------------- */

/*
 * A weight in memory that is the caller's: a matrix [output channels][input channels], its bias a
 * vector of output channels; or a vector, which has rows only; T5's relative bias [buckets][Hq].
 * Element (row, column) lies at data + row * row_stride + column * col_stride, and that of the bias
 * at bias + row, in elements.  data and bias need not be aligned.
 *
 * Row d of head h is row
 *     first + (h / group_heads) * group_stride + (h % group_heads) * head_stride + d
 * as in qkv_weight (qkv/model.h); with group_heads 0 rows follow one another from `first`.
 */
typedef struct qkv_layer_weight {
    const void *data; /* NULL: absent */
    const void *bias; /* NULL: none */
    int32_t type, bias_type; /* QKV_F64, F32, F16 or BF16 */
    int64_t row_stride, col_stride;
    int64_t first, group_stride, head_stride; /* in rows */
    int32_t group_heads;
    int32_t reserved; /* 0 */
} qkv_layer_weight;

/* A dense matrix of so many columns, or a vector (cols 1), with or without a bias of its type. */
QKV_API qkv_layer_weight qkv_layer_weight_dense(const void *data, const void *bias, qkv_type type,
                                                int64_t cols);

/* ---- layers ----------------------------------------------------------------------------- */

typedef struct qkv_layer qkv_layer;

/*
 * qkv_layer_create - a layer, ready to run.
 *
 *   desc       What it is.  Copied, with the rope factors it points to.
 *   weights    QKV_ROLE_COUNT of them, by qkv_role.  Copied: may be freed afterwards.  Those
 *              that desc asks for must be there, with biases where it says so, others absent.
 *   allocator  NULL for malloc and free.  Copied.  Asked for one block, and for scratch if weights
 *              are not kept as f32.
 *   layer      Receives the handle; NULL on failure.
 *
 * A layer never changes, so any number of threads may use one.  Returns QKV_OK;
 * QKV_ERR_ARGUMENT; QKV_ERR_UNSUPPORTED for QKV_LAYER_STATE, o_gate, v_from_k and
 * what has no meaning across two sequences, or for weights that this build or CPU cannot multiply;
 * QKV_ERR_MEMORY.
 *
 * desc->weights says how matrices are kept; vectors, biases and MLA's kv_b are f32 always:
 *
 *   QKV_WEIGHTS_F32    As they are given, rounded to f32.
 *   QKV_WEIGHTS_BF16   Half of the bytes.  Weights and the inputs of projections are rounded to bf16
 *                      (2^-9 of themselves at most), sums are f32.
 *   QKV_WEIGHTS_INT8   A quarter.  An output channel is 127 steps of its largest weight (so a weight
 *                      is off by 1/254 of that at most), a row of inputs 32767 steps of its largest
 *                      number; sums are exact.  Rows of inputs that are not finite give NaN in all
 *                      channels.  For CPUs with VNNI.
 *
 *   QKV_WEIGHTS_F32_PACKED   The bytes and the exactness of F32, multiplied by oneDNN: faster with few
 *                      rows, and weights cannot be looked at or converted.
 *
 * All but the first need a build with oneDNN (Meson option onednn).  Weights are then put into its
 * order once, here.  oneDNN takes memory of its own besides the allocator's: for the plans' products, and
 * small objects while a layer runs.
 */
QKV_API qkv_status qkv_layer_create(const qkv_layer_desc *desc, const qkv_layer_weight *weights,
                                    const qkv_allocator *allocator, qkv_layer **layer, char *text,
                                    size_t bytes);

/*
 * qkv_layer_load - a layer of a checkpoint (qkv/io.h), of a model that qkv_model_read has read.
 *
 * part is a QKV_PART_.  Weights are copied: the checkpoint may be closed.  Returns what
 * qkv_model_layer, qkv_checkpoint_weight and qkv_layer_create return.  _as: kept as QKV_WEIGHTS_
 * `weights` says; otherwise f32.
 */
QKV_API qkv_status qkv_layer_load(const qkv_checkpoint *checkpoint, const qkv_model *model,
                                  int32_t part, int32_t layer, const qkv_allocator *allocator,
                                  qkv_layer **made, char *text, size_t bytes);
QKV_API qkv_status qkv_layer_load_as(const qkv_checkpoint *checkpoint, const qkv_model *model,
                                     int32_t part, int32_t layer, int32_t weights,
                                     const qkv_allocator *allocator, qkv_layer **made, char *text,
                                     size_t bytes);

/* Frees it.  NULL is allowed. */
QKV_API void qkv_layer_destroy(qkv_layer *layer);

/* The description with scale resolved.  Lives as long as the layer. */
QKV_API const qkv_layer_desc *qkv_layer_desc_of(const qkv_layer *layer);

/* Bytes of the weights as the layer keeps them. */
QKV_API size_t qkv_layer_bytes(const qkv_layer *layer);

/*
 * qkv_layer_cache_config - a cache that fits this layer.
 *
 * Sets n_layers 1, the heads, widths, window and QKV_CACHE_LATENT of a config that
 * qkv_cache_config_init has set up; leaves the rest, above all n_pages, formats and max_seqs.  A
 * cache that a layer is run with must agree in these; n_layers may be more.
 */
QKV_API qkv_status qkv_layer_cache_config(const qkv_layer *layer, qkv_cache_config *config);

/*
 * A weight as the layer keeps it: f32, borrowed as long as the layer lives; rows 0 and no data if it
 * has none.  QKV_ERR_ARGUMENT for a role that is none, QKV_ERR_UNSUPPORTED for a matrix that is kept
 * otherwise than as QKV_WEIGHTS_F32.
 */
QKV_API qkv_status qkv_layer_weight_of(const qkv_layer *layer, int32_t role,
                                       qkv_layer_weight *weight, int64_t *rows, int64_t *cols);

/* ---- conversions ------------------------------------------------------------------------ */

/*
 * New layers from a layer with QKV_WEIGHTS_F32, which stays.  allocator is that of the new one, and
 * lends the scratch.
 * made receives the handle; NULL on failure.  All return QKV_OK; QKV_ERR_ARGUMENT or QKV_ERR_UNSUPPORTED and a sentence; QKV_ERR_MEMORY.
 *
 * qkv_layer_pool_heads    n_kv_heads, a divisor of what there are, each the mean of those it stands
 *                         for: where training of GQA or MQA from MHA begins (Ainslie et al., 2023).
 * qkv_layer_factorise     MLA without rotary part: keys and values of all heads from a latent of
 *                         `rank` channels, by the singular vectors of their stacked matrices that
 *                         weigh most.  Exact but for rounding where rank is that of these matrices,
 *                         at most d_model.  Biases of keys or values take one latent channel more.
 *                         For layers without RoPE, norms of keys, sinks and relative buckets: what
 *                         stands between the projection and the score cannot be absorbed.  Needs a
 *                         BLAS that brings LAPACK (OpenBLAS does), or QKV_ERR_UNSUPPORTED.
 * qkv_layer_pair          The other QKV_ROPE_ pairing: rows of queries and keys in another order.
 *                         Scores are the same sums in another order; cached keys are not the same.
 */
QKV_API qkv_status qkv_layer_pool_heads(const qkv_layer *layer, int32_t n_kv_heads,
                                        const qkv_allocator *allocator, qkv_layer **made,
                                        char *text, size_t bytes);
QKV_API qkv_status qkv_layer_factorise(const qkv_layer *layer, int32_t rank,
                                       const qkv_allocator *allocator, qkv_layer **made,
                                       char *text, size_t bytes);
QKV_API qkv_status qkv_layer_pair(const qkv_layer *layer, int32_t pairing,
                                  const qkv_allocator *allocator, qkv_layer **made, char *text,
                                  size_t bytes);

/* ---- steps ------------------------------------------------------------------------------ */

enum { QKV_FORM_WHOLE = 0, QKV_FORM_CACHED = 1, QKV_FORM_MEMORY = 2 };

/* How MLA is computed; the results are equal but for rounding. */
enum {
    QKV_MLA_AUTO = 0,     /* whichever needs fewer multiply-adds, see qkv_layer_work */
    QKV_MLA_EXPANDED = 1, /* keys and values of all heads are made from the latents */
    QKV_MLA_ABSORBED = 2  /* queries are taken to the latents: one key head for all */
};

/*
 * A step.  Call qkv_layer_step_init first, which sets the defaults.  Arrays are read by
 * qkv_layer_plan_create only.
 *
 * Without a cache token i of a sequence is key number i and, unless positions are given, at
 * position i.  With a cache the tokens of a step are the newest ones of their sequences: reserve
 * them before the plan is made and commit them after the last layer has run.
 */
typedef struct qkv_layer_step {
    uint32_t struct_size; /* set by qkv_layer_step_init */
    int32_t form;         /* QKV_FORM_; default WHOLE */
    int32_t n_seqs;       /* B; default 1 */
    int32_t mla;          /* QKV_MLA_; default AUTO */
    int64_t q_len;        /* T, rows a sequence; packed: not looked at.  MEMORY: 0 */
    const int32_t *q_lens;     /* [B] tokens of each sequence, 0 .. T; NULL: T.  What rows past them
                                * hold does not matter; in out they are 0 */
    const int32_t *cu_seqlens; /* [B + 1] ascending, the first 0: packed.  NULL: padded */
    int64_t memory_len;        /* cross, WHOLE and MEMORY: Tm, memory is [B][Tm][d_memory] */
    const int32_t *kv_lens;    /* [B] WHOLE: keys of each sequence that exist, 0 .. T (cross: Tm);
                                * MEMORY: tokens of each memory.  NULL: all */
    const int32_t *kv_starts;  /* [B] WHOLE: the first key that exists (left padding), where chunks
                                * begin; NULL: 0 */
    const int64_t *positions;  /* for RoPE, one a row, [B][T] or [rows].  NULL: token numbers */
    int64_t rope_len;          /* the length that DYNAMIC and LONGROPE go by; default QKV_ROPE_AUTO:
                                * the largest position of the step and 1 */
    qkv_cache *cache;          /* CACHED, MEMORY; must outlive the plan */
    const int32_t *seqs;       /* [B] ids in the cache */
    uint32_t cpu_mask;         /* as in qkv_desc */
    int32_t precision;         /* as in qkv_desc: of attention, not of the projections */
} qkv_layer_step;

QKV_API void qkv_layer_step_init_sized(qkv_layer_step *step, size_t struct_size);
static inline void qkv_layer_step_init(qkv_layer_step *step)
{
    qkv_layer_step_init_sized(step, sizeof *step);
}

typedef struct qkv_layer_plan qkv_layer_plan;

/*
 * qkv_layer_plan_create - check a step once and fix how it will be run.
 *
 * One plan serves all layers whose descriptions are equal and whose caches are one; the layer given
 * here must outlive it.  Nothing but this call allocates.  With a cache make it after the step's
 * reserve; it holds until a sequence of the step changes.
 *
 * Returns QKV_OK; QKV_ERR_ARGUMENT or QKV_ERR_UNSUPPORTED and a sentence; QKV_ERR_MEMORY.
 */
QKV_API qkv_status qkv_layer_plan_create(const qkv_layer *layer, const qkv_layer_step *step,
                                         const qkv_allocator *allocator, qkv_layer_plan **plan,
                                         char *text, size_t bytes);

/* NULL is allowed. */
QKV_API void qkv_layer_plan_destroy(qkv_layer_plan *plan);

/* Bytes of workspace for a run with this many workers (1 without a parallel loop). */
QKV_API size_t qkv_layer_workspace_size(const qkv_layer_plan *plan, int32_t n_workers);

/* Multiply-adds of a step, exact but for what is hidden by lengths: rows x matrix for projections,
 * visible pairs x (D + Dv) for attention. */
typedef struct qkv_layer_work {
    int64_t rows;        /* of x, without those past q_lens */
    int64_t pairs;       /* of queries and visible keys, of one head */
    int64_t projections; /* but kv_b and its two halves */
    int64_t expanded;    /* MLA: pairs Hq (n + r + Dv) + keys c Hq (n + Dv); else attention */
    int64_t absorbed;    /* MLA: pairs Hq (2 c + r) + rows Hq c (n + Dv); else 0 */
    int32_t mla;         /* QKV_MLA_EXPANDED or ABSORBED, as will be run; 0 if not MLA */
    int32_t reserved;
} qkv_layer_work;

QKV_API void qkv_layer_work_get_sized(const qkv_layer_plan *plan, qkv_layer_work *work,
                                      size_t struct_size);
static inline void qkv_layer_work_get(const qkv_layer_plan *plan, qkv_layer_work *work)
{
    qkv_layer_work_get_sized(plan, work, sizeof *work);
}

/* Base pointers of a run.  All f32, dense. */
typedef struct qkv_layer_args {
    uint32_t struct_size; /* set by qkv_layer_args_init */
    int32_t cache_layer;  /* which layer of the cache; default 0 */
    const float *x;       /* [B][T][d_model] or [rows][d_model]; MEMORY: not looked at */
    const float *memory;  /* cross, WHOLE and MEMORY: [B][Tm][d_memory] */
    float *out;           /* as x; may be x.  MEMORY: not looked at */
    void *workspace;      /* 64-byte aligned; contents neither assumed nor kept */
    size_t workspace_bytes;
} qkv_layer_args;

QKV_API void qkv_layer_args_init_sized(qkv_layer_args *args, size_t struct_size);
static inline void qkv_layer_args_init(qkv_layer_args *args)
{
    qkv_layer_args_init_sized(args, sizeof *args);
}

/*
 * qkv_layer_run - one layer of a step.
 *
 * parallel NULL runs on the calling thread.  Does not allocate.  Returns QKV_OK, or
 * QKV_ERR_ARGUMENT, QKV_ERR_BUFFER before anything was written.  Where weights are not QKV_WEIGHTS_F32 oneDNN
 * may fail underway (QKV_ERR_MEMORY, QKV_ERR_SYSTEM): then out holds nothing of use.
 */
QKV_API qkv_status qkv_layer_run(const qkv_layer_plan *plan, const qkv_layer *layer,
                                 const qkv_layer_args *args, const qkv_parallel *parallel,
                                 char *text, size_t bytes);

/*
 * Tells the linked BLAS how many threads of its own it may use, for the whole process, and returns
 * how many it used before; 0 if the BLAS has no such call (then set its environment variable).  n
 * below 1 only asks.  With a parallel loop it should be 1: threads of both would share processors.
 */
QKV_API int32_t qkv_layers_blas_threads(int32_t n);

#ifdef __cplusplus
}
#endif
#endif /* QKV_LAYERS_H */
