/* bench.h - the options of `qkv bench`, and what it can do. */
#ifndef QKV_CLI_BENCH_BENCH_H
#define QKV_CLI_BENCH_BENCH_H

#include "../cli.h"
#include "case.h"
#include "machine.h"

typedef struct bench_options {
    int help, list, calibrate, scaling;
    int32_t threads, repeat;
    const char *shape, *json, *tier, *profile; /* NULL: not given */
    uint32_t cpu_mask;
    size_t memory;
    char command[1024]; /* "qkv bench --threads 2", for the report */
} bench_options;

/* Parses the arguments after "bench".  CLI_DONE or CLI_WRONG. */
int bench_options_parse(bench_options *options, int argc, char **argv);

/* The words as they were typed, for the report. */
void bench_keep_command(bench_options *options, int argc, char **argv);
/* Whether a file can be written there: found out now and not after minutes.  path may be NULL. */
int bench_check_folder(const char *option, const char *path);

/* What one case did. */
typedef struct bench_result {
    char kernel[64];
    bench_ceiling ceiling;
    double median, best, spread; /* seconds a call; (slowest - fastest) / median */
    int64_t calls;               /* a repeat makes */
    double operations, bytes;    /* useful, a call */
    double compute, read;    /* the ceilings measured beside, as far as this kernel can use them */
    double of_roof;          /* the roof's time over the median */
    double of_roof_at_start; /* the same with the ceilings measured at the start */
    double versus;           /* of_roof over that of shape.versus; 0: not measured */
    double against;          /* median of shape.against, in turns with this; 0: there is none */
    double reads;            /* bytes of K and V that are read, by count, over those there are */
    bench_error error;
    size_t plan_bytes, workspace_bytes;
} bench_result;

/* Measures a case: ceilings, calls, ceilings again, and the error.  CLI_DONE or CLI_WRONG. */
int bench_measure(const bench_shape *shape, const bench_options *options,
                  const bench_machine *machine, const void *memory, const qkv_parallel *workers,
                  bench_result *result);

/* The table of results, and a row of the JSON report. */
void bench_print_head(void);
void bench_print_row(const bench_shape *shape, const bench_result *result);
json_t *bench_row_json(const bench_shape *shape, const bench_result *result);

/* Writes value to path, complete or not at all, and frees it. */
int bench_write_json(const char *option, const char *path, json_t *value);

/* The parts of the command.  Exit codes. */
int bench_run_shapes(const bench_options *options);
int bench_run_calibrate(const bench_options *options);
int bench_run_scaling(const bench_options *options);
int bench_run_layer(int argc, char **argv);

#endif
