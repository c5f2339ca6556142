/* cache/format_fp8.c - 8-bit floating point; rules in qkv/formats.h. */
#include "core/bits.h"
#include "qkv/formats.h"

/*
 * The constants of a kind: fraction bits; the bits of its largest and smallest normal numbers;
 * the f32 number whose last bit is the unit of its subnormals; its NaN.
 */
typedef struct kind {
    int32_t fraction, bias, largest, normal;
    float unit;
    int32_t nan;
} kind;
static const kind kinds[] = {
    [QKV_FP8_E4M3] = {3, 7, 0x43e00000 /* 448 */, 0x3c800000 /* 2^-6 */, 16384.0f, 0x7f},
    [QKV_FP8_E5M2] = {2, 15, 0x47600000 /* 57344 */, 0x38800000 /* 2^-14 */, 128.0f, 0x7e},
};

/* Inlined with a constant kind, so that nothing of it is left in the loop. */
static inline int32_t code_of(float x, const kind *k, int32_t is_nan)
{
    const int32_t bits = qkv_bits_of(x), shift = 23 - k->fraction;
    int32_t a = bits & QKV_BITS_ABS;
    a = qkv_bits_select(a > k->largest, k->largest, a);
    const int32_t half = (1 << (shift - 1)) - 1;
    const int32_t normal =
        ((a + half + (a >> shift & 1)) >> shift) - ((127 - k->bias) << k->fraction);
    const int32_t subnormal = qkv_bits_of(qkv_of_bits(a) + k->unit) - qkv_bits_of(k->unit);
    const int32_t finite = qkv_bits_select(a < k->normal, subnormal, normal);
    return (bits >> 24 & 0x80) | qkv_bits_select(is_nan, k->nan, finite);
}

static inline int32_t nan_bits(float x) { return (qkv_bits_of(x) & QKV_BITS_ABS) > QKV_BITS_INF; }

uint8_t qkv_e4m3_of_f32(float x) { return (uint8_t)code_of(x, &kinds[QKV_FP8_E4M3], nan_bits(x)); }
uint8_t qkv_e5m2_of_f32(float x) { return (uint8_t)code_of(x, &kinds[QKV_FP8_E5M2], nan_bits(x)); }

static inline float of_e4m3(uint8_t code)
{
    const int32_t a = code & 0x7f, sign = (int32_t)((uint32_t)(code & 0x80) << 24);
    const int32_t normal = (a << 20) + (120 << 23);
    const int32_t subnormal = qkv_bits_of((float)(a & 7) * 0.001953125f); /* 2^-9 */
    const int32_t finite = qkv_bits_select(a < 8, subnormal, normal);
    return qkv_of_bits(sign | qkv_bits_select(a == 0x7f, QKV_BITS_QUIET_NAN, finite));
}

static inline float of_e5m2(uint8_t code)
{
    const int32_t a = code & 0x7f, sign = (int32_t)((uint32_t)(code & 0x80) << 24);
    const int32_t normal = (a << 21) + (112 << 23);
    const int32_t special = QKV_BITS_INF | (a > 0x7c) << 22;
    const int32_t subnormal = qkv_bits_of((float)(a & 3) * 1.52587890625e-5f); /* 2^-16 */
    const int32_t finite = qkv_bits_select(a < 4, subnormal, normal);
    return qkv_of_bits(sign | qkv_bits_select(a >= 0x7c, special, finite));
}

float qkv_f32_of_e4m3(uint8_t code) { return of_e4m3(code); }
float qkv_f32_of_e5m2(uint8_t code) { return of_e5m2(code); }

float qkv_fp8_scale(const float *x, int64_t n, int32_t which)
{
    int32_t top = 0;

    if ((which != QKV_FP8_E4M3 && which != QKV_FP8_E5M2) || (n > 0 && !x))
        return 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = qkv_bits_of(x[i]) & QKV_BITS_ABS, finite = a < QKV_BITS_INF ? a : 0;
        top = finite > top ? finite : top;
    }
    if (top == 0)
        return 0;
    const float scale = qkv_of_bits(top) / qkv_of_bits(kinds[which].largest);
    return qkv_bits_of(scale) < QKV_BITS_MIN_NORMAL ? qkv_of_bits(QKV_BITS_MIN_NORMAL) : scale;
}

/* An infinity would saturate; what is not finite must show, so it becomes NaN.  Whether x is
 * finite counts, not the quotient. */
#define ENCODE(name, which)                                                                        \
    static void name(const float *restrict x, int64_t n, float scale, uint8_t *restrict codes)     \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const int32_t a = qkv_bits_of(x[i]) & QKV_BITS_ABS;                                    \
            codes[i] = (uint8_t)code_of(x[i] / scale, &kinds[which], a >= QKV_BITS_INF);           \
        }                                                                                          \
    }
ENCODE(encode_e4m3, QKV_FP8_E4M3)
ENCODE(encode_e5m2, QKV_FP8_E5M2)

#define DECODE(name, one)                                                                          \
    static void name(const uint8_t *restrict codes, int64_t n, float scale, float *restrict x)     \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++)                                                            \
            x[i] = one(codes[i]) * scale;                                                          \
    }
DECODE(decode_e4m3, of_e4m3)
DECODE(decode_e5m2, of_e5m2)

static void encode(const float *x, int64_t n, float scale, int32_t which, uint8_t *codes)
{
    if (scale > 0) {
        (which == QKV_FP8_E4M3 ? encode_e4m3 : encode_e5m2)(x, n, scale, codes);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = qkv_bits_of(x[i]), finite = (bits & QKV_BITS_ABS) < QKV_BITS_INF;
        codes[i] = (uint8_t)((bits >> 24 & 0x80) | (finite ? 0 : kinds[which].nan));
    }
}

static int bad(const void *x, int64_t n, int32_t which, const void *codes)
{
    return n < 0 || (which != QKV_FP8_E4M3 && which != QKV_FP8_E5M2) || (n > 0 && (!x || !codes));
}

qkv_status qkv_fp8_encode(const float *x, int64_t n, int32_t group, int32_t which, uint8_t *codes,
                          float *scales)
{
    if (bad(x, n, which, codes) || group < 0 || group > n || (n > 0 && !scales))
        return QKV_ERR_ARGUMENT;
    const int64_t step = group ? group : n;
    for (int64_t at = 0; at < n; at += step, scales++) {
        const int64_t m = n - at < step ? n - at : step;
        *scales = qkv_fp8_scale(x + at, m, which);
        encode(x + at, m, *scales, which, codes + at);
    }
    return QKV_OK;
}

qkv_status qkv_fp8_encode_scaled(const float *x, int64_t n, float scale, int32_t which,
                                 uint8_t *codes)
{
    const int32_t bits = qkv_bits_of(scale);
    if (bad(x, n, which, codes) || bits < 0 || bits >= QKV_BITS_INF)
        return QKV_ERR_ARGUMENT;
    encode(x, n, scale, which, codes);
    return QKV_OK;
}

qkv_status qkv_fp8_decode(const uint8_t *codes, const float *scales, int64_t n, int32_t group,
                          int32_t which, float *x)
{
    if (bad(x, n, which, codes) || group < 0 || group > n || (n > 0 && !scales))
        return QKV_ERR_ARGUMENT;
    const int64_t step = group ? group : n;
    for (int64_t at = 0; at < n; at += step, scales++)
        (which == QKV_FP8_E4M3 ? decode_e4m3 : decode_e5m2)(
            codes + at, n - at < step ? n - at : step, *scales, x + at);
    return QKV_OK;
}
