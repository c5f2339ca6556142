/* machine.h - every ceiling of this machine, with one thread and with several. */
#ifndef QKV_CLI_BENCH_MACHINE_H
#define QKV_CLI_BENCH_MACHINE_H

#include <jansson.h>

#include "ceilings.h"

typedef struct bench_rates {
    bench_rate compute[BENCH_N_CEILINGS];
    bench_rate read;       /* memory in huge pages, where the system gives them */
    bench_rate read_plain; /* in small pages */
} bench_rates;

typedef struct bench_machine {
    bench_rates one, all;
    int32_t threads; /* of all; 1: all is one */
    size_t bytes;    /* the memory reads went over */
} bench_machine;

/* Measures everything; takes some seconds and `bytes` of memory.  CLI_DONE or CLI_WRONG. */
int bench_machine_measure(bench_machine *m, size_t bytes, const qkv_parallel *workers);

/* A table on standard output. */
void bench_machine_print(const bench_machine *m);

/* {"fma_f32_512": {"unit": ..., "one_thread": {"median": x, "best": x}, "all_threads": ...}, ...}:
 * what this machine has, under the names of ceilings.h, then "read" and "read_plain" in GB/s. */
json_t *bench_machine_json(const bench_machine *m);

/* What a result must name: version, CPU, system, compiler, flags, date and command. */
json_t *bench_environment_json(const char *command);

#endif
