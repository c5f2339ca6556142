/* sizing/work.h - a step while it is counted: shared by work.c (the model) and kind.c (its layers).
 */
#ifndef QKV_SIZING_WORK_H
#define QKV_SIZING_WORK_H

#include "sizing/internal.h"

/* A step, and what is found. */
typedef struct qkv_work {
    const qkv_model *model;
    const qkv_size_setup *setup;
    uint64_t seqs, n, past, chunk, steps; /* of the decoder */
    uint64_t memory;
    uint64_t state; /* bytes of a hidden state's element */
    int absorbed;
    qkv_tally tally;
    qkv_size_work *work;
} qkv_work;

/* Layers of one kind in one part: own have keys and values, shared use those of others. */
typedef struct qkv_work_layers {
    const qkv_layer_desc *l;
    uint64_t own, shared;
    uint64_t n, past, steps; /* queries of a sequence */
    uint64_t kv_new;         /* tokens of a sequence whose keys and values are made */
    uint64_t pairs, keys;    /* of one sequence and layer; keys summed over steps */
} qkv_work_layers;

static inline uint64_t qkv_work_times(qkv_work *c, uint64_t a, uint64_t b)
{
    return qkv_tally_mul(&c->tally, a, b);
}

static inline void qkv_work_add(qkv_work *c, uint64_t *to, uint64_t n)
{
    *to = qkv_tally_add(&c->tally, *to, n);
}

static inline void qkv_work_add_bytes(qkv_work *c, int stage, uint64_t n)
{
    qkv_work_add(c, &c->work->stage[stage].bytes, n);
    qkv_work_add(c, &c->work->stage[stage].bytes_least, n);
}

static inline uint64_t qkv_work_weight_bytes(qkv_work *c, uint64_t parameters)
{
    return qkv_up(qkv_work_times(c, parameters, (uint64_t)c->setup->weight_bits), 8);
}

/* A product of `tokens` rows with matrices of so many parameters; read `steps` times. */
static inline void qkv_work_add_product(qkv_work *c, int stage, uint64_t tokens,
                                        uint64_t parameters, uint64_t steps)
{
    const uint64_t read = qkv_work_times(c, qkv_work_weight_bytes(c, parameters), steps);

    if (tokens == 0 || parameters == 0)
        return;
    qkv_work_add(c, &c->work->stage[stage].multiply_adds, qkv_work_times(c, tokens, parameters));
    qkv_work_add_bytes(c, stage, read);
    qkv_work_add(c, &c->work->weights_read, read);
}

/* Hidden states of `width` channels, moved once. */
static inline void qkv_work_add_states(qkv_work *c, int stage, uint64_t tokens, uint64_t width)
{
    qkv_work_add_bytes(c, stage, qkv_work_times(c, qkv_work_times(c, tokens, width), c->state));
}

/* All layers of one kind in one part, whose pairs and keys are found first. */
void qkv_work_count_kind(qkv_work *c, qkv_work_layers *k);

#endif
