/*
 * case_error.c - how far a case's output is from the exact one.
 *
 * The oracle costs far more than the kernel, so it recomputes nine rows: the first, the middle and
 * the last query of the first, the middle and the last head of the first sequence; of a cache also
 * those of a middle and a late sequence.  A row is a problem of one query and one head, whose
 * tensors are those of the whole with moved base pointers.
 */
#include <math.h>
#include <stdlib.h>

#include "case.h"

typedef struct oracle {
    double *o, *budget;
    void *scratch;
} oracle;

static const void *moved(const void *base, const qkv_layout *layout, int64_t h, int64_t t)
{
    if (base == NULL)
        return NULL;
    return (const char *)base + (h * layout->stride[1] + t * layout->stride[2]) *
                                    (int64_t)qkv_type_size((qkv_type)layout->type);
}

/* Sequence b of a cache: its row of the table, its length.  What one head has begins further on. */
static void in_cache(const bench_case *c, int64_t b, int64_t kv_head, int64_t t, int32_t *offset,
                     qkv_desc *d, qkv_args *a)
{
    a->block_table += b * d->block_table_stride[0];
    d->kv_lens += b;
    d->kv_starts = d->kv_starts != NULL ? d->kv_starts + b : NULL;
    *offset = (int32_t)(c->desc.q_offsets[b] + t);
    a->k_scale = moved(a->k_scale, &d->k_scale, kv_head, 0);
    a->k_min = moved(a->k_min, &d->k_min, kv_head, 0);
    a->v_scale = moved(a->v_scale, &d->v_scale, kv_head, 0);
    a->v_min = moved(a->v_min, &d->v_min, kv_head, 0);
    a->k_rope = moved(a->k_rope, &d->k_rope, kv_head, 0);
}

static void one_row(const bench_case *c, int64_t b, int64_t h, int64_t t, int32_t *offset,
                    qkv_desc *d, qkv_args *a)
{
    const int64_t kv_head = h / (c->shape.Hq / c->shape.Hkv);
    const int64_t size = (int64_t)qkv_type_size(c->shape.type);

    *d = c->desc;
    *a = c->args;
    *offset = (int32_t)(c->shape.Tk - c->shape.Tq + t);
    d->n_seqs = d->n_q_heads = d->n_kv_heads = 1;
    d->q_len = 1;
    d->q_offsets = offset;
    if (d->block_bits != NULL)
        d->block_bits += t / d->block_q * d->block_stride[2] / 8;
    if (c->store != NULL)
        in_cache(c, b, kv_head, t, offset, d, a);
    a->q = (const char *)moved(a->q, &d->q, h, t) + b * d->q.stride[0] * size;
    a->k = moved(a->k, &d->k, kv_head, 0);
    a->v = moved(a->v, &d->v, kv_head, 0);
    a->mask = moved(a->mask, &d->mask, h, t);
    a->bias = moved(a->bias, &d->bias, h, t);
    a->sinks = moved(a->sinks, &d->sinks, h, 0);
    a->slopes = moved(a->slopes, &d->slopes, h, 0);
}

static void compare_row(const bench_case *c, const oracle *ref, int64_t b, int64_t h, int64_t t,
                        bench_error *error)
{
    const qkv_type type = c->shape.type;
    const char *row = (const char *)moved(c->args.o, &c->desc.o, h, t) +
                      b * c->desc.o.stride[0] * (int64_t)qkv_type_size(type);

    for (int32_t i = 0; i < c->shape.Dv; i++) {
        double got = 0;
        (void)qkv_convert(&got, QKV_F64, row + (size_t)i * qkv_type_size(type), type, 1);
        const double e = fabs(got - ref->o[i]), share = e / ref->budget[i];
        /* Written so that a NaN becomes the result. */
        error->largest = e <= error->largest ? error->largest : e;
        error->over_budget = share <= error->over_budget ? error->over_budget : share;
    }
}

/* The rows of sequence b. */
static int compare(const bench_case *c, int64_t b, oracle *ref, bench_error *error)
{
    const int64_t heads[] = {0, c->shape.Hq / 2, c->shape.Hq - 1};
    const int64_t rows[] = {0, c->shape.Tq / 2, c->shape.Tq - 1};
    const qkv_ref_out out = {.o = ref->o, .o_budget = ref->budget};

    for (int i = 0; i < 9; i++) {
        const int64_t h = heads[i / 3], t = rows[i % 3];
        const int again =
            (i / 3 > 0 && h == heads[i / 3 - 1]) || (i % 3 > 0 && t == rows[i % 3 - 1]);
        int32_t offset;
        qkv_desc d;
        qkv_args a;
        if (again)
            continue;
        one_row(c, b, h, t, &offset, &d, &a);
        if (qkv_ref_attention(&d, &a, &out, ref->scratch) != QKV_OK)
            return cli_complain("%s: the oracle refuses a row", c->shape.name);
        compare_row(c, ref, b, h, t, error);
    }
    return CLI_DONE;
}

/* Without a cache the sequences of a case are alike, so the first tells as much as all. */
static int compare_sequences(const bench_case *c, oracle *ref, bench_error *error)
{
    const int64_t last = c->store != NULL ? c->shape.B - 1 : 0, step = last > 1 ? last / 2 : 1;
    int code = CLI_DONE;

    for (int64_t b = 0; code == CLI_DONE && b <= last; b += step)
        code = compare(c, b, ref, error);
    return code;
}

int bench_case_error(bench_case *c, const qkv_parallel *workers, bench_error *error)
{
    const size_t row = (size_t)c->shape.Dv * sizeof(double);
    int code = CLI_WRONG;
    oracle ref;

    if (c->shape.use == BENCH_APPEND)
        return bench_append_error(c, error);
    *error = (bench_error){0, 0};
    c->turn = 0;
    bench_case_run(c, workers);
    bench_cached_outputs(c);
    ref.o = malloc(row);
    ref.budget = malloc(row);
    ref.scratch = malloc(qkv_ref_scratch_size(&c->desc));
    if (ref.o != NULL && ref.budget != NULL && ref.scratch != NULL)
        code = compare_sequences(c, &ref, error);
    else
        code = cli_complain_memory("the oracle", qkv_ref_scratch_size(&c->desc));
    free(ref.o);
    free(ref.budget);
    free(ref.scratch);
    return code;
}
