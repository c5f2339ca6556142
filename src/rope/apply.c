/*
 * rope/apply.c - tensors turned, on one thread or several.
 *
 * A task is some tokens of one sequence, all heads.  Rows are independent, so the cut plays no part
 * in the result.
 */
#include <string.h>

#include "rope/internal.h"

enum {
    TASK_ELEMENTS = 32768, /* about ten microseconds of work: more than waking a thread costs */
    MAX_TASKS = 64         /* of one sequence, each of which may look for its longest position */
};

typedef struct job {
    qkv_rope rope;
    qkv_rope_args args;
    qkv_rope_turner turner; /* with frequencies if they are those of all sequences */
    int64_t tokens, tasks;  /* of one task; of one sequence */
} job;

static void run_tokens(const job *j, qkv_rope_turner *turner, int64_t b, int64_t from, int64_t end)
{
    const qkv_rope_args *a = &j->args;
    const int64_t *xs = a->x_layout.stride, *ys = a->y_layout.stride;
    const int64_t x_size = (int64_t)qkv_type_size((qkv_type)a->x_layout.type);
    const int64_t y_size = (int64_t)qkv_type_size((qkv_type)a->y_layout.type);

    for (int64_t t = from; t < end; t++)
        for (int64_t h = 0; h < a->n_heads; h++)
            qkv_rope_turner_row(turner, b, t,
                                (char *)a->y + (b * ys[0] + h * ys[1] + t * ys[2]) * y_size,
                                a->y_layout.type,
                                (const char *)a->x + (b * xs[0] + h * xs[1] + t * xs[2]) * x_size,
                                a->x_layout.type);
}

static void run_task(void *arg, int64_t i, int32_t worker)
{
    const job *j = arg;
    const int64_t b = i / j->tasks, from = i % j->tasks * j->tokens;
    const int64_t end = from + j->tokens < j->args.n_tokens ? from + j->tokens : j->args.n_tokens;
    qkv_rope_turner turner;

    (void)worker;
    qkv_rope_turner_init(&turner, &j->rope, &j->args, j->turner.compute);
    turner.length = j->turner.length;
    if (turner.length >= 0)
        turner.numbers = j->turner.numbers;
    run_tokens(j, &turner, b, from, end);
}

/* Frequencies that all sequences share are found once. */
static void find_shared(job *j)
{
    const int own = qkv_rope_has_length(&j->rope) && j->args.seq_len == QKV_ROPE_AUTO;

    if (j->args.cos || own || j->turner.places.pairs == 0)
        return;
    j->turner.length = qkv_rope_has_length(&j->rope) ? j->args.seq_len : 0;
    qkv_rope_find(&j->rope, j->turner.length, &j->turner.numbers);
}

static void run(job *j, const qkv_parallel *parallel)
{
    const qkv_rope_args *a = &j->args;
    const int64_t row = (int64_t)a->n_heads * j->rope.head_dim;

    if (a->n_seqs == 0 || a->n_heads == 0 || a->n_tokens == 0)
        return;
    qkv_rope_turner_init(&j->turner, &j->rope, a,
                         a->x_layout.type == QKV_F64 ? QKV_F64 : QKV_F32);
    find_shared(j);
    j->tokens = (TASK_ELEMENTS + row - 1) / row;
    if (j->tokens * MAX_TASKS < a->n_tokens)
        j->tokens = (a->n_tokens + MAX_TASKS - 1) / MAX_TASKS;
    j->tasks = (a->n_tokens + j->tokens - 1) / j->tokens;
    if (parallel && parallel->n_workers > 1 && a->n_seqs * j->tasks > 1) {
        parallel->parallel_for(parallel->ctx, a->n_seqs * j->tasks, run_task, j);
        return;
    }
    for (int64_t b = 0; b < a->n_seqs; b++)
        run_tokens(j, &j->turner, b, 0, a->n_tokens);
}

void qkv_rope_run(const qkv_rope *rope, const qkv_rope_args *args, const qkv_parallel *parallel)
{
    const qkv_say silent = {NULL, 0};
    job j;

    if (qkv_rope_load(rope, &j.rope, silent) != QKV_OK)
        return;
    qkv_rope_args_resolve(&j.rope, args, &j.args);
    run(&j, parallel);
}

qkv_status qkv_rope_apply(const qkv_rope *rope, const qkv_rope_args *args,
                          const qkv_parallel *parallel, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    job j;
    qkv_status status = qkv_rope_load(rope, &j.rope, say);

    if (status == QKV_OK)
        status = qkv_rope_args_load(&j.rope, args, &j.args, say);
    if (status != QKV_OK)
        return status;
    run(&j, parallel);
    return qkv_accept(say);
}
