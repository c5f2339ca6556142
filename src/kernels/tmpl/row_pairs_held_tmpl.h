/*
 * tmpl/row_pairs_held_tmpl.h - row_held_tmpl.h on pairs of bf16: heads of 128 channels, four rows.
 *
 *     scores    1 key  x 4 rows    a load of K for 4 dot products, 16 registers of q, 4 sums
 *     values    2 keys x 2 rows    2 loads of V and 2 shuffles for 4 dot products, 16 sums
 *
 * Sums of values wait in memory while the other two rows have their turn, so no bit differs from
 * pair_sums_tile.  Lines are asked for twice, as row_held_tmpl.h tells: those of K at two distances, those of
 * V in the passes of both pairs of rows.  GB/s of 30, one thread: not at all 15, once 15 to 20, twice 23;
 * the tiles of row_pairs_tmpl.h, which ask once, 18.6.
 *
 * Parameters: none.  Needs row_pairs_tmpl.h.
 */
enum {
    PAIR_HELD = 4, /* vectors of pairs a row */
    PAIR_HELD_ROWS = 4,
    PAIR_HELD_KEYS = 16, /* that wait in the first cache level for the other rows */
    HELD_SUMS_ROWS = 8
};

static inline void held_pair_dots(const void *const *k, int n, const real *q, int padded, real *s)
{
    vf held[PAIR_HELD_ROWS][PAIR_HELD];

    UNROLL for (int g = 0; g < PAIR_HELD_ROWS; g++)
    {
        UNROLL for (int c = 0; c < PAIR_HELD; c++)
        {
            held[g][c] = v_load(q + g * padded + c * VL);
            v_settle(&held[g][c]);
        }
    }
    NO_UNROLL for (int r = 0; r < n; r++) {
        const uint16_t *row = k[r];
        prefetch_line_row(k[r + AHEAD], 2 * PAIR_HELD * VL);
        prefetch_line_row(k[r + HELD_AHEAD], 2 * PAIR_HELD * VL);
        real sums[PAIR_HELD_ROWS];
        vf acc[PAIR_HELD_ROWS];
        UNROLL for (int g = 0; g < PAIR_HELD_ROWS; g++) acc[g] = v_zero();
        UNROLL for (int c = 0; c < PAIR_HELD; c++)
        {
            vf x = v_load_pairs(row + 2 * c * VL);
            v_settle(&x);
            UNROLL for (int g = 0; g < PAIR_HELD_ROWS; g++) acc[g] = v_dot(x, held[g][c], acc[g]);
        }
        v_sum4(acc, sums);
        UNROLL for (int g = 0; g < PAIR_HELD_ROWS; g++) s[g * BLOCK + r] = sums[g];
    }
}

/* sums += p V for n keys, an even number, and two rows. */
static inline void held_pair_sums(const void *const *v, int n, const real *p, real *sums)
{
    vf acc[2][2 * PAIR_HELD];

    UNROLL for (int i = 0; i < 2; i++)
    {
        UNROLL for (int z = 0; z < 2 * PAIR_HELD; z++)
            acc[i][z] = v_load(sums + (i * 2 * PAIR_HELD + z) * VL);
    }
    NO_UNROLL for (int j = 0; j < n; j += 2) {
        const uint16_t *row = v[j], *next = v[j + 1];
        prefetch_line_row(v[j + AHEAD], 2 * PAIR_HELD * VL);
        prefetch_line_row(v[j + AHEAD + 1], 2 * PAIR_HELD * VL);
        const vf w0 = v_set1(p[j / 2]), w1 = v_set1(p[BLOCK / 2 + j / 2]);
        vf x[2][PAIR_HELD];
        UNROLL for (int z = 0; z < PAIR_HELD; z++)
        {
            x[0][z] = v_load_pairs(row + 2 * z * VL);
            v_settle(&x[0][z]);
        }
        UNROLL for (int z = 0; z < PAIR_HELD; z++)
        {
            vf lo, hi;
            x[1][z] = v_load_pairs(next + 2 * z * VL);
            v_settle(&x[1][z]);
            v_zip_pairs(x[0][z], x[1][z], &lo, &hi);
            acc[0][2 * z] = v_dot(lo, w0, acc[0][2 * z]);
            acc[1][2 * z] = v_dot(lo, w1, acc[1][2 * z]);
            acc[0][2 * z + 1] = v_dot(hi, w0, acc[0][2 * z + 1]);
            acc[1][2 * z + 1] = v_dot(hi, w1, acc[1][2 * z + 1]);
        }
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        UNROLL for (int z = 0; z < 2 * PAIR_HELD; z++)
            v_store(sums + (i * 2 * PAIR_HELD + z) * VL, acc[i][z]);
    }
}

/* o = a o + sums, which lie as v_zip_pairs left them. */
static inline void add_pair_sums(const real *sums, real a, real *o)
{
    for (int z = 0; z < 2 * PAIR_HELD; z += 2) {
        vf lo = v_load(sums + z * VL), hi = v_load(sums + (z + 1) * VL);
        v_unzip(&lo, &hi);
        v_store(o + z * VL, v_fma(v_set1(a), v_load(o + z * VL), lo));
        v_store(o + (z + 1) * VL, v_fma(v_set1(a), v_load(o + (z + 1) * VL), hi));
    }
}

static int pairs_are_held(int d, int rows)
{
    return d == 2 * PAIR_HELD * VL && rows % PAIR_HELD_ROWS == 0;
}

static void held_rows_pair_dots(const void *const *k, int n, const real *q, int padded, int d,
                                real *s, int rows)
{
    if (!pairs_are_held(d, rows)) {
        pair_dots(k, n, q, padded, d, s, rows);
        return;
    }
    const int step = rows > PAIR_HELD_ROWS ? PAIR_HELD_KEYS : n; /* the others find keys near */
    for (int j = 0; j < n; j += step)
        NO_UNROLL for (int g = 0; g < rows; g += PAIR_HELD_ROWS)
            held_pair_dots(k + j, n - j < step ? n - j : step, q + g * padded, padded,
                           s + g * BLOCK + j);
}

/* Up to HELD_SUMS_ROWS rows, which keep the stack small. */
static void held_sums_pass(const void *const *v, int n, const real *s, const real *a, real *o,
                           int padded, int rows)
{
    enum { SUMS = 2 * PAIR_HELD * VL };
    _Alignas(64) real sums[HELD_SUMS_ROWS * SUMS];
    real p[HELD_SUMS_ROWS * BLOCK / 2 + VL];

    round_weights(s, n, rows, p);
    memset(sums, 0, (size_t)(rows * SUMS) * sizeof *sums);
    for (int j = 0; j < n; j += PAIR_HELD_KEYS)
        NO_UNROLL for (int g = 0; g < rows; g += 2)
            held_pair_sums(v + j, n - j < PAIR_HELD_KEYS ? n - j : PAIR_HELD_KEYS,
                           p + g * (BLOCK / 2) + j / 2, sums + g * SUMS);
    for (int g = 0; g < rows; g++)
        add_pair_sums(sums + g * SUMS, a[g], o + g * padded);
}

static void held_rows_pair_sums(const void *const *v, int n, const real *s, const real *a, int dv,
                                real *o, int padded, int rows)
{
    if (!pairs_are_held(dv, rows)) {
        pair_sums(v, n, s, a, dv, o, padded, rows);
        return;
    }
    for (int g = 0; g < rows; g += HELD_SUMS_ROWS)
        held_sums_pass(v, n, s + g * BLOCK, a + g, o + g * padded, padded,
                       rows - g < HELD_SUMS_ROWS ? rows - g : HELD_SUMS_ROWS);
}
