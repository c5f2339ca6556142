/* t.c - cases, command line, random numbers. */
#include "t.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_REASONS = 4 };

/* Sanitizers make everything some ten times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { USUAL_SCALE = 10 };
#else
enum { USUAL_SCALE = 100 };
#endif

static struct {
    const char *program, *test, *filter;
    char name[256]; /* of the running case */
    int running, failed, reasons, skipped;
    int n_passed, n_failed;
    int verbose, list, scale;
    uint64_t seed;
} state = {.filter = "", .scale = USUAL_SCALE, .seed = 1};

int t_failed(void) { return state.failed; }
int t_verbose(void) { return state.verbose; }
uint64_t t_seed(void) { return state.seed; }

int t_times(int n)
{
    const int64_t scaled = (int64_t)n * state.scale / 100;
    return scaled < 1 ? 1 : (int)scaled;
}

static void end_case(void)
{
    t_free_all();
    if (!state.running)
        return;
    state.running = 0;
    if (state.failed)
        state.n_failed++;
    else
        state.n_passed++;
    if (state.verbose)
        printf("%s %s/%s\n", state.failed ? "FAIL" : "ok  ", state.test, state.name);
    state.failed = state.reasons = 0;
}

int t_case(const char *format, ...)
{
    char full[512];
    va_list list;

    end_case();
    va_start(list, format);
    vsnprintf(state.name, sizeof state.name, format, list);
    va_end(list);
    snprintf(full, sizeof full, "%s/%s", state.test, state.name);
    if (!strstr(full, state.filter)) {
        state.skipped++;
        return 0;
    }
    state.running = 1;
    return 1;
}

void t_fail(const char *format, ...)
{
    va_list list;

    state.failed = 1;
    if (state.reasons++ >= MAX_REASONS)
        return;
    fflush(stdout);
    fprintf(stderr, "FAIL %s %s/%s (seed %llu): ", state.program, state.test, state.name,
            (unsigned long long)state.seed);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
}

static int set_scale(const char *text)
{
    state.scale = atoi(text);
    return state.scale > 0;
}

static int parse(int argc, char **argv)
{
    const char *scale = getenv("QKV_TEST_SCALE");

    if (scale && !set_scale(scale))
        return 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0)
            state.list = 1;
        else if (strcmp(argv[i], "--verbose") == 0)
            state.verbose = 1;
        else if (strncmp(argv[i], "--test=", 7) == 0)
            state.filter = argv[i] + 7;
        else if (strcmp(argv[i], "--seed=random") == 0)
            state.seed = (uint64_t)time(NULL) * 2654435761u;
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            state.seed = strtoull(argv[i] + 7, NULL, 0);
        else if (strncmp(argv[i], "--scale=", 8) != 0 || !set_scale(argv[i] + 8))
            return 0;
    }
    return 1;
}

int t_main(int argc, char **argv, const char *program, const t_test *tests, int n_tests)
{
    state.program = program;
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: %s [--list] [--test=SUBSTRING] [--seed=N|random] [--scale=PERCENT] "
                        "[--verbose]\n", argv[0]);
        return 2;
    }
    for (int i = 0; state.list && i < n_tests; i++)
        printf("%s\n", tests[i].name);
    if (state.list)
        return 0;
    printf("%s: seed %llu\n", program, (unsigned long long)state.seed);
    for (int i = 0; i < n_tests; i++) {
        state.test = tests[i].name;
        tests[i].run();
        end_case();
    }
    printf("%s: %d passed, %d failed\n", program, state.n_passed, state.n_failed);
    return state.n_failed > 0 || (state.n_passed == 0 && state.skipped > 0);
}


uint64_t t_bits(t_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The seed is mixed: streams of neighbouring seeds would be one stream, shifted by a number. */
t_rng t_rng_of(uint64_t seed)
{
    t_rng rng = {seed};
    rng.state = t_bits(&rng);
    return rng;
}

int64_t t_below(t_rng *rng, int64_t n) { return (int64_t)(t_bits(rng) % (uint64_t)n); }

int64_t t_between(t_rng *rng, int64_t low, int64_t high)
{
    return low + t_below(rng, high - low + 1);
}

int t_chance(t_rng *rng, int percent) { return t_below(rng, 100) < percent; }

double t_uniform(t_rng *rng) { return (double)(t_bits(rng) >> 11) * 0x1p-53; }

double t_normal(t_rng *rng) /* Box and Muller 1958 */
{
    const double radius = sqrt(-2 * log(1 - t_uniform(rng)));
    return radius * cos(6.283185307179586 * t_uniform(rng));
}
