/* store.h - a cache for a benchmark: made, used before, filled. */
#ifndef QKV_CLI_BENCH_STORE_H
#define QKV_CLI_BENCH_STORE_H

#include "qkv/cache_view.h"
#include "shapes.h"

typedef struct bench_store {
    const bench_shape *shape;
    qkv_cache *cache;
    int32_t *seqs; /* B */
    int32_t n_layers;
    double layer_bytes; /* that hold keys and values of a layer, those of shared tokens once */
    double token_bytes; /* of a token in a layer */
    char *arena;        /* all memory of the cache */
    size_t arena_bytes, used;
    int64_t tokens;     /* appended so far */
    char *source; /* rows of keys, then of values */
    size_t source_v;
} bench_store;

/* Layers are so many that they take cold_bytes.  shape must outlive the store.  CLI_DONE, or
 * CLI_WRONG with a sentence said.  Free it in both cases. */
int bench_store_make(bench_store *s, const bench_shape *shape, size_t cold_bytes);
void bench_store_free(bench_store *s);

/* Rows number first onwards for `count` tokens of a sequence in a layer; count is at most
 * BENCH_SOURCE_TOKENS.  No two rows of a layer are the same: rounding errors of equal rows all
 * point one way, and budgets take them for independent. */
enum { BENCH_SOURCE_TOKENS = 256 };
void bench_store_rows(const bench_store *s, int32_t layer, int64_t first, const int32_t *seq,
                      const int64_t *start, const int32_t *count, qkv_cache_rows *rows);

#endif
