/* kernels_avx2_f32.c - the kernels that compute in f32 on the avx2 tier. */
#include "kernels/simd/avx2_f32.h"

#define TIER avx2
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32

/* Measured as in kernels_avx512_f32.c: one row 2.3, three 3.5, eight 8.6, the first vector 9 to 10,
 * another 3.7 to 4.2. */
#define FEW(n_subs) 8
#define REST(n_subs) 3
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_KERNELS(f32_f32_f32, QKV_F32, QKV_F32, 1)
MAKE_KERNELS(f32_f32_bf16, QKV_F32, QKV_BF16, 3)
MAKE_KERNELS(f32_f32_f16, QKV_F32, QKV_F16, 3)
MAKE_KERNELS(f32_bf16_f32, QKV_BF16, QKV_F32, 3)
MAKE_KERNELS(f32_bf16_bf16, QKV_BF16, QKV_BF16, 3)
MAKE_KERNELS(f32_bf16_f16, QKV_BF16, QKV_F16, 3)
MAKE_KERNELS(f32_f16_f32, QKV_F16, QKV_F32, 3)
MAKE_KERNELS(f32_f16_bf16, QKV_F16, QKV_BF16, 3)
MAKE_KERNELS(f32_f16_f16, QKV_F16, QKV_F16, 3)
MAKE_ANY_KERNELS
