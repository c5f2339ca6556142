/* cache/format_int8.c - int8 codes, symmetric; rules in qkv/formats.h. */
#include "core/bits.h"
#include "qkv/formats.h"

static int bad(const void *x, int64_t n, int32_t group, const void *codes, const void *scales)
{
    return n < 0 || group < 0 || group > n || (n > 0 && (!x || !codes || !scales));
}

/* The scale for numbers whose largest magnitude has these bits. */
static float scale_of(int32_t top)
{
    if (top == 0)
        return 0;
    if (top >= QKV_BITS_INF)
        return qkv_of_bits(QKV_BITS_QUIET_NAN);
    const float scale = qkv_of_bits(top) / 127.0f;
    return qkv_bits_of(scale) < QKV_BITS_MIN_NORMAL ? qkv_of_bits(QKV_BITS_MIN_NORMAL) : scale;
}

/* Dividing, not multiplying by a reciprocal: the code is then the nearest one also where the
 * reciprocal's rounding would tip a tie. */
static void encode_group(const float *restrict x, int64_t n, int8_t *restrict codes, float *scale)
{
    const float s = scale_of(qkv_bits_max_abs(x, n));

    *scale = s;
    if (!(s > 0)) { /* all zero, or not finite */
        memset(codes, 0, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)qkv_bits_round(x[i] / s);
}

qkv_status qkv_int8_encode(const float *x, int64_t n, int32_t group, int8_t *codes, float *scales)
{
    if (bad(x, n, group, codes, scales))
        return QKV_ERR_ARGUMENT;
    const int64_t step = group ? group : n;
    for (int64_t at = 0; at < n; at += step)
        encode_group(x + at, n - at < step ? n - at : step, codes + at, scales++);
    return QKV_OK;
}

qkv_status qkv_int8_decode(const int8_t *codes, const float *scales, int64_t n, int32_t group,
                           float *x)
{
    if (bad(x, n, group, codes, scales))
        return QKV_ERR_ARGUMENT;
    const int64_t step = group ? group : n;
    for (int64_t at = 0; at < n; at += step, scales++) {
        const int64_t end = n - at < step ? n : at + step;
        for (int64_t i = at; i < end; i++)
            x[i] = (float)codes[i] * *scales;
    }
    return QKV_OK;
}

static int bad_block(const void *x, int64_t rows, int64_t channels, const void *codes,
                     const void *scales)
{
    return rows < 0 || channels < 0 || (rows > 0 && channels > 0 && (!x || !codes)) ||
           (channels > 0 && !scales);
}

qkv_status qkv_int8_channel_encode(const float *x, int64_t n_tokens, int64_t n_channels,
                                   int8_t *codes, float *scales)
{
    if (bad_block(x, n_tokens, n_channels, codes, scales))
        return QKV_ERR_ARGUMENT;
    /* scales holds the largest magnitudes on the way; they are numbers or NaN with their sign
     * cleared, which copying as floats leaves alone. */
    memset(scales, 0, (size_t)n_channels * sizeof *scales);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t c = 0; c < n_channels; c++) {
            const int32_t a = qkv_bits_of(x[t * n_channels + c]) & QKV_BITS_ABS;
            const int32_t top = qkv_bits_of(scales[c]);
            scales[c] = qkv_of_bits(a > top ? a : top);
        }
    for (int64_t c = 0; c < n_channels; c++)
        scales[c] = scale_of(qkv_bits_of(scales[c]));
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t c = 0; c < n_channels; c++) {
            /* 0 / 1 for a channel of zeros; a NaN anywhere is overwritten by its scale. */
            const float s = scales[c] > 0 ? scales[c] : 1;
            const float q = x[t * n_channels + c] / s;
            const int32_t inside = (qkv_bits_of(q) & QKV_BITS_ABS) < 0x43000000; /* 128 */
            codes[t * n_channels + c] = (int8_t)(inside ? qkv_bits_round(q) : 0);
        }
    return QKV_OK;
}

qkv_status qkv_int8_channel_decode(const int8_t *codes, const float *scales, int64_t n_tokens,
                                   int64_t n_channels, float *x)
{
    if (bad_block(x, n_tokens, n_channels, codes, scales))
        return QKV_ERR_ARGUMENT;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t c = 0; c < n_channels; c++)
            x[t * n_channels + c] = (float)codes[t * n_channels + c] * scales[c];
    return QKV_OK;
}
