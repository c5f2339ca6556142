/*
 * tmpl/row_pairs_tmpl.h - the two products for a few queries on pairs of bf16.
 *
 * As row_products_tmpl.h, with half the multiply-adds: four heads of a group on bf16 keys are compute bound in
 * f32 (8 operations a byte against a core's 5 or so), and are not with dot products.
 *
 *     scores    pairs of channels, as K lies         4 rows, a key: 1 + 4 loads for 4 dot products
 *     values    pairs of keys: two rows of V interleaved, 2 shuffles for 2 x rows dot products
 *
 * Four keys side by side need fewer loads of q (37 instead of 33 GB/s from the second cache level), but
 * rows read one after the other are prefetched better: 19 instead of 18 GB/s from memory.
 *
 * Parameters: none.  Needs a simd/ header with v_dot, and the constants of decode_tmpl.h.
 */

enum { PAIR_VECS = 4 }; /* vectors of channels in a tile of values */

static inline void prefetch_line_row(const uint16_t *row, int d)
{
    for (int at = 0; at < d; at += 32)
        __builtin_prefetch(row + at, 0, 2);
}

INLINE void pair_dots_tile(const void *const *keys, const real *q, int padded, int d, real *s,
                           const int KEYS, const int ROWS)
{
    vf acc[MOST_ROWS][KEY_TILE];
    const uint16_t *k[KEY_TILE];

    UNROLL for (int r = 0; r < KEYS; r++) k[r] = keys[r];
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int r = 0; r < KEY_TILE; r++) acc[g][r] = v_zero();
    }
    /* One row after the other: memory is read in the order in which it lies. */
    UNROLL for (int r = 0; r < KEYS; r++)
    {
        int c = 0;
        for (; c + 2 * VL <= d; c += 2 * VL) {
            const vf x = v_load_pairs(k[r] + c);
            UNROLL for (int g = 0; g < ROWS; g++)
                acc[g][r] = v_dot(x, v_load(q + g * padded + c / 2), acc[g][r]);
        }
        if (c < d) {
            const vf x = v_load_pairs_n(k[r] + c, d - c);
            UNROLL for (int g = 0; g < ROWS; g++)
                acc[g][r] = v_dot(x, v_load(q + g * padded + c / 2), acc[g][r]);
        }
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        v_sum4(acc[g], s + g * BLOCK);
        if (KEYS > 4)
            v_sum4(acc[g] + 4, s + g * BLOCK + 4);
    }
}

INLINE void pair_dots_rows(const void *const *k, int n, const real *q, int padded, int d, real *s,
                           const int KEYS, const int ROWS)
{
    int j = 0;
    for (; j + KEYS <= n; j += KEYS) {
        UNROLL for (int r = 0; r < KEYS; r++) prefetch_line_row(k[j + r + AHEAD], d);
        pair_dots_tile(k + j, q, padded, d, s + j, KEYS, ROWS);
    }
    for (; j < n; j++) {
        real one[MOST_ROWS * BLOCK];
        pair_dots_tile(k + j, q, padded, d, one, 1, ROWS);
        for (int g = 0; g < ROWS; g++)
            s[g * BLOCK + j] = one[g * BLOCK];
    }
}

static void pair_dots(const void *const *k, int n, const real *q, int padded, int d, real *s,
                      int rows)
{
    for (int now; rows > 0; rows -= now, q += now * padded, s += now * BLOCK) {
        now = rows_of_pass(rows);
        switch (now) {
        case 1:
            pair_dots_rows(k, n, q, padded, d, s, KEY_TILE, 1);
            break;
        case 2:
            pair_dots_rows(k, n, q, padded, d, s, 4, 2);
            break;
        case 3:
            pair_dots_rows(k, n, q, padded, d, s, 4, 3);
            break;
        case 4:
            pair_dots_rows(k, n, q, padded, d, s, 4, 4);
            break;
#if VL == 16
        case 5:
            pair_dots_rows(k, n, q, padded, d, s, 4, 5);
            break;
        default:
            pair_dots_rows(k, n, q, padded, d, s, 4, 6);
            break;
#endif
        }
    }
}

/* VECS / 2 times 2 VL channels from `at` on; p holds pairs of weights, a row of them BLOCK / 2. */
INLINE void pair_sums_tile(const void *const *v, int at, int n, const real *p, const real *a,
                           real *o, int padded, const int VECS, const int ROWS)
{
    vf acc[MOST_ROWS][PAIR_VECS];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < VECS; z++) acc[g][z] = v_zero();
    }
    for (int j = 0; j < n; j += 2) {
        const uint16_t *row = (const uint16_t *)v[j] + at;
        const uint16_t *next = (const uint16_t *)v[j + 1] + at;
        vf x[PAIR_VECS];
        prefetch_line_row((const uint16_t *)v[j + AHEAD] + at, VECS * VL);
        prefetch_line_row((const uint16_t *)v[j + AHEAD + 1] + at, VECS * VL);
        UNROLL for (int z = 0; z < VECS; z += 2)
            v_zip_rows(row + z * VL, next + z * VL, &x[z], &x[z + 1]);
        UNROLL for (int g = 0; g < ROWS; g++)
        {
            const vf w = v_set1(p[g * (BLOCK / 2) + j / 2]);
            UNROLL for (int z = 0; z < VECS; z++) acc[g][z] = v_dot(x[z], w, acc[g][z]);
        }
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < VECS; z += 2) v_unzip(&acc[g][z], &acc[g][z + 1]);
        UNROLL for (int z = 0; z < VECS; z++)
        {
            real *to = o + g * padded + at + z * VL;
            v_store(to, v_fma(v_set1(a[g]), v_load(to), acc[g][z]));
        }
    }
}

/* The last `rest` < 2 VL channels, a vector of them at a time. */
INLINE void pair_sums_rest(const void *const *v, int at, int n, const real *p, const real *a,
                           real *o, int padded, int rest, const int ROWS)
{
    vf acc[MOST_ROWS];
    UNROLL for (int g = 0; g < ROWS; g++) acc[g] = v_zero();
    for (int j = 0; j < n; j += 2) {
        const uint16_t *row = (const uint16_t *)v[j] + at, *next = (const uint16_t *)v[j + 1] + at;
        const vf x = rest < VL ? v_pair_rows_n(row, next, rest) : v_pair_rows(row, next);
        UNROLL for (int g = 0; g < ROWS; g++)
            acc[g] = v_dot(x, v_set1(p[g * (BLOCK / 2) + j / 2]), acc[g]);
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        real *to = o + g * padded + at;
        v_store(to, v_fma(v_set1(a[g]), v_load(to), acc[g]));
    }
}

INLINE void pair_sums_rows(const void *const *v, int n, const real *p, const real *a, int dv,
                           real *o, int padded, const int ROWS)
{
    int c = 0;
    for (; c + PAIR_VECS * VL <= dv; c += PAIR_VECS * VL)
        pair_sums_tile(v, c, n, p, a, o, padded, PAIR_VECS, ROWS);
    for (; c + 2 * VL <= dv; c += 2 * VL)
        pair_sums_tile(v, c, n, p, a, o, padded, 2, ROWS);
    for (; c < dv; c += VL)
        pair_sums_rest(v, c, n, p, a, o, padded, dv - c, ROWS);
}

/* Weights are rounded to bf16 here, in pairs of keys; an odd last one is paired with 0. */
static void round_weights(const real *s, int n, int rows, real *p)
{
    for (int g = 0; g < rows; g++) {
        uint16_t *to = (uint16_t *)(void *)(p + g * (BLOCK / 2));
        for (int j = 0; j < n; j += VL)
            v_narrow_bf16(to + j, v_load(s + g * BLOCK + j));
        if (n % 2)
            to[n] = 0;
    }
}

static void pair_sums(const void *const *v, int n, const real *s, const real *a, int dv, real *o,
                      int padded, int rows)
{
    real p[MOST_ROWS * BLOCK / 2 + VL];

    for (int now; rows > 0; rows -= now, s += now * BLOCK, a += now, o += now * padded) {
        now = rows_of_pass(rows);
        round_weights(s, n, now, p);
        switch (now) {
        case 1:
            pair_sums_rows(v, n, p, a, dv, o, padded, 1);
            break;
        case 2:
            pair_sums_rows(v, n, p, a, dv, o, padded, 2);
            break;
        case 3:
            pair_sums_rows(v, n, p, a, dv, o, padded, 3);
            break;
        case 4:
            pair_sums_rows(v, n, p, a, dv, o, padded, 4);
            break;
#if VL == 16
        case 5:
            pair_sums_rows(v, n, p, a, dv, o, padded, 5);
            break;
        default:
            pair_sums_rows(v, n, p, a, dv, o, padded, 6);
            break;
#endif
        }
    }
}

static int pair_finite(const void *const *v, int n, int dv)
{
    int odd = 0;
    for (int j = 0; j < n; j++)
        for (int c = 0; c < dv; c++)
            odd |= (((const uint16_t *)v[j])[c] & 0x7f80) == 0x7f80;
    return !odd;
}

#if defined(QKV_SETTLES)
#include "kernels/tmpl/row_pairs_held_tmpl.h"

static const row_products products_bf16 = {held_rows_pair_dots, held_rows_pair_sums, pair_finite};
#else
static const row_products products_bf16 = {pair_dots, pair_sums, pair_finite};
#endif
