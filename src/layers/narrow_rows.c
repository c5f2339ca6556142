/* layers/narrow_rows.c - rows of numbers as integers of 8 and 16 bits with a scale, and back. */
#include "core/convert.h"
#include "layers/narrow.h"

#define INFINITE_BITS 0x7f800000u
#define ROUNDING 12582912.0f     /* 1.5 2^23: what is added to it is rounded to an integer */
#define ROUNDING_BITS 0x4b400000u

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The largest magnitude, as bits; those of what is not finite are the largest. */
static uint32_t largest(const float *x, int64_t n)
{
    uint32_t most = 0;

    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of(x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most;
}

/* x * a * b is an integer in -limit .. limit but for rounding.  Two factors, because the inverse of
 * the smallest numbers is infinite. */
typedef struct step {
    float a, b, scale;
} step;

/* Of a row whose largest magnitude is this; it is not 0 and finite. */
static step step_of(uint32_t most, float limit)
{
    const float m = qkv_f32_of_bits(most), a = m < 0x1p-60f ? 0x1p64f : 1;
    return (step){a, limit / (m * a), m / limit};
}

/* Rounded to nearest even, as two's complement. */
static int32_t code_of(float x, step s)
{
    return (int32_t)(bits_of(x * s.a * s.b + ROUNDING) - ROUNDING_BITS);
}

void qkv_weights_to_codes(const float *w, int64_t n, int8_t *codes, float *scale, int32_t *sum)
{
    const uint32_t most = largest(w, n);
    int32_t total = 0;

    *sum = 0;
    *scale = most < INFINITE_BITS ? 0 : qkv_f32_of_bits(0x7fc00000u);
    if (most == 0 || most >= INFINITE_BITS) {
        memset(codes, 0, (size_t)n);
        return;
    }
    const step s = step_of(most, 127);
    for (int64_t i = 0; i < n; i++) {
        const int32_t code = code_of(w[i], s);
        codes[i] = (int8_t)code;
        total += code;
    }
    *scale = s.scale;
    *sum = 128 * total;
}

void qkv_row_to_bytes(const float *x, int64_t n, uint8_t *high, uint8_t *low, float *scale)
{
    const uint32_t most = largest(x, n);

    *scale = most < INFINITE_BITS ? 0 : qkv_f32_of_bits(0x7fc00000u);
    if (most == 0 || most >= INFINITE_BITS) {
        memset(high, 128, (size_t)n);
        memset(low, 0, (size_t)n);
        return;
    }
    const step s = step_of(most, 32767);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t code = (uint32_t)code_of(x[i], s) + 32768u;
        high[i] = (uint8_t)(code >> 8);
        low[i] = (uint8_t)code;
    }
    *scale = s.scale;
}

void qkv_row_of_sums(float *y, const int32_t *high, const int32_t *low, int64_t n, float scale,
                     const float *scales, const int32_t *sums)
{
    for (int64_t i = 0; i < n; i++) {
        const float sum = (float)(high[i] - sums[i]) * 256.0f + (float)low[i];
        y[i] = sum * scale * scales[i];
    }
}
