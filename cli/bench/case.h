/* case.h - a row of the table made real: tensors, a plan, and calls. */
#ifndef QKV_CLI_BENCH_CASE_H
#define QKV_CLI_BENCH_CASE_H

#include "../cli.h"
#include "shapes.h"

typedef struct bench_case {
    bench_shape shape;
    qkv_desc desc;
    qkv_args args; /* k and v: those of the next call */
    const qkv_plan *plan;
    size_t plan_bytes;
    char *kv; /* n_sets times keys and values */
    size_t set_bytes, v_at;
    int64_t n_sets, turn;
    void *memory[16];
    int n_memory;
} bench_case;

typedef struct bench_setting {
    uint32_t cpu_mask;
    int32_t threads;
    size_t cold_bytes; /* keys and values of a cold case take at least so much */
} bench_setting;

/* CLI_DONE, or CLI_WRONG with a sentence said.  Free it in both cases. */
int bench_case_make(bench_case *c, const bench_shape *shape, const bench_setting *setting);
void bench_case_free(bench_case *c);

/* One call, on the next set of keys and values.  workers NULL: this thread alone. */
void bench_case_run(bench_case *c, const qkv_parallel *workers);

/* Useful work of a call: 2 (D + Dv) operations a visible pair; each byte of K and V once. */
double bench_case_operations(const bench_case *c);
double bench_case_bytes(const bench_case *c);

/* Bytes of q, k, v (all sets), o and what the shape has beside them. */
size_t bench_case_tensor_bytes(const bench_case *c);

/* Errors of a few rows of a few heads, recomputed by the oracle in double. */
typedef struct bench_error {
    double largest;     /* |o - exact| */
    double over_budget; /* the same as a share of the element's budget; up to 1 is right */
} bench_error;

/* Runs once more, on the first set.  CLI_DONE or CLI_WRONG. */
int bench_case_error(bench_case *c, const qkv_parallel *workers, bench_error *error);

#endif
