/* cache/format_ort.c - ONNX Runtime's quantised caches; rules in qkv/formats.h. */
#include <math.h>

#include "core/bits.h"
#include "qkv/formats.h"

static int bad(const void *x, int64_t rows, int64_t dim, const void *scales, int64_t n_scales,
               const void *codes)
{
    if (rows < 0 || dim < 0 || (n_scales != 1 && n_scales != dim))
        return 1;
    return rows > 0 && dim > 0 && (!x || !scales || !codes);
}

static float scale_at(const float *scales, int64_t n_scales, int64_t c)
{
    const float s = scales[n_scales == 1 ? 0 : c];
    return s == 0 ? 1 : s;
}

/* x / scale to nearest even, in low .. high.  Clamped before rounding, which changes nothing and
 * keeps the sum in qkv_bits_round small. */
static int32_t code_of(float x, float scale, float low, float high)
{
    const float q = x / scale;
    return qkv_bits_round(q < low ? low : q > high ? high : q);
}

qkv_status qkv_ort_int8_encode(const float *x, int64_t rows, int64_t dim, const float *scales,
                               int64_t n_scales, int8_t *codes)
{
    if (bad(x, rows, dim, scales, n_scales, codes))
        return QKV_ERR_ARGUMENT;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < dim; c++) {
            if (isnan(x[r * dim + c]))
                return QKV_ERR_ARGUMENT;
            codes[r * dim + c] =
                (int8_t)code_of(x[r * dim + c], scale_at(scales, n_scales, c), -128, 127);
        }
    return QKV_OK;
}

qkv_status qkv_ort_int8_decode(const int8_t *codes, int64_t rows, int64_t dim, const float *scales,
                               int64_t n_scales, float *x)
{
    if (bad(x, rows, dim, scales, n_scales, codes))
        return QKV_ERR_ARGUMENT;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < dim; c++)
            x[r * dim + c] = (float)codes[r * dim + c] * scale_at(scales, n_scales, c);
    return QKV_OK;
}

static int bad_order(int32_t nibbles, int32_t coding)
{
    return (nibbles != QKV_NIBBLES_EVEN_LOW && nibbles != QKV_NIBBLES_EVEN_HIGH) ||
           (coding != QKV_INT4_BIASED && coding != QKV_INT4_TWOS_COMPLEMENT);
}

static int shift_of(int64_t c, int32_t nibbles)
{
    return (c % 2 == 0) == (nibbles == QKV_NIBBLES_EVEN_LOW) ? 0 : 4;
}

qkv_status qkv_ort_int4_encode(const float *x, int64_t rows, int64_t dim, const float *scales,
                               int64_t n_scales, int32_t nibbles, int32_t coding, uint8_t *codes)
{
    if (bad(x, rows, dim, scales, n_scales, codes) || bad_order(nibbles, coding))
        return QKV_ERR_ARGUMENT;
    const int32_t bias = coding == QKV_INT4_BIASED ? 8 : 0;
    for (int64_t r = 0; r < rows; r++, x += dim, codes += (dim + 1) / 2) {
        /* The missing channel of an odd row is 0, like any other. */
        memset(codes, bias << 4 | bias, (size_t)(dim + 1) / 2);
        for (int64_t c = 0; c < dim; c++) {
            const int shift = shift_of(c, nibbles);
            if (isnan(x[c]))
                return QKV_ERR_ARGUMENT;
            const int32_t code = code_of(x[c], scale_at(scales, n_scales, c), -8, 7) + bias;
            codes[c / 2] = (uint8_t)((codes[c / 2] & 0xf0 >> shift) | (code & 15) << shift);
        }
    }
    return QKV_OK;
}

qkv_status qkv_ort_int4_decode(const uint8_t *codes, int64_t rows, int64_t dim, const float *scales,
                               int64_t n_scales, int32_t nibbles, int32_t coding, float *x)
{
    if (bad(x, rows, dim, scales, n_scales, codes) || bad_order(nibbles, coding))
        return QKV_ERR_ARGUMENT;
    for (int64_t r = 0; r < rows; r++, x += dim, codes += (dim + 1) / 2)
        for (int64_t c = 0; c < dim; c++) {
            const int32_t nibble = codes[c / 2] >> shift_of(c, nibbles) & 15;
            const int32_t code = coding == QKV_INT4_BIASED ? nibble - 8 : (nibble ^ 8) - 8;
            x[c] = (float)code * scale_at(scales, n_scales, c);
        }
    return QKV_OK;
}
