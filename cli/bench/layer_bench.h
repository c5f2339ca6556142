/*
 * layer_bench.h - what the files of `qkv bench layer` share.
 *
 *     layer_bench.c     the command: which cases there are
 *     layer_options.c   its options
 *     layer_stack.c     layers with random weights, and their cache
 *     layer_step.c      steps of a stack, ready to run
 *     layer_measure.c   cases in turns, between two looks at the ceilings
 *     layer_again.c     --no-cache: everything again for each token
 *     layer_report.c    tables and JSON
 */
#ifndef QKV_CLI_BENCH_LAYER_BENCH_H
#define QKV_CLI_BENCH_LAYER_BENCH_H

#include "bench.h"

typedef struct layer_options {
    bench_options common; /* threads, repeat, shape, json, tier, memory, command */
    int no_cache;
    int32_t d_model, n_heads, n_kv_heads, head_dim;
    int32_t latent_dim, rope_dim, nope_dim, value_dim; /* MLA: c, r, n, Dv */
    int64_t prefill, decode; /* tokens at once; tokens in the cache */
    int32_t format;          /* QKV_FORMAT_ of the cache */
} layer_options;

int layer_options_parse(layer_options *options, int argc, char **argv);
extern const char bench_layer_page[];

/* ---- layers ------------------------------------------------------------------------------- */

/* Equal layers with weights of their own, so many that they do not fit into CPU caches: calls take
 * them in turn, as a model does. */
typedef struct layer_stack {
    qkv_layer_desc desc;
    qkv_layer **layers;
    int32_t n;
    size_t bytes; /* of the weights of one */
    qkv_cache *cache;
    int32_t seq;
} layer_stack;

/* Whether there is such a layer and such a cache, before anything is measured. */
int layer_stack_check(const layer_options *options, int mla);
/* The layer that the options describe, as GQA or as MLA.  CLI_DONE or CLI_WRONG; free it in both
 * cases. */
int layer_stack_make(layer_stack *s, const layer_options *options, int mla);
void layer_stack_free(layer_stack *s);
/* A cache for one sequence of so many tokens; filled with random ones if `filled`. */
int layer_stack_cache(layer_stack *s, const layer_options *options, int64_t tokens, int filled);
/* One more token, or more, that the next steps attend from; and back to `length`. */
int layer_stack_reserve(layer_stack *s, int64_t count);
int layer_stack_truncate(layer_stack *s, int64_t length);

/* ---- steps -------------------------------------------------------------------------------- */

typedef struct layer_step {
    const layer_stack *stack;
    qkv_layer_plan *plan;
    qkv_layer_args args;
    qkv_layer_work work;
    float *x;
    int64_t turn;
    qkv_status status; /* the first failure of a run, and its sentence */
    char text[CLI_TEXT];
} layer_step;

/* Plans a step over random hidden states, or over x, which must outlive it.  CLI_DONE or CLI_WRONG;
 * free it in both cases. */
int layer_step_make(layer_step *s, const layer_stack *stack, const qkv_layer_step *what,
                    const float *x, int32_t threads);
void layer_step_free(layer_step *s);
/* The next layer of the stack; or a certain one. */
void layer_step_run(layer_step *s, const qkv_parallel *workers);
void layer_step_run_on(layer_step *s, int32_t layer, const qkv_parallel *workers);
/* The step as the options have it, of the tokens that are reserved. */
void layer_step_init(qkv_layer_step *what, const layer_options *options, layer_stack *stack,
                     int64_t tokens, int cached);
/* The largest |a - b| as a share of the largest |b|. */
double layer_difference(const float *a, const float *b, int64_t n);

/* ---- cases -------------------------------------------------------------------------------- */

enum { LAYER_WHOLE, LAYER_ATTENTION, LAYER_PROJECTIONS, LAYER_REST, LAYER_N_PARTS };

/* What one part of a layer did. */
typedef struct layer_part {
    double median, best, spread; /* seconds a call */
    int64_t calls;               /* a repeat makes */
    double operations, bytes;    /* useful, a call; bytes that come from memory */
    double roof;                 /* seconds that the ceilings allow */
    bench_ceiling ceiling;
    int by_reads;
} layer_part;

typedef struct layer_case {
    char name[64];
    int64_t tokens, past;
    layer_stack *stack;
    layer_step whole, alone; /* alone: each token sees itself only, so the rest are projections */
    bench_case attention;
    layer_part part[LAYER_N_PARTS];
    double read;             /* GB/s beside */
    char kernel[64];
    bench_error error;       /* of attention */
    double times;            /* how many times faster than the case beside it; 0: there is none */
    double difference;       /* from that case's output */
} layer_case;

typedef struct layer_place {
    const layer_options *options;
    const bench_machine *machine;
    const void *memory; /* what reads are measured over */
    const qkv_parallel *workers;
} layer_place;

/* Measures n (1 or 2) cases in turns.  CLI_DONE or CLI_WRONG. */
int layer_measure(layer_case *cases, int n, const layer_place *place);

/* Seconds of the calls in turns: median, best, spread and calls of each part. */
typedef struct layer_call {
    void (*run)(void *ctx, const qkv_parallel *workers);
    void *ctx;
    layer_part *part;
} layer_call;
int layer_take_turns(layer_call *calls, int n, const layer_place *place);

/* --no-cache: a token after t others, from the cache and with everything again. */
int layer_run_again(const layer_place *place, json_t *rows);

/* ---- reports ------------------------------------------------------------------------------ */

void layer_print_head(const layer_options *options);
void layer_print_case(const layer_case *c);
json_t *layer_case_json(const layer_case *c);
json_t *layer_shape_json(const layer_options *options);

#endif
