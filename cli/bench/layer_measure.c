/*
 * layer_measure.c - a layer, its attention alone and its projections alone, in turns.
 *
 * Projections alone are the layer on as many rows of which each is a sequence of its own: the same
 * products, norms and rotation, and attention to one key.  What the whole layer takes beside both
 * parts is "rest": writing to the cache, and with MLA expanded making keys and values of latents.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "layer_bench.h"
#include "timing.h"

enum { CEILING_TRIES = 5, READ_PASSES = 3, MOST_CALLS = 100000, MOST_JOBS = 6 };
#define CEILING_SECONDS 0.004
#define REPEAT_SECONDS  0.002

/* ---- turns -------------------------------------------------------------------------------- */

static double time_calls(const layer_call *c, int64_t calls, const qkv_parallel *workers)
{
    const double begin = bench_now();
    for (int64_t i = 0; i < calls; i++)
        c->run(c->ctx, workers);
    return (bench_now() - begin) / (double)calls;
}

static int64_t calls_of(const layer_call *c, const qkv_parallel *workers)
{
    (void)time_calls(c, 1, workers);
    const double once = time_calls(c, 1, workers);
    const int64_t calls =
        once < REPEAT_SECONDS ? (int64_t)(REPEAT_SECONDS / fmax(once, 1e-7)) + 1 : 1;
    return calls < MOST_CALLS ? calls : MOST_CALLS;
}

int layer_take_turns(layer_call *calls, int n, const layer_place *place)
{
    const int32_t repeat = place->options->common.repeat;
    const qkv_parallel *workers = place->options->common.threads > 1 ? place->workers : NULL;
    double *times = malloc((size_t)n * (size_t)repeat * sizeof *times);

    if (times == NULL)
        return cli_complain_memory("the times", (size_t)n * (size_t)repeat * sizeof *times);
    for (int i = 0; i < n; i++)
        calls[i].part->calls = calls_of(&calls[i], workers);
    for (int32_t r = 0; r < repeat; r++)
        for (int i = 0; i < n; i++)
            times[i * repeat + r] = time_calls(&calls[i], calls[i].part->calls, workers);
    for (int i = 0; i < n; i++) {
        double *own = times + (ptrdiff_t)i * repeat;
        layer_part *part = calls[i].part;
        part->median = bench_median(own, repeat);
        part->best = own[0];
        part->spread = (own[repeat - 1] - own[0]) / part->median;
    }
    free(times);
    return CLI_DONE;
}

/* ---- ceilings ----------------------------------------------------------------------------- */

typedef struct rates {
    double compute[BENCH_N_CEILINGS], read;
} rates;

/* BLAS takes the widest vectors there are, whatever --tier says. */
static bench_ceiling widest(const bench_machine *m)
{
    bench_ceiling best = BENCH_FMA_128;
    for (int c = BENCH_FMA_128; c <= BENCH_FMA_512; c++)
        if (m->all.compute[c].median > m->all.compute[best].median)
            best = (bench_ceiling)c;
    return best;
}

static void look(rates *r, const int *wanted, const layer_place *place)
{
    for (int c = 0; c < BENCH_N_CEILINGS; c++)
        if (wanted[c])
            r->compute[c] = fmax(r->compute[c],
                                 bench_measure_compute((bench_ceiling)c, CEILING_TRIES,
                                                       CEILING_SECONDS, place->workers).median);
    r->read = fmax(r->read, bench_measure_read(place->memory, place->options->common.memory,
                                               READ_PASSES, place->workers).median);
}

/* share: the part of the ceiling that the element type can reach. */
static void judge(layer_part *p, bench_ceiling ceiling, double share, const rates *r)
{
    const double computing = p->operations / (r->compute[ceiling] * share) / 1e9;
    const double reading = p->bytes / r->read / 1e9;

    p->ceiling = ceiling;
    p->by_reads = reading > computing;
    p->roof = fmax(computing, reading);
}

/* ---- work --------------------------------------------------------------------------------- */

static double step_operations(const qkv_layer_work *w)
{
    const double inner = w->mla == QKV_MLA_ABSORBED ? (double)w->absorbed : (double)w->expanded;
    return 2 * ((double)w->projections + inner);
}

/* The attention of a token to itself is counted with the projections: nothing at these widths. */
static void count(layer_case *c)
{
    layer_part *p = c->part;

    p[LAYER_WHOLE].operations = step_operations(&c->whole.work);
    p[LAYER_ATTENTION].operations = bench_case_operations(&c->attention);
    p[LAYER_ATTENTION].bytes = c->attention.shape.cold ? bench_case_bytes(&c->attention) : 0;
    p[LAYER_PROJECTIONS].operations = step_operations(&c->alone.work);
    p[LAYER_PROJECTIONS].bytes = (double)c->stack->bytes;
    p[LAYER_REST].operations = fmax(0, p[LAYER_WHOLE].operations - p[LAYER_ATTENTION].operations -
                                           p[LAYER_PROJECTIONS].operations);
    p[LAYER_WHOLE].bytes = p[LAYER_ATTENTION].bytes + p[LAYER_PROJECTIONS].bytes;
}

static void judge_all(layer_case *c, const layer_place *place, const rates *r)
{
    const bench_ceiling fma = widest(place->machine);
    layer_part *p = c->part;
    double share;

    const bench_ceiling inner = bench_ceiling_of_kernel(c->kernel, &share);
    judge(&p[LAYER_ATTENTION], inner, share, r);
    judge(&p[LAYER_PROJECTIONS], fma, 1, r);
    judge(&p[LAYER_REST], fma, 1, r);
    p[LAYER_REST].median = p[LAYER_WHOLE].median - p[LAYER_ATTENTION].median -
                           p[LAYER_PROJECTIONS].median;
    judge(&p[LAYER_WHOLE], fma, 1, r);
    p[LAYER_WHOLE].roof =
        p[LAYER_ATTENTION].roof + p[LAYER_PROJECTIONS].roof + p[LAYER_REST].roof;
    c->read = r->read;
}

/* ---- a case ------------------------------------------------------------------------------- */

static void run_step(void *ctx, const qkv_parallel *workers) { layer_step_run(ctx, workers); }
static void run_case(void *ctx, const qkv_parallel *workers) { bench_case_run(ctx, workers); }

static int finish(layer_case *c, const layer_place *place)
{
    const qkv_parallel *workers = place->options->common.threads > 1 ? place->workers : NULL;

    if (c->whole.status != QKV_OK || c->alone.status != QKV_OK)
        return cli_complain("%s: %s", c->name,
                            c->whole.status != QKV_OK ? c->whole.text : c->alone.text);
    return bench_case_error(&c->attention, workers, &c->error);
}

/* Both cases on the same layer and the same hidden state. */
static void compare(layer_case *a, layer_case *b, const qkv_parallel *workers)
{
    layer_step_run_on(&a->whole, 0, workers);
    layer_step_run_on(&b->whole, 0, workers);
    a->times = b->part[LAYER_WHOLE].median / a->part[LAYER_WHOLE].median;
    a->difference = layer_difference(a->whole.args.out, b->whole.args.out,
                                     a->whole.work.rows * a->stack->desc.d_model);
}

int layer_measure(layer_case *cases, int n, const layer_place *place)
{
    layer_call calls[MOST_JOBS];
    int wanted[BENCH_N_CEILINGS] = {0}, code = CLI_DONE;
    rates r = {.read = 0};
    double share;

    wanted[widest(place->machine)] = 1;
    for (int i = 0; i < n; i++) {
        layer_case *c = &cases[i];
        snprintf(c->kernel, sizeof c->kernel, "%s", bench_case_kernel(&c->attention));
        wanted[bench_ceiling_of_kernel(c->kernel, &share)] = 1;
        calls[3 * i] = (layer_call){run_step, &c->whole, &c->part[LAYER_WHOLE]};
        calls[3 * i + 1] = (layer_call){run_case, &c->attention, &c->part[LAYER_ATTENTION]};
        calls[3 * i + 2] = (layer_call){run_step, &c->alone, &c->part[LAYER_PROJECTIONS]};
        count(c);
    }
    look(&r, wanted, place);
    if (layer_take_turns(calls, 3 * n, place) != CLI_DONE)
        return CLI_WRONG;
    look(&r, wanted, place);
    for (int i = 0; code == CLI_DONE && i < n; i++) {
        judge_all(&cases[i], place, &r);
        code = finish(&cases[i], place);
    }
    if (code == CLI_DONE && n == 2)
        compare(&cases[0], &cases[1], place->options->common.threads > 1 ? place->workers : NULL);
    return code;
}
