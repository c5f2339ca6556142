/*
 * sizing/internal.h - counting that notices when a number no longer fits, and what files share.
 *
 *     setup.c       defaults and checks of what is asked
 *     page.c        bytes of a page and of a cache
 *     groups.c      layers to caches
 *     parameters.c  what is in the layers
 *     pairs.c       pairs of query and key
 *     work.c        a step of a model; work.h, kind.c: of layers of one kind
 *     ...
 */
#ifndef QKV_SIZING_INTERNAL_H
#define QKV_SIZING_INTERNAL_H

#include "core/say.h"
#include "qkv/sizing.h"

/* ---- counting ----------------------------------------------------------------------------- */

/* Numbers stay below 2^63, so that they are exact in signed types and in JSON.  `over` remembers
 * that one did not; it is looked at once, at the end. */
typedef struct qkv_tally {
    int over;
} qkv_tally;

static inline uint64_t qkv_tally_mul(qkv_tally *t, uint64_t a, uint64_t b)
{
    uint64_t c;
    if (!__builtin_mul_overflow(a, b, &c) && c <= INT64_MAX)
        return c;
    t->over = 1;
    return INT64_MAX;
}

static inline uint64_t qkv_tally_add(qkv_tally *t, uint64_t a, uint64_t b)
{
    uint64_t c;
    if (!__builtin_add_overflow(a, b, &c) && c <= INT64_MAX)
        return c;
    t->over = 1;
    return INT64_MAX;
}

static inline uint64_t qkv_tally_mul3(qkv_tally *t, uint64_t a, uint64_t b, uint64_t c)
{
    return qkv_tally_mul(t, qkv_tally_mul(t, a, b), c);
}

/* a / b rounded up; b is at least 1. */
static inline uint64_t qkv_up(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

static inline uint64_t qkv_min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- setup.c ------------------------------------------------------------------------------ */

/* A copy with every default resolved, checked; the model is checked too. */
qkv_status qkv_size_resolve(const qkv_model *model, const qkv_size_setup *in, qkv_size_setup *full,
                            qkv_say say);
qkv_status qkv_size_check_model(const qkv_model *model, qkv_say say);
qkv_status qkv_size_check_layer(const qkv_layer_desc *layer, qkv_say say);
/* Formats of setup for rows of a group. */
qkv_status qkv_size_check_formats(const qkv_size_setup *setup, const qkv_size_group *group,
                                  qkv_say say);
/* "context is .., batch is ..: counts of 2^63 or more". */
qkv_status qkv_size_refuse_over(const qkv_size_setup *setup, qkv_say say);
int qkv_size_is_foreign(int32_t format);

/* The attention of a layer, by part. */
static inline const qkv_layer_desc *qkv_size_layer(const qkv_model *m, int32_t part, int32_t layer)
{
    return &m->kinds[m->kind_of[part][layer]];
}
/* Parts a model has: how many layers each; 0: none. */
static inline int32_t qkv_size_layers(const qkv_model *m, int32_t part)
{
    return part == QKV_PART_ENCODER                           ? m->encoder_layers
           : part == QKV_PART_CROSS && m->encoder_layers == 0 ? 0
                                                              : m->n_layers;
}
/* Tokens that a query of this layer sees, itself included; 0: all, as of windows of 2^31 and more,
 * since no sequence has more. */
static inline int64_t qkv_size_window(const qkv_layer_desc *l)
{
    const int bounded = l->window_left != QKV_UNBOUNDED && l->window_left < INT32_MAX;
    const int64_t window = bounded ? l->window_left + 1 : 0;
    if (l->chunk_tokens > 0 && l->chunk_tokens < INT32_MAX &&
        (window == 0 || l->chunk_tokens < window))
        return l->chunk_tokens;
    return window;
}

/* ---- page.c ------------------------------------------------------------------------------- */

/* What keys and values of one shape take. */
typedef struct qkv_size_rows {
    uint64_t token;                            /* bytes of a token in one layer */
    uint64_t once;                             /* bytes that a page has once (scales) */
    uint64_t page;                             /* with rounding */
    uint64_t open_token, open_once, open_page; /* the same of open pages; 0 without them */
    uint64_t key_token;                        /* of token: keys, and for latents all */
} qkv_size_rows;
void qkv_size_rows_of(const qkv_size_group *group, const qkv_size_setup *setup, qkv_tally *t,
                      qkv_size_rows *rows);
/* Bytes that qkv_cache_create asks for, on machines with 64-bit pointers. */
uint64_t qkv_size_cache_bytes(const qkv_cache_config *config, const qkv_size_rows *rows,
                              qkv_tally *t);

/* ---- groups.c ----------------------------------------------------------------------------- */

/* Groups with shapes and layers, without bytes. */
qkv_status qkv_size_find_groups(const qkv_model *model, const qkv_size_setup *full,
                                qkv_size_cache *cache, qkv_say say);
/* The shape of one layer's rows. */
void qkv_size_shape(const qkv_layer_desc *layer, qkv_size_group *group);
/* Pages that a cache of this group needs, and those of one sequence at most. */
uint64_t qkv_size_pages(const qkv_size_group *group, const qkv_size_setup *full,
                        uint64_t *of_sequence, qkv_tally *t);

/* ---- parameters.c ------------------------------------------------------------------------- */

/* Feed-forward part of a layer (-1: of an encoder), in parameters. */
typedef struct qkv_size_mlp {
    uint64_t fixed;   /* every token: dense block, router, shared experts */
    uint64_t expert;  /* one expert */
    uint64_t n, used; /* experts, and those a token uses */
} qkv_size_mlp;
void qkv_size_block(const qkv_model *model, int32_t layer, qkv_size_mlp *block);

/* ---- pairs.c ------------------------------------------------------------------------------ */

/* Pairs of the queries at positions past .. past + n - 1 with the keys that one head sees. */
uint64_t qkv_size_pairs(const qkv_layer_desc *layer, uint64_t past, uint64_t n, uint64_t memory,
                        int32_t how, qkv_tally *t);
/* Keys that at least one of them sees. */
uint64_t qkv_size_keys(const qkv_layer_desc *layer, uint64_t past, uint64_t n, uint64_t memory,
                       int32_t how);

/* ---- variant.c ---------------------------------------------------------------------------- */

/* Sets what other has of the attention of layers, keeping the rest. */
qkv_status qkv_size_vary_layer(qkv_layer_desc *layer, const qkv_size_variant_of *variant,
                               qkv_say say);

#endif
