/*
 * loops.h - code that does one thing as fast as a core can, from registers or from memory.
 *
 * Each loop_* does `rounds` rounds and returns the operations it did: a multiply-add counts as two,
 * also inside dot-product and matrix instructions.  It adds a result to *keep, so that no compiler
 * can drop the work.  Each read_* sums n floats that begin at a multiple of a vector.
 *
 * Every file here is compiled with the flags of its instruction set; the caller must have asked the
 * CPU (ceilings.c).  A set that the compiler does not know is not in the build.
 */
#ifndef QKV_CLI_BENCH_LOOPS_H
#define QKV_CLI_BENCH_LOOPS_H

#include <stddef.h>

double loop_fma_128(long rounds, float *keep); /* the baseline: on x86 without FMA instructions */
double loop_fma_256(long rounds, float *keep);
double loop_fma_512(long rounds, float *keep);
double loop_fma_f16_512(long rounds, float *keep);
double loop_dot_bf16_512(long rounds, float *keep);
double loop_dot_int8_256(long rounds, float *keep);
double loop_dot_int8_512(long rounds, float *keep);
double loop_amx_bf16(long rounds, float *keep);
double loop_amx_int8(long rounds, float *keep);

float read_128(const float *p, size_t n);
float read_256(const float *p, size_t n);
float read_512(const float *p, size_t n);

/* Hides a vector's value from the compiler at no cost, so that it stays in its register and no two
 * rounds become one. */
#if defined(__AVX512F__)
#define LOOP_KEEP(x) __asm__ volatile("" : "+v"(x))
#elif defined(__x86_64__)
#define LOOP_KEEP(x) __asm__ volatile("" : "+x"(x))
#else
#define LOOP_KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

/* Loops over chains must be unrolled whole, or the chains live in memory. */
#if defined(__clang__)
#define LOOP_UNROLL _Pragma("unroll")
#else
#define LOOP_UNROLL _Pragma("GCC unroll 32")
#endif

#endif
