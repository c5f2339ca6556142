/* test_convert.c - qkv_convert against the definition of rounding, found by search. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

/* The value of a 16-bit pattern with `fraction` bits of fraction, by the IEEE formula. */
static double value_of(uint16_t bits, int fraction, int bias)
{
    const int field = bits >> fraction & (2 * bias + 1), rest = bits & ((1 << fraction) - 1);
    const double sign = bits & 0x8000 ? -1 : 1;
    if (field == 2 * bias + 1)
        return rest ? (double)NAN : sign * (double)INFINITY;
    if (field == 0)
        return sign * ldexp(rest, 1 - bias - fraction);
    return sign * ldexp((1 << fraction) + rest, field - bias - fraction);
}

typedef struct format {
    qkv_type type;
    int fraction, bias;
} format;
static const format formats[] = {{QKV_F16, 10, 15}, {QKV_BF16, 7, 127}};

/* The pattern nearest to x, ties to even: found by bisection over the magnitudes, which are in
 * the order of their patterns; a step above the largest finite one is infinity's place. */
static uint16_t nearest(double x, const format *f)
{
    const uint16_t infinity = (uint16_t)((2 * f->bias + 1) << f->fraction);
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const double magnitude = fabs(x);
    uint16_t low = 0, high = infinity;

    if (isnan(x))
        return (uint16_t)(sign | infinity | 1);
    while (high - low > 1) {
        const uint16_t middle = (uint16_t)((low + high) / 2);
        if (value_of(middle, f->fraction, f->bias) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    const double below = value_of(low, f->fraction, f->bias);
    const double above = high == infinity ? ldexp(1, f->bias + 1)
                                          : value_of(high, f->fraction, f->bias);
    const double to_below = magnitude - below, to_above = above - magnitude;
    const int up = to_above < to_below || (to_above == to_below && (low & 1));
    return (uint16_t)(sign | (isinf(x) ? infinity : up ? high : low));
}

void test_narrow_all(void)
{
    for (int n = 0; n < 2; n++)
        if (t_case("every %s", qkv_type_name(formats[n].type)))
            for (int i = 0; i < 65536; i++) {
                const uint16_t bits = (uint16_t)i;
                const double want = value_of(bits, formats[n].fraction, formats[n].bias);
                double d;
                float s;
                uint16_t back, back_from_f32;
                qkv_convert(&d, QKV_F64, &bits, formats[n].type, 1);
                qkv_convert(&s, QKV_F32, &bits, formats[n].type, 1);
                qkv_convert(&back, formats[n].type, &d, QKV_F64, 1);
                qkv_convert(&back_from_f32, formats[n].type, &s, QKV_F32, 1);
                if (isnan(want))
                    t_check(isnan(d) && isnan(s) &&
                                isnan(value_of(back, formats[n].fraction, formats[n].bias)),
                            "%x is NaN and becomes %g", i, d);
                else
                    t_check(d == want && (double)s == want && back == bits && back_from_f32 == bits,
                            "%x is %g; converted %g and back %x, %x", i, want, d, back,
                            back_from_f32);
            }
}

static void check_narrow(double x, const format *f)
{
    const float s = (float)x;
    uint16_t got, got_from_f32;
    const uint16_t want = nearest(x, f), want_from_f32 = nearest((double)s, f);

    qkv_convert(&got, f->type, &x, QKV_F64, 1);
    qkv_convert(&got_from_f32, f->type, &s, QKV_F32, 1);
    t_check(got == want, "%a becomes %x in %s, not %x", x, got, qkv_type_name(f->type), want);
    t_check(got_from_f32 == want_from_f32, "%a (f32) becomes %x in %s, not %x", (double)s,
            got_from_f32, qkv_type_name(f->type), want_from_f32);
}

void test_narrow_many(void)
{
    t_rng rng = t_rng_of(t_seed());
    for (int n = 0; n < 2; n++) {
        if (t_case("between neighbours of %s", qkv_type_name(formats[n].type)))
            for (int i = 0; i < 0x7fff; i++) { /* each tie, and just off it */
                const uint16_t infinity =
                    (uint16_t)((2 * formats[n].bias + 1) << formats[n].fraction);
                if (i >= infinity)
                    break;
                const double x = value_of((uint16_t)i, formats[n].fraction, formats[n].bias);
                const double y = i + 1 == infinity
                                     ? ldexp(1, formats[n].bias + 1)
                                     : value_of((uint16_t)(i + 1), formats[n].fraction,
                                                formats[n].bias);
                const double tie = x + (y - x) / 2;
                check_narrow(tie, &formats[n]);
                check_narrow(-nextafter(tie, 0), &formats[n]);
                check_narrow(nextafter(tie, INFINITY), &formats[n]);
            }
        if (t_case("random bits to %s", qkv_type_name(formats[n].type)))
            for (int i = 0; i < t_times(300000); i++) {
                const uint64_t bits = t_bits(&rng);
                const uint32_t half = (uint32_t)bits;
                float s;
                double d;
                memcpy(&s, &half, sizeof s);
                memcpy(&d, &bits, sizeof d);
                if (!isnan(s))
                    check_narrow((double)s, &formats[n]);
                if (!isnan(d))
                    check_narrow(d, &formats[n]);
                check_narrow(t_normal(&rng) * exp2((double)t_between(&rng, -30, 18)), &formats[n]);
            }
    }
    if (t_case("in place")) {
        uint16_t x[100], want[100];
        for (int i = 0; i < 100; i++)
            x[i] = (uint16_t)(i * 300);
        qkv_convert(want, QKV_BF16, x, QKV_F16, 100);
        t_check(qkv_convert(x, QKV_BF16, x, QKV_F16, 100) == QKV_OK &&
                    memcmp(x, want, sizeof x) == 0, "16-bit types in one array");
    }
    if (t_case("f64 to f32 rounds once")) {
        const double x = 1 + 0x1p-24 + 0x1p-50;
        float s;
        qkv_convert(&s, QKV_F32, &x, QKV_F64, 1);
        t_check(s == 1 + 0x1p-23f, "%a", (double)s);
    }
}

void test_convert_refusals(void)
{
    double x[2] = {0};
    if (t_case("arguments")) {
        t_check(qkv_convert(x, QKV_BOOL, x, QKV_F64, 1) == QKV_ERR_ARGUMENT, "to bool");
        t_check(qkv_convert(x, QKV_F64, x, QKV_NONE, 1) == QKV_ERR_ARGUMENT, "from none");
        t_check(qkv_convert(NULL, QKV_F64, x, QKV_F64, 1) == QKV_ERR_ARGUMENT, "to NULL");
        t_check(qkv_convert(x, QKV_F64, NULL, QKV_F64, 1) == QKV_ERR_ARGUMENT, "from NULL");
        t_check(qkv_convert(NULL, QKV_F64, NULL, QKV_F64, 0) == QKV_OK, "nothing at all");
    }
}
