/*
 * simd/avx512_bf16.h - pairs of bf16 in the lanes of avx512_f32.h: AVX512_BF16.  Contracts: README.md.
 *
 * VDPBF16PS takes subnormal operands and results as 0, whatever MXCSR says, and rounds the two
 * additions of a lane one after the other to nearest even (Intel, Architecture Instruction Set
 * Extensions Programming Reference, 319433).
 */
#ifndef QKV_SIMD_AVX512_BF16_H
#define QKV_SIMD_AVX512_BF16_H
#if !defined(__AVX512BF16__)
#error "this file needs -mavx512bf16 and what avx512_f32.h needs"
#endif

#include "kernels/simd/avx512_f32.h"

static inline vf v_dot(vf x, vf y, vf c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)x, (__m512bh)y);
}

/* With the pair at p in each lane of x.  The instruction broadcasts what it reads from memory at no
 * cost.  Broadcast by an instruction of its own, which is what GCC 12 makes of v_set1, a dot
 * product that shares it with no other takes 1.35 times as long on Zen 4. */
#define QKV_DOT_AT
static inline vf v_dot_at(const void *p, vf y, vf c)
{
    struct two {
        uint16_t of[2];
    };
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(y), "m"(*(const struct two *)p));
    return c;
}

/* The conversion puts 16 of `hi` above 16 of `lo`; the permutation interleaves them. */
static inline vf v_pair(vf lo, vf hi)
{
    const __m512i at = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                        8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(at, both));
}

static inline vf v_pair_low(vf pair)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pair), 16));
}
static inline vf v_pair_high(vf pair)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pair), upper));
}

static inline vf pair_(__m256i lo, __m256i hi)
{
    const __m512i x = _mm512_cvtepu16_epi32(lo), y = _mm512_cvtepu16_epi32(hi);
    return _mm512_castsi512_ps(_mm512_or_si512(x, _mm512_slli_epi32(y, 16)));
}
static inline vf v_pair_rows(const uint16_t *p, const uint16_t *q)
{
    return pair_(_mm256_loadu_si256((const __m256i *)(const void *)p),
                 _mm256_loadu_si256((const __m256i *)(const void *)q));
}
static inline vf v_pair_rows_n(const uint16_t *p, const uint16_t *q, int n)
{
    return pair_(_mm256_maskz_loadu_epi16(first_(n), p), _mm256_maskz_loadu_epi16(first_(n), q));
}

/* Elements of x and y in turns, as v_unzip takes them apart. */
static inline void v_zip_pairs(vf x, vf y, vf *lo, vf *hi)
{
    const __m512i a = _mm512_castps_si512(x), b = _mm512_castps_si512(y);
    *lo = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a, b));
    *hi = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a, b));
}

/* 32 elements of two rows as two vectors of pairs; sums over those, back in the order of channels. */
static inline void v_zip_rows(const uint16_t *p, const uint16_t *q, vf *lo, vf *hi)
{
    v_zip_pairs(_mm512_loadu_ps(p), _mm512_loadu_ps(q), lo, hi);
}
static inline void v_unzip(vf *lo, vf *hi)
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const vf x = *lo, y = *hi;
    *lo = _mm512_permutex2var_ps(x, first, y);
    *hi = _mm512_permutex2var_ps(x, second, y);
}

/* 2 VL elements of one row, or its first n, as pairs. */
static inline vf v_load_pairs(const uint16_t *p) { return _mm512_loadu_ps(p); }
static inline vf v_load_pairs_n(const uint16_t *p, int n)
{
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p));
}

#endif
