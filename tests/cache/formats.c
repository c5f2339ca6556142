/*
 * formats.c - int8, int4 and fp8 against their definitions, computed in double.
 *
 * Arrays lie beside guard pages: vectorised loops must not read past a row.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cache_test.h"

/* ---- inputs ----------------------------------------------------------------------------- */

/* A row of n numbers beside a guard page, of one of several kinds. */
static float *row_of(t_rng *rng, int64_t n, int kind)
{
    static const double sizes[] = {1, 1e-3, 1e4, 1e-30, 3e-44, 1e38};
    float *x = t_alloc((size_t)n * sizeof *x, 4, T_END, 0x55);

    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(t_normal(rng) * sizes[kind % 6]);
        if (kind % 6 == 5 && !isfinite(x[i]))
            x[i] = FLT_MAX;
        if (kind == 6) /* small integers: ties */
            x[i] = (float)t_between(rng, -254, 254) / 2;
        if (kind == 7)
            x[i] = 0.3f;
        if (kind == 8)
            x[i] = i % 2 ? -0.0f : 0.0f;
        if (kind == 9) /* a narrow range far from zero */
            x[i] = 1000.3f + (float)t_uniform(rng) * 0.1f;
    }
    return x;
}
enum { N_KINDS = 10 };

static const int64_t widths[] = {1, 2, 7, 16, 31, 64, 80, 128, 130, 576, 1024};
static const int32_t groups[] = {0, 32, 64, 128};

/* How far rounding the quotient may push x away from the nearest code, in scales. */
static const double slack = 127 * 0x1p-23;

/* ---- int8 ------------------------------------------------------------------------------- */

static void check_int8(const float *x, int64_t n, const int8_t *codes, float scale)
{
    double top = 0;
    for (int64_t i = 0; i < n; i++)
        top = fabs((double)x[i]) > top ? fabs((double)x[i]) : top;
    const float want = top == 0 ? 0 : fmaxf((float)top / 127.0f, FLT_MIN);
    t_check(scale == want, "scale is %a, not %a", (double)scale, (double)want);
    for (int64_t i = 0; i < n; i++) {
        const double q = scale > 0 ? (double)x[i] / (double)scale : 0;
        t_check(codes[i] >= -127 && fabs(q - codes[i]) <= 0.5 + slack, "code %d for %a / %a",
                codes[i], (double)x[i], (double)scale);
        if (scale == 1) /* exact ties: to even */
            t_check(codes[i] == nearbyint(q), "code %d for %g", codes[i], q);
    }
}

static void one_int8(t_rng *rng, int64_t n, int32_t group, int kind)
{
    const int64_t step = group ? group : n, n_groups = (n + step - 1) / step;
    float *x = row_of(rng, n, kind);
    int8_t *codes = t_alloc((size_t)n, 1, T_END, 0x55);
    float *scales = t_alloc((size_t)n_groups * sizeof *scales, 4, T_END, 0x55);
    float *back = t_alloc((size_t)n * sizeof *back, 4, T_END, 0x55);

    if (kind == 6)
        for (int64_t g = 0; g < n_groups; g++)
            x[g * step] = 127;
    expect(qkv_int8_encode(x, n, group, codes, scales), QKV_OK);
    expect(qkv_int8_decode(codes, scales, n, group, back), QKV_OK);
    for (int64_t g = 0; g < n_groups; g++) {
        const int64_t m = n - g * step < step ? n - g * step : step;
        check_int8(x + g * step, m, codes + g * step, scales[g]);
    }
    for (int64_t i = 0; i < n; i++)
        t_check(back[i] == (float)codes[i] * scales[i / step], "value %lld", (long long)i);
}

static void int8_not_finite(void)
{
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    float x[96], scales[3], back[96];
    int8_t codes[96];

    for (int b = 0; b < 4; b++)
        for (int at = 0; at < 96; at++) {
            for (int i = 0; i < 96; i++)
                x[i] = (float)(i - 40);
            x[at] = bad[b];
            qkv_int8_encode(x, 96, 32, codes, scales);
            qkv_int8_decode(codes, scales, 96, 32, back);
            for (int i = 0; i < 96; i++)
                t_check(isnan(back[i]) == (i / 32 == at / 32), "channel %d with %g at %d", i,
                        (double)bad[b], at);
        }
}

static void int8_channels(t_rng *rng, int64_t tokens, int64_t channels)
{
    const size_t n = (size_t)(tokens * channels);
    float *x = t_alloc(n * 4, 4, T_END, 0x55), *back = t_alloc(n * 4, 4, T_END, 0x55);
    int8_t *codes = t_alloc(n, 1, T_END, 0x55);
    float *scales = t_alloc((size_t)channels * 4, 4, T_END, 0x55);
    float column[256];
    int8_t column_codes[256];

    for (size_t i = 0; i < n; i++)
        x[i] = (float)(t_normal(rng) * exp(3 * t_normal(rng)));
    if (channels > 2)
        for (int64_t t = 0; t < tokens; t++)
            x[t * channels + 1] = 0;
    if (channels > 3)
        x[(tokens - 1) * channels + 2] = NAN;
    expect(qkv_int8_channel_encode(x, tokens, channels, codes, scales), QKV_OK);
    expect(qkv_int8_channel_decode(codes, scales, tokens, channels, back), QKV_OK);
    for (int64_t c = 0; c < channels; c++) {
        float scale;
        for (int64_t t = 0; t < tokens; t++)
            column[t] = x[t * channels + c];
        qkv_int8_encode(column, tokens, 0, column_codes, &scale);
        t_check(memcmp(&scale, &scales[c], 4) == 0 || (isnan(scale) && isnan(scales[c])),
                "scale of channel %lld", (long long)c);
        for (int64_t t = 0; t < tokens; t++) {
            const float value = back[t * channels + c];
            t_check(isnan(scale) ? isnan(value)
                                 : column_codes[t] == codes[t * channels + c] &&
                                       value == (float)column_codes[t] * scale,
                    "token %lld, channel %lld", (long long)t, (long long)c);
        }
    }
}

void test_int8(void)
{
    t_rng rng = t_rng_of(t_seed());

    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int g = 0; g < 4 && groups[g] <= widths[w]; g++)
            for (int kind = 0; kind < N_KINDS; kind++)
                if (t_case("D%d group%d kind%d", (int)widths[w], groups[g], kind))
                    one_int8(&rng, widths[w], groups[g], kind);
    if (t_case("not finite"))
        int8_not_finite();
    for (int64_t tokens = 16; tokens <= 256; tokens *= 4)
        for (int64_t channels = 1; channels <= 130; channels = channels * 3 + 1)
            if (t_case("channels %dx%d", (int)tokens, (int)channels))
                int8_channels(&rng, tokens, channels);
}

/* ---- int4 ------------------------------------------------------------------------------- */

static float from_f16(uint16_t h)
{
    float x;
    qkv_convert(&x, QKV_F32, &h, QKV_F16, 1);
    return x;
}

static void one_int4(t_rng *rng, int64_t n, int32_t group, int kind)
{
    const int64_t width = group ? group : n, n_groups = (n + width - 1) / width;
    const float *x = row_of(rng, n, kind);
    uint8_t *codes = t_alloc((size_t)(n + 1) / 2, 1, T_END, 0x55);
    uint16_t *steps = t_alloc((size_t)n_groups * 2, 2, T_END, 0x55);
    uint16_t *mins = t_alloc((size_t)n_groups * 2, 2, T_END, 0x55);
    float *back = t_alloc((size_t)n * sizeof *back, 4, T_END, 0x55);

    expect(qkv_int4_encode(x, n, group, codes, steps, mins), QKV_OK);
    expect(qkv_int4_decode(codes, steps, mins, n, group, back), QKV_OK);
    for (int64_t i = 0; i < n; i++) {
        const float step = from_f16(steps[i / width]), min = from_f16(mins[i / width]);
        const int code = codes[i / 2] >> (i % 2 * 4) & 15;
        if (kind == 5) { /* far beyond f16 */
            t_check(isnan(back[i]), "channel %lld of 1e38", (long long)i);
            continue;
        }
        t_check(back[i] == min + (float)code * step, "value %lld", (long long)i);
        t_check(min <= x[i], "min %g above %g", (double)min, (double)x[i]);
        const double error = fabs((double)x[i] - ((double)min + code * (double)step));
        const double allowed = 0.5 * (double)step * (1 + 0x1p-18) + fabs((double)min) * 0x1p-23;
        t_check(error <= allowed, "error %g with step %g at %g", error, (double)step, (double)x[i]);
    }
    if (n % 2)
        t_check(codes[n / 2] >> 4 == 0, "the last nibble is used");
}

static void int4_steps_are_tight(void)
{
    /* min and step are the nearest f16 on the safe side, no further. */
    t_rng rng = t_rng_of(7);
    for (int i = 0; i < 2000; i++) {
        float x[32], low = INFINITY, high = -INFINITY;
        uint8_t codes[16];
        uint16_t step, min;
        for (int c = 0; c < 32; c++) {
            x[c] = (float)(t_normal(&rng) * exp(4 * t_normal(&rng)));
            x[c] = fminf(fmaxf(x[c], -65504), 65504);
            low = fminf(low, x[c]);
            high = fmaxf(high, x[c]);
        }
        qkv_int4_encode(x, 32, 0, codes, &step, &min);
        const uint16_t up = (uint16_t)(min & 0x8000 ? min - 1 : min + 1);
        t_check(min == 0x8000 || from_f16(up) > low, "min %a for %a", (double)from_f16(min),
                (double)low);
        const double span = ((double)high - (double)from_f16(min)) / 15;
        t_check((double)from_f16(step) >= span, "step %a for %a", (double)from_f16(step), span);
        t_check(step == 0 || (double)from_f16((uint16_t)(step - 1)) < span, "step %a for %a",
                (double)from_f16(step), span);
    }
}

static void int4_not_finite(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 65505, -1e30f};
    float x[65], back[65];
    uint8_t codes[33];
    uint16_t steps[3], mins[3];

    for (int b = 0; b < 5; b++)
        for (int at = 0; at < 65; at++) {
            for (int i = 0; i < 65; i++)
                x[i] = (float)(i - 40);
            x[at] = bad[b];
            qkv_int4_encode(x, 65, 32, codes, steps, mins);
            qkv_int4_decode(codes, steps, mins, 65, 32, back);
            for (int i = 0; i < 65; i++)
                t_check(isnan(back[i]) == (i / 32 == at / 32), "channel %d with %g at %d", i,
                        (double)bad[b], at);
        }
}

void test_int4(void)
{
    t_rng rng = t_rng_of(t_seed() + 1);

    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int g = 0; g < 4 && groups[g] <= widths[w]; g++)
            for (int kind = 0; kind < N_KINDS; kind++)
                if (t_case("D%d group%d kind%d", (int)widths[w], groups[g], kind))
                    one_int4(&rng, widths[w], groups[g], kind);
    if (t_case("tight"))
        int4_steps_are_tight();
    if (t_case("not finite"))
        int4_not_finite();
    if (t_case("all nibbles")) {
        uint8_t codes[128];
        uint16_t step = 0x3c00, min = 0xbc00; /* 1 and -1 */
        float x[256];
        for (int i = 0; i < 128; i++)
            codes[i] = (uint8_t)(i | 0x80);
        expect(qkv_int4_decode(codes, &step, &min, 256, 0, x), QKV_OK);
        for (int i = 0; i < 256; i++)
            t_check(x[i] == (float)((i % 2 ? (i / 2 | 0x80) >> 4 : (i / 2) & 15) - 1), "channel %d",
                    i);
    }
}
