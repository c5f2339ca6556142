/* timing.h - the clock, and what is said of several times. */
#ifndef QKV_CLI_BENCH_TIMING_H
#define QKV_CLI_BENCH_TIMING_H

/* Seconds since some fixed moment. */
double bench_now(void);

/* Sorts n (1 or more) values and returns the middle one; of an even number, the upper of the two.
 */
double bench_median(double *values, int n);

#endif
