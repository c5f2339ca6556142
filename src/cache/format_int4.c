/* cache/format_int4.c - int4 codes with a step and a minimum; rules in qkv/formats.h. */
#include "core/bits.h"
#include "core/convert.h"
#include "qkv/formats.h"

enum { LARGEST_F16 = 0x477fe000 /* 65504 */, CODES = 256 /* packed at a time, even */ };

/* Bits of floats as integers in the order of the floats, and back: the order of negative numbers
 * is reversed. */
static inline int32_t in_order(int32_t bits) { return bits ^ (bits >> 31 & QKV_BITS_ABS); }

/* The largest f16 that is not above x, the smallest that is not below it; |x| <= 65504. */
static uint16_t f16_below(double x)
{
    const uint16_t h = qkv_f16_of_f64(x);
    if ((double)qkv_f32_of_f16(h) <= x)
        return h;
    return (uint16_t)(h & 0x8000 ? h + 1 : h == 0 ? 0x8001 : h - 1);
}

static uint16_t f16_above(double x) { return (uint16_t)(f16_below(-x) ^ 0x8000); }

/* Step and minimum of a group; returns 0 if it is not finite or too large for f16. */
static int range_of(const float *x, int64_t n, uint16_t *step, uint16_t *min)
{
    int32_t low = INT32_MAX, high = INT32_MIN;

    if (qkv_bits_max_abs(x, n) > LARGEST_F16)
        return 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = in_order(qkv_bits_of(x[i]));
        low = a < low ? a : low;
        high = a > high ? a : high;
    }
    *min = f16_below((double)qkv_of_bits(in_order(low)));
    const double span = (double)qkv_of_bits(in_order(high)) - (double)qkv_f32_of_f16(*min);
    *step = span > 0 ? f16_above(span / 15) : 0;
    return 1;
}

/* n codes from x; n is even but in the last piece of an odd row. */
static void pack(const float *restrict x, int64_t n, float min, float step, uint8_t *restrict codes)
{
    uint8_t one[CODES + 1];

    for (int64_t i = 0; i < n; i++)
        one[i] = (uint8_t)qkv_bits_round((x[i] - min) / step);
    one[n] = 0;
    for (int64_t i = 0; i < (n + 1) / 2; i++)
        codes[i] = (uint8_t)(one[2 * i] | one[2 * i + 1] << 4);
}

static void encode_group(const float *x, int64_t n, uint8_t *codes, uint16_t *step, uint16_t *min)
{
    if (!range_of(x, n, step, min)) {
        *step = *min = 0x7e00;
        memset(codes, 0, (size_t)(n + 1) / 2);
        return;
    }
    const float m = qkv_f32_of_f16(*min);
    const float s = *step ? qkv_f32_of_f16(*step) : 1; /* all equal: 0 / 1 */
    for (int64_t at = 0; at < n; at += CODES)
        pack(x + at, n - at < CODES ? n - at : CODES, m, s, codes + at / 2);
}

static int bad(const void *x, int64_t n, int32_t group, const void *codes, const void *steps,
               const void *mins)
{
    return n < 0 || group < 0 || group > n || group % 2 != 0 ||
           (n > 0 && (!x || !codes || !steps || !mins));
}

qkv_status qkv_int4_encode(const float *x, int64_t n, int32_t group, uint8_t *codes,
                           uint16_t *steps, uint16_t *mins)
{
    if (bad(x, n, group, codes, steps, mins))
        return QKV_ERR_ARGUMENT;
    const int64_t width = group ? group : n;
    for (int64_t at = 0; at < n; at += width)
        encode_group(x + at, n - at < width ? n - at : width, codes + at / 2, steps++, mins++);
    return QKV_OK;
}

qkv_status qkv_int4_decode(const uint8_t *codes, const uint16_t *steps, const uint16_t *mins,
                           int64_t n, int32_t group, float *x)
{
    if (bad(x, n, group, codes, steps, mins))
        return QKV_ERR_ARGUMENT;
    const int64_t width = group ? group : n;
    for (int64_t at = 0; at < n; at += width) {
        const int64_t end = n - at < width ? n : at + width;
        const float step = qkv_f32_of_f16(*steps++), min = qkv_f32_of_f16(*mins++);
        for (int64_t i = at; i < end; i++)
            x[i] = min + (float)(codes[i / 2] >> (i % 2 * 4) & 15) * step;
    }
    return QKV_OK;
}
