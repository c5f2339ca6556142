/*
 * simd/avx2_f32.h - the vocabulary on eight floats: AVX2, FMA, F16C.  Contracts: README.md.
 */
#ifndef QKV_SIMD_AVX2_F32_H
#define QKV_SIMD_AVX2_F32_H
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "this file needs -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>
#include <stdint.h>

typedef float real;
typedef __m256 vf;
typedef __m256 vm; /* all bits of a lane, or none */
#define VL 8
#define LANES 3 /* 4 x 3 accumulators, 3 loads, 1 broadcast of 16 registers */
#define TILE 4

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_set1(real x) { return _mm256_set1_ps(x); }
static inline vf v_load(const real *p) { return _mm256_loadu_ps(p); }
static inline vf v_load_n(const real *p, int n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
static inline void v_store(real *p, vf a) { _mm256_storeu_ps(p, a); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf v_sign_of(vf a, vf s)
{
    return _mm256_or_ps(v_abs(a), _mm256_and_ps(_mm256_set1_ps(-0.0f), s));
}
static inline vf v_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 2^n in two factors: one alone does not reach the subnormals.  Only the second product can
 * round.  A NaN in n becomes some integer; adding n - n brings it back. */
static inline vf v_scale2(vf a, vf n)
{
    const __m256i i = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(i, 1), rest = _mm256_sub_epi32(i, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const vf x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const vf y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
/* One factor is enough where subnormals need not be reached. */
#define QKV_FLUSHES_WEIGHTS
static inline vf v_scale2_flush(vf a, vf n)
{
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return v_mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
static inline vm v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm v_and(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm v_or(vm a, vm b) { return _mm256_or_ps(a, b); }
static inline int v_any(vm a) { return _mm256_movemask_ps(a) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }

static inline vf v_widen_bf16(const uint16_t *p)
{
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
static inline vf v_widen_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline void v_narrow_bf16(uint16_t *p, vf a)
{
    const __m256i x = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(x, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i y = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, is_nan), 16);
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packus_epi32(_mm256_castsi256_si128(y),
                                                           _mm256_extracti128_si256(y, 1)));
}
static inline void v_narrow_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

static inline vm v_test(const uint8_t *p)
{
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(x, _mm256_setzero_si256()));
}
static inline vf v_zip_lo(vf a, vf b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
static inline vf v_zip_hi(vf a, vf b)
{
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}

static inline void v_sum4(const vf a[4], real out[4])
{
    const vf x = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}
/* AVX2 masks no 16-bit loads. */
static inline __m128i load_u16_n_(const uint16_t *p, int n)
{
    uint16_t x[8] = {0};
    for (int i = 0; i < n; i++)
        x[i] = p[i];
    return _mm_loadu_si128((const __m128i *)(const void *)x);
}
static inline vf v_widen_bf16_n(const uint16_t *p, int n)
{
    const __m256i x = _mm256_cvtepu16_epi32(load_u16_n_(p, n));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
static inline vf v_widen_f16_n(const uint16_t *p, int n)
{
    return _mm256_cvtph_ps(load_u16_n_(p, n));
}

#endif
