/* kernels_wasm128_f32.c - the kernels that compute in f32 on the wasm128 tier. */
#include "kernels/simd/wasm128_f32.h"

#define TIER wasm128
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32
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
