/*
 * simd_pairs.h - pairs of bf16 in 32-bit lanes: every bf16 through each operation, against plain C.
 *
 * Parameters: a simd/ header with pairs, included before; SIMD_PROGRAM, SIMD_TIER, SIMD_CPU as in
 * simd_tmpl.h.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/convert.h"
#include "qkv/base.h"
#include "simd_suite.h"

static uint32_t lane_bits(vf a, int i)
{
    float x[VL];
    uint32_t bits;
    v_store(x, a);
    memcpy(&bits, &x[i], sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What v_pair may make of x: the nearest bf16, any NaN of a NaN, and 0 of what is subnormal. */
static int is_nearest(uint16_t got, float x)
{
    const uint16_t want = qkv_bf16_of_f64((double)x);
    if (isnan(x))
        return isnan(qkv_f32_of_bf16(got));
    return got == want || (fabsf(x) < 0x1p-126f && got == (want & 0x8000));
}

static void test_pair(void)
{
    static const uint32_t rests[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

    for (int r = 0; r < 6; r++)
        if (t_case("v_pair, %04x below", rests[r]))
            for (uint32_t h = 0; h < 65536; h += VL) {
                float lo[VL], hi[VL];
                for (uint32_t i = 0; i < VL; i++) {
                    lo[i] = float_of((h + i) << 16 | rests[r]);
                    hi[i] = float_of((65535 - h - i) << 16 | rests[5 - r]);
                }
                const vf pair = v_pair(v_load(lo), v_load(hi));
                for (int i = 0; i < VL; i++) {
                    const uint32_t bits = lane_bits(pair, i);
                    t_check(is_nearest((uint16_t)bits, lo[i]) &&
                                is_nearest((uint16_t)(bits >> 16), hi[i]),
                            "%a and %a become %08x", (double)lo[i], (double)hi[i], bits);
                }
            }
}

static void test_halves(void)
{
    if (!t_case("v_pair_rows, v_pair_low, v_pair_high"))
        return;
    for (uint32_t h = 0; h < 65536; h += VL) {
        uint16_t p[VL], q[VL];
        for (uint32_t i = 0; i < VL; i++) {
            p[i] = (uint16_t)(h + i);
            q[i] = (uint16_t)(40503 * (h + i));
        }
        const vf pair = v_pair_rows(p, q), low = v_pair_low(pair), high = v_pair_high(pair);
        for (int i = 0; i < VL; i++) {
            t_check(lane_bits(pair, i) == ((uint32_t)q[i] << 16 | p[i]), "%04x, %04x: %08x", p[i],
                    q[i], lane_bits(pair, i));
            t_check(lane_bits(low, i) == (uint32_t)p[i] << 16, "low of %04x", p[i]);
            t_check(lane_bits(high, i) == (uint32_t)q[i] << 16, "high of %04x", q[i]);
        }
    }
}

typedef struct two_rows {
    const uint16_t *p, *q;
    int n;
} two_rows;

static void call_pair_rows(void *arg)
{
    const two_rows *x = arg;
    const vf pair = x->n == VL ? v_pair_rows(x->p, x->q) : v_pair_rows_n(x->p, x->q, x->n);
    for (int i = 0; i < VL; i++)
        t_check(lane_bits(pair, i) == (i < x->n ? 0x5a5a4141u : 0), "lane %d of %d is %08x", i,
                x->n, lane_bits(pair, i));
}

static void test_rests(void)
{
    for (int where = T_END; where <= T_START; where++)
        for (int n = 0; n <= VL; n++) {
            if (!t_case("%d of a row %s a guard page", n, where == T_END ? "before" : "after"))
                continue;
            two_rows x = {t_alloc((size_t)n * 2, 2, where, 0x41),
                          t_alloc((size_t)n * 2, 2, where, 0x5a), n};
            t_call(call_pair_rows, &x);
        }
}

static const t_test pair_tests[] = {
    {"pair", test_pair}, {"halves", test_halves}, {"rests", test_rests}};

const simd_suite simd_suite_of_tier = {SIMD_PROGRAM, SIMD_TIER, SIMD_CPU,
                                       (int)(sizeof pair_tests / sizeof pair_tests[0]), pair_tests};
