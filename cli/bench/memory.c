/* memory.c - see memory.h. */
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, LINE = 64 };

static void *aligned(size_t bytes, size_t to) { return aligned_alloc(to, (bytes / to + 1) * to); }

void *bench_alloc(size_t bytes)
{
    if (bytes < HUGE_PAGE)
        return aligned(bytes, LINE);
    void *p = aligned(bytes, HUGE_PAGE);
#ifdef MADV_HUGEPAGE
    if (p != NULL)
        (void)madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

void *bench_alloc_plain(size_t bytes)
{
    void *p = aligned(bytes, HUGE_PAGE);
#ifdef MADV_NOHUGEPAGE
    if (p != NULL)
        (void)madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_NOHUGEPAGE);
#endif
    return p;
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Sum of four uniform numbers of 16 bits: bounded, and near enough to normal. */
static double normal(uint64_t *state)
{
    const uint64_t r = bench_random(state);
    const double sum = (double)(r & 0xffff) + (double)(r >> 16 & 0xffff) +
                       (double)(r >> 32 & 0xffff) + (double)(r >> 48);
    return (sum * 0x1p-16 - 2) * 1.7320508;
}

void bench_fill(void *memory, qkv_type type, int64_t n, uint64_t seed)
{
    const size_t size = qkv_type_size(type);
    const int64_t first = n < BENCH_PERIOD ? n : BENCH_PERIOD;
    char *p = memory;
    double some[256];

    for (int64_t i = 0; i < first; i += 256) {
        const int64_t now = first - i < 256 ? first - i : 256;
        for (int64_t j = 0; j < now; j++)
            some[j] = normal(&seed);
        (void)qkv_convert(p + (size_t)i * size, type, some, QKV_F64, (size_t)now);
    }
    for (int64_t i = first; i < n; i += first)
        memcpy(p + (size_t)i * size, p, (size_t)(n - i < first ? n - i : first) * size);
}
