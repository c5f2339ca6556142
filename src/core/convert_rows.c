/* core/convert_rows.c - see format_float.h. */
#include "core/convert_rows.h"

#include "core/bits.h"

enum {
    F16_OVERFLOW = 0x47800000, /* 65536, where the exponent of f16 ends */
    F16_NORMAL = 0x38800000,   /* 2^-14, the smallest normal f16 */
    F16_REBIAS = 112 << 23,    /* between the exponent biases 127 and 15 */
    HALF = 0x3f000000          /* 0.5, whose last bit is 2^-24, the unit of f16 subnormals */
};

static uint16_t bf16_of(float x)
{
    const int32_t bits = qkv_bits_of(x), a = bits & QKV_BITS_ABS;
    const int32_t rounded = (int32_t)((uint32_t)a + 0x7fff + ((uint32_t)a >> 16 & 1)) >> 16;
    return (uint16_t)((bits >> 16 & 0x8000) | qkv_bits_select(a > QKV_BITS_INF, 0x7fc0, rounded));
}

static uint16_t f16_of(float x)
{
    const int32_t bits = qkv_bits_of(x), a = bits & QKV_BITS_ABS;
    const int32_t rounded = (int32_t)((uint32_t)a + 0xfff + ((uint32_t)a >> 13 & 1));
    const int32_t normal =
        qkv_bits_select(rounded >= F16_OVERFLOW, 0x7c00,
                        (int32_t)((uint32_t)rounded - F16_REBIAS) >> 13); /* of a NaN it wraps */
    const int32_t subnormal = qkv_bits_of(qkv_of_bits(a) + 0.5f) - HALF;
    const int32_t finite = qkv_bits_select(a < F16_NORMAL, subnormal, normal);
    return (uint16_t)((bits >> 16 & 0x8000) | qkv_bits_select(a > QKV_BITS_INF, 0x7e00, finite));
}

static float of_bf16(uint16_t h) { return qkv_of_bits((int32_t)((uint32_t)h << 16)); }

static float of_f16(uint16_t h)
{
    const int32_t sign = (int32_t)((uint32_t)(h & 0x8000) << 16);
    const int32_t exponent = h >> 10 & 31, fraction = h & 0x3ff;
    const int32_t normal = ((h & 0x7fff) << 13) + F16_REBIAS;
    const int32_t special = QKV_BITS_INF | fraction << 13 | (fraction != 0) << 22;
    const int32_t subnormal = qkv_bits_of((float)fraction * 5.9604644775390625e-8f); /* 2^-24 */
    const int32_t a = qkv_bits_select(exponent == 31, special, normal);
    return qkv_of_bits(sign | qkv_bits_select(exponent == 0, subnormal, a));
}

#define NARROW(name, one)                                                                          \
    static void name(uint16_t *restrict dst, const float *restrict src, int64_t n)                 \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++)                                                            \
            dst[i] = one(src[i]);                                                                  \
    }
#define WIDEN(name, one)                                                                           \
    static void name(float *restrict dst, const uint16_t *restrict src, int64_t n)                 \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++)                                                            \
            dst[i] = one(src[i]);                                                                  \
    }
NARROW(narrow_bf16, bf16_of)
NARROW(narrow_f16, f16_of)
WIDEN(widen_bf16, of_bf16)
WIDEN(widen_f16, of_f16)

void qkv_row_convert(void *dst, int32_t dst_type, const void *src, int32_t src_type, int64_t n)
{
    if (n <= 0)
        return;
    if (dst_type == src_type) {
        memcpy(dst, src, (size_t)n * (src_type == QKV_F32 ? 4 : 2));
    } else if (src_type == QKV_F32) {
        (dst_type == QKV_BF16 ? narrow_bf16 : narrow_f16)(dst, src, n);
    } else if (dst_type == QKV_F32) {
        (src_type == QKV_BF16 ? widen_bf16 : widen_f16)(dst, src, n);
    } else { /* between the two 16-bit types, through f32, which holds both exactly */
        float wide[256];
        for (int64_t at = 0; at < n; at += 256) {
            const int64_t m = n - at < 256 ? n - at : 256;
            qkv_row_convert(wide, QKV_F32, (const uint16_t *)src + at, src_type, m);
            qkv_row_convert((uint16_t *)dst + at, dst_type, wide, QKV_F32, m);
        }
    }
}
