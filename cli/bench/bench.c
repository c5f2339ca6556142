/*
 * bench.c - qkv bench: this machine's ceilings, and what each kind of problem reaches of them.
 *
 * A client of the public headers, like every other command.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

enum { SCHEMA_VERSION = 1, MOST_SHAPES = 256 };

/* What was measured so far, for cases that are compared with earlier ones. */
typedef struct earlier {
    const char *name[MOST_SHAPES];
    double of_roof[MOST_SHAPES];
    int n;
} earlier;

static void compare(earlier *e, const bench_shape *shape, bench_result *r)
{
    for (int i = 0; shape->versus != NULL && i < e->n; i++)
        if (strcmp(e->name[i], shape->versus) == 0)
            r->versus = r->of_roof / e->of_roof[i];
    if (e->n < MOST_SHAPES) {
        e->name[e->n] = shape->name;
        e->of_roof[e->n++] = r->of_roof;
    }
}

static int wanted(const bench_options *options, const bench_shape *shape)
{
    return options->shape == NULL || strstr(shape->name, options->shape) != NULL;
}

static int measure_all(const bench_options *options, const bench_machine *machine,
                       const qkv_parallel *workers, json_t *rows)
{
    earlier seen = {.n = 0};
    bench_shape shape;
    int code = CLI_DONE;
    void *memory = bench_alloc(options->memory);

    if (memory == NULL)
        return cli_complain_memory("what the read rate is measured over", options->memory);
    bench_fill(memory, QKV_F32, (int64_t)(options->memory / sizeof(float)), 1);
    bench_print_head();
    for (int i = 0; code == CLI_DONE && bench_shape_at(i, &shape); i++) {
        bench_result result;
        if (!wanted(options, &shape))
            continue;
        code = bench_measure(&shape, options, machine, memory, workers, &result);
        if (code != CLI_DONE)
            break;
        compare(&seen, &shape, &result);
        bench_print_row(&shape, &result);
        json_array_append_new(rows, bench_row_json(&shape, &result));
    }
    free(memory);
    return code;
}

static json_t *report(const bench_options *options, const bench_machine *machine, json_t *rows)
{
    return json_pack(
        "{s:s, s:i, s:o, s:s, s:i, s:i, s:I, s:o, s:O}", "schema", "qkv-bench", "schema_version",
        SCHEMA_VERSION, "environment", bench_environment_json(options->command), "tier",
        options->tier != NULL ? options->tier : "highest", "threads", (int)options->threads,
        "repeats", (int)options->repeat, "memory_bytes", (json_int_t)options->memory, "ceilings",
        bench_machine_json(machine), "rows", rows);
}

int bench_run_shapes(const bench_options *options)
{
    bench_machine machine = {.threads = 1};
    qkv_pool *pool;

    const qkv_status status = qkv_pool_create(options->threads, NULL, &pool);
    if (status != QKV_OK)
        return cli_complain("--threads is %d: %s", (int)options->threads, qkv_status_text(status));
    const qkv_parallel workers = qkv_pool_parallel(pool);
    json_t *rows = json_array();
    int code = bench_machine_measure(&machine, options->memory, &workers);
    if (code == CLI_DONE) {
        bench_machine_print(&machine);
        code = measure_all(options, &machine, &workers, rows);
    }
    if (code == CLI_DONE && options->json != NULL)
        code = bench_write_json("--json", options->json, report(options, &machine, rows));
    json_decref(rows);
    qkv_pool_destroy(pool);
    return code;
}

static int list_shapes(void)
{
    bench_shape s;
    for (int i = 0; bench_shape_at(i, &s); i++) {
        printf("%-25s %-8s %-5s B %d, Hq %d, Hkv %d, Tq %lld, Tk %lld, D %d, Dv %d%s", s.name,
               s.family, qkv_type_name(s.type), (int)s.B, (int)s.Hq, (int)s.Hkv, (long long)s.Tq,
               (long long)s.Tk, (int)s.D, (int)s.Dv, s.causal ? ", causal" : "");
        if (s.window > 0)
            printf(", window %lld", (long long)s.window);
        for (int k = 0; k < BENCH_N_EXTRAS; k++)
            if (s.extras & 1u << k)
                printf(", %s", bench_extra_name(k));
        if (s.format != 0)
            printf(", cache %s, page %d, %s", qkv_format_name(s.format), (int)s.page_tokens,
                   bench_use_name(s.use));

        puts(s.cold ? ", cold" : "");
    }
    return CLI_DONE;
}

/* Found out before minutes are spent. */
static int check_shape(const bench_options *options)
{
    bench_shape s;
    for (int i = 0; bench_shape_at(i, &s); i++)
        if (wanted(options, &s))
            return CLI_DONE;
    return cli_complain("--shape is %s, which is in no case's name; see qkv bench --list",
                        options->shape);
}

int cli_bench(int argc, char **argv)
{
    bench_options options;
    if (argc > 1 && strcmp(argv[1], "layer") == 0)
        return bench_run_layer(argc - 1, argv + 1);
    if (bench_options_parse(&options, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (options.help) {
        fputs(cli_help_page("bench"), stdout);
        return CLI_DONE;
    }
    if (options.list)
        return list_shapes();
    if (options.calibrate)
        return bench_run_calibrate(&options);
    if (options.scaling)
        return bench_run_scaling(&options);
    return check_shape(&options) == CLI_DONE ? bench_run_shapes(&options) : CLI_WRONG;
}
