/* same_bits.c - ways to compute one thing that must agree in every bit, and what may not change. */
#include <math.h>
#include <string.h>

#include "rope_test.h"

enum { B = 3, H = 4, T = 37, D = 64, N = B * H * T * D };

static float x[N], y[N], z[N];
static int64_t positions[B * T];

static void fill(uint64_t seed)
{
    t_rng rng = t_rng_of(seed);
    for (int i = 0; i < N; i++)
        x[i] = (float)t_normal(&rng);
    for (int i = 0; i < B * T; i++)
        positions[i] = t_below(&rng, 3000);
}

static void setup(qkv_rope *r, qkv_rope_args *a, int32_t type)
{
    qkv_rope_init(r);
    r->type = type;
    r->head_dim = D;
    r->factor = 4;
    r->max_positions = 100;
    qkv_rope_args_init(a);
    a->n_seqs = B;
    a->n_heads = H;
    a->n_tokens = T;
    qkv_rope_args_dense(a, r, QKV_F32, QKV_BHTD);
    a->x = x;
    a->y = y;
    a->positions = positions;
    a->position_stride[0] = T;
}

static void apply(const qkv_rope *r, const qkv_rope_args *a, const qkv_parallel *parallel)
{
    char text[256];
    const qkv_status status = qkv_rope_apply(r, a, parallel, text, sizeof text);
    t_check(status == QKV_OK, "%s", text);
}

static void check_same(const char *what)
{
    for (int i = 0; i < N; i++)
        if (memcmp(&y[i], &z[i], sizeof *y) != 0) {
            t_fail("%s: element %d is %.9g and %.9g", what, i, (double)y[i], (double)z[i]);
            return;
        }
}

static void on_threads(void)
{
    qkv_pool *pool;
    qkv_rope r;
    qkv_rope_args a;

    qkv_pool_create(3, NULL, &pool);
    const qkv_parallel parallel = qkv_pool_parallel(pool);
    for (int32_t type = QKV_ROPE_DEFAULT; type <= QKV_ROPE_DYNAMIC; type++)
        for (int64_t length = QKV_ROPE_AUTO; length < 5000; length += 4000) {
            setup(&r, &a, type);
            a.seq_len = length;
            apply(&r, &a, NULL);
            a.y = z;
            memset(z, 0, sizeof z);
            apply(&r, &a, &parallel);
            check_same(qkv_rope_type_name(type));
        }
    qkv_pool_destroy(pool);
}

/* Each sequence's own length decides, whatever its neighbours' are. */
static void alone(void)
{
    qkv_rope r;
    qkv_rope_args a;

    setup(&r, &a, QKV_ROPE_DYNAMIC);
    apply(&r, &a, NULL);
    a.n_seqs = 1;
    for (int64_t b = 0; b < B; b++) {
        a.x = x + b * H * T * D;
        a.y = z + b * H * T * D;
        a.positions = positions + b * T;
        apply(&r, &a, NULL);
    }
    check_same("a sequence alone");
}

static void with_a_table(int inverse, int by_position)
{
    static float c[3000 * D / 2], s[3000 * D / 2];
    static int64_t all[3000];
    qkv_rope r;
    qkv_rope_args a;

    setup(&r, &a, QKV_ROPE_DYNAMIC);
    a.seq_len = 3000;
    a.inverse = inverse;
    apply(&r, &a, NULL);
    for (int64_t p = 0; p < 3000; p++)
        all[p] = p;
    a.y = z;
    a.cos = c;
    a.sin = s;
    a.table_rows = by_position ? 3000 : T;
    qkv_rope_table(&r, 3000, by_position ? all : positions, by_position ? 3000 : B * T, QKV_F32, c,
                   s, NULL, 0);
    if (!by_position) {
        a.positions = NULL;
        a.table_stride[0] = T * D / 2;
    }
    apply(&r, &a, NULL);
    check_same("a table");
}

/* Interleaved channels are half-split ones in another order. */
static void permuted(void)
{
    static float turned[N];
    qkv_rope r;
    qkv_rope_args a;

    setup(&r, &a, QKV_ROPE_LINEAR);
    apply(&r, &a, NULL);
    for (int i = 0; i < N; i++) {
        const int c = i % D;
        turned[i - c + (c < D / 2 ? 2 * c : 2 * c - D + 1)] = x[i];
    }
    a.x = a.y = turned;
    r.pairing = QKV_ROPE_INTERLEAVED;
    apply(&r, &a, NULL);
    for (int i = 0; i < N; i++) {
        const int c = i % D;
        z[i] = turned[i - c + (c < D / 2 ? 2 * c : 2 * c - D + 1)];
    }
    check_same("permuted");
}

void test_same_bits(void)
{
    fill(t_seed() + 3);
    if (t_case("threads"))
        on_threads();
    if (t_case("alone"))
        alone();
    for (int k = 0; k < 4; k++)
        if (t_case("table_%s_by_%s", k & 1 ? "inverse" : "forward", k & 2 ? "position" : "row"))
            with_a_table(k & 1, k & 2);
    if (t_case("pairings"))
        permuted();
}

/* ---- gradient ----------------------------------------------------------------------------- */

/* <dy, R x> = <R^T dy, x>, and R^T R = a^2. */
void test_gradient(void)
{
    static double v[N], out[N], dy[N], back[N], again[N];
    qkv_rope r;
    qkv_rope_args a;
    t_rng rng = t_rng_of(t_seed() + 4);

    fill(t_seed() + 4);
    for (int k = 0; k < 4; k++) {
        if (!t_case("%s_%s", k & 1 ? "interleaved" : "half", k & 2 ? "partial" : "whole"))
            continue;
        setup(&r, &a, QKV_ROPE_DEFAULT);
        r.pairing = k & 1;
        r.rotary_dim = k & 2 ? 16 : QKV_ROPE_AUTO;
        r.rotary_offset = k & 2 ? 4 : 0;
        r.attention_factor = 1.25;
        qkv_rope_args_dense(&a, &r, QKV_F64, QKV_BTHD);
        for (int i = 0; i < N; i++) {
            v[i] = t_normal(&rng);
            dy[i] = t_normal(&rng);
        }
        a.x = v, a.y = out;
        apply(&r, &a, NULL);
        a.inverse = 1;
        a.x = dy, a.y = back;
        apply(&r, &a, NULL);
        a.x = out, a.y = again;
        apply(&r, &a, NULL);
        double left = 0, right = 0, size = 0, worst = 0;
        for (int i = 0; i < N; i++) {
            const int turns = !(k & 2) || (i % D >= 4 && i % D < 20);
            left += dy[i] * out[i];
            right += back[i] * v[i];
            size += fabs(dy[i] * out[i]);
            worst = fmax(worst, fabs(again[i] - (turns ? 1.25 * 1.25 : 1) * v[i]));
        }
        t_check(fabs(left - right) < 1e-13 * size, "<dy, R x> %.17g, <R^T dy, x> %.17g", left,
                right);
        t_check(worst < 1e-14, "R^T R is off by %g", worst);
    }
}

/* ---- what does not turn ------------------------------------------------------------------- */

void test_untouched(void)
{
    qkv_rope r;
    qkv_rope_args a;
    uint16_t row[D], out[D];
    uint32_t wide[D];

    for (int k = 0; k < 6; k++) {
        if (!t_case("nan_%s%s_%d", k % 3 == 2 ? "pair" : "beside", k >= 3 ? "_in_place" : "",
                    k % 3))
            continue;
        const int bad = k % 3 == 0 ? 2 : k % 3 == 1 ? 50 : 5; /* before, after, inside */
        setup(&r, &a, QKV_ROPE_DEFAULT);
        r.rotary_offset = 4;
        r.rotary_dim = 32;
        a.n_seqs = a.n_heads = 1;
        a.n_tokens = 1;
        for (int i = 0; i < D; i++)
            row[i] = out[i] = (uint16_t)(0x3f80 + i);
        row[bad] = 0x7fa5; /* a signalling NaN with a payload */
        qkv_rope_args_dense(&a, &r, QKV_BF16, QKV_BHTD);
        a.x = row;
        a.y = k >= 3 ? row : out;
        apply(&r, &a, NULL);
        const uint16_t *got = a.y;
        for (int i = 0; i < D; i++) {
            const int is_nan = (got[i] & 0x7fff) > 0x7f80;
            t_check(is_nan == (i == bad || (k % 3 == 2 && i == bad + 16)), "channel %d is %04x", i,
                    got[i]);
        }
        t_check(k % 3 == 2 || got[bad] == 0x7fa5, "its bits are %04x", got[bad]);
    }
    if (t_case("proportional_pairs_that_do_not_turn")) {
        setup(&r, &a, QKV_ROPE_PROPORTIONAL);
        r.rotary_dim = 16;
        a.n_seqs = a.n_heads = 1;
        a.n_tokens = 1;
        for (int i = 0; i < D; i++)
            wide[i] = (i & 31) < 8 ? 0x3f800000u : 0x7fa00000u + (uint32_t)i;
        qkv_rope_args_dense(&a, &r, QKV_F32, QKV_BHTD);
        a.x = a.y = wide;
        apply(&r, &a, NULL);
        for (int i = 0; i < D; i++)
            t_check((i & 31) < 8 ? wide[i] < 0x40000000u || wide[i] > 0x80000000u
                                 : wide[i] == 0x7fa00000u + (uint32_t)i,
                    "channel %d is %08x", i, wide[i]);
    }
    if (t_case("none_copies")) {
        setup(&r, &a, QKV_ROPE_NONE);
        a.positions = NULL;
        apply(&r, &a, NULL);
        memcpy(z, x, sizeof z);
        check_same("none");
    }
}

void test_empty(void)
{
    qkv_rope r;
    qkv_rope_args a;

    for (int k = 0; k < 3; k++) {
        if (!t_case("%s", k == 0 ? "sequences" : k == 1 ? "heads" : "tokens"))
            continue;
        setup(&r, &a, QKV_ROPE_DYNAMIC);
        *(k == 0 ? &a.n_seqs : &a.n_heads) = k < 2 ? 0 : H;
        a.n_tokens = k == 2 ? 0 : T;
        a.x = a.y = NULL;
        apply(&r, &a, NULL);
    }
    if (t_case("a_table_of_nothing")) {
        setup(&r, &a, QKV_ROPE_DEFAULT);
        t_check(qkv_rope_table(&r, 0, NULL, 0, QKV_F32, NULL, NULL, NULL, 0) == QKV_OK, "refused");
        t_check(qkv_rope_table_bytes(&r, 0, QKV_F32) == 0, "bytes");
        t_check(qkv_rope_table_bytes(&r, INT64_MAX, QKV_F64) == 0, "overflow");
        t_check(qkv_rope_table_bytes(&r, 1, QKV_I8) == 0, "type");
    }
}
