/* frequencies.c - f_i, a and tables against the formulas. */
#include <math.h>
#include <string.h>

#include "rope_test.h"

static int close_to(double have, long double want, long double slack)
{
    return fabsl(have - want) <= slack * fabsl(want);
}

void test_frequencies(void)
{
    t_rng rng = t_rng_of(t_seed());

    for (int k = 0; k < t_times(400); k++) {
        double factors[2][N_FACTORS], f[N_FACTORS], a = NAN;
        char text[256];
        qkv_rope r;
        random_rope(&rng, &r, factors);
        const int64_t seq_len = t_below(&rng, 20000);
        if (!t_case("%s_%d", qkv_rope_type_name(r.type), k))
            continue;
        const qkv_status status = qkv_rope_frequencies(&r, seq_len, f, &a, text, sizeof text);
        t_check(status == QKV_OK && strcmp(text, "ok") == 0, "%s", text);
        t_check(qkv_rope_pairs(&r) == oracle_rotary_dim(&r) / 2, "%d pairs", qkv_rope_pairs(&r));
        if (status != QKV_OK)
            continue;
        t_check(close_to(a, oracle_factor(&r), 1e-15L), "a is %.17g, not %.17Lg", a,
                oracle_factor(&r));
        for (int i = 0; i < qkv_rope_pairs(&r); i++)
            t_check(close_to(f[i], oracle_frequency(&r, seq_len, i), oracle_slack(&r)),
                    "f[%d] is %.17g, not %.17Lg", i, f[i], oracle_frequency(&r, seq_len, i));
    }
}

static double a_of(const qkv_rope *r)
{
    double f[N_FACTORS], a = NAN;
    qkv_rope_frequencies(r, 0, f, &a, NULL, 0);
    return a;
}

/* Numbers that papers and models state. */
void test_known(void)
{
    double f[64], grown[64], factors[2][N_FACTORS];
    qkv_rope r;
    qkv_rope_init(&r);
    r.head_dim = 128;
    if (t_case("default")) {
        qkv_rope_frequencies(&r, 0, f, NULL, NULL, 0);
        t_check(f[0] == 1 && fabs(f[32] - 0.01) < 1e-16, "f is %g, ..., %g", f[0], f[32]);
    }
    if (t_case("ntk_keeps_the_highest_and_divides_the_lowest")) {
        r.type = QKV_ROPE_NTK;
        r.factor = 8;
        qkv_rope_frequencies(&r, 0, grown, NULL, NULL, 0);
        t_check(grown[0] == 1 && fabs(grown[63] * 8 / f[63] - 1) < 1e-13, "%g, ..., %g", grown[0],
                grown[63]);
    }
    if (t_case("dynamic_grows_past_max_positions")) {
        r.type = QKV_ROPE_DYNAMIC;
        r.max_positions = 2048;
        for (int64_t length = 0; length <= 2048; length += 1024) {
            qkv_rope_frequencies(&r, length, grown, NULL, NULL, 0);
            t_check(memcmp(f, grown, sizeof f) == 0, "differs at %lld", (long long)length);
        }
        qkv_rope_frequencies(&r, 2049, grown, NULL, NULL, 0);
        t_check(grown[63] < f[63] && grown[0] == 1, "f[63] is %g", grown[63]);
    }
    if (t_case("yarn_of_deepseek")) { /* docs of V3: 1.3688879 is in its softmax scale, not here */
        r.type = QKV_ROPE_YARN;
        r.factor = 40;
        r.original_max_positions = 4096;
        t_check(fabs(a_of(&r) - 1.3688879454113936) < 1e-14, "a is %.17g", a_of(&r));
        r.mscale = r.mscale_all_dim = 0.707;
        t_check(a_of(&r) == 1, "a is %.17g", a_of(&r));
    }
    if (t_case("longrope_switches_after_the_original_length")) {
        for (int i = 0; i < 64; i++)
            factors[0][i] = 1, factors[1][i] = 4;
        r.type = QKV_ROPE_LONGROPE;
        r.short_factor = factors[0];
        r.long_factor = factors[1];
        r.n_factors = 64;
        for (int64_t length = 4096; length <= 4097; length++) {
            qkv_rope_frequencies(&r, length, grown, NULL, NULL, 0);
            t_check(grown[0] == (length > 4096 ? 0.25 : 1), "f[0] is %g", grown[0]);
        }
    }
    if (t_case("names")) {
        t_check(strcmp(qkv_rope_type_name(QKV_ROPE_NONE), "none") == 0, "none");
        t_check(strcmp(qkv_rope_type_name(QKV_ROPE_LLAMA3), "llama3") == 0, "llama3");
        t_check(strcmp(qkv_rope_type_name(9), "?") == 0 && *qkv_rope_type_name(-1) == '?', "?");
    }
}

/* ---- tables ------------------------------------------------------------------------------- */

static int64_t random_position(t_rng *rng)
{
    const int64_t p = t_below(rng, (int64_t)1 << t_below(rng, 22));
    return t_chance(rng, 20) ? -p : p;
}

static void check_table(const qkv_rope *r, const int64_t *positions, int64_t n, qkv_type type,
                        const void *c, const void *s)
{
    const double half_unit = type == QKV_F64    ? 0x1p-50
                             : type == QKV_F32  ? 0x1.0001p-25
                             : type == QKV_F16  ? 0x1.001p-12
                                                : 0x1.001p-9;
    const int pairs = oracle_rotary_dim(r) / 2;
    int64_t length = 0;
    for (int64_t t = 0; t < n; t++)
        length = positions[t] >= length ? positions[t] + 1 : length;
    for (int64_t t = 0; t < n; t++)
        for (int i = 0; i < pairs; i++) {
            const long double a = oracle_factor(r), f = oracle_frequency(r, length, i);
            const long double angle = positions[t] * f;
            const long double slack = 1e-15L + oracle_slack(r) * fabsl(angle);
            const long double want[2] = {a * cosl(angle), a * sinl(angle)};
            const void *arrays[] = {c, s};
            for (int k = 0; k < 2; k++) {
                double have;
                const char *at = arrays[k];
                qkv_convert(&have, QKV_F64, at + (t * pairs + i) * qkv_type_size(type), type, 1);
                /* f16 has an absolute unit below 2^-14. */
                const long double unit = 2 * half_unit * fmaxl(fabsl(want[k]), 0x1p-14L);
                t_check(fabsl(have - want[k]) <= unit + a * slack,
                        "%s of position %lld, pair %d is %.17g, not %.17Lg", k ? "sin" : "cos",
                        (long long)positions[t], i, have, want[k]);
            }
        }
}

void test_tables(void)
{
    static const qkv_type types[] = {QKV_F64, QKV_F32, QKV_F16, QKV_BF16};
    t_rng rng = t_rng_of(t_seed() + 1);

    for (int k = 0; k < t_times(120); k++) {
        double factors[2][N_FACTORS];
        int64_t positions[9];
        char text[256];
        qkv_rope r;
        random_rope(&rng, &r, factors);
        const qkv_type type = types[k % 4];
        const int64_t n = t_below(&rng, 10);
        for (int64_t t = 0; t < n; t++)
            positions[t] = random_position(&rng);
        if (!t_case("%s_%s_%d", qkv_rope_type_name(r.type), qkv_type_name(type), k))
            continue;
        const size_t bytes = qkv_rope_table_bytes(&r, n, type);
        t_check(bytes == (size_t)(n * qkv_rope_pairs(&r)) * qkv_type_size(type), "%zu bytes",
                bytes);
        void *c = t_alloc(bytes, qkv_type_size(type), T_END, 0x5a);
        void *s = t_alloc(bytes, qkv_type_size(type), T_START, 0x5a);
        const qkv_status status =
            qkv_rope_table(&r, QKV_ROPE_AUTO, positions, n, type, c, s, text, sizeof text);
        t_check(status == QKV_OK, "%s", text);
        check_table(&r, positions, n, type, c, s);
    }
}

/*
 * QKV_ROPE_F32: what f32 arithmetic makes of it, step by step, and how far that is off: at position
 * 100,000 half a unit of the last place of the angle is 2^-8 rad, and half of one of the frequency
 * up to as much.
 */
void test_tables_f32(void)
{
    qkv_rope r;
    float c[2][64], s[2][64];
    double f[64], worst = 0;

    qkv_rope_init(&r);
    r.head_dim = 128;
    if (!t_case("f32"))
        return;
    const int64_t positions[] = {0, 1, 77, 99991, 16777217};
    for (int k = 0; k < 5; k++) {
        for (int precision = 0; precision < 2; precision++) {
            r.precision = precision;
            qkv_rope_table(&r, 0, &positions[k], 1, QKV_F32, c[precision], s[precision], NULL, 0);
        }
        qkv_rope_frequencies(&r, 0, f, NULL, NULL, 0);
        for (int i = 0; i < 64; i++) {
            const float power = (float)pow(10000, (double)((float)(2 * i) / 128.0f));
            const float frequency = 1.0f / power, angle = (float)positions[k] * frequency;
            t_check((float)f[i] == frequency && f[i] == frequency, "f[%d] is %.9g", i, f[i]);
            t_check(c[1][i] == (float)cos((double)angle) && s[1][i] == (float)sin((double)angle),
                    "position %lld, pair %d", (long long)positions[k], i);
            if (k == 3)
                worst = fmax(worst, fabs((double)c[1][i] - (double)c[0][i]));
        }
    }
    t_check(worst > 1e-3 && worst < 8e-3, "at 99,991 f32 is off by %g", worst);
    r.attention_factor = 1.1;
    const int64_t p = 5;
    qkv_rope_table(&r, 0, &p, 1, QKV_F32, c[0], s[0], NULL, 0);
    t_check(c[0][0] == (float)cos(5.0) * 1.1f, "a is not multiplied in f32");
}
