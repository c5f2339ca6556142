/* kernels_wasm128_f64.c - the kernels that compute in f64 on the wasm128 tier. */
#include "kernels/simd/wasm128_f64.h"

#define TIER wasm128
#define REAL_TYPE QKV_F64
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_KERNELS(f64_f64_f64, QKV_F64, QKV_F64, 1)
