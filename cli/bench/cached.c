/*
 * cached.c - attention over a cache, as an engine would call it: one view and one plan for all
 * layers, and each call another layer.
 */
#include <stdlib.h>
#include <string.h>

#include "case.h"

/* A prefix that all sequences share, and what each has alone: two problems over the same queries,
 * their results in f32, joined into those of the first. */
struct bench_cascade {
    const qkv_cache_view *view[2];
    const qkv_plan *plan[2];
    qkv_args args[2];
    const void *o[2], *lse[2];
    qkv_merge_args merge;
};

/* ---- views and plans ---------------------------------------------------------------------- */

static int make_view(bench_case *c, const qkv_cache_select *select, const qkv_cache_view **view)
{
    const size_t bytes = qkv_cache_view_size(c->store->cache, select);
    void *memory = bench_case_get(c, bytes > 0 ? bytes : 1);
    char text[CLI_TEXT];

    if (memory == NULL)
        return cli_complain_memory("a view", bytes);
    if (qkv_cache_view_init(memory, bytes, c->store->cache, select, view, text, sizeof text) !=
        QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    return CLI_DONE;
}

/* The plan of a finished descriptor. */
static int make_plan(bench_case *c, const qkv_desc *d, const qkv_plan **plan)
{
    const size_t bytes = qkv_plan_size(d);
    char text[CLI_TEXT];

    if (qkv_explain(d, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    void *memory = bench_case_get(c, bytes);
    if (memory == NULL)
        return cli_complain_memory("a plan", bytes);
    if (qkv_plan_init(memory, bytes, d, plan) != QKV_OK)
        return cli_complain("%s: no plan could be made", c->shape.name);
    c->plan_bytes += bytes;
    return CLI_DONE;
}

static int make_workspace(bench_case *c, const qkv_plan *plan, int32_t threads, qkv_args *args)
{
    char text[CLI_TEXT];

    args->workspace_bytes = qkv_workspace_size(plan, threads);
    args->workspace = bench_case_get(c, args->workspace_bytes);
    if (args->workspace == NULL)
        return cli_complain_memory("the workspace", args->workspace_bytes);
    if (qkv_args_check(plan, args, threads, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    return CLI_DONE;
}

/* What is seen by all queries together: every key of every sequence. */
static int add_whole(bench_case *c, const bench_setting *setting)
{
    qkv_cache_select select;

    qkv_cache_select_init(&select);
    select.n_seqs = c->shape.B;
    select.seqs = c->store->seqs;
    if (make_view(c, &select, &c->view) != CLI_DONE)
        return CLI_WRONG;
    qkv_cache_view_desc(c->view, 0, &c->desc);
    qkv_cache_view_args(c->view, 0, 0, &c->args);
    return make_plan(c, &c->desc, &c->plan) == CLI_DONE
               ? make_workspace(c, c->plan, setting->threads, &c->args)
               : CLI_WRONG;
}

/* ---- cascade ------------------------------------------------------------------------------ */

/* Part 0, the prefix: queries of all sequences are rows of one.  Part 1: what each has alone. */
static int select_part(bench_case *c, int part, const qkv_cache_view **view)
{
    const int32_t all = c->shape.B;
    qkv_cache_select select;
    int64_t shared = 0;
    char text[CLI_TEXT];

    if (qkv_cache_shared_prefix(c->store->cache, all, c->store->seqs, &shared, text, sizeof text) !=
        QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    qkv_cache_select_init(&select);
    select.seqs = c->store->seqs;
    if (part == 1) {
        select.n_seqs = all;
        select.from = shared;
    } else {
        select.to = shared;
        select.q_lens = &all;
        select.causal = QKV_CAUSAL_NONE;
    }
    return make_view(c, &select, view);
}

/* Rows of q, o and lse lie apart as sequences or, in the prefix, as tokens. */
static void describe_part(const bench_case *c, int part, qkv_desc *d)
{
    const int64_t Hq = c->shape.Hq, D = c->shape.D, Dv = c->shape.Dv;
    const int over = part == 0 ? 2 : 0;

    qkv_desc_init(d);
    d->cpu_mask = c->desc.cpu_mask;
    d->precision = c->desc.precision;
    d->n_q_heads = c->shape.Hq;
    qkv_cache_view_desc(c->cascade->view[part], 0, d);
    memset(&d->q, 0, sizeof d->q);
    d->q.type = c->shape.type;
    d->o = d->lse = d->q;
    d->o.type = d->lse.type = QKV_F32;
    d->q.stride[over] = Hq * D;
    d->o.stride[over] = Hq * Dv;
    d->lse.stride[over] = Hq;
    d->q.stride[2 - over] = c->shape.B * Hq * D; /* of what there is one */
    d->o.stride[2 - over] = c->shape.B * Hq * Dv;
    d->lse.stride[2 - over] = c->shape.B * Hq;
    d->q.stride[1] = D;
    d->o.stride[1] = Dv;
    d->lse.stride[1] = d->q.stride[3] = d->o.stride[3] = 1;
}

static void describe_merge(bench_case *c)
{
    bench_cascade *x = c->cascade;
    qkv_merge_args *m = &x->merge;

    for (int part = 0; part < 2; part++) {
        x->o[part] = x->args[part].o;
        x->lse[part] = x->args[part].lse;
    }
    qkv_merge_init(m);
    m->n_parts = 2;
    m->n_heads = c->shape.Hq;
    m->head_dim_v = c->shape.Dv;
    m->n_tokens = c->shape.B;
    m->o_parts = x->o;
    m->lse_parts = x->lse;
    m->o = x->args[0].o;
    m->o_part_stride[1] = m->o_stride[1] = c->shape.Dv;
    m->o_part_stride[2] = m->o_stride[2] = (int64_t)c->shape.Hq * c->shape.Dv;
    m->lse_part_stride[1] = 1;
    m->lse_part_stride[2] = c->shape.Hq;
}

static int add_part(bench_case *c, int part, int32_t threads)
{
    const size_t rows = (size_t)c->shape.B * (size_t)c->shape.Hq * sizeof(float);
    bench_cascade *x = c->cascade;
    qkv_desc d;

    qkv_args_init(&x->args[part]);
    x->args[part].q = c->args.q;
    x->args[part].o = bench_case_get(c, rows * (size_t)c->shape.Dv);
    x->args[part].lse = bench_case_get(c, rows);
    if (x->args[part].o == NULL || x->args[part].lse == NULL)
        return cli_complain_memory("results of parts", rows * (size_t)c->shape.Dv);
    if (select_part(c, part, &x->view[part]) != CLI_DONE)
        return CLI_WRONG;
    describe_part(c, part, &d);
    qkv_cache_view_args(x->view[part], 0, 0, &x->args[part]);
    if (make_plan(c, &d, &x->plan[part]) != CLI_DONE)
        return CLI_WRONG;
    return make_workspace(c, x->plan[part], threads, &x->args[part]);
}

static int add_cascade(bench_case *c, int32_t threads)
{
    c->cascade = bench_case_get(c, sizeof *c->cascade);
    if (c->cascade == NULL)
        return cli_complain_memory("a cascade", sizeof *c->cascade);
    memset(c->cascade, 0, sizeof *c->cascade);
    for (int part = 0; part < 2; part++)
        if (add_part(c, part, threads) != CLI_DONE)
            return CLI_WRONG;
    describe_merge(c);
    return CLI_DONE;
}

/* ---- making and running ------------------------------------------------------------------- */

int bench_cached_make(bench_case *c, const bench_setting *setting)
{
    bench_store *store = bench_case_get(c, sizeof *store);

    if (store == NULL)
        return cli_complain_memory("a cache", sizeof *store);
    c->store = store;
    if (bench_store_make(store, &c->shape, setting->cold_bytes) != CLI_DONE)
        return CLI_WRONG;
    c->kv = store->arena;
    c->kv_bytes = store->arena_bytes;
    c->n_sets = store->n_layers;
    if (c->shape.use == BENCH_APPEND)
        return CLI_DONE;
    if (add_whole(c, setting) != CLI_DONE)
        return CLI_WRONG;
    return c->shape.use == BENCH_CASCADE ? add_cascade(c, setting->threads) : CLI_DONE;
}

void bench_cached_free(bench_case *c)
{
    if (c->store != NULL)
        bench_store_free(c->store);
    c->store = NULL;
}

static void run(const qkv_plan *plan, const qkv_args *args, const qkv_parallel *workers)
{
    if (workers != NULL)
        qkv_run_parallel(plan, args, workers);
    else
        qkv_run(plan, args);
}

static void run_cascade(bench_case *c, int32_t layer, const qkv_parallel *workers)
{
    bench_cascade *x = c->cascade;

    for (int part = 0; part < 2; part++) {
        qkv_cache_view_args(x->view[part], 0, layer, &x->args[part]);
        run(x->plan[part], &x->args[part], workers);
    }
    (void)qkv_merge(&x->merge, NULL, 0);
}

void bench_cached_run(bench_case *c, const qkv_parallel *workers)
{
    const int32_t layer = (int32_t)(c->turn++ % c->n_sets);

    qkv_cache_view_args(c->view, 0, layer, &c->args);
    if (c->cascade != NULL)
        run_cascade(c, layer, workers);
    else
        run(c->plan, &c->args, workers);
}

void bench_cached_outputs(bench_case *c)
{
    if (c->cascade != NULL)
        (void)qkv_convert(c->args.o, c->shape.type, c->cascade->merge.o, QKV_F32,
                          (size_t)c->shape.B * (size_t)c->shape.Hq * (size_t)c->shape.Dv);
}

/* ---- what is counted ---------------------------------------------------------------------- */

const qkv_plan *bench_cached_main_plan(const bench_case *c)
{
    return c->cascade != NULL ? c->cascade->plan[0] : c->plan;
}

double bench_cached_reads(const bench_case *c)
{
    int64_t keys;

    if (c->shape.use == BENCH_APPEND)
        return 0;
    if (c->cascade == NULL)
        keys = qkv_plan_key_reads(c->plan);
    else
        keys = qkv_plan_key_reads(c->cascade->plan[0]) + qkv_plan_key_reads(c->cascade->plan[1]);
    return (double)keys / c->shape.Hkv * c->store->token_bytes / c->store->layer_bytes;
}
