/*
 * layers/internal.h - a layer and a plan, as the files of src/layers see them.
 *
 *     weights.c    strided tensors into packed f32
 *     create.c     what a layer holds, in one block
 *     load.c       from a checkpoint
 *     convert.c    from another layer: fewer heads, the other pairing
 *     factorise.c  from another layer: MLA
 *     gemm.c       projections on BLAS, cut into pieces
 *     narrow.c     the same with weights in 16 or 8 bits, on oneDNN (narrow.h)
 *     rows.c       norms, rotation and copies, row by row
 *     distance.c   ALiBi slopes, T5's buckets, chunks
 *     same.c       whether two layers may share a plan
 *     check.c      what a step must be
 *     tokens.c     which tokens a step has, and where
 *     problem.c    the step as a problem of attention
 *     plan.c       the plan's block, workspace and work
 *     run.c        MHA, MQA, GQA and cross-attention
 *     run_mla.c    MLA
 */
#ifndef QKV_LAYERS_INTERNAL_H
#define QKV_LAYERS_INTERNAL_H

#include "core/allocator.h"
#include "core/say.h"
#include "layers/narrow.h"
#include "qkv/cache_view.h"
#include "qkv/layers.h"

#define QKV_LAYERS_ALIGN 64

/* y = x w^T + bias; w is [rows][cols].  rows 0: there is none. */
typedef struct qkv_matrix {
    float *w, *bias; /* w NULL: it is narrow.  bias NULL: none */
    int64_t rows, cols;
    qkv_narrow narrow;
} qkv_matrix;

struct qkv_layer {
    qkv_layer_desc desc; /* scale resolved; rope factors are ours */
    qkv_allocator allocator;
    size_t bytes;
    /* in: [q; k; v], cross: [q], MLA: [q or its latent; latent and rotary key of keys].
     * memory: cross, [k; v].  MLA: q_b, kv_b. */
    qkv_matrix in, memory, q_b, kv_b, out;
    float *q_norm, *k_norm, *q_a_norm, *kv_a_norm;
    float *sinks, *slopes, *relative;
};

/* The matrices that may be narrow.  kv_b is none: absorbed MLA sums over its rows, expanded over
 * its columns. */
enum { QKV_NARROW_MATRICES = 4 };
const qkv_matrix *qkv_layer_matrix(const qkv_layer *layer, int i);

/* Places arrays one after another; without memory it only counts. */
typedef struct qkv_carver {
    unsigned char *memory;
    size_t used;
} qkv_carver;

void *qkv_carve(qkv_carver *c, size_t bytes);

/* ---- weights.c -------------------------------------------------------------------------- */

/* Copies rows x cols as f32, from row `first` on; a head has head_rows rows. */
void qkv_weight_copy(float *dst, const qkv_layer_weight *w, int64_t first, int64_t rows,
                     int64_t cols, int64_t head_rows);
void qkv_bias_copy(float *dst, const qkv_layer_weight *w, int64_t rows, int64_t head_rows);
/* There or not, with a bias or not, as wanted; types. */
qkv_status qkv_weight_check(const qkv_layer_weight *w, int32_t role, int wanted, int bias,
                            qkv_say say);

/* ---- gemm.c ----------------------------------------------------------------------------- */

/* A product of matrices by rows with leading dimensions; see gemm.c. */
typedef struct qkv_product {
    const float *x, *w, *bias; /* bias may be NULL */
    float *y;
    int64_t rows, cols, inner; /* y is rows x cols */
    int64_t ldx, ldw, ldy;
    int w_transposed;          /* w is [cols][inner], otherwise [inner][cols] */
    /* n of them, each so much further on */
    int64_t n, x_step, w_step, y_step;
} qkv_product;

void qkv_product_run(const qkv_product *p, const qkv_parallel *parallel);
/* y = x m^T + bias, rows of x and y ldx and ldy apart. */
void qkv_project(const qkv_matrix *m, const float *x, int64_t ldx, float *y, int64_t ldy,
                 int64_t rows, const qkv_parallel *parallel);

/* Calls fn for each i in [0, n), on parallel or here. */
void qkv_each(const qkv_parallel *parallel, int64_t n,
              void (*fn)(void *arg, int64_t i, int32_t worker), void *arg);

/* ---- rows.c ----------------------------------------------------------------------------- */

/* Normalises n_heads vectors of width channels in each row, in place. */
void qkv_norm_rows(float *x, int64_t ldx, int64_t rows, int64_t n_heads, int64_t width,
                   const float *weight, int32_t kind, double eps, const qkv_parallel *parallel);

/* ---- distance.c ------------------------------------------------------------------------- */

void qkv_alibi_slopes(float *slopes, int32_t n_heads, double max_bias);
int32_t qkv_relative_bucket(int64_t distance, int32_t bidirectional, int32_t buckets,
                            int32_t max_distance);

/* ---- convert.c and factorise.c ---------------------------------------------------------- */

/* A layer that is made from another. */
typedef struct qkv_conversion {
    qkv_layer_desc desc;
    qkv_layer_weight weights[QKV_ROLE_COUNT];
} qkv_conversion;

void qkv_conversion_begin(qkv_conversion *c, const qkv_layer *layer);
/* Layers are converted while their weights are f32. */
qkv_status qkv_conversion_check(const qkv_layer *layer, qkv_say say);

/* ---- plans ------------------------------------------------------------------------------ */

typedef struct qkv_layer_shape { /* of the workspace: floats */
    int64_t in, memory, q, latents, expanded, keys, o, bias, mask;
    size_t narrow, narrow_worker; /* bytes: rows as codes, and of each worker */
} qkv_layer_shape;

struct qkv_layer_plan {
    qkv_layer_desc desc;
    qkv_allocator allocator;
    int32_t form, mla, n_seqs, packed;
    int64_t q_len, rows, memory_len, memory_rows;
    const int32_t *q_lens;  /* as in the step: NULL or counts */
    int64_t *offsets;       /* [n_seqs] keys before query 0 */
    int64_t *starts;        /* [n_seqs] the first key that exists */
    int32_t *seqs, *counts, *first_rows; /* [n_seqs] ids, tokens (MEMORY: of the memory), rows */
    int32_t *cu_k;          /* [n_seqs + 1] MLA from a cache, expanded: rows of keys */
    qkv_cache *cache;
    float *cosines, *sines; /* [rows][r / 2] */
    qkv_layer_work work;
    qkv_layer_shape shape;
    qkv_narrow_product products[QKV_NARROW_MATRICES];
    int64_t bias_len;       /* distances a head and sequence */
    int64_t mask_len;       /* keys a row of the mask of chunks */
    /* Attention: one of the two. */
    const qkv_cache_view *view;
    const qkv_cache_plan *cached;
    const qkv_plan *plain;
    void *view_block, *attention_block;
};

int qkv_layer_same(const qkv_layer_desc *a, const qkv_layer_desc *b);
int32_t qkv_layer_latent(const qkv_layer_desc *d); /* channels of a latent row, c + r */
int32_t qkv_layer_nope(const qkv_layer_desc *d);   /* n */

/* check.c: everything that can be refused before anything is allocated. */
qkv_status qkv_step_check(const qkv_layer *layer, const qkv_layer_step *step, qkv_say say);

/* problem.c: what attention is asked; arrays lie in the plan. */
qkv_status qkv_step_problem(const qkv_layer *layer, const qkv_layer_step *step,
                            qkv_layer_plan *plan, qkv_desc *desc, qkv_say say);

/* tokens.c: fills offsets, counts, first_rows, positions and the table of rotations. */
qkv_status qkv_step_tokens(const qkv_layer *layer, const qkv_layer_step *step,
                           qkv_layer_plan *plan, int64_t *positions, qkv_say say);
/* Query-key pairs that one head sees. */
int64_t qkv_step_pairs(const qkv_layer_desc *d, const qkv_layer_step *step,
                       const qkv_layer_plan *plan);
/* Keys of sequence b after the step. */
int64_t qkv_step_keys(const qkv_layer_plan *plan, const qkv_layer_step *step, int32_t b);

/* Where the pieces of a workspace are. */
typedef struct qkv_layer_space {
    float *in, *memory, *q, *latents, *expanded, *keys, *o, *bias;
    unsigned char *mask, *narrow, *narrow_workers;
    void *attention;
    size_t attention_bytes, used;
} qkv_layer_space;

void qkv_layer_space_of(const qkv_layer_plan *plan, int32_t n_workers, void *memory,
                        qkv_layer_space *space);

/* run.c and run_mla.c */
typedef struct qkv_layer_job {
    const qkv_layer_plan *plan;
    const qkv_layer *layer;
    const qkv_layer_args *args;
    const qkv_parallel *parallel;
    qkv_layer_space space;
    qkv_say say;
} qkv_layer_job;

/* y = x m^T + bias of one of the layer's matrices; rows of x ldx apart, those of y m->rows. */
qkv_status qkv_layer_project(const qkv_layer_job *job, const qkv_matrix *m, const float *x,
                             int64_t ldx, float *y, int64_t rows);
/* Rotates heads of width channels in place, with the plan's table. */
void qkv_layer_rotate(const qkv_layer_job *job, float *x, int64_t ldx, int64_t n_heads,
                      int64_t head_stride);
qkv_status qkv_layer_attend(const qkv_layer_job *job, const float *q, const float *k,
                            const float *v, float *o);
qkv_status qkv_layer_run_mla(const qkv_layer_job *job);

#endif
