/*
 * ceilings_cpu.c - does this machine have the instructions of a ceiling?
 *
 * More instruction sets than the library has tiers for, so CPUID is asked here again.  The tiers
 * answer for AVX2 and AVX-512, with the registers that the system saves.
 */
#include "ceilings.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits of leaf 7: Intel SDM volume 2, table 3-17. */
enum {
    C0_AVX512_VNNI = 1 << 11,
    D0_AMX_BF16 = 1 << 22,
    D0_AVX512_FP16 = 1 << 23,
    D0_AMX_TILE = 1 << 24,
    D0_AMX_INT8 = 1 << 25,
    A1_AVX_VNNI = 1 << 4,
    A1_AVX512_BF16 = 1 << 5,
    C1_OSXSAVE = 1 << 27 /* of leaf 1 */
};

typedef struct leaf7 {
    unsigned c0, d0, a1;
} leaf7;

static leaf7 read_leaf7(void)
{
    leaf7 x = {0, 0, 0};
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        x.c0 = c;
        x.d0 = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            x.a1 = a;
    }
    return x;
}

/* The system saves tiles (bits 17 and 18 of XCR0), and lets this process use them: Linux gives the
 * memory for tiles only to those who ask (Documentation/arch/x86/xstate.rst). */
static int system_gives_tiles(void)
{
#if defined(__linux__)
    enum { ASK = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & C1_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 0x60000) == 0x60000 && syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
#else
    return 0;
#endif
}

int bench_cpu_has(bench_ceiling c)
{
    const uint32_t tiers = qkv_cpu_flags();
    const int avx2 = (tiers & QKV_CPU_AVX2) != 0, avx512 = (tiers & QKV_CPU_AVX512) != 0;
    const leaf7 x = read_leaf7();

    switch (c) {
    case BENCH_FMA_128:
        return 1;
    case BENCH_FMA_256:
        return avx2;
    case BENCH_FMA_512:
        return avx512;
    case BENCH_FMA_F16_512:
        return avx512 && (x.d0 & D0_AVX512_FP16);
    case BENCH_DOT_BF16_512:
        return avx512 && (x.a1 & A1_AVX512_BF16);
    case BENCH_DOT_INT8_256:
        return avx2 && (x.a1 & A1_AVX_VNNI);
    case BENCH_DOT_INT8_512:
        return avx512 && (x.c0 & C0_AVX512_VNNI);
    case BENCH_AMX_BF16:
        return (x.d0 & D0_AMX_TILE) && (x.d0 & D0_AMX_BF16) && system_gives_tiles();
    case BENCH_AMX_INT8:
        return (x.d0 & D0_AMX_TILE) && (x.d0 & D0_AMX_INT8) && system_gives_tiles();
    default:
        return 0;
    }
}

#else

int bench_cpu_has(bench_ceiling c) { return c == BENCH_FMA_128; }

#endif
