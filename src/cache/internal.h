/*
 * cache/internal.h - what the files of cache/ share.
 *
 *     map      where things lie inside a page
 *     set      pages of one kind: memory in every layer, reference counts, free list
 *     state    a sequence: its length and its table
 *     cache    all of it, with the lock
 *
 * Logical pages are numbered by position: page n of a sequence holds tokens n P .. n P + P-1, P
 * being page_tokens.  Between the first head_pages (the sinks) and first_page there may be a gap
 * of evicted ones, which take no place in the table.
 */
#ifndef QKV_CACHE_INTERNAL_H
#define QKV_CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/allocator.h"
#include "core/say.h"
#include "qkv/cache.h"

enum { QKV_CACHE_MAX_DIM = 1024, QKV_CACHE_ALIGN = 64 };

/* ---- map.c: inside a page --------------------------------------------------------------- */

/* Rows of `row` bytes, [heads][tokens] of them or, if shared by the tokens, [heads]; row 0: absent.
 */
typedef struct qkv_cache_array {
    int64_t offset, row; /* bytes */
    int per_token;
} qkv_cache_array;

/* The three kinds of rows a page holds, and the arrays of each. */
enum { QKV_SIDE_K, QKV_SIDE_V, QKV_SIDE_ROPE, QKV_N_SIDES };
enum { QKV_CODES, QKV_SCALES, QKV_MINS, QKV_PER_SIDE };
enum { QKV_BOUNDS = QKV_N_SIDES * QKV_PER_SIDE, QKV_N_ARRAYS };

typedef struct qkv_cache_side {
    int32_t format; /* QKV_FORMAT_ */
    int32_t dim;    /* channels; 0: absent */
    int32_t group, n_groups;
    int32_t scale_per; /* QKV_SCALE_ */
} qkv_cache_side;

typedef struct qkv_cache_map {
    int64_t bytes;       /* of a page in one layer */
    int64_t token_bytes; /* of a token in one layer, what is per page not counted */
    int32_t heads, tokens;
    qkv_cache_side side[QKV_N_SIDES];
    qkv_cache_array array[QKV_N_ARRAYS];
} qkv_cache_map;

/* The map of closed pages (or of all, without INT8_CHANNEL) and of open ones. */
void qkv_cache_map_of(const qkv_cache_config *config, int open, qkv_cache_map *map);

static inline unsigned char *qkv_cache_row(const qkv_cache_map *map, unsigned char *page, int array,
                                           int64_t head, int64_t token)
{
    const qkv_cache_array *a = &map->array[array];
    return page + a->offset + (a->per_token ? head * map->tokens + token : head) * a->row;
}

/* The first n tokens of a page and what tokens share; the rest of dst stays. */
void qkv_cache_copy_tokens(const qkv_cache_map *map, unsigned char *dst, unsigned char *src,
                           int64_t n);
/* The same into zeros. */
void qkv_cache_image(const qkv_cache_map *map, unsigned char *dst, unsigned char *src, int64_t n);

/* ---- codec.c: rows in and out of a page ------------------------------------------------- */

/* Stores a row of side->dim channels.  With QKV_SCALE_HEAD the scale lies in the page already.  Not
 * for INT8_CHANNEL, which is written a page at a time. */
void qkv_cache_put(const qkv_cache_map *map, int side, unsigned char *page, int64_t head,
                   int64_t token, const void *x, int32_t type);
void qkv_cache_get(const qkv_cache_map *map, int side, unsigned char *page, int64_t head,
                   int64_t token, float *x);
/* All channels of a key, the rotary ones too. */
void qkv_cache_get_key(const qkv_cache_map *map, unsigned char *page, int64_t head, int64_t token,
                       float *x);
/* The type of a float format, or QKV_NONE. */
int32_t qkv_cache_float_type(int32_t format);
/* QKV_FP8_ kind of a format, or -1. */
int32_t qkv_cache_fp8_kind(int32_t format);

/* ---- bounds.c --------------------------------------------------------------------------- */

/* Ranges of a page's keys: none, those of one more token, those of n tokens from the start. */
void qkv_cache_bounds_clear(const qkv_cache_map *map, unsigned char *page);
void qkv_cache_bounds_add(const qkv_cache_map *map, unsigned char *page, int64_t head,
                          int64_t token);
void qkv_cache_bounds_find(const qkv_cache_map *map, unsigned char *page, int64_t n);

/* ---- pages.c ---------------------------------------------------------------------------- */

typedef struct qkv_page_set {
    qkv_cache_map map;
    int32_t n, n_free, n_layers;
    int poison;
    int32_t *free;          /* the first n_free are free, the last of them is taken next */
    _Atomic int32_t *refs;  /* changed under the lock; qkv_cache_write looks without it */
    int32_t *pending;       /* scratch of qkv_cache_reserve, all 0 between calls */
    unsigned char **memory; /* of each layer */
} qkv_page_set;

static inline unsigned char *qkv_page_at(const qkv_page_set *set, int32_t layer, int32_t page)
{
    return set->memory[layer] + (int64_t)page * set->map.bytes;
}
static inline int32_t qkv_page_refs(const qkv_page_set *set, int32_t page)
{
    return atomic_load_explicit(&set->refs[page], memory_order_relaxed);
}
void qkv_pages_clear(qkv_page_set *set);  /* all free */
int32_t qkv_page_take(qkv_page_set *set); /* one must be free */
void qkv_page_share(qkv_page_set *set, int32_t page);
void qkv_page_drop(qkv_page_set *set, int32_t page);
/* A new page with the first n tokens of a shared one, in all layers; drops the shared one. */
int32_t qkv_page_copy(qkv_page_set *set, int32_t page, int64_t n);

/* ---- write.c ---------------------------------------------------------------------------- */

/* Changes rows of keys on their way into pages. */
typedef struct qkv_cache_filter {
    /* Before the rows of the i-th sequence; twice, and a refusal by the first stops everything. */
    qkv_status (*begin)(struct qkv_cache_filter *filter, const qkv_cache_rows *rows, int32_t i,
                        int64_t count, qkv_say say);
    /* What is stored for x, row number `row` of k (side K) or of its rotary channels (ROPE). */
    const void *(*row)(struct qkv_cache_filter *filter, int side, int64_t row, const void *x);
} qkv_cache_filter;

/* qkv_cache_write; filter may be NULL. */
qkv_status qkv_cache_write_through(qkv_cache *cache, int32_t layer, const qkv_cache_rows *rows,
                                   qkv_cache_filter *filter, qkv_say say);

/* ---- the cache -------------------------------------------------------------------------- */

/* Lengths are at most 2^31-1. */
typedef struct qkv_cache_state {
    int32_t length, committed;
    int32_t start;      /* views skip tokens sink_tokens .. start-1 */
    int32_t first_page; /* logical; head_pages without a gap */
    int32_t n_pages;    /* logical: ceil(length / P) */
    int32_t n_closed;   /* logical: the others are open.  n_pages without INT8_CHANNEL */
    int32_t *table;     /* page numbers; qkv_cache_entry finds them */
    int32_t *open;      /* open page numbers of n_closed .. n_pages-1, whose numbers in the table
                         * are the pages they will close into */
} qkv_cache_state;

typedef struct qkv_cache_seq {
    int32_t id; /* generation << 16 | place + 1 */
    int32_t live;
    uint32_t stamp;            /* of the last call that had it in a list */
    qkv_cache_state now, next; /* next is scratch of qkv_cache_reorder */
} qkv_cache_seq;

struct qkv_cache {
    qkv_allocator allocator;
    qkv_cache_config config; /* without defaults */
    pthread_mutex_t lock;
    qkv_page_set pages, open;
    uint8_t *is_closed; /* of each page: holds codes */
    int32_t head_pages, table_pages, has_open;
    qkv_cache_seq *seqs;
    int32_t *free_seqs;
    int32_t n_free_seqs;
    uint32_t stamp;
    float *given[2]; /* [n_layers][Hkv] scales for k and v; 0: none given */
    float *scratch;  /* a page of keys of one head as f32; INT8_CHANNEL only */
    void **blocks;   /* what was allocated for the layers */
    uint64_t allocated, copied, closed, opened, evicted;
};

/* ---- config.c --------------------------------------------------------------------------- */

/* A copy with every default resolved, checked. */
qkv_status qkv_cache_config_resolve(const qkv_cache_config *in, qkv_cache_config *full,
                                    qkv_say say);
/* Bytes of the bookkeeping block; with a cache, its pointers into that block are set. */
uint64_t qkv_cache_carve(const qkv_cache_config *full, qkv_cache *cache);
/* Bytes of one layer's block. */
uint64_t qkv_cache_layer_bytes(const qkv_cache_config *full);
static inline int32_t qkv_cache_has_open(const qkv_cache_config *config)
{
    return config->k_format == QKV_FORMAT_INT8_CHANNEL;
}

/* ---- state.c ---------------------------------------------------------------------------- */

static inline void qkv_cache_lock(qkv_cache *cache) { pthread_mutex_lock(&cache->lock); }
static inline void qkv_cache_unlock(qkv_cache *cache) { pthread_mutex_unlock(&cache->lock); }

/* The live sequence of that id, or NULL. */
qkv_cache_seq *qkv_cache_find(const qkv_cache *cache, int32_t id);
/* Checks n ids and that none repeats.  Under the lock. */
qkv_status qkv_cache_check_list(qkv_cache *cache, int32_t n, const int32_t *seqs, qkv_say say);
qkv_status qkv_cache_refuse_id(int32_t id, qkv_say say);

static inline int64_t qkv_cache_pages_for(const qkv_cache *cache, int64_t tokens)
{
    return (tokens + cache->config.page_tokens - 1) / cache->config.page_tokens;
}

/* Where the number of logical page n is kept; n is not in the gap. */
static inline int32_t *qkv_cache_entry(const qkv_cache *cache, const qkv_cache_state *s, int64_t n)
{
    return &s->table[n < cache->head_pages ? n : cache->head_pages + n - s->first_page];
}
static inline int qkv_cache_in_gap(const qkv_cache *cache, const qkv_cache_state *s, int64_t n)
{
    return n >= cache->head_pages && n < s->first_page;
}
/* The first token after the gap and after what views skip; 0 if all tokens are there. */
int64_t qkv_cache_kept_from(const qkv_cache *cache, const qkv_cache_state *s);
/* How many tokens of logical page n are below the length. */
int64_t qkv_cache_used(const qkv_cache *cache, const qkv_cache_state *s, int64_t n);
void qkv_cache_state_clear(const qkv_cache *cache, qkv_cache_state *s);
void qkv_cache_state_share(qkv_cache *cache, const qkv_cache_state *from, qkv_cache_state *to);
/* Gives back the pages of logical pages from .. n_pages-1. */
void qkv_cache_drop_from(qkv_cache *cache, qkv_cache_state *s, int64_t from);
/* Gives back logical pages up to `end`, but neither sinks nor the newest page. */
void qkv_cache_evict_until(qkv_cache *cache, qkv_cache_state *s, int64_t end);
void qkv_cache_close_pages(qkv_cache *cache, qkv_cache_state *s);
/* Makes the last, partly filled page one that this sequence alone may append to. */
void qkv_cache_make_writable(qkv_cache *cache, qkv_cache_state *s);
/* An empty sequence from the free ones, of which there must be one; and back, with its pages. */
qkv_cache_seq *qkv_cache_take_seq(qkv_cache *cache);
void qkv_cache_end_seq(qkv_cache *cache, qkv_cache_seq *seq);
/* The page that holds a token, and the set it belongs to. */
int32_t qkv_cache_locate(qkv_cache *cache, const qkv_cache_state *s, int64_t token,
                         qkv_page_set **set);

#endif
