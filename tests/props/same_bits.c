/* same_bits.c - what must not change a single bit: threads, neighbours, strides, padding. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "props.h"

void test_threads(void)
{
    static const int ways[] = {T_TASKS_BACK, T_THREADS + 1, T_THREADS + 2, T_THREADS + 7};
    t_limits limits = t_limits_all();
    t_problem p;

    limits.max_work = 1000000;
    for (int i = 0; i < t_times(150); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_make(&p, t_seed() * 31 + (uint64_t)i, &limits);
        t_run(&p, some_tier(i), T_SERIAL);
        const t_copy serial = t_copy_outputs(&p);
        for (int way = 0; way < 4; way++) {
            t_run(&p, some_tier(i), ways[way]);
            t_check(t_same_outputs(&p, &serial), "way %d differs from serial; %s", ways[way],
                    t_problem_text(&p));
        }
    }
}

/* The rows of sequence b of a block pattern as a pattern of their own.  A pattern shared by the
 * heads stays shared: which heads make a tile, and so the kernel, depends on that. */
static void cut_blocks(qkv_desc *one, const qkv_desc *all, int32_t b)
{
    const int64_t rows = (all->q_len + all->block_q - 1) / all->block_q;
    const int64_t row = (all->kv_len + all->block_k - 1) / all->block_k;
    uint8_t *bits = t_scratch((size_t)(all->n_q_heads * rows * row) / 8 + 1);

    memset(bits, 0, (size_t)(all->n_q_heads * rows * row) / 8 + 1);
    for (int64_t h = 0; h < all->n_q_heads; h++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < row; x++) {
                const int64_t from = b * all->block_stride[0] + h * all->block_stride[1] +
                                     y * all->block_stride[2] + x;
                const int64_t to = (h * rows + y) * row + x;
                bits[to / 8] |= (uint8_t)((all->block_bits[from / 8] >> from % 8 & 1) << to % 8);
            }
    one->block_bits = bits;
    one->block_stride[0] = 0;
    one->block_stride[1] = all->block_stride[1] == 0 ? 0 : rows * row;
    one->block_stride[2] = row;
}

static void copy_sequence(t_problem *one, const t_problem *all, int32_t b)
{
    const qkv_desc *d = &one->desc;
    const t_span s = t_span_of(&all->desc, b);
    const int64_t qb = all->desc.cu_seqlens_q ? 0 : b, kb = all->desc.cu_seqlens_k ? 0 : b;

    for (int i = 0; i < T_N_TENSORS; i++) {
        const int64_t *n = one->tensor[i].n;
        if (d->q.type == QKV_NONE || one->tensor[i].layout->type == QKV_NONE || i == T_O ||
            i == T_LSE || i == T_WEIGHTS)
            continue;
        const int64_t from_b = i == T_Q ? qb : i == T_K || i == T_V ? kb : b;
        const int64_t row = i == T_Q ? s.q_row : i == T_K || i == T_V ? s.k_row : 0;
        for (int64_t h = 0; h < n[1]; h++)
            for (int64_t x = 0; x < n[2]; x++)
                for (int64_t y = 0; y < n[3]; y++)
                    t_put(one, i, 0, h, x, y, t_get(all, i, from_b, h, row + x, y));
    }
}

/* Sequence b alone, its lengths the lengths of the tensors. */
static void extract(t_problem *one, const t_problem *all, int32_t b)
{
    const t_span s = t_span_of(&all->desc, b);
    int32_t *numbers = t_scratch(2 * sizeof *numbers);
    qkv_desc *d = &one->desc;

    t_problem_clone(one, all);
    numbers[0] = (int32_t)s.kv_start;
    numbers[1] = (int32_t)s.q_offset;
    d->n_seqs = 1;
    d->cu_seqlens_q = d->cu_seqlens_k = NULL;
    d->q_lens = d->kv_lens = NULL;
    d->kv_starts = &numbers[0];
    d->q_offsets = &numbers[1];
    d->q_len = s.q_len;
    d->kv_len = s.kv_len;
    if (d->block_bits)
        cut_blocks(d, &all->desc, b);
    /* A start past the end is legal in a batch; alone it would exceed kv_len. */
    if (numbers[0] > s.kv_len)
        numbers[0] = (int32_t)s.kv_len;
    t_problem_rebuild(one);
    copy_sequence(one, all, b);
}

void test_alone(void)
{
    t_limits limits = t_limits_all();
    t_problem all, one;

    limits.max_work = 600000;
    limits.max_seqs = 6;
    for (int i = 0; i < t_times(250); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_make(&all, t_seed() * 37 + (uint64_t)i, &limits);
        t_run(&all, some_tier(i), T_SERIAL);
        for (int32_t b = 0; b < all.desc.n_seqs; b++) {
            extract(&one, &all, b);
            t_run(&one, some_tier(i), T_SERIAL);
            check_same_rows(&all, b, &one, 0, "a sequence alone differs from it in the batch");
        }
    }
}

void test_layouts(void)
{
    t_limits limits = t_limits_all();
    t_problem x, y;

    limits.max_work = 600000;
    for (int i = 0; i < t_times(200); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_make(&x, t_seed() * 41 + (uint64_t)i, &limits);
        t_problem_clone(&y, &x);
        t_problem_rebuild(&y);
        t_copy_inputs(&y, &x);
        t_run(&x, some_tier(i), T_SERIAL);
        t_run(&y, some_tier(i), T_SERIAL);
        for (int32_t b = 0; b < x.desc.n_seqs; b++)
            check_same_rows(&x, b, &y, b, "other strides give other bits");
    }
}

/* NaN, infinity or zero in keys and values that do not exist. */
void test_padding(void)
{
    static const double fills[] = {0, 1, NAN, INFINITY, -INFINITY};
    t_limits limits = t_limits_all();
    t_problem p;

    limits.max_work = 300000;
    limits.packed = limits.strange = 0;
    limits.layouts = T_OWN_LAYOUT;
    for (int i = 0; i < t_times(100); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&p, t_seed() * 43 + (uint64_t)i, &limits);
        t_problem_allocate(&p);
        t_problem_fill(&p);
        t_copy first = {NULL, NULL, NULL};
        for (int fill = 0; fill < 5; fill++) {
            for (int32_t b = 0; b < p.desc.n_seqs; b++) {
                const t_span s = t_span_of(&p.desc, b);
                for (int32_t h = 0; h < p.desc.n_kv_heads; h++)
                    for (int64_t j = 0; j < p.desc.kv_len; j++)
                        for (int t = T_K; t <= T_V && (j < s.kv_start || j >= s.kv_len); t++)
                            for (int64_t c = 0; c < p.tensor[t].n[3]; c++)
                                t_put(&p, t, b, h, j, c, fills[fill]);
            }
            t_run(&p, some_tier(i), T_SERIAL);
            if (fill == 0)
                first = t_copy_outputs(&p);
            t_check(t_same_outputs(&p, &first), "%g in keys that do not exist shows; %s",
                    fills[fill], t_problem_text(&p));
        }
    }
}

/* ---- two plans at once ---- */

typedef struct runner {
    const qkv_plan *plan;
    qkv_args args;
} runner;

static void *run_often(void *arg)
{
    const runner *r = arg;
    for (int n = 0; n < 50; n++)
        qkv_run(r->plan, &r->args);
    return NULL;
}

static runner runner_of(const t_problem *p)
{
    runner r = {NULL, p->args};
    const size_t bytes = qkv_plan_size(&p->desc);
    t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &p->desc, &r.plan) == QKV_OK,
            "no plan; %s", t_problem_text(p));
    r.args.workspace_bytes = qkv_workspace_size(r.plan, 1);
    r.args.workspace = t_alloc(r.args.workspace_bytes, 64, T_END, 0xff);
    return r;
}

void test_two_plans(void)
{
    t_limits limits = t_limits_all();
    t_problem p[2];

    limits.max_work = 100000;
    for (int i = 0; i < t_times(20); i++) {
        if (!t_case("p%d", i))
            continue;
        t_copy serial[2];
        runner runners[2];
        pthread_t threads[2];
        for (int k = 0; k < 2; k++) {
            t_problem_make(&p[k], t_seed() * 47 + (uint64_t)(2 * i + k), &limits);
            t_run(&p[k], QKV_CPU_ALL, T_SERIAL);
            serial[k] = t_copy_outputs(&p[k]);
            runners[k] = runner_of(&p[k]);
        }
        for (int k = 0; k < 2; k++)
            pthread_create(&threads[k], NULL, run_often, &runners[k]);
        for (int k = 0; k < 2; k++)
            pthread_join(threads[k], NULL);
        for (int k = 0; k < 2; k++)
            t_check(t_same_outputs(&p[k], &serial[k]), "plan %d disturbed by another; %s", k,
                    t_problem_text(&p[k]));
    }
}
