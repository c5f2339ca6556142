/* memory.h - memory for tensors, and what is put into it. */
#ifndef QKV_CLI_BENCH_MEMORY_H
#define QKV_CLI_BENCH_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "qkv/base.h"

/* 64-byte aligned; from 2 MiB up on a huge page's boundary with advice to use huge pages, which a
 * system may ignore.  Freed with free().  NULL if there is not so much. */
void *bench_alloc(size_t bytes);

/* The same with the advice not to use huge pages: what malloc gives by default on most systems. */
void *bench_alloc_plain(size_t bytes);

/* n normal numbers of variance 1; the same for the same seed.  They repeat after BENCH_PERIOD,
 * a prime number of elements, so that a gibibyte takes no longer than copying it. */
enum { BENCH_PERIOD = 1000003 };
void bench_fill(void *memory, qkv_type type, int64_t n, uint64_t seed);

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t bench_random(uint64_t *state);

#endif
