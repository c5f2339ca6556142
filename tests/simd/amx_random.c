/*
 * amx_random.c - the model of the tile instructions on random tiles: against plain loops, its
 * arithmetic against the FMA instruction, and the whole against AMX where this CPU has it.
 *
 * Tiles are filled from classes of numbers, because random bits alone rarely meet: a sum of two is
 * then nearly always the larger one.
 */
#include "amx_tests.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "qkv/base.h"

enum { NORMAL, INTEGERS, NEAR_LOW, NEAR_HIGH, ANY_BITS, SPECIAL, N_CLASSES };

static const uint32_t specials[] = {0,          0x80000000, 0x00010000, 0x807f0000, 0x00800000,
                                    0x3f800000, 0xbf800000, 0x7f7f0000, 0xff7f0000, 0x7f800000,
                                    0xff800000, 0x7fc00000, 0xff810000, 0x3f810000, 0x00400000};

/* A number of f32; its upper half is one of bf16 of the same class.  `square` is whether it will be
 * multiplied by one of its own kind, so that the product is near the end of the range. */
static float draw(t_rng *rng, int class, int square)
{
    const int sign = t_chance(rng, 50) ? -1 : 1;
    const double x = sign * (1 + t_uniform(rng));
    const int spread = (int)t_below(rng, 8);

    switch (class) {
    case NORMAL:
        return (float)t_normal(rng);
    case INTEGERS:
        return (float)t_between(rng, -300, 300);
    case NEAR_LOW:
        return (float)ldexp(x, (square ? -65 : -129) + spread);
    case NEAR_HIGH:
        return (float)ldexp(x, (square ? 63 : 127) - spread);
    case ANY_BITS:
        return tile_f32((uint32_t)t_bits(rng));
    default:
        return tile_f32(specials[t_below(rng, (int64_t)(sizeof specials / sizeof *specials))]);
    }
}

static tile_config draw_shape(t_rng *rng)
{
    if (t_chance(rng, 40))
        return amx_shape(16, 16, 16);
    return amx_shape((int)t_between(rng, 1, 16), (int)t_between(rng, 1, 16),
                     (int)t_between(rng, 1, 16));
}

static void compare(const amx_data *got, const amx_data *want, const tile_config *g, int floats)
{
    for (int r = 0; r < 16 && !t_failed(); r++)
        for (int i = 0; i < 16; i++) {
            const uint32_t x = got->u32[r][i], y = want->u32[r][i];
            t_check(floats ? amx_same(x, y) : x == y,
                    "row %d, number %d of %d rows, %d bytes: %08x, not %08x", r, i, g->rows[0],
                    g->colsb[0], x, y);
        }
}

/* ---- against plain loops ----------------------------------------------------------------------- */

static float widen(uint16_t h) { return tile_f32((uint32_t)h << 16); }

/* The manual's order with libm's fmaf.  For numbers that stay normal, which needs no flushing. */
static void plain_bf16(const tile_config *g, amx_data *c, const amx_data *a, const amx_data *b)
{
    for (int m = 0; m < g->rows[0]; m++)
        for (int n = 0; n < g->colsb[0] / 4; n++) {
            float sum[2] = {0, 0};
            for (int k = 0; k < g->colsb[1] / 4; k++)
                for (int h = 0; h < 2; h++)
                    sum[h] = fmaf(widen(a->bf16[m][2 * k + h]), widen(b->bf16[k][2 * n + h]), sum[h]);
            const float both = sum[0] + sum[1];
            c->f32[m][n] = c->f32[m][n] + both;
        }
}

void test_amx_random(void)
{
    t_rng rng = t_rng_of(t_seed());

    for (int i = 0; i < t_times(300); i++) {
        amx_data a, b, c, want;
        const int class = i % 2 ? NORMAL : INTEGERS;
        const tile_config g = draw_shape(&rng);
        if (!t_case("p%d", i))
            continue;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < 32; j++) {
                a.bf16[r][j] = (uint16_t)(tile_bits(draw(&rng, class, 1)) >> 16);
                b.bf16[r][j] = (uint16_t)(tile_bits(draw(&rng, class, 1)) >> 16);
            }
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < 16; j++)
                c.f32[r][j] = draw(&rng, class, 0);
        want = c;
        plain_bf16(&g, &want, &a, &b);
        amx_model_dot(&g, AMX_BF16, &c, &a, &b);
        compare(&c, &want, &g, 1);
    }
}

static int plain_byte(const amx_data *x, int r, int i, int is_signed)
{
    return is_signed ? x->i8[r][i] : x->u8[r][i];
}

static void fill_bytes(t_rng *rng, amx_data *x)
{
    for (int r = 0; r < 16; r++)
        for (int i = 0; i < 64; i++)
            x->u8[r][i] = (uint8_t)(t_chance(rng, 5) ? 0x80 : t_bits(rng));
}

void test_amx_bytes(void)
{
    t_rng rng = t_rng_of(t_seed() + 1);

    for (int i = 0; i < t_times(200); i++) {
        const int op = AMX_I8 + i % 4;
        amx_data a, b, c, want;
        const tile_config g = draw_shape(&rng);
        if (!t_case("p%d", i))
            continue;
        fill_bytes(&rng, &a);
        fill_bytes(&rng, &b);
        fill_bytes(&rng, &c);
        want = c;
        for (int m = 0; m < g.rows[0]; m++)
            for (int n = 0; n < g.colsb[0] / 4; n++) {
                int64_t sum = want.i32[m][n];
                for (int k = 0; k < g.colsb[1]; k++)
                    sum += plain_byte(&a, m, k, op == AMX_I8 || op == AMX_I8U8) *
                           plain_byte(&b, k / 4, 4 * n + k % 4, op == AMX_I8 || op == AMX_U8I8);
                want.u32[m][n] = (uint32_t)(uint64_t)sum;
            }
        amx_model_dot(&g, op, &c, &a, &b);
        compare(&c, &want, &g, 0);
    }
}

/* ---- against this CPU -------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Mostly of one class, now and then of any. */
static float draw_mixed(t_rng *rng, int class, int square)
{
    return draw(rng, t_chance(rng, 3) ? (int)t_below(rng, N_CLASSES) : class, square);
}

/* Sums that nearly cancel, ties, and the edge of the subnormals are what rounding can get wrong. */
static float partner(t_rng *rng, float a, float b, int class)
{
    const float near = -a * b;
    if (t_chance(rng, 40) && isfinite(near))
        return tile_f32(tile_bits(near) + (uint32_t)t_between(rng, -3, 3));
    return draw_mixed(rng, class, 0);
}

void test_amx_fma(void)
{
    enum { N = 4096 };
    static float a[N], b[N], c[N], want[N];
    t_rng rng = t_rng_of(t_seed() + 2);

    if (!(qkv_cpu_flags() & QKV_CPU_AVX2)) {
        printf("simd_amx_tiles: fma skipped, this CPU lacks the FMA instruction\n");
        return;
    }
    for (int class = 0; class < N_CLASSES; class++)
        for (int i = 0; i < t_times(100); i++) {
            if (!t_case("class %d, %d", class, i))
                continue;
            for (int j = 0; j < N; j++) {
                a[j] = tile_daz(tile_bits(draw_mixed(&rng, class, 1)) & 0xffff0000u);
                b[j] = tile_daz(tile_bits(draw_mixed(&rng, class, 1)) & 0xffff0000u);
                c[j] = tile_daz(tile_bits(partner(&rng, a[j], b[j], class)));
            }
            amx_real_fma(a, b, c, want, N);
            for (int j = 0; j < N; j++) {
                const uint32_t got = tile_bits(tile_fma(a[j], b[j], c[j]));
                t_check(amx_same(got, tile_bits(want[j])), "%a %a + %a is %08x, not %08x",
                        (double)a[j], (double)b[j], (double)c[j], got, tile_bits(want[j]));
            }
        }
}

static int draw_class(t_rng *rng)
{
    return t_chance(rng, 50) ? NORMAL : (int)t_below(rng, N_CLASSES);
}

static void fill_bf16(t_rng *rng, amx_data *x, int class)
{
    for (int r = 0; r < 16; r++)
        for (int i = 0; i < 32; i++) {
            const float y = draw_mixed(rng, class, 1);
            x->bf16[r][i] = (uint16_t)(tile_bits(y) >> 16);
        }
}

static void fill_f32(t_rng *rng, amx_data *x, int class)
{
    for (int r = 0; r < 16; r++)
        for (int i = 0; i < 16; i++)
            x->f32[r][i] = draw_mixed(rng, class, 0);
}

void test_amx_real(void)
{
    t_rng rng = t_rng_of(t_seed() + 3);

    if (AMX_TIER_IS_MODEL || !(qkv_cpu_flags() & QKV_CPU_AMX)) {
        printf("simd_amx_tiles: instructions skipped, %s\n",
               AMX_TIER_IS_MODEL ? "the amx tier of this build is the model"
                                 : "this CPU lacks the amx tier");
        return;
    }
    for (int i = 0; i < t_times(3000); i++) {
        const int op = t_chance(&rng, 60) ? AMX_BF16 : (int)t_below(&rng, AMX_N_OPS);
        const int class = draw_class(&rng);
        const tile_config g = draw_shape(&rng);
        amx_data a, b, c, want;
        if (!t_case("p%d", i))
            continue;
        fill_bf16(&rng, &a, class);
        fill_bf16(&rng, &b, class);
        fill_f32(&rng, &c, class);
        want = c;
        amx_real_dot(&g, op, &want, &a, &b, 64);
        amx_model_dot(&g, op, &c, &a, &b);
        compare(&c, &want, &g, op == AMX_BF16);
    }
}
#else
void test_amx_fma(void) { printf("simd_amx_tiles: fma skipped, this is not x86-64\n"); }
void test_amx_real(void) { printf("simd_amx_tiles: instructions skipped, this is not x86-64\n"); }
#endif
