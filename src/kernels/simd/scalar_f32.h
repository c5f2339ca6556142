/*
 * simd/scalar_f32.h - the vocabulary on one float at a time: the portable tier.  See scalar_ops.h.
 */
#ifndef QKV_SIMD_SCALAR_F32_H
#define QKV_SIMD_SCALAR_F32_H

#include <math.h>
#include <stdint.h>

typedef float real;
typedef float vf;
typedef uint32_t scalar_bits;
#define SCALAR_BIAS 127
#define SCALAR_FRACTION 23
#define SCALAR_BIG 12582912.0f
#define SCALAR_ABS fabsf
#define SCALAR_SIGN copysignf
#include "kernels/simd/scalar_ops.h"

#include "core/convert.h"

static inline vf v_widen_bf16(const uint16_t *p) { return qkv_f32_of_bf16(*p); }
static inline vf v_widen_f16(const uint16_t *p) { return qkv_f32_of_f16(*p); }
static inline void v_narrow_bf16(uint16_t *p, vf a) { *p = qkv_bf16_of_f64((double)a); }
static inline void v_narrow_f16(uint16_t *p, vf a) { *p = qkv_f16_of_f64((double)a); }
static inline vf v_widen_bf16_n(const uint16_t *p, int n) { return n > 0 ? v_widen_bf16(p) : 0; }
static inline vf v_widen_f16_n(const uint16_t *p, int n) { return n > 0 ? v_widen_f16(p) : 0; }

#endif
