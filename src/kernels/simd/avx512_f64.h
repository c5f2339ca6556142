/*
 * simd/avx512_f64.h - the vocabulary on eight doubles: AVX-512 F, DQ.  Contracts: README.md.
 */
#ifndef QKV_SIMD_AVX512_F64_H
#define QKV_SIMD_AVX512_F64_H
#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
#error "this file needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd"
#endif

#include <immintrin.h>
#include <stdint.h>

typedef double real;
typedef __m512d vf;
typedef __mmask8 vm;
#define VL 8
#define LANES 3 /* 8 x 3 accumulators, 3 loads, broadcasts from memory, of 32 registers */
#define TILE 8

static inline vf v_zero(void) { return _mm512_setzero_pd(); }
static inline vf v_set1(real x) { return _mm512_set1_pd(x); }
static inline vf v_load(const real *p) { return _mm512_loadu_pd(p); }
static inline vm first_(int n) { return (vm)((1u << n) - 1); }
static inline vf v_load_n(const real *p, int n) { return _mm512_maskz_loadu_pd(first_(n), p); }
static inline void v_store(real *p, vf a) { _mm512_storeu_pd(p, a); }
static inline vf v_add(vf a, vf b) { return _mm512_add_pd(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_pd(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_pd(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_pd(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_pd(a, b, c); }
static inline vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_pd(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_pd(a, b); }
static inline vf v_abs(vf a) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), a); }
static inline vf v_sign_of(vf a, vf s)
{
    return _mm512_or_pd(v_abs(a), _mm512_and_pd(_mm512_set1_pd(-0.0), s));
}
static inline vf v_round(vf a)
{
    return _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf v_scale2(vf a, vf n) { return _mm512_scalef_pd(a, n); }
static inline vm v_le(vf a, vf b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline vm v_and(vm a, vm b) { return (vm)(a & b); }
static inline vm v_or(vm a, vm b) { return (vm)(a | b); }
static inline int v_any(vm a) { return a != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_pd(m, b, a); }

static inline vm v_test(const uint8_t *p)
{
    const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return (vm)_mm_test_epi8_mask(x, x);
}
static inline vf v_zip_lo(vf a, vf b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
}
static inline vf v_zip_hi(vf a, vf b)
{
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}

static inline __m256d fold_(vf a)
{
    return _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
}
static inline void v_sum4(const vf a[4], real out[4])
{
    const __m256d x = _mm256_hadd_pd(fold_(a[0]), fold_(a[1]));
    const __m256d y = _mm256_hadd_pd(fold_(a[2]), fold_(a[3]));
    _mm256_storeu_pd(out, _mm256_add_pd(_mm256_permute2f128_pd(x, y, 0x20),
                                        _mm256_permute2f128_pd(x, y, 0x31)));
}

#endif
