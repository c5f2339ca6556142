/*
 * tmpl/kernels_tmpl.h - the templates of one compute type together, and the macro that makes a
 * kernel of them.
 *
 * Parameters:
 *     TIER        name of the tier, a bare word: avx512
 *     REAL_TYPE   QKV_F32 or QKV_F64, matching the simd/ header included before
 *
 * The algorithm is compiled once per tier and compute type; the kernels for the several types of
 * K and V differ in the two constants they hand to it, which decide how a block is widened.
 */
#include <math.h>
#include <string.h>

#include "kernels/kernel.h"

#include "kernels/tmpl/math_tmpl.h"

#include "kernels/tmpl/products_tmpl.h"

#include "kernels/tmpl/convert_tmpl.h"

#include "kernels/tmpl/layout_tmpl.h"

#include "kernels/tmpl/mask_tmpl.h"

#include "kernels/tmpl/attend_tmpl.h"

#include "kernels/tmpl/finish_tmpl.h"

#include "kernels/tmpl/decode_tmpl.h"

#define JOIN_(a, b) a##__##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* MAKE_KERNELS(f32_bf16_f16, QKV_BF16, QKV_F16) defines qkv_attend_f32_bf16_f16__TIER and
 * qkv_decode_f32_bf16_f16__TIER. */
#define MAKE_KERNELS(types, k_type, v_type)                                                        \
    static void attend_keys_##types(const qkv_tile *tile, const void *k, const void *v,            \
                                    int64_t j0, int64_t j1)                                        \
    {                                                                                              \
        attend_keys(tile, k, k_type, v, v_type, j0, j1);                                           \
    }                                                                                              \
    static void decode_keys_##types(const qkv_tile *tile, const void *k, const void *v,            \
                                    int64_t j0, int64_t j1)                                        \
    {                                                                                              \
        decode_keys(tile, k, k_type, v, v_type, j0, j1);                                           \
    }                                                                                              \
    const qkv_kernel JOIN(qkv_attend_##types, TIER) = {                                            \
        TEXT(JOIN(attend_##types, TIER)), MAX_WIDTH, scratch_bytes, state_bytes, begin,            \
        attend_keys_##types, merge_states, finish};                                                \
    const qkv_kernel JOIN(qkv_decode_##types, TIER) = {                                            \
        TEXT(JOIN(decode_##types, TIER)), DECODE_LANES, decode_scratch_bytes, decode_state_bytes,  \
        decode_begin, decode_keys_##types, decode_merge, decode_finish};
