/*
 * kernels_amx_bf16.c - the kernels whose products are of tiles of bf16, summed in f32.
 *
 * On AMX, or on a model of it that runs on every CPU (the Meson option amx_model).
 */
#if defined(QKV_AMX_MODEL)
#include "kernels/simd/plain16_f32.h"
#else
#include "kernels/simd/avx512_bf16.h"
#endif
#include "kernels/simd/amx_tiles.h"

#undef LANES
#define LANES 2 /* 2 x 2 tiles of C, 2 of A, 2 of B, of 8 registers */

#define TIER amx
#define REAL_TYPE QKV_F32
#define QKV_WIDEN_F32
#define QKV_TILES
#define PARTS 1
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_ATTEND(bf16_bf16_bf16, QKV_BF16, QKV_BF16, TILE_SUBS)
MAKE_ATTEND(bf16_f32_f32, QKV_F32, QKV_F32, TILE_SUBS)
