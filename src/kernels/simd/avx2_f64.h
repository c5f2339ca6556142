/*
 * simd/avx2_f64.h - the vocabulary on four doubles: AVX2, FMA.  Contracts: README.md.
 */
#ifndef QKV_SIMD_AVX2_F64_H
#define QKV_SIMD_AVX2_F64_H
#if !defined(__AVX2__) || !defined(__FMA__)
#error "this file needs -mavx2 -mfma"
#endif

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef double real;
typedef __m256d vf;
typedef __m256d vm; /* all bits of a lane, or none */
#define VL 4
#define LANES 3 /* 4 x 3 accumulators, 3 loads, 1 broadcast of 16 registers */
#define TILE 4

static inline vf v_zero(void) { return _mm256_setzero_pd(); }
static inline vf v_set1(real x) { return _mm256_set1_pd(x); }
static inline vf v_load(const real *p) { return _mm256_loadu_pd(p); }
static inline vf v_load_n(const real *p, int n)
{
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane));
}
static inline void v_store(real *p, vf a) { _mm256_storeu_pd(p, a); }
static inline vf v_add(vf a, vf b) { return _mm256_add_pd(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_pd(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_pd(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_pd(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_pd(a, b, c); }
static inline vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_pd(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm256_max_pd(a, b); }
static inline vf v_abs(vf a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
static inline vf v_sign_of(vf a, vf s)
{
    return _mm256_or_pd(v_abs(a), _mm256_and_pd(_mm256_set1_pd(-0.0), s));
}
static inline vf v_round(vf a)
{
    return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* As in avx2_f32.h; the integers are found in 32 bits because AVX2 converts no 64-bit ones. */
static inline vf v_scale2(vf a, vf n)
{
    const __m128i i = _mm256_cvtpd_epi32(n);
    const __m128i half = _mm_srai_epi32(i, 1), rest = _mm_sub_epi32(i, half);
    const __m256i bias = _mm256_set1_epi64x(1023);
    const __m256i hx = _mm256_add_epi64(_mm256_cvtepi32_epi64(half), bias);
    const __m256i hy = _mm256_add_epi64(_mm256_cvtepi32_epi64(rest), bias);
    const vf x = _mm256_castsi256_pd(_mm256_slli_epi64(hx, 52));
    const vf y = _mm256_castsi256_pd(_mm256_slli_epi64(hy, 52));
    return v_add(v_mul(v_mul(a, x), y), v_sub(n, n));
}
static inline vm v_le(vf a, vf b) { return _mm256_cmp_pd(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
static inline vm v_and(vm a, vm b) { return _mm256_and_pd(a, b); }
static inline vm v_or(vm a, vm b) { return _mm256_or_pd(a, b); }
static inline int v_any(vm a) { return _mm256_movemask_pd(a) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm256_blendv_pd(b, a, m); }

static inline vm v_test(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const __m256i x = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128((int)four));
    return _mm256_castsi256_pd(_mm256_cmpgt_epi64(x, _mm256_setzero_si256()));
}
static inline vf v_zip_lo(vf a, vf b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
}
static inline vf v_zip_hi(vf a, vf b)
{
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
}

static inline void v_sum4(const vf a[4], real out[4])
{
    const vf x = _mm256_hadd_pd(a[0], a[1]), y = _mm256_hadd_pd(a[2], a[3]);
    _mm256_storeu_pd(out, _mm256_add_pd(_mm256_permute2f128_pd(x, y, 0x20),
                                        _mm256_permute2f128_pd(x, y, 0x31)));
}

#endif
