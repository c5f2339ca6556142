/*
 * model.h - a cache as plain lists of tokens, to compare the real one with.
 *
 * Every sequence has its own copy of every number it must read back, so there is nothing to share,
 * to count or to lose.  Pages exist only as names: two sequences share a page if it has the same
 * name in both, and a free name is never used again.
 */
#ifndef MODEL_H
#define MODEL_H

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { M_TOKENS = 512, M_PAGES = M_TOKENS / 16, M_SEQS = 6, M_LAYERS = 2, M_HEADS = 2, M_DIM = 72 };

typedef struct m_seq {
    int live;
    int32_t id;
    int length, committed, start, first_page, n_closed;
    int page[M_PAGES], open[M_PAGES];  /* names, by logical page */
    float scale[2][M_LAYERS][M_HEADS]; /* QKV_SCALE_HEAD */
    float *values;                     /* [M_TOKENS][layers][heads][D + Dv] as they are read back */
} m_seq;

typedef struct model {
    qkv_cache_config c;
    qkv_cache *cache;
    t_rng rng;
    m_seq seq[M_SEQS];
    int next_name;
    int given; /* scales were set in layer 0 */
} model;

/* A random small config, and a model of a cache made from it; memory of the running case. */
qkv_cache_config m_random_config(t_rng *rng);
int m_create(model *m, const qkv_cache_config *config, uint64_t seed);
void m_destroy(model *m);

/* One random operation on both, each with its own check of the answer. */
void m_step(model *m);

/* A random list of live sequences; returns how many. */
int m_draw_list(model *m, m_seq **list);
void m_step_reserve(model *m);

/* Everything that can be asked of the cache. */
void m_check_all(model *m);
void m_check_seq(model *m, const m_seq *s, qkv_cache *cache, int32_t id);
void m_check_view(model *m);

/* ---- model_values.c --------------------------------------------------------------------- */

/* The numbers of a token in one layer and head: D of the key, then Dv of the value. */
float *m_at(const model *m, const m_seq *s, int token, int layer, int head);
/* Draws rows for tokens start .. start+count-1 of some sequences, writes them in all layers and
 * notes what must be read back.  starts[i] and counts[i] belong to seqs[i]. */
void m_write(model *m, int n, m_seq **seqs, const int *starts, const int *counts);
/* A page of keys to int8 per channel; and the first n tokens of one back to the open type. */
void m_close_values(const model *m, m_seq *s, int page);
void m_open_values(const model *m, m_seq *s, int page, int n);

/* ---- small things ----------------------------------------------------------------------- */

static inline int m_has_open(const model *m) { return m->c.k_format == QKV_FORMAT_INT8_CHANNEL; }
static inline int m_pages_for(const model *m, int tokens)
{
    return (tokens + m->c.page_tokens - 1) / m->c.page_tokens;
}
static inline int m_head_pages(const model *m) { return m_pages_for(m, m->c.sink_tokens); }
static inline int m_in_gap(const model *m, const m_seq *s, int page)
{
    return page >= m_head_pages(m) && page < s->first_page;
}
static inline int m_n_pages(const model *m, const m_seq *s) { return m_pages_for(m, s->length); }
int m_kept_from(const model *m, const m_seq *s);
/* How many live sequences have a page of that name. */
int m_owners(const model *m, int name, int open);

/* Distinct names, those with several owners, and tokens in them. */
typedef struct m_totals {
    int used, shared, used_open, tokens, stored;
} m_totals;
m_totals m_count(const model *m);

#endif
