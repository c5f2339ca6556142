/*
 * kernels_amx_f32.c - f32 on tiles of bf16: each number in two parts, three products for one.
 *
 * For descriptors whose precision is not the highest.  f16 fits into two parts exactly, but the
 * product of the low parts is left out.  See kernels_amx_bf16.c.
 */
#if defined(QKV_AMX_MODEL)
#include "kernels/simd/plain16_f32.h"
#else
#include "kernels/simd/avx512_bf16.h"
#endif
#include "kernels/simd/amx_tiles.h"

#undef LANES
#define LANES 2

#define TIER amx
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32
#define QKV_TILES
#define PARTS 2
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_ATTEND(f32high_f32_f32, QKV_F32, QKV_F32, TILE_SUBS)
MAKE_ATTEND(f32high_f16_f16, QKV_F16, QKV_F16, TILE_SUBS)
