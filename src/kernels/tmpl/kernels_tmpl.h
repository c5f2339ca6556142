/*
 * tmpl/kernels_tmpl.h - the templates of one compute type together, and the macro that makes a
 * kernel of them.
 *
 * Parameters:
 *     TIER        name of the tier, a bare word: avx512
 *     REAL_TYPE   QKV_F32 or QKV_F64, matching the simd/ header included before
 *     QKV_WIDEN_F32   defined if that header widens 16-bit floats
 *     QKV_PAIRS       defined if products are those of pairs of bf16
 *     QKV_CODE_PAIRS  and if the header makes such pairs of codes too
 *     FEW(n_subs), REST(n_subs)   `few` and `rest` of an attend kernel with so many sub-tiles, if
 *                     they were measured for this tier
 *     QKV_TILES       defined if products are those of tiles of bf16, of numbers in PARTS parts
 *
 * The algorithm is compiled once per tier and compute type; the kernels for the several types of
 * K and V differ in the two constants they hand to it, which decide how a block is widened.
 */
#include <math.h>
#include <string.h>

#include "kernels/kernel.h"

#include "kernels/tmpl/unroll.h"

#include "kernels/tmpl/math_tmpl.h"

#include "kernels/tmpl/convert_tmpl.h"

#include "kernels/tmpl/transpose_tmpl.h"

#if defined(QKV_TILES)
#include "kernels/tmpl/operands_tiles_tmpl.h"
#else
#if defined(QKV_WIDEN_F32) && !defined(QKV_PAIRS)
#include "kernels/tmpl/codes_tmpl.h"
#endif

#if defined(QKV_PAIRS)
#include "kernels/tmpl/operands_pairs_tmpl.h"
#else
#include "kernels/tmpl/operands_real_tmpl.h"
#endif
#include "kernels/tmpl/coming_tmpl.h"

#include "kernels/tmpl/products_tmpl.h"
#endif

#include "kernels/tmpl/layout_tmpl.h"

#include "kernels/tmpl/lane_mask_tmpl.h"

#include "kernels/tmpl/mask_tmpl.h"

#include "kernels/tmpl/scores_tmpl.h"

#include "kernels/tmpl/attend_tmpl.h"

#if defined(QKV_TILES)
#include "kernels/tmpl/tile_work_tmpl.h"

#include "kernels/tmpl/selected_tiles_tmpl.h"

#include "kernels/tmpl/attend_tiles_tmpl.h"
#endif

#include "kernels/tmpl/finish_tmpl.h"

#if !defined(QKV_TILES) /* a few queries do not fill tiles */
#include "kernels/tmpl/decode_tmpl.h"
#endif

#if defined(QKV_CODE_PAIRS)
#include "kernels/tmpl/code_groups_tmpl.h"

#include "kernels/tmpl/attend_codes_tmpl.h"
#endif

#define JOIN_(a, b) a##__##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* What the decode kernel takes where nothing was measured: all it can. */
#if !defined(FEW)
#define FEW(n_subs) INT32_MAX
#define REST(n_subs) 0
#endif

/* MAKE_ATTEND(f32_bf16_f16, QKV_BF16, QKV_F16, 3) defines qkv_attend_f32_bf16_f16__TIER, whose tiles
 * have up to 3 sub-tiles.  They are worth it where a block of keys costs something by itself; without
 * that, smaller tiles spread better over threads. */
#define MAKE_ATTEND(types, k_type, v_type, n_subs)                                                 \
    MAKE_ATTEND_BESIDE(types, k_type, v_type, n_subs, INT32_MAX, 0)

/* The same beside a decode kernel that takes `few` queries, or `rest` beyond whole vectors. */
#define MAKE_ATTEND_BESIDE(types, k_type, v_type, n_subs, few, rest)                               \
    static size_t scratch_##types(int32_t d, int32_t dv) { return scratch_for(d, dv, n_subs); }    \
    static void attend_keys_##types(const qkv_tile *tile, const qkv_kv *kv, int64_t j0,            \
                                    int64_t j1)                                                    \
    {                                                                                              \
        attend_keys(tile, kv, k_type, v_type, j0, j1);                                             \
    }                                                                                              \
    const qkv_kernel JOIN(qkv_attend_##types, TIER) = {                                            \
        TEXT(JOIN(attend_##types, TIER)), n_subs * MAX_WIDTH, VL, few, rest, scratch_##types,      \
        state_bytes, begin, attend_keys_##types, merge_states, finish};

/* MAKE_DECODE likewise defines qkv_decode_f32_bf16_f16__TIER. */
#define MAKE_DECODE(types, k_type, v_type)                                                         \
    static void decode_keys_##types(const qkv_tile *tile, const qkv_kv *kv, int64_t j0,            \
                                    int64_t j1)                                                    \
    {                                                                                              \
        decode_keys(tile, kv, k_type, v_type, j0, j1);                                             \
    }                                                                                              \
    const qkv_kernel JOIN(qkv_decode_##types, TIER) = {                                            \
        TEXT(JOIN(decode_##types, TIER)), DECODE_LANES, 1, 0, 0, decode_scratch_bytes,             \
        decode_state_bytes, decode_begin, decode_keys_##types, decode_merge, decode_finish};

#if defined(QKV_CODE_PAIRS)
/* Many queries over any mixture of bf16 and codes that are exact in it, in groups of channels. */
#define MAKE_CODED_ATTEND                                                                          \
    const qkv_kernel JOIN(qkv_attend_bf16_any_any, TIER) = {                                       \
        TEXT(JOIN(attend_bf16_any_any, TIER)), SUB_TILES * MAX_WIDTH, VL, INT32_MAX, 0,            \
        scratch_of_groups, state_bytes, begin, attend_keys_coded, merge_states, finish};

/* Decoding over any mixture of bf16 and codes that are exact in it, one scale a row. */
#define MAKE_CODED_DECODE                                                                          \
    static size_t decode_scratch_coded(int32_t d, int32_t dv)                                      \
    {                                                                                              \
        return decode_scratch_bytes(d, dv) + code_scale_bytes();                                    \
    }                                                                                              \
    static void decode_keys_coded(const qkv_tile *tile, const qkv_kv *kv, int64_t j0, int64_t j1)  \
    {                                                                                              \
        decode_keys(tile, kv, tile->shape->k_type, tile->shape->v_type, j0, j1);                   \
    }                                                                                              \
    const qkv_kernel JOIN(qkv_decode_bf16_any_any, TIER) = {                                       \
        TEXT(JOIN(decode_bf16_any_any, TIER)), DECODE_LANES, 1, 0, 0, decode_scratch_coded,        \
        decode_state_bytes, decode_begin, decode_keys_coded, decode_merge, decode_finish};
#endif

/* Kernels for all other types of k and v, codes among them: they ask the shape at run time. */
#define MAKE_ANY_KERNELS                                                                           \
    static size_t scratch_any(int32_t d, int32_t dv) { return scratch_for(d, dv, SUB_TILES); }     \
    static size_t decode_scratch_any(int32_t d, int32_t dv)                                        \
    {                                                                                              \
        return decode_scratch_bytes(d, dv) + decoded_bytes(d, dv);                                 \
    }                                                                                              \
    static void attend_keys_any(const qkv_tile *tile, const qkv_kv *kv, int64_t j0, int64_t j1)    \
    {                                                                                              \
        attend_keys(tile, kv, tile->shape->k_type, tile->shape->v_type, j0, j1);                   \
    }                                                                                              \
    static void decode_keys_any(const qkv_tile *tile, const qkv_kv *kv, int64_t j0, int64_t j1)    \
    {                                                                                              \
        decode_keys(tile, kv, tile->shape->k_type, tile->shape->v_type, j0, j1);                   \
    }                                                                                              \
    const qkv_kernel JOIN(qkv_attend_f32_any_any, TIER) = {                                        \
        TEXT(JOIN(attend_f32_any_any, TIER)), SUB_TILES * MAX_WIDTH, VL, INT32_MAX, 0,             \
        scratch_any, state_bytes, begin, attend_keys_any, merge_states, finish};                   \
    const qkv_kernel JOIN(qkv_decode_f32_any_any, TIER) = {                                        \
        TEXT(JOIN(decode_f32_any_any, TIER)), DECODE_LANES, 1, 0, 0, decode_scratch_any,           \
        decode_state_bytes, decode_begin, decode_keys_any, decode_merge, decode_finish};

#define MAKE_KERNELS(types, k_type, v_type, n_subs)                                                \
    MAKE_ATTEND_BESIDE(types, k_type, v_type, n_subs, FEW(n_subs), REST(n_subs))                   \
    MAKE_DECODE(types, k_type, v_type)
