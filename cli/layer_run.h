/* layer_run.h - what the files of qkv layer run share. */
#ifndef QKV_CLI_LAYER_RUN_H
#define QKV_CLI_LAYER_RUN_H

#include "layer.h"

/* A run, as asked for and as read.  layer_run.c reads and writes it, layer_steps.c computes it. */
typedef struct layer_run {
    const char *directory, *in, *output, *memory_path, *positions_path, *kv_lens_text,
        *kv_starts_text, *cache_format, *family;
    int64_t layer_number, decode, threads; /* decode -1: no cache unless a format is given */
    int32_t part, mla, format, weights;
    int part_given;

    qkv_layer *layer;
    int64_t B, T, d, Tm, wide;
    int32_t type, rank;          /* of the hidden states */
    float *x, *memory, *out;     /* [B][T][d], [B][Tm][wide], [B][T][d] */
    int32_t *kv_lens, *kv_starts; /* [B]; of tokens (cross: kv_lens of the memory), never NULL */
    int64_t *positions;          /* [B][T] */
    int64_t rope_len;            /* the longest position of a token that exists, and 1 */
    qkv_pool *pool;
} layer_run;

/* The steps of the command, in this order; CLI_DONE or CLI_WRONG. */
int layer_run_part(layer_run *r, const char *value);
int layer_run_load(layer_run *r);
int layer_run_inputs(layer_run *r);
int layer_run_compute(layer_run *r);
void layer_run_free(layer_run *r);

/* All at once; or a cache, the last `decode` tokens of each sequence one by one. */
int layer_run_whole(layer_run *r);
int layer_run_cached(layer_run *r);

#endif
