/* fp8.c - 8-bit floating point against the table of its specification. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cache_test.h"

typedef struct fp8 {
    const char *name;
    int32_t kind;
    int fraction, bias;
    double largest;
    uint8_t nan;
    uint8_t (*encode)(float x);
    float (*decode)(uint8_t code);
} fp8;
static const fp8 fp8s[] = {
    {"e4m3", QKV_FP8_E4M3, 3, 7, 448, 0x7f, qkv_e4m3_of_f32, qkv_f32_of_e4m3},
    {"e5m2", QKV_FP8_E5M2, 2, 15, 57344, 0x7e, qkv_e5m2_of_f32, qkv_f32_of_e5m2}};

/* The value of a code by the table of the OCP specification. */
static double value_of(const fp8 *f, int code)
{
    const int field = code >> f->fraction & (0x7f >> f->fraction);
    const int rest = code & ((1 << f->fraction) - 1);
    const double sign = code & 0x80 ? -1 : 1;

    if (f->kind == QKV_FP8_E4M3 && (code & 0x7f) == 0x7f)
        return NAN;
    if (f->kind == QKV_FP8_E5M2 && field == 31)
        return rest ? (double)NAN : sign * (double)INFINITY;
    if (field == 0)
        return sign * ldexp(rest, 1 - f->bias - f->fraction);
    return sign * ldexp((1 << f->fraction) + rest, field - f->bias - f->fraction);
}

/* The nearest code by search, ties to the even one. */
static int nearest(const fp8 *f, double x)
{
    const double a = fmin(fabs(x), f->largest);
    int best = 0;
    for (int code = 0; code < 0x80; code++) {
        const double v = value_of(f, code);
        if (!isfinite(v))
            continue;
        const double d = fabs(a - v), b = fabs(a - value_of(f, best));
        if (d < b || (d == b && code % 2 == 0))
            best = code;
    }
    return best | (signbit(x) ? 0x80 : 0);
}

static void check_code(const fp8 *f, float x)
{
    const int want = isnan(x) ? (f->nan | (signbit(x) ? 0x80 : 0)) : nearest(f, (double)x);
    t_check(f->encode(x) == want, "%s of %a is %#x, not %#x", f->name, (double)x, f->encode(x),
            want);
}

static void every_code(const fp8 *f)
{
    for (int code = 0; code < 256; code++) {
        const double want = value_of(f, code);
        const float got = f->decode((uint8_t)code);
        t_check(isnan(want) ? isnan(got) : (double)got == want && !signbit(got) == !signbit(want),
                "code %#x is %a, not %a", code, (double)got, want);
        if (isfinite(want)) /* itself, and the ties on both sides of it with their neighbours */
            for (int step = -1; step <= 1; step++) {
                const double next = value_of(f, code ^ 1);
                const float tie = (float)(isfinite(next) ? (want + next) / 2 : want);
                check_code(f, (float)want);
                check_code(f, step == 0 ? tie : nextafterf(tie, (float)step * INFINITY));
            }
    }
}

static void other_numbers(const fp8 *f)
{
    t_rng rng = t_rng_of(t_seed());
    const float specials[] = {
        0,         -0.0f, NAN,   -NAN,     INFINITY,   -INFINITY, FLT_MAX,   -FLT_MAX, FLT_MIN,
        0x1p-149f, 448,   449,   463.9f,   464,        464.1f,    480,       57344,    61439,
        61440,     61441, 65536, 0x1p-10f, 0x1.8p-10f, 0x1p-17f,  0x1.8p-17f};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        check_code(f, specials[i]);
        check_code(f, -specials[i]);
    }
    for (int i = 0; i < t_times(20000); i++) {
        const uint32_t bits = (uint32_t)t_bits(&rng);
        float x;
        memcpy(&x, &bits, 4);
        check_code(f, x);
        check_code(f, (float)(t_normal(&rng) * exp(3 * t_normal(&rng))));
    }
}

static void rows(const fp8 *f, int64_t n, int32_t group)
{
    t_rng rng = t_rng_of((uint64_t)(n + group));
    const int64_t step = group ? group : n, n_groups = (n + step - 1) / step;
    float *x = t_alloc((size_t)n * 4, 4, T_END, 0x55),
          *back = t_alloc((size_t)n * 4, 4, T_END, 0x55);
    uint8_t *codes = t_alloc((size_t)n, 1, T_END, 0x55);
    float *scales = t_alloc((size_t)n_groups * 4, 4, T_END, 0x55);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(t_normal(&rng) * exp(2 * t_normal(&rng)));
    x[n / 2] = NAN;
    x[n - 1] = -INFINITY;
    expect(qkv_fp8_encode(x, n, group, f->kind, codes, scales), QKV_OK);
    expect(qkv_fp8_decode(codes, scales, n, group, f->kind, back), QKV_OK);
    for (int64_t g = 0; g < n_groups; g++) {
        float top = 0;
        for (int64_t i = g * step; i < n && i < (g + 1) * step; i++)
            top = isfinite(x[i]) && fabsf(x[i]) > top ? fabsf(x[i]) : top;
        t_check(scales[g] == top / (float)f->largest, "scale %lld", (long long)g);
    }
    for (int64_t i = 0; i < n; i++) {
        const float q = x[i] / scales[i / step];
        if (!isfinite(x[i]))
            t_check(isnan(back[i]), "%g became %g", (double)x[i], (double)back[i]);
        else
            t_check(codes[i] == nearest(f, (double)q) &&
                        back[i] == (float)value_of(f, codes[i]) * scales[i / step],
                    "channel %lld", (long long)i);
    }
}

static void given_scale(const fp8 *f)
{
    const float x[] = {1e30f, -1e30f, 3, 0, -0.0f, NAN, INFINITY, FLT_MIN};
    uint8_t codes[8];
    float back[8], scale = 0.5f;

    expect(qkv_fp8_encode_scaled(x, 8, scale, f->kind, codes), QKV_OK);
    expect(qkv_fp8_decode(codes, &scale, 8, 0, f->kind, back), QKV_OK);
    t_check((double)back[0] == f->largest / 2 && back[1] == -back[0], "%g does not saturate",
            (double)back[0]);
    t_check(back[2] == 3 && back[3] == 0 && isnan(back[5]) && isnan(back[6]) && back[7] == 0,
            "rest");
    scale = 0;
    expect(qkv_fp8_encode_scaled(x, 8, scale, f->kind, codes), QKV_OK);
    expect(qkv_fp8_decode(codes, &scale, 8, 0, f->kind, back), QKV_OK);
    for (int i = 0; i < 8; i++)
        t_check(isfinite(x[i]) ? back[i] == 0 : isnan(back[i]), "%g with scale 0", (double)x[i]);
}

void test_fp8(void)
{
    static const int64_t widths[] = {2, 15, 64, 130, 1024};

    for (int k = 0; k < 2; k++) {
        if (t_case("%s codes", fp8s[k].name))
            every_code(&fp8s[k]);
        if (t_case("%s numbers", fp8s[k].name))
            other_numbers(&fp8s[k]);
        for (int w = 0; w < 5; w++)
            for (int32_t group = 0; group <= 64 && group <= widths[w]; group += 32)
                if (t_case("%s D%d group%d", fp8s[k].name, (int)widths[w], group))
                    rows(&fp8s[k], widths[w], group);
        if (t_case("%s given scale", fp8s[k].name))
            given_scale(&fp8s[k]);
        if (t_case("%s all zero", fp8s[k].name)) {
            const float x[3] = {0, NAN, -0.0f};
            t_check(qkv_fp8_scale(x, 3, fp8s[k].kind) == 0, "zeros have a scale");
        }
    }
}
