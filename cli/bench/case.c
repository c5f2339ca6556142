/* case.c - see case.h. */
#include "case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

void *bench_case_get(bench_case *c, size_t bytes)
{
    void *p = bench_alloc(bytes);
    if (p != NULL)
        c->memory[c->n_memory++] = p;
    return p;
}

void bench_case_free(bench_case *c)
{
    bench_cached_free(c);
    for (int i = 0; i < c->n_memory; i++)
        free(c->memory[i]);
    c->n_memory = 0;
}

static int64_t elements_q(const bench_shape *s) { return s->B * s->Hq * s->Tq * s->D; }
static int64_t elements_k(const bench_shape *s) { return s->B * s->Hkv * s->Tk * s->D; }
static int64_t elements_v(const bench_shape *s) { return s->B * s->Hkv * s->Tk * s->Dv; }
static int64_t elements_o(const bench_shape *s) { return s->B * s->Hq * s->Tq * s->Dv; }

static void describe(bench_case *c, const bench_setting *setting)
{
    const bench_shape *s = &c->shape;
    qkv_desc *d = &c->desc;

    qkv_desc_init(d);
    d->cpu_mask = setting->cpu_mask;
    d->n_seqs = s->B;
    d->n_q_heads = s->Hq;
    d->n_kv_heads = s->Hkv;
    d->q_len = s->Tq;
    d->kv_len = s->Tk;
    d->head_dim = s->D;
    d->head_dim_v = s->Dv;
    d->causal = s->causal;
    d->precision = s->precision;
    if (s->window > 0)
        d->window_left = s->window - 1;
    qkv_desc_dense(d, s->type, QKV_BHTD);
    if (s->latent)
        d->v = d->k;
}

/* ---- what stands beside q, k and v -------------------------------------------------------- */

static int add_matrix(bench_case *c, qkv_type type, qkv_layout *layout, const void **base)
{
    const int64_t n = c->shape.Tq * c->shape.Tk;
    uint64_t seed = 4;
    uint8_t *p = bench_case_get(c, (size_t)n * qkv_type_size(type));

    if (p == NULL)
        return 0;
    *layout = (qkv_layout){(int32_t)type, 0, {0, 0, c->shape.Tk, 1}};
    *base = p;
    if (type == QKV_BOOL)
        for (int64_t i = 0; i < n; i++)
            p[i] = bench_random(&seed) & 1;
    else
        bench_fill(p, type, n, seed);
    return 1;
}

/* One number a head. */
static int add_per_head(bench_case *c, int slopes, qkv_layout *layout, const void **base)
{
    float *p = bench_case_get(c, (size_t)c->shape.Hq * sizeof *p);

    if (p == NULL)
        return 0;
    *layout = (qkv_layout){QKV_F32, 0, {0, 1, 0, 0}};
    *base = p;
    for (int32_t h = 0; h < c->shape.Hq; h++)
        p[h] = slopes ? exp2f(-8.0f * (float)(h + 1) / (float)c->shape.Hq) : 1.0f;
    return 1;
}

/* Rows of the pattern begin at whole bytes, so that the oracle can be given one of them. */
static int add_blocks(bench_case *c)
{
    qkv_desc *d = &c->desc;
    const int64_t rows = (d->q_len + d->block_q - 1) / d->block_q;
    const int64_t blocks = (d->kv_len + d->block_k - 1) / d->block_k, stride = (blocks + 7) / 8 * 8;
    const size_t bytes = (size_t)(rows * stride / 8);
    uint64_t seed = 5;
    uint8_t *bits = bench_case_get(c, bytes);

    if (bits == NULL)
        return 0;
    memset(bits, 0, bytes);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < blocks; j++)
            if (i == j || bench_random(&seed) % 10 == 0)
                bits[(i * stride + j) / 8] |= (uint8_t)(1u << j % 8);
    d->block_bits = bits;
    d->block_stride[2] = stride;
    return 1;
}

static int add_extras(bench_case *c)
{
    const unsigned extras = c->shape.extras;
    qkv_desc *d = &c->desc;
    qkv_args *a = &c->args;

    if (extras & BENCH_SOFTCAP)
        d->softcap = 30;
    return (!(extras & BENCH_MASK) || add_matrix(c, QKV_BOOL, &d->mask, &a->mask)) &&
           (!(extras & BENCH_BIAS) || add_matrix(c, QKV_F32, &d->bias, &a->bias)) &&
           (!(extras & BENCH_ALIBI) || add_per_head(c, 1, &d->slopes, &a->slopes)) &&
           (!(extras & BENCH_SINKS) || add_per_head(c, 0, &d->sinks, &a->sinks)) &&
           (!(extras & BENCH_BLOCKS) || add_blocks(c));
}

/* ---- making ------------------------------------------------------------------------------- */

static size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int add_queries(bench_case *c)
{
    const bench_shape *s = &c->shape;
    const size_t size = qkv_type_size(s->type);
    void *q = bench_case_get(c, (size_t)elements_q(s) * size);

    c->args.o = bench_case_get(c, (size_t)elements_o(s) * size);
    if (q == NULL || c->args.o == NULL)
        return 0;
    bench_fill(q, s->type, elements_q(s), 1);
    c->args.q = q;
    return 1;
}

static int add_keys(bench_case *c, const bench_setting *setting)
{
    const bench_shape *s = &c->shape;
    const size_t size = qkv_type_size(s->type);

    c->v_at = s->latent ? 0 : whole_lines((size_t)elements_k(s) * size);
    c->set_bytes =
        c->v_at + whole_lines((size_t)(s->latent ? elements_k(s) : elements_v(s)) * size);
    c->n_sets = s->cold ? (int64_t)((setting->cold_bytes - 1) / c->set_bytes) + 1 : 1;
    c->kv_bytes = (size_t)c->n_sets * c->set_bytes;
    c->kv = bench_case_get(c, c->kv_bytes);
    if (c->kv == NULL)
        return 0;
    bench_fill(c->kv, s->type, c->n_sets * (int64_t)(c->set_bytes / size), 2);
    c->turn = 2 * c->n_sets - 2; /* two calls to warm up end at the last set */
    return 1;
}

static int add_plan(bench_case *c, int32_t threads)
{
    char text[CLI_TEXT];

    if (qkv_explain(&c->desc, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    c->plan_bytes = qkv_plan_size(&c->desc);
    void *memory = bench_case_get(c, c->plan_bytes);
    if (memory == NULL)
        return cli_complain_memory("the plan", c->plan_bytes);
    if (qkv_plan_init(memory, c->plan_bytes, &c->desc, &c->plan) != QKV_OK)
        return cli_complain("%s: no plan could be made", c->shape.name);
    c->args.workspace_bytes = qkv_workspace_size(c->plan, threads);
    c->args.workspace = bench_case_get(c, c->args.workspace_bytes);
    if (c->args.workspace == NULL)
        return cli_complain_memory("the workspace", c->args.workspace_bytes);
    c->args.k = c->kv;
    c->args.v = c->kv + c->v_at;
    if (qkv_args_check(c->plan, &c->args, threads, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", c->shape.name, text);
    return CLI_DONE;
}

int bench_case_make(bench_case *c, const bench_shape *shape, const bench_setting *setting)
{
    memset(c, 0, sizeof *c);
    c->shape = *shape;
    qkv_args_init(&c->args);
    describe(c, setting);
    if (!add_queries(c))
        return cli_complain_memory(c->shape.name, bench_case_tensor_bytes(c));
    if (shape->format != 0)
        return bench_cached_make(c, setting);
    if (!add_keys(c, setting) || !add_extras(c))
        return cli_complain_memory(c->shape.name, bench_case_tensor_bytes(c));
    return add_plan(c, setting->threads);
}

/* ---- using -------------------------------------------------------------------------------- */

static void run_plain(bench_case *c, const qkv_parallel *workers)
{
    char *set = c->kv + (size_t)(c->turn++ % c->n_sets) * c->set_bytes;

    c->args.k = set;
    c->args.v = set + c->v_at;
    if (workers != NULL)
        qkv_run_parallel(c->plan, &c->args, workers);
    else
        qkv_run(c->plan, &c->args);
}

void bench_case_run(bench_case *c, const qkv_parallel *workers)
{
    if (c->store == NULL)
        run_plain(c, workers);
    else if (c->shape.use == BENCH_APPEND)
        bench_append_run(c);
    else
        bench_cached_run(c, workers);
}

const char *bench_case_kernel(const bench_case *c)
{
    if (c->shape.use == BENCH_APPEND)
        return "append";
    return qkv_plan_kernel(c->store != NULL ? bench_cached_main_plan(c) : c->plan);
}

double bench_case_operations(const bench_case *c)
{
    if (c->shape.use == BENCH_APPEND)
        return 0;
    return 2.0 * (double)qkv_plan_visible_pairs(c->plan) * (c->shape.D + c->shape.Dv);
}

double bench_case_bytes(const bench_case *c)
{
    const bench_shape *s = &c->shape;
    const int64_t elements = elements_k(s) + (s->latent ? 0 : elements_v(s));
    const double given = (double)s->Hkv * (s->D + s->Dv) * (double)qkv_type_size(s->type);

    if (s->use == BENCH_APPEND)
        return given + c->store->token_bytes;
    if (c->store != NULL)
        return c->store->layer_bytes;
    return (double)elements * (double)qkv_type_size(s->type);
}

double bench_case_reads(const bench_case *c)
{
    const bench_shape *s = &c->shape;

    if (c->store != NULL)
        return bench_cached_reads(c);
    return (double)qkv_plan_key_reads(c->plan) / ((double)s->B * s->Hkv * (double)s->Tk);
}

size_t bench_case_tensor_bytes(const bench_case *c)
{
    const bench_shape *s = &c->shape;
    const int64_t pairs = s->Tq * s->Tk;
    return (size_t)(elements_q(s) + elements_o(s)) * qkv_type_size(s->type) +
           c->kv_bytes + (s->extras & BENCH_MASK ? (size_t)pairs : 0) +
           (s->extras & BENCH_BIAS ? (size_t)pairs * sizeof(float) : 0);
}
