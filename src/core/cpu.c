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

#if defined(QKV_AMX_MODEL) /* the Meson option amx_model: plain C, so it is there on every CPU */
#define MODEL_FLAGS QKV_CPU_AMX
#define MODEL_TIERS , {"amx", QKV_CPU_AMX}
#else
#define MODEL_FLAGS 0u
#define MODEL_TIERS
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { FOUND = 1u << 31 }; /* set beside the flags once they are known */

typedef struct leaves {
    unsigned c1, b7, c7, d7, a7_1;
    int amd;
    uint64_t xcr0;
} leaves;

static leaves read_leaves(void)
{
    leaves x = {0};
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &x.c1, &d))
        return x;
    if (x.c1 & bit_OSXSAVE) {
        uint32_t low, high;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        x.xcr0 = (uint64_t)high << 32 | low;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        x.b7 = b;
        x.c7 = c;
        x.d7 = d;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        x.a7_1 = a;
    if (__get_cpuid(0, &a, &b, &c, &d))
        x.amd = b == signature_AMD_ebx && d == signature_AMD_edx && c == signature_AMD_ecx;
    return x;
}

#define C1_AVX2 (bit_FMA | bit_F16C | bit_AVX)
#define B7_AVX2 bit_AVX2
#define B7_AVX512 (bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD)
#define XCR0_YMM 0x6u  /* XMM and YMM */
#define XCR0_ZMM 0xe6u /* and opmask, upper ZMM, ZMM16-31 */

#define A7_1_BF16 (1u << 5)
#define D7_AMX (1u << 22 | 1u << 24 | 1u << 25) /* BF16, TILE, INT8; compilers differ in names */
#define XCR0_TILES 0x60000u                     /* tile configuration, tile data */

/* Linux gives the 8 KB of tile registers to processes that ask for them; asking again is harmless. */
static int tiles_permitted(void)
{
#if defined(__linux__)
    const long req_xcomp_perm = 0x1023, xtiledata = 18; /* asm/prctl.h, since Linux 5.16 */
    return syscall(SYS_arch_prctl, req_xcomp_perm, xtiledata) == 0;
#else
    return 1;
#endif
}

static const char *why_not_amx(const leaves *x)
{
    if ((x->d7 & D7_AMX) != D7_AMX)
        return "the CPU lacks AMX-TILE, AMX-BF16 or AMX-INT8";
    if (!(x->a7_1 & A7_1_BF16)) /* rounds to pairs of bf16 */
        return "the CPU lacks AVX512_BF16";
    if ((x->xcr0 & XCR0_TILES) != XCR0_TILES)
        return "the operating system does not save the tile registers";
    if (!tiles_permitted())
        return "the operating system refuses this process the tile registers";
    return "";
}

static const char *why_not_bf16(const leaves *x)
{
    if (!(x->a7_1 & A7_1_BF16) || !(x->c7 & bit_AVX512VBMI))
        return "the CPU lacks AVX512_BF16 or AVX512_VBMI";
    return x->amd ? "" : "this maker's CPUs compute products of bf16 slower than FMAs";
}

static const char *why_not(uint32_t flag, const leaves *x)
{
    if (flag & MODEL_FLAGS)
        return "";
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
    if (flag == QKV_CPU_AVX512_BF16)
        return why_not_bf16(x);
    return flag == QKV_CPU_AMX ? why_not_amx(x) : "";
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
        flags |= *why_not(QKV_CPU_AVX512_BF16, &x) ? 0 : QKV_CPU_AVX512_BF16;
        flags |= *why_not(QKV_CPU_AMX, &x) ? 0 : QKV_CPU_AMX;
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
} tiers[] = {{"scalar", 0},
             {"avx2", QKV_CPU_AVX2},
             {"avx512", QKV_CPU_AVX512},
             {"avx512_bf16", QKV_CPU_AVX512_BF16},
             {"amx", QKV_CPU_AMX}};

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

/* BFDOT and BFCVT.  They use the registers of Advanced SIMD: there is nothing else to ask for. */
static int has_bf16(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP2) >> 14 & 1) != 0; /* HWCAP2_BF16, which older headers lack */
#else
    return 0;
#endif
}

/* Advanced SIMD is part of the calling convention on AArch64: a program that runs has it. */
uint32_t qkv_cpu_flags(void)
{
    return QKV_CPU_NEON | (has_bf16() ? QKV_CPU_NEON_BF16 : 0u) | MODEL_FLAGS;
}

static const char *tier_reason(uint32_t flag)
{
    return flag == QKV_CPU_NEON_BF16 && !has_bf16() ? "the CPU lacks FEAT_BF16" : "";
}

/* No instruction a program may use gives a name; MIDR_EL1 is a number, and /proc is for people. */
static void brand(char out[49]) { memcpy(out, "AArch64", 8); }

static const struct {
    const char *name;
    uint32_t flag;
} tiers[] = {{"scalar", 0},
             {"neon", QKV_CPU_NEON},
             {"neon_bf16", QKV_CPU_NEON_BF16} MODEL_TIERS};

#elif defined(__wasm__)

/* A module with SIMD128 is refused as a whole where that is missing: a module that runs has it. */
uint32_t qkv_cpu_flags(void) { return QKV_CPU_WASM128 | MODEL_FLAGS; }

static const char *tier_reason(uint32_t flag)
{
    (void)flag;
    return "";
}

static void brand(char out[49]) { memcpy(out, "WebAssembly", 12); }

static const struct {
    const char *name;
    uint32_t flag;
} tiers[] = {{"scalar", 0}, {"wasm128", QKV_CPU_WASM128} MODEL_TIERS};

#else

uint32_t qkv_cpu_flags(void) { return MODEL_FLAGS; }

static const char *tier_reason(uint32_t flag)
{
    (void)flag;
    return "";
}

static void brand(char out[49]) { memcpy(out, "unknown", 8); }

static const struct {
    const char *name;
    uint32_t flag;
} tiers[] = {{"scalar", 0} MODEL_TIERS};

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
