/*
 * tmpl/nibble_pairs_tmpl.h - the two products for a few queries on codes of 4 bits.
 *
 * As code_pairs_tmpl.h, for rows that stand for min + c step with one step and min a row.  Four bits
 * are bf16 without a table: v_nibble_pairs makes 1 + c / 16 of c, exactly, and what the 1 adds is
 * taken off the finished sums.
 *
 *     sum q k = min sum(q) + 16 step (dot - sum(q))                         dot = sum q (1 + c / 16)
 *     sum p v = sum p (min + 8 step) + 16 (dot - 1.5 sum(w))     w = p step in bf16, dot = sum w (1 + c / 16)
 *
 * The second is split at the middle of the codes, so that the rounding of w meets at most 8 steps
 * and not 15.  The sum of w is that of the rounded numbers, so nothing of them is left over.
 *
 *     128 codes of K, 4 rows      8 instructions and 16 dot products
 *     2 x 64 codes of V, 4 rows   9 instructions and 16 dot products
 *
 * On Zen 4 those 8 or 9 issue beside the dot products (16.7 cycles measured for the second).
 *
 * Parameters: none.  Needs a simd/ header with v_nibble_pairs, and code_pairs_tmpl.h.
 */

enum { NIBBLES = 8 * VL /* codes of one load */, U4_CENTER = 8 };

/* The query in the order in which v_nibble_pairs leaves channels, and its sum. */
static real order_query_u4(real *q, int padded)
{
    uint16_t *at = (uint16_t *)(void *)q, mixed[NIBBLES];
    real sum = 0;

    for (int c = 0; c < 2 * padded; c += NIBBLES) {
        for (int i = 0; i < NIBBLES; i++) {
            mixed[i] = at[c + i % (NIBBLES / 4) * 4 + i / (NIBBLES / 4)];
            sum += qkv_f32_of_bf16(mixed[i]);
        }
        memcpy(at + c, mixed, sizeof mixed);
    }
    return sum;
}

/* Codes c .. c+n-1 of keys r and, if KEYS is 2, r + 1. */
INLINE void u4_dots_step(const void *const *k, int c, int n, const real *q, int padded,
                         vf acc[ROW_TILE][4], const int r, const int KEYS, const int ROWS)
{
    vf x[2][4];

    UNROLL for (int i = 0; i < KEYS; i++)
        v_nibble_pairs((const uint8_t *)k[r + i] + c / 2, n, x[i]);
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < 4; z++)
        {
            const vf y = v_load(q + g * padded + c / 2 + z * VL);
            UNROLL for (int i = 0; i < KEYS; i++) acc[g][r + i] = v_dot(x[i][z], y, acc[g][r + i]);
        }
    }
}

/* KEYS (4 or 1) keys. */
INLINE void u4_dots_tile(const void *const *k, const real *q, int padded, int d, real *s,
                         const int KEYS, const int ROWS)
{
    vf acc[ROW_TILE][4];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int r = 0; r < 4; r++) acc[g][r] = v_zero();
    }
    UNROLL for (int r = 0; r < KEYS; r += 2)
    {
        int c = 0;
        NO_UNROLL for (; c + NIBBLES <= d; c += NIBBLES)
            u4_dots_step(k, c, NIBBLES, q, padded, acc, r, KEYS < 2 ? 1 : 2, ROWS);
        if (c < d)
            u4_dots_step(k, c, d - c, q, padded, acc, r, KEYS < 2 ? 1 : 2, ROWS);
    }
    UNROLL for (int g = 0; g < ROWS; g++) v_sum4(acc[g], s + g * BLOCK);
}

INLINE void u4_dots_rows(const void *const *k, int n, const real *q, int padded, int d, real *s,
                         const int ROWS)
{
    int j = 0;
    for (; j + 4 <= n; j += 4) {
        UNROLL for (int r = 0; r < 4; r++) prefetch_codes(k[j + r + CODE_AHEAD], (d + 1) / 2);
        u4_dots_tile(k + j, q, padded, d, s + j, 4, ROWS);
    }
    for (; j < n; j++) {
        real one[ROW_TILE * BLOCK];
        u4_dots_tile(k + j, q, padded, d, one, 1, ROWS);
        for (int g = 0; g < ROWS; g++)
            s[g * BLOCK + j] = one[g * BLOCK];
    }
}

static void u4_dots(const void *const *k, int n, const real *q, int padded, int d, real *s,
                    int rows)
{
    for (; rows > 0; rows -= ROW_TILE, q += ROW_TILE * padded, s += ROW_TILE * BLOCK)
        switch (rows) {
        case 1:
            u4_dots_rows(k, n, q, padded, d, s, 1);
            break;
        case 2:
            u4_dots_rows(k, n, q, padded, d, s, 2);
            break;
        case 3:
            u4_dots_rows(k, n, q, padded, d, s, 3);
            break;
        default:
            u4_dots_rows(k, n, q, padded, d, s, 4);
            break;
        }
}

/* Keys of a tile: one half of `codes` channels from `at` on. */
INLINE void u4_sums_keys(const void *const *v, int at, int codes, int half, int n, const real *p,
                         vf acc[ROW_TILE][4], const int ROWS)
{
    NO_UNROLL for (int j = 0; j < n; j += 2)
    {
        const uint8_t *row = (const uint8_t *)v[j] + at / 2;
        vf x[4];
        if (half == 0) {
            prefetch_codes((const uint8_t *)v[j + CODE_AHEAD] + at / 2, 1);
            prefetch_codes((const uint8_t *)v[j + CODE_AHEAD + 1] + at / 2, 1);
        }
        v_zip_nibbles(row, (const uint8_t *)v[j + 1] + at / 2, codes, half, x);
        UNROLL for (int g = 0; g < ROWS; g++)
        {
            const vf w = v_set1(p[g * (BLOCK / 2) + j / 2]);
            UNROLL for (int z = 0; z < 4; z++) acc[g][z] = v_dot(x[z], w, acc[g][z]);
        }
    }
}

INLINE void u4_sums_tile(const void *const *v, int at, int half, int dv, int n, const real *p,
                         const real *sums, const real *a, real *o, int padded, const int ROWS)
{
    vf acc[ROW_TILE][4];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < 4; z++) acc[g][z] = v_zero();
    }
    if (dv - at >= NIBBLES)
        u4_sums_keys(v, at, NIBBLES, half, n, p, acc, ROWS);
    else
        u4_sums_keys(v, at, dv - at, half, n, p, acc, ROWS);
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        v_unzip_nibbles(acc[g]);
        UNROLL for (int z = 0; z < 4; z++)
        {
            const int c = at + (2 * z + half) * VL;
            real *to = o + g * padded + c;
            const vf sum = v_mul(v_set1(16), v_sub(acc[g][z], v_set1(sums[g])));
            if (c < dv)
                v_store(to, v_fma(v_set1(a[g]), v_load(to), sum));
        }
    }
}

INLINE void u4_sums_rows(const void *const *v, int dv, int n, const real *p, const real *sums,
                         const real *a, real *o, int padded, const int ROWS)
{
    for (int c = 0; c < dv; c += NIBBLES)
        for (int half = 0; half < 2 && c + half * VL < dv; half++)
            u4_sums_tile(v, c, half, dv, n, p, sums, a, o, padded, ROWS);
}

/* What 1.5 in place of each code's number would sum up to, with the rounded weights. */
static real middle_sum(const real *p, int n)
{
    vf sum = v_zero();
    real parts[4];

    for (int j = 0; j < n; j += 2 * VL) {
        const uint16_t *at = (const uint16_t *)(const void *)p + j;
        const vf pairs = 2 * VL <= n - j ? v_load_pairs(at) : v_load_pairs_n(at, n - j);
        sum = v_add(sum, v_add(v_pair_low(pairs), v_pair_high(pairs)));
    }
    const vf four[4] = {sum, v_zero(), v_zero(), v_zero()};
    v_sum4(four, parts);
    return (real)1.5 * parts[0];
}

static void u4_sums(const void *const *v, int n, const real *s, const real *a, int dv, real *o,
                    int padded, int rows)
{
    real p[ROW_TILE * BLOCK / 2 + VL], sums[ROW_TILE];

    for (; rows > 0; rows -= ROW_TILE, s += ROW_TILE * BLOCK, a += ROW_TILE, o += ROW_TILE * padded) {
        const int now = rows < ROW_TILE ? rows : ROW_TILE;
        round_weights(s, n, now, p);
        for (int g = 0; g < now; g++)
            sums[g] = middle_sum(p + g * (BLOCK / 2), n);
        switch (rows) {
        case 1:
            u4_sums_rows(v, dv, n, p, sums, a, o, padded, 1);
            break;
        case 2:
            u4_sums_rows(v, dv, n, p, sums, a, o, padded, 2);
            break;
        case 3:
            u4_sums_rows(v, dv, n, p, sums, a, o, padded, 3);
            break;
        default:
            u4_sums_rows(v, dv, n, p, sums, a, o, padded, 4);
            break;
        }
    }
}

/* All codes are. */
static int u4_finite(const void *const *v, int n, int dv)
{
    (void)v;
    (void)n;
    (void)dv;
    return 1;
}

static const row_products products_u4 = {u4_dots, u4_sums, u4_finite};
