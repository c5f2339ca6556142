/* attend.h - a cache with three ragged sequences, and the oracle's answer about it. */
#ifndef ATTEND_H
#define ATTEND_H

#include "cache_test.h"
#include "qkv/cache_view.h"
#include "qkv/ref.h"

enum { B = 3, MAX_T = 420, LAYERS = 2 };

typedef struct world {
    qkv_cache_config c;
    qkv_cache *cache;
    int32_t ids[B], lens[B], q_lens[B];
    int hq, tq; /* query heads; the most queries */
    t_rng rng;
} world;

float *numbers(t_rng *rng, size_t n, double size);

/* `count` more tokens of random numbers. */
void world_append(world *w, int32_t id, int32_t count);

/* Three ragged sequences; the last few tokens of each are not committed. */
void world_grow(world *w, const qkv_cache_config *c, int group, int tq);

/* Who sees whom, written out: [B][Tq][T].  Tokens below start[b] were evicted, but for the sinks.
 */
uint8_t *world_mask(const world *w, const int64_t *start);

typedef struct dense {
    qkv_desc desc;
    qkv_args args;
    qkv_ref_out out;
} dense;

/* The oracle on a dense copy of one layer. */
void world_solve(world *w, int layer, const float *q, const uint8_t *mask, const float *sinks,
                 double cap, dense *out);
void world_compare(const world *w, const dense *want, const float *o, const float *lse, int layer);

#endif
