/*
 * cache/format_ggml.c - blocks of 32 numbers as ggml's files have them; rules in qkv/formats.h.
 *
 * Its reference writers multiply by the reciprocal of the f32 scale and store the scale rounded to
 * f16, so a code is not always the nearest to the scale that a reader sees.  That is kept: the
 * point is to give the same bytes.
 */
#include <math.h>

#include "core/bits.h"
#include "core/convert.h"
#include "qkv/formats.h"

enum { BLOCK = QKV_GGML_BLOCK, F16_NAN = 0x7e00 };

static void put_f16(uint8_t *p, uint16_t h)
{
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static float get_f16(const uint8_t *p) { return qkv_f32_of_f16((uint16_t)(p[0] | p[1] << 8)); }

static int bad(const void *x, int64_t n, const void *blocks)
{
    return n < 0 || n % BLOCK != 0 || (n > 0 && (!x || !blocks));
}

/* The number of largest magnitude, with its sign; of several the first. */
static float largest(const float x[BLOCK])
{
    float top = 0;
    for (int i = 0; i < BLOCK; i++)
        top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
    return top;
}

/* 1 / scale, or 0 if the scale is 0 or so small that its reciprocal is infinite. */
static float reciprocal(float scale)
{
    const float r = scale != 0 ? 1.0f / scale : 0.0f;
    return isfinite(r) ? r : 0.0f;
}

static int all_finite(const float x[BLOCK]) { return qkv_bits_max_abs(x, BLOCK) < QKV_BITS_INF; }

qkv_status qkv_q8_0_encode(const float *x, int64_t n, void *blocks)
{
    if (bad(x, n, blocks))
        return QKV_ERR_ARGUMENT;
    uint8_t *p = blocks;
    for (int64_t at = 0; at < n; at += BLOCK, p += QKV_Q8_0_BYTES) {
        const float scale = fabsf(largest(x + at)) / 127.0f, by = reciprocal(scale);
        memset(p, 0, QKV_Q8_0_BYTES);
        if (!all_finite(x + at)) {
            put_f16(p, F16_NAN);
            continue;
        }
        put_f16(p, qkv_f16_of_f64((double)scale));
        for (int i = 0; i < BLOCK; i++)
            p[2 + i] = (uint8_t)(int8_t)roundf(x[at + i] * by); /* ties away from zero */
    }
    return QKV_OK;
}

qkv_status qkv_q8_0_decode(const void *blocks, int64_t n, float *x)
{
    if (bad(x, n, blocks))
        return QKV_ERR_ARGUMENT;
    const uint8_t *p = blocks;
    for (int64_t at = 0; at < n; at += BLOCK, p += QKV_Q8_0_BYTES) {
        const float scale = get_f16(p);
        for (int i = 0; i < BLOCK; i++)
            x[at + i] = (float)(int8_t)p[2 + i] * scale;
    }
    return QKV_OK;
}

/* The scale has the sign that puts the largest number at code 0, which stands for -8. */
static uint8_t q4_0_code(float x, float by)
{
    const int code = (int)(x * by + 8.5f);
    return (uint8_t)(code > 15 ? 15 : code);
}

qkv_status qkv_q4_0_encode(const float *x, int64_t n, void *blocks)
{
    if (bad(x, n, blocks))
        return QKV_ERR_ARGUMENT;
    uint8_t *p = blocks;
    for (int64_t at = 0; at < n; at += BLOCK, p += QKV_Q4_0_BYTES) {
        const float scale = largest(x + at) / -8.0f, by = reciprocal(scale);
        memset(p, 0, QKV_Q4_0_BYTES);
        if (!all_finite(x + at)) {
            put_f16(p, F16_NAN);
            continue;
        }
        put_f16(p, qkv_f16_of_f64((double)scale));
        for (int i = 0; i < BLOCK / 2; i++)
            p[2 + i] =
                (uint8_t)(q4_0_code(x[at + i], by) | q4_0_code(x[at + i + BLOCK / 2], by) << 4);
    }
    return QKV_OK;
}

qkv_status qkv_q4_0_decode(const void *blocks, int64_t n, float *x)
{
    if (bad(x, n, blocks))
        return QKV_ERR_ARGUMENT;
    const uint8_t *p = blocks;
    for (int64_t at = 0; at < n; at += BLOCK, p += QKV_Q4_0_BYTES) {
        const float scale = get_f16(p);
        for (int i = 0; i < BLOCK / 2; i++) {
            x[at + i] = (float)((p[2 + i] & 15) - 8) * scale;
            x[at + i + BLOCK / 2] = (float)((p[2 + i] >> 4) - 8) * scale;
        }
    }
    return QKV_OK;
}
