/*
 * core/cpu.c - what this processor and this operating system let kernels use.
 *
 * A tier counts only if CPUID lists every instruction set of its bundle and XCR0 says that the
 * system saves the registers: the first without the second crashes in a virtual machine or
 * under a kernel that masks AVX-512.  The answer never changes, so it is found once; two threads
 * that find it at the same time store the same value.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "qkv/base.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum { FOUND = 1u << 31 }; /* set beside the flags once they are known */

typedef struct leaves {
    unsigned c1, b7;
    uint64_t xcr0;
} leaves;

static leaves read_leaves(void)
{
    leaves x = {0, 0, 0};
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &x.c1, &d))
        return x;
    if (x.c1 & bit_OSXSAVE) {
        uint32_t low, high;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        x.xcr0 = (uint64_t)high << 32 | low;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        x.b7 = b;
    return x;
}

#define C1_AVX2 (bit_FMA | bit_F16C | bit_AVX)
#define B7_AVX2 bit_AVX2
#define B7_AVX512 (bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD)
#define XCR0_YMM 0x6u  /* XMM and YMM */
#define XCR0_ZMM 0xe6u /* and opmask, upper ZMM, ZMM16-31 */

static const char *why_not(uint32_t flag, const leaves *x)
{
    if ((x->c1 & C1_AVX2) != C1_AVX2 || (x->b7 & B7_AVX2) != B7_AVX2)
        return "the CPU lacks AVX2, FMA or F16C";
    if ((x->xcr0 & XCR0_YMM) != XCR0_YMM)
        return "the operating system does not save the 256-bit registers";
    if (flag == QKV_CPU_AVX2)
        return "";
    if ((x->b7 & B7_AVX512) != B7_AVX512)
        return "the CPU lacks one of AVX-512 F, BW, DQ, VL, CD";
    if ((x->xcr0 & XCR0_ZMM) != XCR0_ZMM)
        return "the operating system does not save the 512-bit registers";
    return "";
}

uint32_t qkv_cpu_flags(void)
{
    static _Atomic uint32_t known;
    uint32_t flags = atomic_load_explicit(&known, memory_order_relaxed);

    if (!(flags & FOUND)) {
        const leaves x = read_leaves();
        flags = FOUND;
        flags |= *why_not(QKV_CPU_AVX2, &x) ? 0 : QKV_CPU_AVX2;
        flags |= *why_not(QKV_CPU_AVX512, &x) ? 0 : QKV_CPU_AVX512;
        atomic_store_explicit(&known, flags, memory_order_relaxed);
    }
    return flags & ~(uint32_t)FOUND;
}

static const char *tier_reason(uint32_t flag)
{
    const leaves x = read_leaves();
    return flag ? why_not(flag, &x) : "";
}

static void brand(char out[49])
{
    unsigned r[12];
    unsigned a, b, c, d;
    if (__get_cpuid(0x80000000u, &a, &b, &c, &d) && a >= 0x80000004u) {
        for (unsigned i = 0; i < 3; i++)
            __get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]);
        memcpy(out, r, 48);
    }
}

static const struct {
    const char *name;
    uint32_t flag;
} tiers[] = {{"scalar", 0}, {"avx2", QKV_CPU_AVX2}, {"avx512", QKV_CPU_AVX512}};

#else

uint32_t qkv_cpu_flags(void) { return 0; }

static const char *tier_reason(uint32_t flag)
{
    (void)flag;
    return "";
}

static void brand(char out[49]) { memcpy(out, "unknown", 8); }

static const struct {
    const char *name;
    uint32_t flag;
} tiers[] = {{"scalar", 0}};

#endif

int32_t qkv_tier_count(void) { return (int32_t)(sizeof tiers / sizeof *tiers); }

qkv_status qkv_tier_info_sized(int32_t index, qkv_tier *tier, size_t struct_size)
{
    qkv_tier t;

    if (index < 0 || index >= qkv_tier_count() || !tier)
        return QKV_ERR_ARGUMENT;
    t.name = tiers[index].name;
    t.flag = tiers[index].flag;
    t.reason = tier_reason(t.flag);
    t.available = !*t.reason;
    memset(tier, 0, struct_size);
    memcpy(tier, &t, struct_size < sizeof t ? struct_size : sizeof t);
    return QKV_OK;
}

char *qkv_cpu_name(char *text, size_t bytes)
{
    char name[49] = {0};
    const char *start = name;

    if (bytes == 0)
        return text;
    brand(name);
    while (*start == ' ')
        start++;
    size_t n = strlen(start);
    while (n > 0 && start[n - 1] == ' ')
        n--;
    n = n < bytes - 1 ? n : bytes - 1;
    memcpy(text, start, n);
    text[n] = 0;
    return text;
}

int32_t qkv_cpu_count(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int n = CPU_COUNT(&set);
        return n > 0 ? n : 1;
    }
#endif
    return 1;
}
