/*
 * t.h - the test harness: cases, seeds, memory with guard pages, signals caught.
 *
 * A program lists its tests and calls t_main.  A test runs cases:
 *
 *     static void test_sums(void)
 *     {
 *         for (int n = 0; n < 10; n++)
 *             if (t_case("n%d", n))
 *                 t_check(sum(n) == n * (n + 1) / 2, "sum(%d) is %d", n, sum(n));
 *     }
 *     static const t_test tests[] = {{"sums", test_sums}};
 *     int main(int argc, char **argv) { return t_main(argc, argv, "sums", tests, 1); }
 *
 * Each case counts once, as passed or failed.  Memory from t_alloc lives until the case ends.
 *
 * Command line: --list, --test=SUBSTRING of "test/case", --seed=N or --seed=random, --scale=N
 * (percent of the random cases; 100, with sanitizers 10), --verbose.  Environment:
 * QKV_TEST_SIGNALS=0 leaves signals alone (a sanitizer reports them better); QKV_TEST_SCALE=N is
 * --scale.
 */
#ifndef T_H
#define T_H

#include <stddef.h>
#include <stdint.h>

typedef struct t_test {
    const char *name;
    void (*run)(void);
} t_test;

int t_main(int argc, char **argv, const char *program, const t_test *tests, int n_tests);

/* Ends the case before and begins one; 0 if the command line filtered it out. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
int t_case(const char *format, ...);

/* Marks the running case failed and says why.  Only the first few reasons of a case are printed. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void t_fail(const char *format, ...);

#define t_check(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            t_fail(__VA_ARGS__);                                                                   \
    } while (0)

int t_failed(void);             /* has the running case failed? */
int t_verbose(void);            /* --verbose */
uint64_t t_seed(void);          /* --seed, 1 if not given */
int t_times(int n);             /* n random cases, scaled by --scale; at least 1 */

/*
 * Calls fn(arg) with the vector registers full of NaN, and fails the case if it raises SIGSEGV,
 * SIGBUS, SIGILL or SIGFPE, or if it changes the rounding mode or another control bit of the
 * floating-point environment.  Returns 0, or the signal.
 */
int t_call(void (*fn)(void *arg), void *arg);

/* ---- random numbers (SplitMix64, Steele, Lea and Flood 2014) --------------------------------- */

typedef struct t_rng {
    uint64_t state;
} t_rng;

t_rng t_rng_of(uint64_t seed);
uint64_t t_bits(t_rng *rng);
int64_t t_below(t_rng *rng, int64_t n);                /* 0 .. n-1; n at least 1 */
int64_t t_between(t_rng *rng, int64_t low, int64_t high); /* both included */
int t_chance(t_rng *rng, int percent);
double t_uniform(t_rng *rng); /* [0, 1) */
double t_normal(t_rng *rng);

/* ---- memory ---------------------------------------------------------------------------------- */

enum {
    T_END = 0,  /* the byte after the last is unreadable */
    T_START = 1 /* the byte before the first is unreadable */
};

/* bytes of memory next to a guard page, aligned to `align` (a power of two up to 4,096), filled
 * with `fill`.  The rest of its pages is filled too and checked when the case ends. */
void *t_alloc(size_t bytes, size_t align, int where, unsigned char fill);

/* From now on writing to this memory of t_alloc is a SIGSEGV. */
void t_protect(void *memory);

/* Checks what surrounds every block, and frees them all.  t_case and the end of a test do it. */
void t_free_all(void);

/* Memory of the current case for results and scratch, without guards. */
void *t_scratch(size_t bytes);

#endif
