/*
 * qkv/cache_view.h - cached tokens as problems of attention, in place.
 *
 *     views            tokens of a qkv_cache as descriptors and pointers
 *     shared prefixes  which sequences begin with the same pages (cascade)
 *     chosen pages     the pages whose keys may matter most to a query (sparse reads)
 *     other pools      descriptors for paged memory that an engine already has
 *
 * Nothing here copies keys or values.
 */
#ifndef QKV_CACHE_VIEW_H
#define QKV_CACHE_VIEW_H

#include "qkv/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- views ------------------------------------------------------------------------------ */

/* What a view shows.  Call qkv_cache_select_init first. */
typedef struct qkv_cache_select {
    uint32_t struct_size;  /* set by qkv_cache_select_init */
    int32_t n_seqs;        /* B; default 1 */
    const int32_t *seqs;   /* n_seqs ids; may repeat */
    const int32_t *q_lens; /* queries of each, which are its newest tokens; NULL: as many as are not
                            * committed */
    int64_t from, to;      /* only tokens from .. to-1; default 0 and INT64_MAX */
    int32_t causal;        /* QKV_CAUSAL_INCLUSIVE (default); or QKV_CAUSAL_NONE: all queries see
                            * all selected tokens, and q_lens counts any rows */
    int32_t reserved;
} qkv_cache_select;

QKV_API void qkv_cache_select_init_sized(qkv_cache_select *select, size_t struct_size);
static inline void qkv_cache_select_init(qkv_cache_select *select)
{
    qkv_cache_select_init_sized(select, sizeof *select);
}

/*
 * A view is one problem, or several *parts* over different keys whose results qkv_merge joins:
 *
 *     sinks and a window (or an eviction)    the sinks; the rest                      2 parts
 *     INT8_CHANNEL                           closed pages; open pages                 2 parts
 *     both                                                                            4 parts
 *     everything else                                                                 1 part
 *
 * A part may be empty for some or all sequences; its lse is -infinity there.
 */
typedef struct qkv_cache_view qkv_cache_view;

/* Bytes of memory for a view of this selection as things stand; 0 if qkv_cache_view_init would
 * refuse it. */
QKV_API size_t qkv_cache_view_size(qkv_cache *cache, const qkv_cache_select *select);

/*
 * qkv_cache_view_init - the tables and lengths of some sequences, as they are now.
 *
 *   mem, bytes  qkv_cache_view_size bytes, 8-byte aligned; the caller's, nothing to destroy.
 *   select      Read during the call only.
 *   view        Receives a pointer into mem; untouched on failure.
 *
 * Make it after the step's reserve: tables and lengths then hold for all layers, until a sequence
 * of it changes.  The queries of a cache with a window must still have all their keys, so make it
 * before the step's commit.
 *
 * Returns QKV_OK; QKV_ERR_ARGUMENT; QKV_ERR_BUFFER.
 */
QKV_API qkv_status qkv_cache_view_init(void *mem, size_t bytes, qkv_cache *cache,
                                       const qkv_cache_select *select, const qkv_cache_view **view,
                                       char *text, size_t text_bytes);

/* 1, 2 or 4. */
QKV_API int32_t qkv_cache_view_parts(const qkv_cache_view *view);

/*
 * qkv_cache_view_desc - one part as a descriptor.
 *
 * Sets n_seqs, n_kv_heads, head_dim, head_dim_v, q_len, q_lens, kv_len, kv_lens, kv_starts,
 * q_offsets, causal, window_left, the layouts of k and v, of their scales, and all about pages.
 * Leaves the rest, above all n_q_heads and the layouts of q and o, which are the caller's.
 * If desc->cu_seqlens_q is set, q_lens stays NULL.  Arrays lie in the view and are needed until
 * qkv_plan_init has returned.
 *
 * A window is that of the cache.  For a tree of speculative tokens set causal to QKV_CAUSAL_NONE
 * and give a mask or bias over all keys afterwards.
 */
QKV_API qkv_status qkv_cache_view_desc(const qkv_cache_view *view, int32_t part, qkv_desc *desc);

/* Sets k, v, block_table, the scales and k_rope for one layer.  Leaves the rest.  The table lies in
 * the view, which must live as long as args is used. */
QKV_API qkv_status qkv_cache_view_args(const qkv_cache_view *view, int32_t part, int32_t layer,
                                       qkv_args *args);

/* ---- attention over a view -------------------------------------------------------------- */

/*
 * The plans of all parts of a view, and their results joined: qkv_plan and qkv_run for a view of
 * one part, and with qkv_merge for others.  Made once a step, run once a layer.
 */
typedef struct qkv_cache_plan qkv_cache_plan;

/* Bytes of memory for the plans; 0 if qkv_cache_plan_init would refuse. */
QKV_API size_t qkv_cache_plan_size(const qkv_cache_view *view, const qkv_desc *desc);

/*
 * qkv_cache_plan_init - plan attention over a view.
 *
 *   mem, bytes  qkv_cache_plan_size bytes, 8-byte aligned; the caller's, nothing to destroy.
 *   view        Needed as long as the plan.
 *   desc        A problem as for qkv_plan_init, in which qkv_cache_view_desc replaces what it sets.
 *               To be given: n_q_heads, the layouts of q and o (and lse), and what is wanted of
 *               scale, softcap, sinks, slopes, cu_seqlens_q.
 *   plan        Receives a pointer into mem; untouched on failure.
 *
 * Returns what qkv_plan_init returns; QKV_ERR_UNSUPPORTED also for a mask, bias, block mask or
 * weights, or sinks that differ by sequence, with a view of several parts.
 */
QKV_API qkv_status qkv_cache_plan_init(void *mem, size_t bytes, const qkv_cache_view *view,
                                       const qkv_desc *desc, const qkv_cache_plan **plan,
                                       char *text, size_t text_bytes);

/* Bytes of workspace for a run with this many workers (1 without a parallel loop). */
QKV_API size_t qkv_cache_workspace_size(const qkv_cache_plan *plan, int32_t n_workers);

/* One layer.  args holds q, o, lse, sinks, slopes ... and the workspace, 64-byte aligned; what a
 * view sets is ignored.  parallel NULL runs on the calling thread.  Returns QKV_ERR_ARGUMENT for a
 * layer that is not there, and what qkv_args_check returns. */
QKV_API qkv_status qkv_cache_run(const qkv_cache_plan *plan, int32_t layer, const qkv_args *args,
                                 const qkv_parallel *parallel, char *text, size_t bytes);

/* ---- shared prefixes -------------------------------------------------------------------- */

/*
 * How many tokens all n sequences have in the same pages, from token 0 on: a multiple of
 * page_tokens and at most the shortest committed length; 0 if a sequence lacks its first tokens.
 *
 * Attention with that prefix read once:
 *     the rest    a view with `from` the shared tokens
 *     the prefix  a view of one of them, `to` the shared tokens, causal QKV_CAUSAL_NONE, and as
 *                 q_lens the number of queries of all sequences, stacked as rows of one
 * and qkv_merge for both.  The results are within the error budget, and may have other bits than
 * without.
 */
QKV_API qkv_status qkv_cache_shared_prefix(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                           int64_t *tokens, char *text, size_t bytes);

/*
 * qkv_cache_group - sequences with a common prefix, side by side.
 *
 *   order     Receives a permutation of 0 .. n-1: the members of a group follow one another.
 *   sizes     Receives how many sequences each group has; room for n.
 *   tokens    Receives the shared tokens of each group as above, at least min_tokens; 0 for a group
 *             of one.  Room for n.
 *   n_groups  Receives how many groups there are.
 *
 * Each sequence, in the order given, joins the first group with whose first member it shares
 * min_tokens (1 or more) tokens, which then shares what all have.
 */
QKV_API qkv_status qkv_cache_group(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                   int64_t min_tokens, int32_t *order, int32_t *sizes,
                                   int64_t *tokens, int32_t *n_groups, char *text, size_t bytes);

/* ---- chosen pages ----------------------------------------------------------------------- */

/*
 * The pages whose keys can score highest against a query (Quest, Tang et al. 2024): a page's bound
 * for a query is sum_d max(q_d low_d, q_d high_d) over its channels, and for a group of query
 * heads the largest of theirs.  No key of the page scores higher (before scaling).
 */
typedef struct qkv_cache_pick {
    uint32_t struct_size; /* set by qkv_cache_pick_init */
    int32_t n_seqs;       /* default 1 */
    const int32_t *seqs;
    int32_t n_q_heads; /* a multiple of n_kv_heads */
    int32_t q_type;    /* QKV_F32, F16 or BF16; default F32 */
    const void *q;     /* one query a sequence, channels contiguous */
    int64_t q_stride[2]; /* over sequence, head; elements */
    int32_t n_pages;     /* how many to choose, at least 1; fewer where a sequence has fewer */
    int32_t reserved;

    /* Outputs: [n_seqs][n_kv_heads][n_pages], and [n_seqs] the last. */
    int32_t *table;   /* page numbers, ascending by position, rows filled up with the last one: a
                       * block table with block_table_stride = {n_kv_heads n_pages, n_pages} */
    int32_t *logical; /* position of each page / page_tokens; -1 past the last.  NULL: not wanted */
    float *bounds;    /* of each page; scratch, and of interest */
    int32_t *kv_lens; /* tokens that a row of the table shows */
} qkv_cache_pick;

QKV_API void qkv_cache_pick_init_sized(qkv_cache_pick *pick, size_t struct_size);
static inline void qkv_cache_pick_init(qkv_cache_pick *pick)
{
    qkv_cache_pick_init_sized(pick, sizeof *pick);
}

/*
 * qkv_cache_pick_pages - choose pages in one layer, for each sequence and key/value head.
 *
 * The newest page is always among them, so all rows of a sequence show the same number of tokens.
 * Use table, kv_lens and these strides in a descriptor made by qkv_cache_view_desc, with q_offsets,
 * kv_starts and q_lens NULL, q_len 1 and window_left QKV_UNBOUNDED: what is chosen is all that is
 * seen.  Positions are not those of the tokens then, so ALiBi and windows have no meaning.
 *
 * Needs QKV_CACHE_KEY_BOUNDS.  QKV_ERR_UNSUPPORTED with INT8_CHANNEL; QKV_ERR_ARGUMENT also for an
 * empty sequence and one that was evicted from.
 */
QKV_API qkv_status qkv_cache_pick_pages(qkv_cache *cache, int32_t layer, const qkv_cache_pick *pick,
                                        char *text, size_t bytes);

/* ---- other pools ------------------------------------------------------------------------ */

/* How a pool of pages lies in memory: P pages, t tokens of a page, h heads, d channels. */
enum {
    QKV_POOL_PTHD = 0, /* [pages][tokens][heads][channels]: vLLM, FlashInfer's NHD */
    QKV_POOL_PHTD = 1  /* [pages][heads][tokens][channels]: FlashInfer's HND */
};

/*
 * qkv_desc_pool - describe keys and values in a caller's pool of pages.
 *
 * Sets page_tokens, n_pages, block_table_stride (table_stride entries between sequences, heads
 * share a row) and the layouts of k and v, from n_kv_heads, head_dim and head_dim_v in desc.
 * With joined not 0 keys and values are one array [pages][2][...] of one type and width.
 *
 * Returns how many elements the values begin after the keys: 0 unless joined.
 */
QKV_API int64_t qkv_desc_pool(qkv_desc *desc, qkv_type k_type, qkv_type v_type, int32_t order,
                              int32_t joined, int32_t page_tokens, int32_t n_pages,
                              int64_t table_stride);

/*
 * qkv_block_table_of_csr - FlashInfer's page lists as a block table.
 *
 * Sequence b has the pages indices[indptr[b]] .. indices[indptr[b+1]-1], and last_page_lens[b]
 * tokens in the last of them.  table receives n_seqs rows of table_stride entries, filled up with
 * 0, and kv_lens the lengths.  QKV_ERR_ARGUMENT for a list that does not fit its row, indptr that
 * descends, or a last_page_len outside 1 .. page_tokens (0 without pages).
 */
QKV_API qkv_status qkv_block_table_of_csr(int32_t n_seqs, const int32_t *indptr,
                                          const int32_t *indices, const int32_t *last_page_lens,
                                          int32_t page_tokens, int32_t *table, int64_t table_stride,
                                          int32_t *kv_lens, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* QKV_CACHE_VIEW_H */
