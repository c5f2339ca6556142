/* case.h - a row of the table made real: tensors, a plan, and calls. */
#ifndef QKV_CLI_BENCH_CASE_H
#define QKV_CLI_BENCH_CASE_H

#include "../cli.h"
#include "shapes.h"
#include "store.h"

typedef struct bench_cascade bench_cascade;

typedef struct bench_case {
    bench_shape shape;
    qkv_desc desc;
    qkv_args args; /* k and v: those of the next call */
    const qkv_plan *plan;
    size_t plan_bytes;
    char *kv; /* n_sets times keys and values; or the cache's memory */
    size_t kv_bytes, set_bytes, v_at;
    int64_t n_sets, turn; /* a set is a layer of a cache */
    bench_store *store;   /* NULL without a cache */
    const qkv_cache_view *view;
    bench_cascade *cascade;
    void *memory[32];
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

/* Memory that bench_case_free gives back; NULL if there is not so much. */
void *bench_case_get(bench_case *c, size_t bytes);

/* One call, on the next set of keys and values.  workers NULL: this thread alone. */
void bench_case_run(bench_case *c, const qkv_parallel *workers);

/* Useful work of a call: 2 (D + Dv) operations a visible pair; each byte of K and V once. */
double bench_case_operations(const bench_case *c);
double bench_case_bytes(const bench_case *c);

/* How often the call's tasks read K and V: bytes that they read, by count, over those there are. */
double bench_case_reads(const bench_case *c);

/* The kernel that does most of the work; "append". */
const char *bench_case_kernel(const bench_case *c);

/* Bytes of q, k, v (all sets), o and what the shape has beside them. */
size_t bench_case_tensor_bytes(const bench_case *c);

/* Errors of a few rows of a few heads, recomputed by the oracle in double. */
typedef struct bench_error {
    double largest;     /* |o - exact| */
    double over_budget; /* the same as a share of the element's budget; up to 1 is right */
} bench_error;

/* Runs once more, on the first set.  CLI_DONE or CLI_WRONG. */
int bench_case_error(bench_case *c, const qkv_parallel *workers, bench_error *error);

/* ---- with a cache: cached.c, append.c ----------------------------------------------------- */

int bench_cached_make(bench_case *c, const bench_setting *setting);
void bench_cached_free(bench_case *c);
void bench_cached_run(bench_case *c, const qkv_parallel *workers);
/* The outputs of the last run into args.o, in the type of the case. */
void bench_cached_outputs(bench_case *c);
const qkv_plan *bench_cached_main_plan(const bench_case *c);
double bench_cached_reads(const bench_case *c);
void bench_append_run(bench_case *c);
int bench_append_error(bench_case *c, bench_error *error);

#endif
