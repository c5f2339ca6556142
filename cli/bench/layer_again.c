/*
 * layer_again.c - qkv bench layer --no-cache: what a token costs if nothing is kept.
 *
 * Without a cache the layer's keys and values of all tokens before are made again for each token,
 * and the outputs of all of them, since the layer above needs them: O(t d^2 + t^2 d) a token, where
 * one with a cache costs O(d^2 + t d).
 */
#include <stdio.h>

#include <stdlib.h>

#include "layer_bench.h"
#include "memory.h"

enum { FIRST = 64 };

typedef struct again {
    int64_t past;
    layer_step kept, whole;
    layer_part kept_part, whole_part;
    double difference;
} again;

static void run_step(void *ctx, const qkv_parallel *workers) { layer_step_run(ctx, workers); }

static double multiply_adds(const qkv_layer_work *w)
{
    return (double)w->projections + (double)w->expanded;
}

static void print(const again *a)
{
    const double kept = multiply_adds(&a->kept.work), whole = multiply_adds(&a->whole.work);
    printf("%8lld %11.2f ms %11.2f ms %8.1fx %14.4g %14.4g %8.1fx %10.1e\n", (long long)a->past,
           a->kept_part.median * 1e3, a->whole_part.median * 1e3,
           a->whole_part.median / a->kept_part.median, kept, whole, whole / kept, a->difference);
    fflush(stdout);
}

static json_t *row_json(const again *a)
{
    const double kept = multiply_adds(&a->kept.work), whole = multiply_adds(&a->whole.work);
    return json_pack("{s:I, s:f, s:f, s:f, s:I, s:I, s:f, s:o}", "past", (json_int_t)a->past,
                     "cache_seconds", a->kept_part.median, "no_cache_seconds",
                     a->whole_part.median, "times_faster",
                     a->whole_part.median / a->kept_part.median, "cache_multiply_adds",
                     (json_int_t)kept, "no_cache_multiply_adds", (json_int_t)whole, "times_less",
                     whole / kept, "difference", cli_json_number(a->difference));
}

/* The tokens from `from` on join the cache, in all layers, as the layers themselves make them. */
static int prefill(layer_stack *s, const layer_place *place, const float *x, int64_t from,
                   int64_t to)
{
    const qkv_parallel *workers = place->options->common.threads > 1 ? place->workers : NULL;
    layer_step step = {.plan = NULL};
    qkv_layer_step what;
    char text[CLI_TEXT];

    if (to == from)
        return CLI_DONE;
    if (layer_stack_reserve(s, to - from) != CLI_DONE)
        return CLI_WRONG;
    layer_step_init(&what, place->options, s, to - from, 1);
    int code = layer_step_make(&step, s, &what, x + from * s->desc.d_model,
                               place->options->common.threads);
    for (int32_t layer = 0; code == CLI_DONE && layer < s->n; layer++)
        layer_step_run_on(&step, layer, workers);
    if (code == CLI_DONE && step.status != QKV_OK)
        code = cli_complain("%s", step.text);
    if (code == CLI_DONE &&
        qkv_cache_commit(s->cache, 1, &s->seq, NULL, text, sizeof text) != QKV_OK)
        code = cli_complain("the cache: %s", text);
    layer_step_free(&step);
    return code;
}

/* The token after `past` others; these are in the cache. */
static int measure(again *a, layer_stack *s, const layer_place *place, const float *x)
{
    const qkv_parallel *workers = place->options->common.threads > 1 ? place->workers : NULL;
    const int64_t d = s->desc.d_model;
    const int32_t threads = place->options->common.threads;
    qkv_layer_step one, all;

    layer_step_init(&one, place->options, s, 1, 1);
    layer_step_init(&all, place->options, s, a->past + 1, 0);
    if (layer_step_make(&a->kept, s, &one, x + a->past * d, threads) != CLI_DONE ||
        layer_step_make(&a->whole, s, &all, x, threads) != CLI_DONE)
        return CLI_WRONG;
    layer_call calls[] = {{run_step, &a->kept, &a->kept_part},
                          {run_step, &a->whole, &a->whole_part}};
    if (layer_take_turns(calls, 2, place) != CLI_DONE)
        return CLI_WRONG;
    layer_step_run_on(&a->kept, 0, workers);
    layer_step_run_on(&a->whole, 0, workers);
    if (a->kept.status != QKV_OK || a->whole.status != QKV_OK)
        return cli_complain("%s", a->kept.status != QKV_OK ? a->kept.text : a->whole.text);
    a->difference = layer_difference(a->kept.args.out, a->whole.args.out + a->past * d, d);
    return CLI_DONE;
}

static int run_one(layer_stack *s, const layer_place *place, const float *x, int64_t past,
                   json_t *rows)
{
    again a = {.past = past};

    int code = prefill(s, place, x, qkv_cache_length(s->cache, s->seq), past);
    if (code == CLI_DONE)
        code = layer_stack_reserve(s, 1);
    if (code == CLI_DONE)
        code = measure(&a, s, place, x);
    if (code == CLI_DONE) {
        print(&a);
        json_array_append_new(rows, row_json(&a));
        code = layer_stack_truncate(s, past);
    }
    layer_step_free(&a.kept);
    layer_step_free(&a.whole);
    return code;
}

int layer_run_again(const layer_place *place, json_t *rows)
{
    const layer_options *o = place->options;
    const int64_t n = (o->decode + 1) * o->d_model;
    float *x = bench_alloc((size_t)n * sizeof *x);
    layer_stack s = {.n = 0};
    int code = x != NULL ? layer_stack_make(&s, o, 0)
                         : cli_complain_memory("hidden states", (size_t)n * sizeof *x);

    if (code == CLI_DONE)
        code = layer_stack_cache(&s, o, o->decode, 0);
    if (code == CLI_DONE) {
        bench_fill(x, QKV_F32, n, 7);
        printf("\nd_model %d, %d heads on %d of %d channels; the token after t others\n\n"
               "%8s %14s %14s %9s %14s %14s %9s %10s\n", (int)o->d_model, (int)o->n_heads,
               (int)o->n_kv_heads, (int)o->head_dim, "t", "cache", "no cache", "time",
               "cache MACs", "no cache MACs", "work", "difference");
    }
    for (int64_t t = FIRST < o->decode ? FIRST : o->decode; code == CLI_DONE && t <= o->decode;
         t = t < o->decode && 2 * t > o->decode ? o->decode : 2 * t)
        code = run_one(&s, place, x, t, rows);
    layer_stack_free(&s);
    free(x);
    return code;
}
