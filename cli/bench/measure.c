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
#include <string.h>

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

/* Two calls to warm up, the second of which says how many make a repeat. */
static int64_t calls_of(bench_case *c, const qkv_parallel *workers)
{
    (void)time_calls(c, 1, workers);
    const double once = time_calls(c, 1, workers);
    const int64_t calls =
        once < REPEAT_SECONDS ? (int64_t)(REPEAT_SECONDS / fmax(once, 1e-7)) + 1 : 1;
    return calls < MOST_CALLS ? calls : MOST_CALLS;
}

/* other, which may be NULL, takes its turn after each repeat of the case. */
static int time_case(bench_case *c, bench_case *other, int32_t repeat, const qkv_parallel *workers,
                     bench_result *r)
{
    double *times = malloc(2 * (size_t)repeat * sizeof *times), *others = times + repeat;

    if (times == NULL)
        return cli_complain_memory("the times", 2 * (size_t)repeat * sizeof *times);
    r->calls = calls_of(c, workers);
    const int64_t other_calls = other != NULL ? calls_of(other, workers) : 0;
    for (int32_t i = 0; i < repeat; i++) {
        times[i] = time_calls(c, r->calls, workers);
        if (other != NULL)
            others[i] = time_calls(other, other_calls, workers);
    }
    r->against = other != NULL ? bench_median(others, repeat) : 0;
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

static int measure_made(bench_case *c, bench_case *other, const bench_options *options,
                        const bench_machine *machine, beside *b, bench_result *r)
{
    const qkv_parallel *workers = options->threads > 1 ? b->workers : NULL;
    double share;

    snprintf(r->kernel, sizeof r->kernel, "%s", bench_case_kernel(c));
    r->ceiling = b->ceiling = bench_ceiling_of_kernel(r->kernel, &share);
    r->operations = bench_case_operations(c);
    r->bytes = bench_case_bytes(c);
    r->reads = bench_case_reads(c);
    r->plan_bytes = c->plan_bytes;
    r->workspace_bytes = c->args.workspace_bytes;
    if (c->shape.cold) { /* the very memory that is read; its pages lie no better nor worse */
        b->memory = c->kv;
        b->bytes = c->kv_bytes;
    }
    look_at_ceilings(b);
    if (time_case(c, other, options->repeat, workers, r) != CLI_DONE)
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

/* The case of that name; shapes.inc has it (tests/cli looks). */
static bench_shape shape_named(const char *name)
{
    bench_shape s = {.name = NULL};
    for (int i = 0; bench_shape_at(i, &s) && strcmp(s.name, name) != 0; i++)
        ;
    return s;
}

int bench_measure(const bench_shape *shape, const bench_options *options,
                  const bench_machine *machine, const void *memory, const qkv_parallel *workers,
                  bench_result *result)
{
    const bench_setting setting = {options->cpu_mask, options->threads, options->memory};
    beside b = {.memory = memory, .bytes = options->memory, .workers = workers};
    bench_case c, other = {.n_memory = 0};
    int code = CLI_DONE;

    *result = (bench_result){0};
    if (shape->against != NULL) {
        const bench_shape s = shape_named(shape->against);
        code = bench_case_make(&other, &s, &setting);
    }
    if (code == CLI_DONE) {
        code = bench_case_make(&c, shape, &setting);
        if (code == CLI_DONE)
            code = measure_made(&c, shape->against != NULL ? &other : NULL, options, machine, &b,
                                result);
        bench_case_free(&c);
    }
    bench_case_free(&other);
    return code;
}
