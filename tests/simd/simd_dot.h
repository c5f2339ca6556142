/*
 * simd_dot.h - dot products of pairs of bf16, and the rows of pairs they read, against plain C.
 * What makes pairs is tested in simd_pairs.h.
 *
 * Parameters: a simd/ header with v_dot, included before; SIMD_PROGRAM, SIMD_TIER, SIMD_CPU as in
 * simd_tmpl.h.
 */
#include <math.h>
#include <string.h>

#include "core/convert.h"
#include "qkv/base.h"
#include "simd_suite.h"

/* Number n of a vector of pairs, as its bits. */
static uint16_t half_of(vf pairs, int n)
{
    float lanes[VL];
    uint16_t halves[2 * VL];
    v_store(lanes, pairs);
    memcpy(halves, lanes, sizeof halves);
    return halves[n];
}

typedef struct one_row {
    const uint16_t *p;
    int n;
} one_row;

static void call_load_pairs(void *arg)
{
    const one_row *x = arg;
    const vf pairs = x->n == 2 * VL ? v_load_pairs(x->p) : v_load_pairs_n(x->p, x->n);
    for (int i = 0; i < 2 * VL; i++)
        t_check(half_of(pairs, i) == (i < x->n ? x->p[i] : 0), "number %d of %d is %04x", i, x->n,
                half_of(pairs, i));
}

static void test_load(void)
{
    t_rng rng = t_rng_of(t_seed());

    for (int where = T_END; where <= T_START; where++)
        for (int n = 0; n <= 2 * VL; n++) {
            if (!t_case("%d of a row, %s a guard page", n, where == T_END ? "before" : "after"))
                continue;
            uint16_t *p = t_alloc((size_t)n * 2, 2, where, 0);
            for (int i = 0; i < n; i++)
                p[i] = (uint16_t)t_bits(&rng);
            t_protect(p);
            t_call(call_load_pairs, &(one_row){p, n});
        }
}

typedef struct zip_rows {
    const uint16_t *p, *q;
} zip_rows;

/* Numbers of the first row are in lower halves, those of the second in upper; v_unzip puts what
 * lanes have become of them in the order of channels. */
static void call_zip_rows(void *arg)
{
    const zip_rows *x = arg;
    float lower[2 * VL], upper[2 * VL];
    vf a, b;

    v_zip_rows(x->p, x->q, &a, &b);
    vf low[2] = {v_pair_low(a), v_pair_low(b)}, high[2] = {v_pair_high(a), v_pair_high(b)};
    v_unzip(&low[0], &low[1]);
    v_unzip(&high[0], &high[1]);
    for (int i = 0; i < 2; i++) {
        v_store(lower + i * VL, low[i]);
        v_store(upper + i * VL, high[i]);
    }
    for (int i = 0; i < 2 * VL; i++)
        t_check(lower[i] == qkv_f32_of_bf16(x->p[i]) && upper[i] == qkv_f32_of_bf16(x->q[i]),
                "channel %d is %a and %a", i, (double)lower[i], (double)upper[i]);
}

static void test_zip_rows(void)
{
    for (int where = T_END; where <= T_START; where++)
        if (t_case("two rows, each %s a guard page", where == T_END ? "before" : "after")) {
            uint16_t *p = t_alloc(4 * VL, 2, where, 0), *q = t_alloc(4 * VL, 2, where, 0);
            for (int i = 0; i < 2 * VL; i++) {
                p[i] = (uint16_t)(0x3f80 + i);
                q[i] = (uint16_t)(0xbf80 + 3 * i);
            }
            t_call(call_zip_rows, &(zip_rows){p, q});
        }
}

/* x and y as pairs, c as numbers: what v_dot makes of them. */
static void dot_of(const uint16_t x[2 * VL], const uint16_t y[2 * VL], const float c[VL],
                   float out[VL])
{
    v_store(out, v_dot(v_load_pairs(x), v_load_pairs(y), v_load(c)));
}

static void test_exact(void)
{
    t_rng rng = t_rng_of(t_seed());
    uint16_t x[2 * VL], y[2 * VL];
    float c[VL], out[VL], want[VL];

    if (!t_case("whole numbers"))
        return;
    for (int n = 0; n < t_times(20000); n++) {
        for (int i = 0; i < VL; i++)
            want[i] = c[i] = (float)t_between(&rng, -100000, 100000);
        for (int i = 0; i < 2 * VL; i++) {
            const int64_t a = t_between(&rng, -256, 256), b = t_between(&rng, -256, 256);
            x[i] = qkv_bf16_of_f64((double)a);
            y[i] = qkv_bf16_of_f64((double)b);
            want[i / 2] += (float)(a * b);
        }
        dot_of(x, y, c, out);
        for (int i = 0; i < VL; i++)
            t_check(out[i] == want[i], "lane %d is %a, not %a", i, (double)out[i], (double)want[i]);
    }
}

/* A normal number of 8 bits, its exponent within `spread` of 0. */
static uint16_t draw_bf16(t_rng *rng, int spread)
{
    const int64_t exponent = 127 + t_between(rng, -spread, spread);
    return (uint16_t)(t_below(rng, 2) << 15 | exponent << 7 | t_below(rng, 128));
}

/* Either order of additions, rounded to nearest or to odd. */
static void test_rounding(void)
{
    t_rng rng = t_rng_of(t_seed());
    uint16_t x[2 * VL], y[2 * VL];
    float c[VL], out[VL];

    if (!t_case("within two units in the last place of the largest term"))
        return;
    for (int n = 0; n < t_times(20000); n++) {
        const int spread = (int)t_below(&rng, 30);
        for (int i = 0; i < 2 * VL; i++) {
            x[i] = draw_bf16(&rng, spread);
            y[i] = draw_bf16(&rng, spread);
        }
        for (int i = 0; i < VL; i++)
            c[i] = (float)ldexp(t_normal(&rng), (int)t_between(&rng, -2 * spread, 2 * spread));
        dot_of(x, y, c, out);
        for (int i = 0; i < VL; i++) {
            const double a = (double)qkv_f32_of_bf16(x[2 * i]) * (double)qkv_f32_of_bf16(y[2 * i]);
            const double b =
                (double)qkv_f32_of_bf16(x[2 * i + 1]) * (double)qkv_f32_of_bf16(y[2 * i + 1]);
            const double want = a + b + (double)c[i];
            const double size = fabs(a) + fabs(b) + fabs((double)c[i]);
            t_check(fabs((double)out[i] - want) <= 0x1p-22 * size, "lane %d is %a, not %a", i,
                    (double)out[i], want);
        }
    }
}

static void test_specials(void)
{
    static const struct {
        float x, y, c, want;
    } rows[] = {
        {1, INFINITY, 0, INFINITY},  {-1, INFINITY, 0, -INFINITY}, {0, INFINITY, 1, NAN},
        {1, 1, -INFINITY, -INFINITY}, {1, INFINITY, -INFINITY, NAN}, {NAN, 1, 1, NAN},
        {1, 1, NAN, NAN},            {0x1p127f, 2, 0, INFINITY},    {0, 0, 0, 0},
        {0x1p-70f, 0x1p-70f, 0, 0},  {1, 1, -1, 0},
    };
    uint16_t x[2 * VL], y[2 * VL];
    float c[VL], out[VL];

    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (int at = 0; at < 2; at++) {
            if (!t_case("%g %g + %g, number %d of the pair", (double)rows[r].x, (double)rows[r].y,
                        (double)rows[r].c, at))
                continue;
            for (int i = 0; i < 2 * VL; i++) {
                x[i] = i % 2 == at ? qkv_bf16_of_f64((double)rows[r].x) : 0;
                y[i] = i % 2 == at ? qkv_bf16_of_f64((double)rows[r].y) : 0;
            }
            for (int i = 0; i < VL; i++)
                c[i] = rows[r].c;
            dot_of(x, y, c, out);
            for (int i = 0; i < VL; i++)
                t_check(isnan(rows[r].want) ? isnan(out[i]) : out[i] == rows[r].want,
                        "lane %d is %g", i, (double)out[i]);
        }
}

#if defined(QKV_DOT_AT)
static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

typedef struct pair_at {
    const uint16_t *p;
    const float *y, *c;
    float out[VL];
} pair_at;

static void call_dot_at(void *arg)
{
    pair_at *x = arg;
    v_store(x->out, v_dot_at(x->p, v_load(x->y), v_load(x->c)));
}

/* Any bits, NaN and infinity among them; the pair alone on its page, at an even address. */
static void test_dot_at(void)
{
    t_rng rng = t_rng_of(t_seed());
    float y[VL], c[VL], spread[VL], want[VL];

    if (!t_case("the bits of v_dot"))
        return;
    uint16_t *p = t_alloc(3 * sizeof *p, 2, T_END, 0);
    for (int n = 0; n < t_times(20000); n++) {
        for (int i = 0; i < VL; i++) {
            y[i] = float_of_bits((uint32_t)t_bits(&rng));
            c[i] = float_of_bits((uint32_t)t_bits(&rng));
        }
        for (int i = 0; i < 3; i++)
            p[i] = (uint16_t)t_bits(&rng);
        for (int at = 0; at < 2; at++) {
            for (int i = 0; i < VL; i++)
                memcpy(&spread[i], p + at, sizeof *spread);
            v_store(want, v_dot(v_load(spread), v_load(y), v_load(c)));
            pair_at x = {.p = p + at, .y = y, .c = c};
            t_call(call_dot_at, &x);
            for (int i = 0; i < VL; i++)
                t_check(memcmp(&x.out[i], &want[i], sizeof want[i]) == 0 ||
                            (isnan(x.out[i]) && isnan(want[i])),
                        "lane %d is %a, not %a", i, (double)x.out[i], (double)want[i]);
        }
    }
}
#endif

static const t_test dot_tests[] = {{"load", test_load},
                                   {"zip_rows", test_zip_rows},
                                   {"exact", test_exact},
                                   {"rounding", test_rounding},
#if defined(QKV_DOT_AT)
                                   {"dot_at", test_dot_at},
#endif
                                   {"specials", test_specials}};

const simd_suite simd_suite_of_tier = {SIMD_PROGRAM, SIMD_TIER, SIMD_CPU,
                                       (int)(sizeof dot_tests / sizeof dot_tests[0]), dot_tests};
