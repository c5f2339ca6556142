/* kernels_avx512_bf16.c - the kernels whose products are of pairs of bf16, summed in f32. */
#include "kernels/simd/avx512_codes.h"

#define TIER avx512_bf16
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32
#define QKV_PAIRS
#define QKV_CODE_PAIRS

/* Measured as in kernels_avx512_f32.c: a row 0.46 and 0.7 once, the first vector 6.4,
 * another 5.1. */
#define FEW(n_subs) 12
#define REST(n_subs) 10
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_KERNELS(bf16_bf16_bf16, QKV_BF16, QKV_BF16, 3)
MAKE_ATTEND(bf16_f32_f32, QKV_F32, QKV_F32, 3)
MAKE_CODED_ATTEND
MAKE_CODED_DECODE
