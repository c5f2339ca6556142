/*
 * simd/avx512_f32.h - the vocabulary on sixteen floats: AVX-512 F, BW, DQ, VL.  Contracts: README.md.
 */
#ifndef QKV_SIMD_AVX512_F32_H
#define QKV_SIMD_AVX512_F32_H
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__)
#error "this file needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd"
#endif

#include <immintrin.h>
#include <stdint.h>

typedef float real;
typedef __m512 vf;
typedef __mmask16 vm;
#define VL 16
#define LANES 3 /* 8 x 3 accumulators, 3 loads, broadcasts from memory, of 32 registers */
#define TILE 8

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set1(real x) { return _mm512_set1_ps(x); }
static inline vf v_load(const real *p) { return _mm512_loadu_ps(p); }
static inline vm first_(int n) { return (vm)((1u << n) - 1); }
static inline vf v_load_n(const real *p, int n) { return _mm512_maskz_loadu_ps(first_(n), p); }
static inline void v_store(real *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf v_sign_of(vf a, vf s)
{
    return _mm512_or_ps(v_abs(a), _mm512_and_ps(_mm512_set1_ps(-0.0f), s));
}
static inline vf v_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf v_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
#define QKV_SPLITS_EXPONENTS
static inline vf v_fraction(vf t)
{
    return _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vf v_scale2_down(vf a, vf t) { return _mm512_scalef_ps(a, t); }
static inline vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm v_and(vm a, vm b) { return (vm)(a & b); }
static inline vm v_or(vm a, vm b) { return (vm)(a | b); }
static inline int v_any(vm a) { return a != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

static inline vf v_widen_bf16(const uint16_t *p)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
static inline vf v_widen_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline void v_narrow_bf16(uint16_t *p, vf a)
{
#if defined(__AVX512BF16__)
    if (!_mm512_fpclass_ps_mask(a, 0x20)) { /* the instruction takes subnormals as 0 */
        _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(a));
        return;
    }
#endif
    const __m512i x = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(x, _mm512_set1_epi32(0x400000));
    const __m512i y = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), up, quiet);
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16)));
}
static inline void v_narrow_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

static inline vm v_test(const uint8_t *p)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm_test_epi8_mask(x, x);
}
static inline vf v_zip_lo(vf a, vf b)
{
    const __m512i at = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, at, b);
}
static inline vf v_zip_hi(vf a, vf b)
{
    const __m512i at =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, at, b);
}

/* x is in a register here, loaded once and in the order of the source: of lines that come from memory
 * the compiler knows nothing. */
#define QKV_SETTLES
static inline void v_settle(vf *x) { __asm__ volatile("" : "+v"(*x)); }

/* A transpose of four vectors with the additions between its steps. */
static inline void v_sum4(const vf a[4], real out[4])
{
    const vf x = v_add(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const vf y = v_add(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    const __m512d xd = _mm512_castps_pd(x), yd = _mm512_castps_pd(y);
    const vf z = v_add(_mm512_castpd_ps(_mm512_unpacklo_pd(xd, yd)),
                       _mm512_castpd_ps(_mm512_unpackhi_pd(xd, yd)));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(z), _mm512_extractf32x8_ps(z, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
static inline vf v_widen_bf16_n(const uint16_t *p, int n)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
static inline vf v_widen_f16_n(const uint16_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_(n), p));
}

#endif
