/* kernels_avx512_f32.c - the kernels that compute in f32 on the avx512 tier. */
#include "kernels/simd/avx512_f32.h"

#define TIER avx512
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32

/* Measured on Zen 4, D = 128, ms for 16,384 keys of 8 heads.  In place: a row of the decode kernel
 * 0.83 and 1.5 once for keys that come from memory, the first vector 10.9, another 10.  Widened: a
 * row 0.8, the first vector 12.4, another 9.9.  tests/kernels/test_choice.c has it in numbers. */
#define FEW(n_subs) ((n_subs) == 1 ? 11 : 15)
#define REST(n_subs) ((n_subs) == 1 ? 11 : 12)
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
