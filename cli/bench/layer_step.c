/* layer_step.c - steps of a stack of layers, ready to run. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layer_bench.h"
#include "memory.h"

void layer_step_init(qkv_layer_step *what, const layer_options *options, layer_stack *stack,
                     int64_t tokens, int cached)
{
    qkv_layer_step_init(what);
    what->q_len = tokens;
    what->cpu_mask = options->common.cpu_mask;
    if (cached) {
        what->form = QKV_FORM_CACHED;
        what->cache = stack->cache;
        what->seqs = &stack->seq;
    }
}

int layer_step_make(layer_step *s, const layer_stack *stack, const qkv_layer_step *what,
                    const float *x, int32_t threads)
{
    memset(s, 0, sizeof *s);
    s->stack = stack;
    if (qkv_layer_plan_create(stack->layers[0], what, NULL, &s->plan, s->text, sizeof s->text) !=
        QKV_OK)
        return cli_complain("%s", s->text);
    qkv_layer_work_get(s->plan, &s->work);
    const int64_t n = s->work.rows * stack->desc.d_model;
    const size_t bytes = (size_t)n * sizeof(float);
    qkv_layer_args_init(&s->args);
    s->args.out = bench_alloc(bytes);
    s->args.workspace_bytes = qkv_layer_workspace_size(s->plan, threads);
    s->args.workspace = bench_alloc(s->args.workspace_bytes > 0 ? s->args.workspace_bytes : 64);
    s->x = x == NULL ? bench_alloc(bytes) : NULL;
    if (s->args.out == NULL || s->args.workspace == NULL || (x == NULL && s->x == NULL))
        return cli_complain_memory("a step", 2 * bytes + s->args.workspace_bytes);
    if (x == NULL)
        bench_fill(s->x, QKV_F32, n, 7);
    s->args.x = x != NULL ? x : s->x;
    return CLI_DONE;
}

void layer_step_free(layer_step *s)
{
    qkv_layer_plan_destroy(s->plan);
    free(s->args.out);
    free(s->args.workspace);
    free(s->x);
    memset(s, 0, sizeof *s);
}

void layer_step_run_on(layer_step *s, int32_t layer, const qkv_parallel *workers)
{
    char text[CLI_TEXT];

    s->args.cache_layer = layer;
    const qkv_status status = qkv_layer_run(s->plan, s->stack->layers[layer], &s->args, workers,
                                            text, sizeof text);
    if (status != QKV_OK && s->status == QKV_OK) {
        s->status = status;
        memcpy(s->text, text, sizeof text);
    }
}

void layer_step_run(layer_step *s, const qkv_parallel *workers)
{
    layer_step_run_on(s, (int32_t)(s->turn++ % s->stack->n), workers);
}

double layer_difference(const float *a, const float *b, int64_t n)
{
    double largest = 1e-300, off = 0;

    for (int64_t i = 0; i < n; i++) {
        const double e = fabs((double)a[i] - b[i]);
        if (!(e <= off)) /* a NaN too */
            off = e;
        largest = fmax(largest, fabs((double)b[i]));
    }
    return off / largest;
}
