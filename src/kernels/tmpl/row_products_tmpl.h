/*
 * tmpl/row_products_tmpl.h - the two products for a few queries, channels in lanes.
 *
 *     s[row][j]  = sum_c q[row][c] K[j][c]                       rows_dots
 *     o[row][c]  = a[row] o[row][c] + sum_j p[row][j] V[j][c]    rows_sums
 *
 * With one query a head (decoding) the tiles of products_tmpl.h would leave most lanes empty.  Here
 * a vector holds channels as they lie in memory, each vector of K or V is loaded (and widened)
 * once and meets all rows of the group, so keys and values stream past once and the memory
 * bandwidth is the limit:
 *
 *     4 rows, 4 keys      4 loads of K and 4 of q for 16 FMAs
 *     4 rows, 4 vectors   4 loads of V and 4 broadcasts for 16 FMAs
 *
 * More rows than MOST_ROWS are taken in passes of about as many each; a pass costs the loads of K
 * and V again.  With six rows at most in place of four (32 registers), five rows of f32 take 6.8 ms
 * instead of 8.2, nine 10.1 instead of 11.7 (16,384 keys, 8 heads, from memory).
 *
 * Lines of K and V are asked for AHEAD keys before they are used, into the second cache level:
 * hardware prefetchers stop at page ends, and a row of 512 bytes reaches one every eight keys.
 * Measured on Zen 4 (GB/s of 21 that plain reading gives, f32, D = 128, one thread, with 4 heads a
 * group / 1): into the first level, any distance from 4 to 64 keys 10 / 14; without prefetching
 * 11 / 17; into the second level, 8 keys ahead 14 / 18, 16 to 64 keys 17 / 19.
 *
 * Keys and values are given as pointers to their rows, with AHEAD more to look forward to: a row of
 * pages costs one load more than a row of a tensor, and nothing in bits.
 *
 * Parameters, all undefined again at the end:
 *     ELEMENT      element type of K or V          NAME(x)    x with a suffix for it
 *     LOAD(p)      VL elements as a vector         LOAD_N(p, n)  the first n, 0 elsewhere
 *     HELD         defined if row_held_tmpl.h has a better order for some sizes
 * Included once for each element type, after one simd/ header and products_tmpl.h.
 */

INLINE void NAME(prefetch_row)(const ELEMENT *row, int d)
{
    const char *line = (const char *)row;
    for (int at = 0; at < d * (int)sizeof *row; at += 64)
        __builtin_prefetch(line + at, 0, 2);
}

/* KEYS keys against ROWS rows of q, which are padded with zeros to whole vectors. */
INLINE void NAME(dots_tile)(const void *const *keys, const real *q, int padded, int d, real *s,
                            const int KEYS, const int ROWS)
{
    vf acc[MOST_ROWS][KEY_TILE];
    const ELEMENT *k[KEY_TILE];

    UNROLL for (int r = 0; r < KEYS; r++) k[r] = keys[r];
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int r = 0; r < KEY_TILE; r++) acc[g][r] = v_zero();
    }
    /* One row after the other: memory is read in the order in which it lies. */
    UNROLL for (int r = 0; r < KEYS; r++)
    {
        int c = 0;
        for (; c + VL <= d; c += VL) {
            const vf x = LOAD(k[r] + c);
            UNROLL for (int g = 0; g < ROWS; g++)
                acc[g][r] = v_fma(x, v_load(q + g * padded + c), acc[g][r]);
        }
        if (c < d) {
            const vf x = LOAD_N(k[r] + c, d - c);
            UNROLL for (int g = 0; g < ROWS; g++)
                acc[g][r] = v_fma(x, v_load(q + g * padded + c), acc[g][r]);
        }
    }
    /* Rows of s have room for whole groups of keys. */
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        v_sum4(acc[g], s + g * BLOCK);
        if (KEYS > 4)
            v_sum4(acc[g] + 4, s + g * BLOCK + 4);
    }
}

INLINE void NAME(dots_rows)(const void *const *k, int n, const real *q, int padded, int d, real *s,
                            const int KEYS, const int ROWS)
{
    int j = 0;
    for (; j + KEYS <= n; j += KEYS) {
        UNROLL for (int r = 0; r < KEYS; r++) NAME(prefetch_row)(k[j + r + AHEAD], d);
        NAME(dots_tile)(k + j, q, padded, d, s + j, KEYS, ROWS);
    }
    for (; j < n; j++) {
        real one[MOST_ROWS * BLOCK];
        NAME(dots_tile)(k + j, q, padded, d, one, 1, ROWS);
        for (int g = 0; g < ROWS; g++)
            s[g * BLOCK + j] = one[g * BLOCK];
    }
}

/* VECS vectors of channels from `at` on, for ROWS rows; o is padded to whole vectors, V is not: the last
 * `rest` channels (0: none) are loaded alone. */
INLINE void NAME(sums_tile)(const void *const *v, int at, int n, const real *p, const real *a,
                            real *o, int padded, int rest, const int VECS, const int ROWS)
{
    vf acc[MOST_ROWS][VEC_TILE];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < VECS; z++) acc[g][z] = v_zero();
    }
    for (int j = 0; j < n; j++) {
        const ELEMENT *row = (const ELEMENT *)v[j] + at;
        vf x[VEC_TILE];
        NAME(prefetch_row)((const ELEMENT *)v[j + AHEAD] + at, rest ? rest : VECS * VL);
        UNROLL for (int z = 0; z < VECS; z++)
            x[z] = rest ? LOAD_N(row, rest) : LOAD(row + z * VL);
        UNROLL for (int g = 0; g < ROWS; g++)
        {
            const vf w = v_set1(p[g * BLOCK + j]);
            UNROLL for (int z = 0; z < VECS; z++) acc[g][z] = v_fma(x[z], w, acc[g][z]);
        }
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < VECS; z++)
        {
            real *to = o + g * padded + at + z * VL;
            v_store(to, v_fma(v_set1(a[g]), v_load(to), acc[g][z]));
        }
    }
}

/* A tile has room for part of the channels only, so SUMS_KEYS keys at a time: what one pass leaves of
 * their rows, the next finds near. */
INLINE void NAME(sums_rows)(const void *const *v, int n, const real *p, const real *a, int dv,
                            real *o, int padded, const int VECS, const int ROWS)
{
    static const real ones[6] = {1, 1, 1, 1, 1, 1};

    for (int j = 0; j < n; j += SUMS_KEYS) {
        const int m = n - j < SUMS_KEYS ? n - j : SUMS_KEYS;
        const real *factor = j > 0 ? ones : a;
        int c = 0;
        for (; c + VECS * VL <= dv; c += VECS * VL)
            NAME(sums_tile)(v + j, c, m, p + j, factor, o, padded, 0, VECS, ROWS);
        for (; c + VL <= dv; c += VL)
            NAME(sums_tile)(v + j, c, m, p + j, factor, o, padded, 0, 1, ROWS);
        if (c < dv)
            NAME(sums_tile)(v + j, c, m, p + j, factor, o, padded, dv - c, 1, ROWS);
    }
}

/* All rows; a second pass finds the block in the cache. */
static void NAME(rows_dots)(const void *const *k, int n, const real *q, int padded, int d, real *s,
                            int rows)
{
    for (int now; rows > 0; rows -= now, q += now * padded, s += now * BLOCK) {
        now = rows_of_pass(rows);
        switch (now) {
        case 1:
            NAME(dots_rows)(k, n, q, padded, d, s, KEY_TILE, 1);
            break;
        case 2:
            NAME(dots_rows)(k, n, q, padded, d, s, 4, 2);
            break;
        case 3:
            NAME(dots_rows)(k, n, q, padded, d, s, 4, 3);
            break;
        case 4:
            NAME(dots_rows)(k, n, q, padded, d, s, 4, 4);
            break;
#if VL == 16
        case 5:
            NAME(dots_rows)(k, n, q, padded, d, s, 4, 5);
            break;
        default:
            NAME(dots_rows)(k, n, q, padded, d, s, 4, 6);
            break;
#endif
        }
    }
}

static void NAME(rows_sums)(const void *const *v, int n, const real *p, const real *a, int dv,
                            real *o, int padded, int rows)
{
    for (int now; rows > 0; rows -= now, p += now * BLOCK, a += now, o += now * padded) {
        now = rows_of_pass(rows);
        switch (now) {
        case 1:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, VEC_TILE, 1);
            break;
        case 2:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, 4, 2);
            break;
        case 3:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, 4, 3);
            break;
        case 4:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, VEC_TILE / 2, 4);
            break;
#if VL == 16
        case 5:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, 4, 5);
            break;
        default:
            NAME(sums_rows)(v, n, p, a, dv, o, padded, 4, 6);
            break;
#endif
        }
    }
}

/* Is every value finite?  x times 0 is NaN if not. */
static int NAME(rows_finite)(const void *const *v, int n, int dv)
{
    vf probe = v_zero();

    for (int j = 0; j < n; j++) {
        const ELEMENT *row = v[j];
        int c = 0;
        for (; c + VL <= dv; c += VL)
            probe = v_fma(LOAD(row + c), v_zero(), probe);
        if (c < dv)
            probe = v_fma(LOAD_N(row + c, dv - c), v_zero(), probe);
    }
    return !has_nan(probe);
}

#if defined(HELD)
#include "kernels/tmpl/row_held_tmpl.h"

static const row_products NAME(products) = {NAME(held_rows_dots), NAME(held_rows_sums),
                                            NAME(rows_finite)};
#else
static const row_products NAME(products) = {NAME(rows_dots), NAME(rows_sums), NAME(rows_finite)};
#endif

#undef ELEMENT
#undef NAME
#undef LOAD
#undef LOAD_N
#undef HELD
