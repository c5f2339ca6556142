/*
 * qkv/base.h - what every part of qkv shares: status codes, element types, CPU tiers,
 * allocators and parallel loops.
 *
 * The library never prints, aborts, reads the environment or changes the floating-point
 * environment.  It allocates only where a handle is created, through the allocator given there.
 */
#ifndef QKV_BASE_H
#define QKV_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QKV_VERSION_MAJOR 0 /* breaking changes; equals the soname */
#define QKV_VERSION_MINOR 1 /* new functions, new fields at the end of structs */
#define QKV_VERSION_PATCH 0 /* everything else */

#ifndef QKV_API
#if defined(__GNUC__) || defined(__clang__)
#define QKV_API __attribute__((visibility("default")))
#else
#define QKV_API
#endif
#endif

/* ---- version --------------------------------------------------------------------------- */

/* Version of the library that was linked, as 0x00MMmmpp.  Compare with QKV_VERSION_*, which
 * are those of the header that was compiled.  Thread-safe. */
QKV_API uint32_t qkv_version(void);

/* The same as text, "0.1.0".  Static storage.  Thread-safe. */
QKV_API const char *qkv_version_string(void);

/* ---- status ---------------------------------------------------------------------------- */

/* What a call reports.  Values are permanent; new ones are appended. */
typedef enum qkv_status {
    QKV_OK = 0,
    QKV_ERR_ARGUMENT = 1,    /* a field or pointer is outside its documented range */
    QKV_ERR_UNSUPPORTED = 2, /* legal, but nothing in this build computes it */
    QKV_ERR_BUFFER = 3,      /* memory given by the caller is too small or misaligned */
    QKV_ERR_MEMORY = 4,      /* an allocator returned NULL */
    QKV_ERR_SYSTEM = 5,      /* the operating system refused: a thread, a file, a disk */
    QKV_ERR_FORMAT = 6,      /* a file is not what it says it is */
    QKV_ERR_FULL = 7         /* a cache has no place left for what was asked */
} qkv_status;

/* The code's name ("QKV_ERR_BUFFER") and one sentence about it.  Static storage; for a value
 * that is no qkv_status both say so.  Thread-safe. */
QKV_API const char *qkv_status_name(qkv_status status);
QKV_API const char *qkv_status_text(qkv_status status);

/* ---- element types ---------------------------------------------------------------------- */

/* QKV_NONE marks an optional tensor as absent.  Values are permanent. */
typedef enum qkv_type {
    QKV_NONE = 0,
    QKV_F64 = 1,
    QKV_F32 = 2,
    QKV_F16 = 3,  /* IEEE binary16 */
    QKV_BF16 = 4, /* the upper half of an f32 */
    QKV_BOOL = 5, /* one byte an element, 0 is false and anything else true */
    QKV_I32 = 6,
    QKV_I64 = 7,
    /* Codes, for keys and values in a cache only: qkv_desc says how scales make numbers of them. */
    QKV_I8 = 8,    /* a signed byte */
    QKV_U4 = 9,    /* two codes 0 .. 15 a byte, even channel in the low nibble; strides count bytes */
    QKV_E4M3 = 10, /* OCP fp8 without infinity */
    QKV_E5M2 = 11  /* OCP fp8, the upper half of an f16 */
} qkv_type;

/* "f32", "bf16", "bool" ...; "none" for QKV_NONE, "?" for a value that is no type. */
QKV_API const char *qkv_type_name(qkv_type type);

/* Bytes of one element (of two for QKV_U4, 1); 0 for QKV_NONE and for a value that is no type. */
QKV_API size_t qkv_type_size(qkv_type type);

/*
 * qkv_convert - convert n contiguous elements between the float types.
 *
 * Rounds once, to nearest even; overflow becomes infinity, NaN stays NaN (quiet).  dst and src
 * may be the same array when both types have the same size, and may not overlap otherwise.
 *
 * Returns QKV_OK, or QKV_ERR_ARGUMENT if a type is not one of f64, f32, f16, bf16 or if a
 * pointer is NULL while n > 0.  Thread-safe.
 */
QKV_API qkv_status qkv_convert(void *dst, qkv_type dst_type, const void *src, qkv_type src_type,
                               size_t n);

/* ---- CPU tiers -------------------------------------------------------------------------- */

/* A tier is a bundle of instruction sets that kernels are written for.  The portable scalar
 * tier needs no flag and is always there. */
enum {
    QKV_CPU_AVX2 = 1u << 0,   /* AVX2, FMA, F16C                      (Haswell 2013, Zen) */
    QKV_CPU_AVX512 = 1u << 1, /* AVX-512 F, BW, DQ, VL, CD and AVX2   (Skylake-SP, Zen 4) */
    QKV_CPU_AVX512_BF16 = 1u << 2, /* products of bf16 pairs, on AMD  (Zen 4) */
    QKV_CPU_AMX = 1u << 3,    /* AVX-512 and AMX TILE, BF16, INT8     (Sapphire Rapids) */
    QKV_CPU_NEON = 1u << 4,   /* Advanced SIMD of Armv8.0-A           (every AArch64 Linux) */
    QKV_CPU_NEON_BF16 = 1u << 5, /* and FEAT_BF16 of Armv8.6-A        (Neoverse V1, N2) */
    QKV_CPU_WASM128 = 1u << 6, /* SIMD128 of WebAssembly              (browsers, Node) */
    QKV_CPU_ALL = 0x7fffffff
};

/* Tiers that this CPU has and this operating system lets programs use (CPUID and XCR0).
 * Found once and remembered.  Thread-safe.
 *
 * AVX512_BF16 counts on AMD's processors only: there VDPBF16PS does twice the work of an FMA, on
 * Intel's half of it (docs/performance.md), so on those nothing would be gained by using it.
 *
 * Linux gives AMX to a process that asks: where a CPU has it, the first call asks
 * (arch_prctl, ARCH_REQ_XCOMP_PERM), for all threads and for good.  From then on a signal needs
 * about 11 KB of stack; the request fails, and the tier is not there, if an alternate signal stack
 * is smaller.  In a build with the Meson option amx_model the amx tier is an exact software model
 * of the instructions, slow, for tests, and there on every CPU. */
QKV_API uint32_t qkv_cpu_flags(void);

/* One tier, for people.  All strings are static.  Later versions may add fields at the end: the
 * inline form below tells the library how many this program knows. */
typedef struct qkv_tier {
    const char *name;   /* "scalar", "avx2", "avx512", "avx512_bf16", "amx"; "neon", "neon_bf16";
                         * "wasm128" */
    uint32_t flag;      /* its QKV_CPU_ bit; 0 for scalar */
    int32_t available;  /* 1 if plans may use it on this machine */
    const char *reason; /* why not, as a sentence; "" if available */
} qkv_tier;

/* Tiers this build knows, lowest first; index in [0, qkv_tier_count()).  qkv_tier_info returns
 * QKV_ERR_ARGUMENT for another index or a NULL tier.  Thread-safe. */
QKV_API int32_t qkv_tier_count(void);
QKV_API qkv_status qkv_tier_info_sized(int32_t index, qkv_tier *tier, size_t struct_size);
static inline qkv_status qkv_tier_info(int32_t index, qkv_tier *tier)
{
    return qkv_tier_info_sized(index, tier, sizeof *tier);
}

/* The CPU's own name ("AMD EPYC 9R14"), cut to bytes and always terminated.  Returns text. */
QKV_API char *qkv_cpu_name(char *text, size_t bytes);

/* ---- allocators and parallel loops -------------------------------------------------------- */

/* Memory for handles.  alloc returns bytes of memory aligned for any type, or NULL.  free takes
 * what alloc gave, or NULL.  Both receive ctx.  They are called from the thread that calls qkv. */
typedef struct qkv_allocator {
    void *(*alloc)(void *ctx, size_t bytes);
    void (*free)(void *ctx, void *memory);
    void *ctx;
} qkv_allocator;

/*
 * A parallel loop, yours or that of a qkv_pool.
 *
 * parallel_for(ctx, n, fn, arg) calls fn(arg, i, worker) once for each i in [0, n), in any order
 * and on any threads, and returns when all calls have returned.  worker is in [0, n_workers)
 * and no two calls that run at the same time may have the same one: it picks the scratch
 * memory.  What is computed never depends on n_workers.
 */
typedef struct qkv_parallel {
    int32_t n_workers; /* at least 1 */
    void (*parallel_for)(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int32_t worker),
                         void *arg);
    void *ctx;
} qkv_parallel;

typedef struct qkv_pool qkv_pool;

/*
 * qkv_pool_create - threads that wait to be given loops.
 *
 *   n_workers  1 .. 1024, counting the thread that calls; n_workers - 1 threads are started.
 *   allocator  NULL for malloc and free.  Copied; used again by qkv_pool_destroy.
 *   pool       Receives the handle; NULL on failure.
 *
 * Idle workers sleep.  Any number of threads may use one pool at the same time: while it is
 * busy with one caller's loop, another caller's loop runs on that caller's own thread.  After
 * fork() the child must not use or destroy a pool made by the parent.
 *
 * Returns QKV_OK; QKV_ERR_ARGUMENT; QKV_ERR_MEMORY; QKV_ERR_SYSTEM if a thread cannot start.
 */
QKV_API qkv_status qkv_pool_create(int32_t n_workers, const qkv_allocator *allocator,
                                   qkv_pool **pool);

/* Ends the threads and frees the pool.  No loop may be running.  NULL is allowed. */
QKV_API void qkv_pool_destroy(qkv_pool *pool);

/* The pool as a parallel loop, for qkv_run_parallel.  Valid until the pool is destroyed. */
QKV_API qkv_parallel qkv_pool_parallel(qkv_pool *pool);

/* Processors this process may run on (affinity mask), at least 1. */
QKV_API int32_t qkv_cpu_count(void);

#ifdef __cplusplus
}
#endif
#endif /* QKV_BASE_H */
