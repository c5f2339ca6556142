/* cache/view.h - what a view holds; made in view.c, described in view_desc.c. */
#ifndef QKV_CACHE_VIEW_INTERNAL_H
#define QKV_CACHE_VIEW_INTERNAL_H

#include "cache/internal.h"
#include "qkv/cache_view.h"

enum { QKV_VIEW_PARTS = 4 };

/* One problem.  Keys of sequence b are tokens kv_starts[b] .. kv_lens[b]-1, counted from the first
 * token of the first page in its row of the table. */
typedef struct qkv_view_part {
    int open;  /* pages of the open set */
    int sinks; /* sink tokens, which every window shows */
    int any_start;
    int32_t *table, *kv_lens, *kv_starts, *q_offsets;
    int64_t kv_len; /* the largest */
} qkv_view_part;

struct qkv_cache_view {
    qkv_cache *cache;
    int32_t n_seqs, n_parts, causal;
    int64_t stride; /* of the tables */
    int64_t q_len;  /* the largest */
    int equal;      /* all q_lens are */
    int32_t *q_lens;
    qkv_view_part part[QKV_VIEW_PARTS];
};

#endif
