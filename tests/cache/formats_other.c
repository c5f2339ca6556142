/* formats_other.c - ggml's blocks and ONNX Runtime's codes against their definitions; refusals. */
#include <math.h>

#include "cache_test.h"

/* ---- ggml ------------------------------------------------------------------------------- */

static float f16_value(const unsigned char *p)
{
    const uint16_t h = (uint16_t)(p[0] | p[1] << 8);
    float x;
    qkv_convert(&x, QKV_F32, &h, QKV_F16, 1);
    return x;
}

static uint16_t f16_bits(float x)
{
    uint16_t h;
    qkv_convert(&h, QKV_F16, &x, QKV_F32, 1);
    return h;
}

static void check_q8_0(const float x[32], const unsigned char *b)
{
    float top = 0;
    for (int i = 0; i < 32; i++)
        top = fmaxf(top, fabsf(x[i]));
    const float d = top / 127, by = d != 0 ? 1 / d : 0;
    t_check((b[0] | b[1] << 8) == f16_bits(d), "scale of %a", (double)d);
    for (int i = 0; i < 32; i++) /* half away from zero */
        t_check((int8_t)b[2 + i] == (int)round((double)(x[i] * by)), "number %d", i);
}

static void check_q4_0(const float x[32], const unsigned char *b)
{
    float top = 0, signed_top = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > top) {
            top = fabsf(x[i]);
            signed_top = x[i];
        }
    const float d = signed_top / -8, by = d != 0 ? 1 / d : 0;
    t_check((b[0] | b[1] << 8) == f16_bits(d), "scale of %a", (double)d);
    for (int i = 0; i < 32; i++) {
        const int code = i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4;
        const int want = (int)floor((double)(x[i] * by + 8.5f));
        t_check(code == (want > 15 ? 15 : want), "number %d: %d, not %d", i, code, want);
    }
}

static void one_ggml(t_rng *rng, double size)
{
    float *x = t_alloc(96 * 4, 4, T_END, 0x55), *back = t_alloc(96 * 4, 4, T_END, 0x55);
    unsigned char *q8 = t_alloc(102, 1, T_END, 0x55), *q4 = t_alloc(54, 1, T_END, 0x55);

    for (int i = 0; i < 96; i++)
        x[i] = i < 32 ? (float)t_between(rng, -8, 8) : (float)(t_normal(rng) * size);
    expect(qkv_q8_0_encode(x, 96, q8), QKV_OK);
    expect(qkv_q4_0_encode(x, 96, q4), QKV_OK);
    for (int b = 0; b < 3; b++) {
        check_q8_0(x + 32 * b, q8 + 34 * b);
        check_q4_0(x + 32 * b, q4 + 18 * b);
    }
    expect(qkv_q8_0_decode(q8, 96, back), QKV_OK);
    for (int i = 0; i < 96; i++)
        t_check(back[i] ==
                    (float)(int8_t)q8[i / 32 * 34 + 2 + i % 32] * f16_value(q8 + i / 32 * 34),
                "q8_0 number %d", i);
    expect(qkv_q4_0_decode(q4, 96, back), QKV_OK);
    for (int i = 0; i < 96; i++) {
        const unsigned char byte = q4[i / 32 * 18 + 2 + i % 16];
        t_check(back[i] == (float)((i % 32 < 16 ? byte & 15 : byte >> 4) - 8) *
                               f16_value(q4 + i / 32 * 18),
                "q4_0 number %d", i);
    }
}

void test_ggml(void)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    t_rng rng = t_rng_of(t_seed() + 2);

    for (int i = 0; i < t_times(200); i++)
        if (t_case("p%d", i))
            one_ggml(&rng, i % 3 ? 1 : 1e-5);
    for (int i = 0; i < 3; i++)
        if (t_case("%g", (double)odd[i])) {
            float x[32] = {1, 2, 3}, back[32];
            unsigned char block[34];
            x[9] = odd[i];
            qkv_q8_0_encode(x, 32, block);
            qkv_q8_0_decode(block, 32, back);
            t_check(isnan(back[0]) && isnan(back[9]), "q8_0 gave %g", (double)back[9]);
            qkv_q4_0_encode(x, 32, block);
            qkv_q4_0_decode(block, 32, back);
            t_check(isnan(back[0]) && isnan(back[9]), "q4_0 gave %g", (double)back[9]);
        }
    if (t_case("tiny")) {
        float x[32] = {0x1p-140f, -0x1p-149f}, back[32];
        unsigned char block[34];
        qkv_q8_0_encode(x, 32, block);
        qkv_q8_0_decode(block, 32, back);
        t_check(back[0] == 0 && back[1] == 0, "q8_0 gave %g", (double)back[0]);
        qkv_q4_0_encode(x, 32, block);
        qkv_q4_0_decode(block, 32, back);
        t_check(back[0] == 0 && back[1] == 0, "q4_0 gave %g", (double)back[0]);
    }
}

/* ---- ONNX Runtime ----------------------------------------------------------------------- */

static int ort_code(float x, float scale, int low, int high)
{
    const double q = nearbyint((double)(x / (scale == 0 ? 1 : scale)));
    return q < low ? low : q > high ? high : (int)q;
}

static void one_ort(t_rng *rng, int64_t dim, int per_channel)
{
    enum { ROWS = 5 };
    float *x = t_alloc((size_t)(ROWS * dim) * 4, 4, T_END, 0x55);
    float *scales = t_alloc((size_t)(per_channel ? dim : 1) * 4, 4, T_END, 0x55);
    int8_t *i8 = t_alloc((size_t)(ROWS * dim), 1, T_END, 0x55);
    uint8_t *i4 = t_alloc((size_t)(ROWS * ((dim + 1) / 2)), 1, T_END, 0x55);
    float *back = t_alloc((size_t)(ROWS * dim) * 4, 4, T_END, 0x55);
    const int64_t n = per_channel ? dim : 1;

    for (int64_t i = 0; i < ROWS * dim; i++)
        x[i] = t_chance(rng, 30) ? (float)t_between(rng, -20, 20) / 2 : (float)t_normal(rng) * 20;
    x[0] = INFINITY;
    for (int64_t i = 0; i < n; i++)
        scales[i] = t_chance(rng, 20) ? 0 : t_chance(rng, 50) ? 1 : (float)t_uniform(rng) + 0.1f;
    expect(qkv_ort_int8_encode(x, ROWS, dim, scales, n, i8), QKV_OK);
    expect(qkv_ort_int8_decode(i8, ROWS, dim, scales, n, back), QKV_OK);
    for (int64_t i = 0; i < ROWS * dim; i++) {
        const float s = scales[per_channel ? i % dim : 0];
        t_check(i8[i] == ort_code(x[i], s, -128, 127) && back[i] == (float)i8[i] * (s == 0 ? 1 : s),
                "int8 %lld", (long long)i);
    }
    for (int32_t form = 0; form < 4; form++) {
        const int32_t nibbles = form / 2, coding = form % 2;
        expect(qkv_ort_int4_encode(x, ROWS, dim, scales, n, nibbles, coding, i4), QKV_OK);
        expect(qkv_ort_int4_decode(i4, ROWS, dim, scales, n, nibbles, coding, back), QKV_OK);
        for (int64_t i = 0; i < ROWS * dim; i++) {
            const int64_t r = i / dim, c = i % dim;
            const float s = scales[per_channel ? c : 0];
            const int code = ort_code(x[i], s, -8, 7), high = (c % 2 == 0) == (nibbles == 1);
            const int stored = i4[r * ((dim + 1) / 2) + c / 2] >> (high ? 4 : 0) & 15;
            t_check(stored == (coding == QKV_INT4_BIASED ? code + 8 : code & 15) &&
                        back[i] == (float)code * (s == 0 ? 1 : s),
                    "int4 form %d, %lld", form, (long long)i);
        }
    }
}

void test_ort(void)
{
    t_rng rng = t_rng_of(t_seed() + 3);
    static const int64_t dims[] = {1, 2, 7, 64, 129};

    for (int d = 0; d < 5; d++)
        for (int per_channel = 0; per_channel < 2; per_channel++)
            if (t_case("D%d %s", (int)dims[d], per_channel ? "channel" : "tensor"))
                one_ort(&rng, dims[d], per_channel);
    if (t_case("NaN")) {
        const float x[2] = {1, NAN}, scale = 1;
        int8_t i8[2];
        uint8_t i4[1];
        expect(qkv_ort_int8_encode(x, 1, 2, &scale, 1, i8), QKV_ERR_ARGUMENT);
        expect(qkv_ort_int4_encode(x, 1, 2, &scale, 1, 0, 0, i4), QKV_ERR_ARGUMENT);
    }
}

/* ---- refusals --------------------------------------------------------------------------- */

void test_format_refusals(void)
{
    float x[32] = {0}, scales[32];
    uint8_t codes[64];
    uint16_t halves[4];

    if (t_case("counts and groups")) {
        expect(qkv_int8_encode(x, -1, 0, (int8_t *)codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_int8_encode(x, 16, 17, (int8_t *)codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_int8_encode(x, 16, -1, (int8_t *)codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_int8_decode((int8_t *)codes, scales, 16, 17, x), QKV_ERR_ARGUMENT);
        expect(qkv_int8_channel_encode(x, -1, 2, (int8_t *)codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_int4_encode(x, 16, 3, codes, halves, halves + 2), QKV_ERR_ARGUMENT);
        expect(qkv_int4_decode(codes, halves, halves + 2, 16, 18, x), QKV_ERR_ARGUMENT);
        expect(qkv_fp8_encode(x, 16, 0, 2, codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_fp8_encode_scaled(x, 16, NAN, 0, codes), QKV_ERR_ARGUMENT);
        expect(qkv_fp8_encode_scaled(x, 16, -1, 0, codes), QKV_ERR_ARGUMENT);
        expect(qkv_fp8_encode_scaled(x, 16, INFINITY, 0, codes), QKV_ERR_ARGUMENT);
        expect(qkv_q8_0_encode(x, 31, codes), QKV_ERR_ARGUMENT);
        expect(qkv_q4_0_decode(codes, 33, x), QKV_ERR_ARGUMENT);
        expect(qkv_ort_int8_encode(x, 2, 4, scales, 2, (int8_t *)codes), QKV_ERR_ARGUMENT);
        expect(qkv_ort_int4_encode(x, 2, 4, scales, 1, 2, 0, codes), QKV_ERR_ARGUMENT);
        expect(qkv_ort_int4_decode(codes, 2, 4, scales, 1, 0, 2, x), QKV_ERR_ARGUMENT);
        t_check(qkv_fp8_scale(x, 4, 9) == 0, "a scale for no kind");
    }
    if (t_case("NULL")) {
        expect(qkv_int8_encode(NULL, 1, 0, (int8_t *)codes, scales), QKV_ERR_ARGUMENT);
        expect(qkv_int4_encode(x, 2, 0, codes, NULL, halves), QKV_ERR_ARGUMENT);
        expect(qkv_fp8_decode(codes, NULL, 1, 0, 0, x), QKV_ERR_ARGUMENT);
        expect(qkv_q8_0_decode(NULL, 32, x), QKV_ERR_ARGUMENT);
    }
    if (t_case("nothing to do")) {
        expect(qkv_int8_encode(NULL, 0, 0, NULL, NULL), QKV_OK);
        expect(qkv_int4_encode(NULL, 0, 0, NULL, NULL, NULL), QKV_OK);
        expect(qkv_fp8_encode(NULL, 0, 0, 0, NULL, NULL), QKV_OK);
        expect(qkv_q4_0_encode(NULL, 0, NULL), QKV_OK);
        expect(qkv_ort_int8_encode(NULL, 0, 8, NULL, 1, NULL), QKV_OK);
    }
}
