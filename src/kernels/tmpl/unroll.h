/* tmpl/unroll.h - loops that must leave no loop behind, or arrays of vectors live in memory. */
#ifndef QKV_TMPL_UNROLL_H
#define QKV_TMPL_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("nounroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif
#define INLINE static inline __attribute__((always_inline))

#endif
