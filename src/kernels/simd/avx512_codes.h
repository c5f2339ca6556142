/*
 * simd/avx512_codes.h - codes of 8 bits as pairs of bf16, beside avx512_bf16.h: AVX512_VBMI.  Contracts:
 * README.md.
 *
 * Codes are turned into bf16, in which int8, e4m3 and e5m2 are exact.  All three have a sign and 7 bits of
 * magnitude (int8 after abs), so the two bytes of a bf16 are two look-ups in 128 bytes each (VBMI): 8
 * instructions for 64 codes, where widening through int32 and f32 takes 16.
 */
#ifndef QKV_SIMD_AVX512_CODES_H
#define QKV_SIMD_AVX512_CODES_H
#if !defined(__AVX512VBMI__)
#error "this file needs -mavx512vbmi and what avx512_bf16.h needs"
#endif

#include "kernels/simd/avx512_bf16.h"

typedef struct code_tables {
    __m512i low[2], high[2];
    int is_int; /* two's complement, not sign and magnitude */
} code_tables;

static inline code_tables v_code_tables(const uint8_t low[128], const uint8_t high[128], int is_int)
{
    return (code_tables){{_mm512_loadu_si512(low), _mm512_loadu_si512(low + 64)},
                         {_mm512_loadu_si512(high), _mm512_loadu_si512(high + 64)},
                         is_int};
}

/* The first n (at most 4 VL) codes; the bytes of their bf16 apart. */
static inline void code_bytes_(const code_tables *t, __m512i codes, __m512i *low, __m512i *high)
{
    const __m512i sign = _mm512_set1_epi8(-128);
    const __m512i magnitude = t->is_int ? _mm512_abs_epi8(codes) : codes; /* bit 7 is not looked at */
    *low = _mm512_permutex2var_epi8(t->low[0], magnitude, t->low[1]);
    *high = _mm512_permutex2var_epi8(t->high[0], magnitude, t->high[1]);
    *high = _mm512_ternarylogic_epi32(*high, codes, sign, 0xf8); /* high | (codes & sign) */
    if (t->is_int) /* -128 has no magnitude of 7 bits: bf16 0xc300 */
        *high = _mm512_mask_mov_epi8(*high, _mm512_cmpeq_epi8_mask(codes, sign),
                                     _mm512_set1_epi8((char)0xc3));
}
static inline __m512i load_codes_(const uint8_t *p, int n)
{
    return n >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8((1ull << n) - 1, p);
}

/* Channels 0 .. 2 VL - 1 and 2 VL .. 4 VL - 1 as pairs. */
static inline void code_pairs_(const code_tables *t, __m512i codes, vf *a, vf *b)
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    __m512i low, high;
    code_bytes_(t, _mm512_permutexvar_epi64(order, codes), &low, &high);
    *a = _mm512_castsi512_ps(_mm512_unpacklo_epi8(low, high));
    *b = _mm512_castsi512_ps(_mm512_unpackhi_epi8(low, high));
}
static inline void v_code_pairs(const code_tables *t, const uint8_t *p, int n, vf *a, vf *b)
{
    code_pairs_(t, load_codes_(p, n), a, b);
}

/* Two rows of codes as pairs of keys, 4 VL channels in an order that v_unzip_codes undoes. */
static inline void v_zip_codes(const code_tables *t, const uint8_t *p, const uint8_t *q, int n,
                               vf x[4])
{
    __m512i low, high, a[2], b[2];
    code_bytes_(t, load_codes_(p, n), &low, &high);
    a[0] = _mm512_unpacklo_epi8(low, high);
    a[1] = _mm512_unpackhi_epi8(low, high);
    code_bytes_(t, load_codes_(q, n), &low, &high);
    b[0] = _mm512_unpacklo_epi8(low, high);
    b[1] = _mm512_unpackhi_epi8(low, high);
    for (int i = 0; i < 2; i++) {
        x[2 * i] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a[i], b[i]));
        x[2 * i + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a[i], b[i]));
    }
}
/* x[i] holds channels 16 l + 4 i .. + 3 in its l-th quarter: a transpose of quarters. */
static inline void v_unzip_codes(vf x[4])
{
    const vf a = _mm512_shuffle_f32x4(x[0], x[1], 0x44), b = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
    const vf c = _mm512_shuffle_f32x4(x[2], x[3], 0x44), d = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
    x[0] = _mm512_shuffle_f32x4(a, c, 0x88);
    x[1] = _mm512_shuffle_f32x4(a, c, 0xdd);
    x[2] = _mm512_shuffle_f32x4(b, d, 0x88);
    x[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
}

/* ---- codes of 4 bits ----
 *
 * A code c in bits 3 to 6 of 1.0 in bf16 is 1 + c / 16: a shift and one logical instruction for 32 codes. */

static inline vf nibbles_(__m512i x)
{
    const __m512i four = _mm512_set1_epi16(0x78), one = _mm512_set1_epi16(0x3f80);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(x, four, one, 0xea)); /* x & four | one */
}
static inline void all_nibbles_(__m512i x, vf y[4])
{
    y[0] = nibbles_(_mm512_slli_epi16(x, 3));
    y[1] = nibbles_(_mm512_srli_epi16(x, 1));
    y[2] = nibbles_(_mm512_srli_epi16(x, 5));
    y[3] = nibbles_(_mm512_srli_epi16(x, 9));
}
/* The first n of 4 VL codes of 4 bits, less `less`, as pairs of channels in order.  Tables: int8's. */
static inline void v_nibbles_less(const code_tables *t, const uint8_t *p, int n, int less, vf *a,
                                  vf *b)
{
    const __mmask32 there = n >= 64 ? 0xffffffffu : (__mmask32)((1ull << (n + 1) / 2) - 1);
    const __m512i x = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(there, p));
    const __m512i codes = _mm512_and_si512(_mm512_or_si512(x, _mm512_slli_epi16(x, 4)),
                                           _mm512_set1_epi16(0x0f0f));
    code_pairs_(t, _mm512_sub_epi8(codes, _mm512_set1_epi8((char)less)), a, b);
}
static inline __m512i load_nibbles_(const uint8_t *p, int n)
{
    return n >= 128 ? _mm512_loadu_si512(p) : load_codes_(p, (n + 1) / 2);
}

/* The first n of 8 VL codes as pairs of channels: x[i] has numbers i, 4 + i, 8 + i, ... */
static inline void v_nibble_pairs(const uint8_t *p, int n, vf x[4])
{
    all_nibbles_(load_nibbles_(p, n), x);
}

/* Two rows of them as pairs of keys: channels 32 k + 16 half .. + 15 for k = 0 .. 3, in an order that
 * v_unzip_nibbles undoes; x[k] then has those of one k. */
static inline void v_zip_nibbles(const uint8_t *p, const uint8_t *q, int n, int half, vf x[4])
{
    const __m512i a = load_nibbles_(p, n), b = load_nibbles_(q, n);
    all_nibbles_(half ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b), x);
}
static inline void v_unzip_nibbles(vf x[4])
{
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
    x[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    x[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    x[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    x[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    v_unzip_codes(x);
}

#endif
