/*
 * scaling.c - qkv bench --scaling: time and memory as T, D and the number of threads grow.
 *
 * Each point is measured in a child process of its own, so that its largest resident set is that of
 * this point: the tensors, the workspace, and what the program is without them ("idle").
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "timing.h"

enum { SCHEMA_VERSION = 1 };
enum { FIRST_T = 128, LAST_T = 65536, FIRST_D = 32, LAST_D = 256 };
enum { SWEEP_T = 8192, SWEEP_D = 128 }; /* where numbers of threads between 1 and all are tried */
enum { DEAR_T = 32768 };                /* from here on prefill is measured with SWEEP_D only */
#define POINT_SECONDS 1.0               /* a point's calls take about so much, or one call */

typedef struct point {
    char name[64];
    bench_shape shape;
    int32_t threads;
} point;

/* What a child reports, through a pipe. */
typedef struct outcome {
    int32_t runs;
    double median, operations, bytes;
    size_t tensor_bytes, plan_bytes, workspace_bytes;
    int64_t peak, idle; /* resident bytes */
} outcome;

/* Linux counts in KiB. */
static int64_t peak_resident(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static void make_point(point *p, int decode, qkv_type type, int32_t d, int64_t t, int32_t threads)
{
    *p = (point){.threads = threads,
                 .shape = {.B = 1,
                           .Hq = decode ? 32 : 1,
                           .Hkv = decode ? 8 : 1,
                           .type = type,
                           .Tq = decode ? 1 : t,
                           .Tk = t,
                           .D = d,
                           .Dv = d,
                           .causal = QKV_CAUSAL_INCLUSIVE}};
    snprintf(p->name, sizeof p->name, "%s-%s-d%d-t%lld-threads%d", decode ? "decode" : "prefill",
             qkv_type_name(type), (int)d, (long long)t, (int)threads);
    p->shape.family = decode ? "decode" : "prefill";
}

/* ---- in the child ------------------------------------------------------------------------- */

static double one_call(bench_case *c, const qkv_parallel *workers)
{
    const double begin = bench_now();
    bench_case_run(c, workers);
    return bench_now() - begin;
}

/* The first call touches the pages.  If it was long, that does not matter, and it is the result. */
static void time_point(bench_case *c, int32_t repeat, const qkv_parallel *workers, outcome *out)
{
    double times[1000];
    const double first = one_call(c, workers), fit = POINT_SECONDS / first;

    times[0] = first;
    out->runs = fit >= repeat ? repeat : fit >= 1 ? (int32_t)fit : 1;
    for (int32_t i = 0; fit >= 1 && i < out->runs; i++)
        times[i] = one_call(c, workers);
    out->median = bench_median(times, out->runs);
}

static int measure_point(const point *p, const bench_options *options, outcome *out)
{
    const bench_setting setting = {options->cpu_mask, p->threads, 1};
    bench_shape shape = p->shape;
    qkv_pool *pool = NULL;
    bench_case c;

    out->idle = peak_resident();
    if (p->threads > 1 && qkv_pool_create(p->threads, NULL, &pool) != QKV_OK)
        return cli_complain("%d threads could not be started", (int)p->threads);
    const qkv_parallel workers = pool != NULL ? qkv_pool_parallel(pool) : (qkv_parallel){0};
    shape.name = p->name;
    int code = bench_case_make(&c, &shape, &setting);
    if (code == CLI_DONE) {
        time_point(&c, options->repeat, pool != NULL ? &workers : NULL, out);
        out->operations = bench_case_operations(&c);
        out->bytes = bench_case_bytes(&c);
        out->tensor_bytes = bench_case_tensor_bytes(&c);
        out->plan_bytes = c.plan_bytes;
        out->workspace_bytes = c.args.workspace_bytes;
        out->peak = peak_resident();
    }
    bench_case_free(&c);
    qkv_pool_destroy(pool);
    return code;
}

/* ---- in the parent ------------------------------------------------------------------------ */

/* 1: measured; 0: the child was ended from outside (no memory, most likely); -1: it failed and
 * said why. */
static int in_child(const point *p, const bench_options *options, outcome *out)
{
    int ends[2], status = 0;
    outcome got;

    memset(out, 0, sizeof *out);
    fflush(stdout);
    if (pipe(ends) != 0) {
        cli_complain("%s: no pipe could be made", p->name);
        return -1;
    }
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        memset(&got, 0, sizeof got);
        const int code = measure_point(p, options, &got);
        const int sent = code == CLI_DONE && write(ends[1], &got, sizeof got) == sizeof got;
        _exit(sent ? CLI_DONE : CLI_WRONG);
    }
    close(ends[1]);
    const int complete = child > 0 && read(ends[0], &got, sizeof got) == sizeof got;
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child) {
        cli_complain("%s: no process could be started", p->name);
        return -1;
    }
    if (complete)
        *out = got;
    return complete ? 1 : WIFSIGNALED(status) ? 0 : -1;
}

static json_t *point_json(const point *p, const outcome *o)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:i, s:I, s:i, s:i, s:i}", "name", p->name, "family",
                             p->shape.family, "type", qkv_type_name(p->shape.type), "D",
                             (int)p->shape.D, "T", (json_int_t)p->shape.Tk, "Hq", (int)p->shape.Hq,
                             "Hkv", (int)p->shape.Hkv, "threads", (int)p->threads);
    if (o == NULL) {
        json_object_set_new(json, "error", json_string("the process was ended by the system"));
        return json;
    }
    json_t *measured = json_pack(
        "{s:i, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I}", "runs", (int)o->runs, "median_seconds",
        o->median, "gflops", o->operations / o->median / 1e9, "gbytes_per_second",
        o->bytes / o->median / 1e9, "tensor_bytes", (json_int_t)o->tensor_bytes, "plan_bytes",
        (json_int_t)o->plan_bytes, "workspace_bytes", (json_int_t)o->workspace_bytes,
        "peak_resident_bytes", (json_int_t)o->peak, "idle_resident_bytes", (json_int_t)o->idle);
    json_object_update(json, measured);
    json_decref(measured);
    return json;
}

static void print_point(const point *p, const outcome *o)
{
    printf("%-34s %12.3f %9.1f %9.2f %11.1f %11.1f %11.1f\n", p->name, o->median * 1e3,
           o->operations / o->median / 1e9, o->bytes / o->median / 1e9,
           (double)o->workspace_bytes / 1024, (double)o->tensor_bytes / (1 << 20),
           (double)o->peak / (1 << 20));
}

static int run_point(const point *p, const bench_options *options, json_t *points)
{
    outcome out;
    if (options->shape != NULL && strstr(p->name, options->shape) == NULL)
        return CLI_DONE;
    const int how = in_child(p, options, &out);
    if (how < 0)
        return CLI_WRONG;
    if (json_array_size(points) == 0)
        printf("%-34s %12s %9s %9s %11s %11s %11s\n", "point", "median ms", "GFLOP/s", "GB/s",
               "workspace K", "tensors M", "peak RSS M");
    if (how > 0)
        print_point(p, &out);
    else
        printf("%-34s ended by the system, probably for want of memory\n", p->name);
    json_array_append_new(points, point_json(p, how > 0 ? &out : NULL));
    return CLI_DONE;
}

/* 1, 2, 4 ... and all; then one more than all. */
static int32_t more_threads(int32_t n, int32_t all)
{
    if (n == all)
        return all + 1;
    return n > all / 2 ? all : 2 * n;
}

/* With one thread and with all at every T and D, with other numbers at one; and without the points
 * that would take most of the time to say little. */
static int worth_it(int decode, int32_t d, int64_t t, int32_t n, int32_t all)
{
    const int some_threads = n > 1 && n < all;
    return (decode || d == SWEEP_D || t < DEAR_T) &&
           (!some_threads || (d == SWEEP_D && t == SWEEP_T));
}

static int run_points(const bench_options *options, json_t *points)
{
    static const qkv_type types[] = {QKV_F32, QKV_BF16};
    const int32_t all = options->threads;
    point p;

    for (int kind = 0; kind < 4; kind++)
        for (int32_t d = FIRST_D; d <= LAST_D; d *= 2)
            for (int64_t t = FIRST_T; t <= LAST_T; t *= 2)
                for (int32_t n = 1; n <= all; n = more_threads(n, all)) {
                    if (!worth_it(kind / 2, d, t, n, all))
                        continue;
                    make_point(&p, kind / 2, types[kind % 2], d, t, n);
                    if (run_point(&p, options, points) != CLI_DONE)
                        return CLI_WRONG;
                }
    return CLI_DONE;
}

int bench_run_scaling(const bench_options *options)
{
    json_t *points = json_array();

    int code = run_points(options, points);
    if (code == CLI_DONE && json_array_size(points) == 0)
        code = cli_complain("--shape is %s, which is in no point's name; they are like "
                            "prefill-f32-d64-t4096-threads1",
                            options->shape);
    if (code == CLI_DONE && options->json != NULL)
        code = bench_write_json("--json", options->json,
                                json_pack("{s:s, s:i, s:o, s:i, s:i, s:O}", "schema",
                                          "qkv-bench-scaling", "schema_version", SCHEMA_VERSION,
                                          "environment", bench_environment_json(options->command),
                                          "threads", (int)options->threads, "repeats",
                                          (int)options->repeat, "points", points));
    json_decref(points);
    return code;
}
