/*
 * core/convert.h - single elements between the float types, in portable C.
 *
 * Every conversion rounds once, to nearest even, by integer arithmetic, so it neither depends on
 * the rounding mode nor rounds twice on the way from f64 through f32.
 */
#ifndef QKV_CORE_CONVERT_H
#define QKV_CORE_CONVERT_H

#include <stdint.h>
#include <string.h>

#include "qkv/base.h"

static inline float qkv_f32_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float qkv_f32_of_bf16(uint16_t h) { return qkv_f32_of_bits((uint32_t)h << 16); }

static inline float qkv_f32_of_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t exponent = (h >> 10) & 31, fraction = h & 0x3ff;

    if (exponent == 0) { /* zero and subnormals: fraction 2^-24, exact in f32 */
        const float magnitude = (float)fraction * 5.9604644775390625e-8f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) /* infinity, and NaN made quiet as the hardware does */
        return qkv_f32_of_bits(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000u : 0));
    return qkv_f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* x as a 16-bit float with `fraction_bits` of fraction and exponent bias `bias`: f16 is (10, 15),
 * bf16 is (7, 127). */
static inline uint16_t qkv_narrow_f64(double x, int fraction_bits, int bias)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    const uint16_t infinity = (uint16_t)((2 * bias + 1) << fraction_bits);
    const int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    uint64_t fraction = bits & 0xfffffffffffffu;

    if (exponent == 1024)
        return (uint16_t)(sign | infinity | (fraction ? 1u << (fraction_bits - 1) : 0));
    if (exponent > bias)
        return (uint16_t)(sign | infinity);
    if (exponent < -bias - fraction_bits - 1) /* below half of the smallest subnormal */
        return sign;

    const int subnormal = exponent < 1 - bias;
    const int shift = 52 - fraction_bits + (subnormal ? 1 - bias - exponent : 0);
    fraction |= 1ull << 52;
    const uint64_t rest = fraction & ((1ull << shift) - 1), half = 1ull << (shift - 1);
    uint64_t kept = fraction >> shift;
    kept += rest > half || (rest == half && (kept & 1));
    /* The leading one of kept adds 1 to the exponent field, and so does a carry out of it. */
    const uint64_t field = subnormal ? 0 : (uint64_t)(exponent + bias - 1) << fraction_bits;
    return (uint16_t)(sign | (field + kept));
}

static inline uint16_t qkv_f16_of_f64(double x) { return qkv_narrow_f64(x, 10, 15); }
static inline uint16_t qkv_bf16_of_f64(double x) { return qkv_narrow_f64(x, 7, 127); }

/* Element i of an array of one of the four float types, exactly. */
static inline double qkv_load_f64(const void *p, int type, int64_t i)
{
    switch (type) {
    case QKV_F64:
        return ((const double *)p)[i];
    case QKV_F32:
        return (double)((const float *)p)[i];
    case QKV_F16:
        return (double)qkv_f32_of_f16(((const uint16_t *)p)[i]);
    default:
        return (double)qkv_f32_of_bf16(((const uint16_t *)p)[i]);
    }
}

/* The same into f32; rounds f64. */
static inline float qkv_load_f32(const void *p, int type, int64_t i)
{
    switch (type) {
    case QKV_F32:
        return ((const float *)p)[i];
    case QKV_F16:
        return qkv_f32_of_f16(((const uint16_t *)p)[i]);
    case QKV_BF16:
        return qkv_f32_of_bf16(((const uint16_t *)p)[i]);
    default:
        return (float)((const double *)p)[i];
    }
}

static inline void qkv_store_f64(void *p, int type, int64_t i, double x)
{
    switch (type) {
    case QKV_F64:
        ((double *)p)[i] = x;
        break;
    case QKV_F32:
        ((float *)p)[i] = (float)x;
        break;
    case QKV_F16:
        ((uint16_t *)p)[i] = qkv_f16_of_f64(x);
        break;
    default:
        ((uint16_t *)p)[i] = qkv_bf16_of_f64(x);
        break;
    }
}

static inline int qkv_type_is_float(int type) { return type >= QKV_F64 && type <= QKV_BF16; }

static inline int qkv_type_is_coded(int type) { return type >= QKV_I8 && type <= QKV_E5M2; }

#endif
