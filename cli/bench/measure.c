/*
 * measure.c - one case, between two measurements of what bounds it.
 *
 * A shared machine's ceilings move by tens of percent within a minute, so a fraction of what was
 * measured at the start says little.  The arithmetic and the read rate are measured right before
 * and right after the calls; the larger median counts, because a ceiling that was disturbed would
 * flatter.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "timing.h"

enum { CEILING_TRIES = 5, READ_PASSES = 3, MOST_CALLS = 100000 };
#define CEILING_SECONDS 0.004
#define REPEAT_SECONDS  0.002 /* calls of less are made several times, and their mean is taken */

typedef struct beside {
    bench_ceiling ceiling;
    const void *memory;
    size_t bytes;
    const qkv_parallel *workers;
    double compute, read;
} beside;

static void look_at_ceilings(beside *b)
{
    const bench_rate compute =
        bench_measure_compute(b->ceiling, CEILING_TRIES, CEILING_SECONDS, b->workers);
    const bench_rate read = bench_measure_read(b->memory, b->bytes, READ_PASSES, b->workers);
    b->compute = fmax(b->compute, compute.median);
    b->read = fmax(b->read, read.median);
}

static double time_calls(bench_case *c, int64_t calls, const qkv_parallel *workers)
{
    const double begin = bench_now();
    for (int64_t i = 0; i < calls; i++)
        bench_case_run(c, workers);
    return (bench_now() - begin) / (double)calls;
}

static int time_case(bench_case *c, int32_t repeat, const qkv_parallel *workers, bench_result *r)
{
    double *times = malloc((size_t)repeat * sizeof *times);

    if (times == NULL)
        return cli_complain_memory("the times", (size_t)repeat * sizeof *times);
    (void)time_calls(c, 1, workers);
    const double once = time_calls(c, 1, workers);
    r->calls = once < REPEAT_SECONDS ? (int64_t)(REPEAT_SECONDS / fmax(once, 1e-7)) + 1 : 1;
    r->calls = r->calls < MOST_CALLS ? r->calls : MOST_CALLS;
    for (int32_t i = 0; i < repeat; i++)
        times[i] = time_calls(c, r->calls, workers);
    r->median = bench_median(times, repeat);
    r->best = times[0];
    r->spread = (times[repeat - 1] - times[0]) / r->median;
    free(times);
    return CLI_DONE;
}

/* Keys and values that caches hold are not bound by memory, so reads count in cold cases only. */
static double roof_seconds(const bench_case *c, const bench_result *r, double compute, double read)
{
    const double reading = c->shape.cold ? r->bytes / read : 0;
    return fmax(r->operations / compute, reading) / 1e9;
}

static int measure_made(bench_case *c, const bench_options *options, const bench_machine *machine,
                        beside *b, bench_result *r)
{
    const qkv_parallel *workers = options->threads > 1 ? b->workers : NULL;
    double share;

    snprintf(r->kernel, sizeof r->kernel, "%s", qkv_plan_kernel(c->plan));
    r->ceiling = b->ceiling = bench_ceiling_of_kernel(r->kernel, &share);
    r->operations = bench_case_operations(c);
    r->bytes = bench_case_bytes(c);
    r->plan_bytes = c->plan_bytes;
    r->workspace_bytes = c->args.workspace_bytes;
    if (c->shape.cold) { /* the very memory that is read; its pages lie no better nor worse */
        b->memory = c->kv;
        b->bytes = (size_t)c->n_sets * c->set_bytes;
    }
    look_at_ceilings(b);
    if (time_case(c, options->repeat, workers, r) != CLI_DONE)
        return CLI_WRONG;
    look_at_ceilings(b);
    r->compute = b->compute * share;
    r->read = b->read;
    r->of_roof = roof_seconds(c, r, r->compute, r->read) / r->median;
    r->of_roof_at_start = roof_seconds(c, r, machine->all.compute[r->ceiling].median * share,
                                       machine->all.read.median) /
                          r->median;
    return bench_case_error(c, workers, &r->error);
}

int bench_measure(const bench_shape *shape, const bench_options *options,
                  const bench_machine *machine, const void *memory, const qkv_parallel *workers,
                  bench_result *result)
{
    const bench_setting setting = {options->cpu_mask, options->threads, options->memory};
    beside b = {.memory = memory, .bytes = options->memory, .workers = workers};
    bench_case c;

    *result = (bench_result){0};
    int code = bench_case_make(&c, shape, &setting);
    if (code == CLI_DONE)
        code = measure_made(&c, options, machine, &b, result);
    bench_case_free(&c);
    return code;
}
