/*
 * tmpl/row_held_tmpl.h - the two products for two rows at a time whose heads have HELD_VECS vectors.
 *
 * As row_products_tmpl.h, for the size most models have, in an order that memory likes.  Two rows of the
 * group at a time: their q, or their sums, fill half of the registers and stay there for HELD_KEYS
 * keys.  The first two rows read these keys from memory, line after line; the others find them in the
 * first cache level.
 *
 *     scores    2 keys x 2 rows      a load of K for 2 FMAs, 16 registers of q, 4 sums
 *     values    1 key  x 2 rows      a load of V for 2 FMAs, 16 sums, 2 weights
 *
 * Three things decide how fast a core reads 1 GiB while it multiplies (Zen 4, GB/s, plain reading 30):
 *
 *     each line loaded once, in ascending order; compilers like to load a row's last line first and to use
 *         others as operands of two FMAs: 13 of V, 28 in order (v_settle is for that)
 *     few other lines in turn with those of K: 32 lines of q between two rows 24, 16 lines 26, 4 lines 30
 *     few load instructions, which is what prefetchers look at: 64 of them for K 15, 32 21, 16 30
 *
 * And lines are asked for twice, HELD_AHEAD keys ahead in the pass of each two rows.  Processors drop requests
 * of which too many wait.  With one request a line the core reads 13.6, less than with none (21):
 * what is dropped stays away, and what is not has stopped the hardware's own prefetching.  The second
 * request finds most lines there and fetches the rest: 24.8 from 16 keys ahead, 23.8 from 32, 18 from 8.
 *
 * Parameters: ELEMENT, NAME and LOAD of row_products_tmpl.h.
 */

/* Keys from 0 to HELD_KEYS - 1 against rows g and g + 1. */
static inline void NAME(held_dots)(const void *const *k, const real *q, int padded, real *s)
{
    vf held[2][HELD_VECS];
    UNROLL for (int i = 0; i < 2; i++)
    {
        UNROLL for (int c = 0; c < HELD_VECS; c++)
        {
            held[i][c] = v_load(q + i * padded + c * VL);
            v_settle(&held[i][c]);
        }
    }
    NO_UNROLL for (int r = 0; r < HELD_KEYS; r += 2) {
        real sums[4];
        vf acc[4];
        UNROLL for (int i = 0; i < 4; i++) acc[i] = v_zero();
        UNROLL for (int key = 0; key < 2; key++)
        {
            const ELEMENT *row = k[r + key];
            NAME(prefetch_row)(k[r + key + HELD_AHEAD], HELD_VECS * VL);
            UNROLL for (int c = 0; c < HELD_VECS; c++)
            {
                vf x = LOAD(row + c * VL);
                v_settle(&x);
                UNROLL for (int i = 0; i < 2; i++)
                    acc[2 * i + key] = v_fma(x, held[i][c], acc[2 * i + key]);
            }
        }
        v_sum4(acc, sums);
        UNROLL for (int i = 0; i < 4; i++) s[i / 2 * BLOCK + r + i % 2] = sums[i];
    }
}

/* o = a o + p V for n keys, at most SUMS_KEYS, and two rows. */
static inline void NAME(held_sums)(const void *const *v, int n, const real *p, const real *a,
                                   real *o, int padded)
{
    vf acc[2][HELD_VECS];
    UNROLL for (int i = 0; i < 2; i++)
    {
        UNROLL for (int c = 0; c < HELD_VECS; c++) acc[i][c] = v_zero();
    }
    NO_UNROLL for (int r = 0; r < n; r++) {
        const ELEMENT *row = v[r];
        NAME(prefetch_row)(v[r + HELD_AHEAD], HELD_VECS * VL);
        const vf w = v_set1(p[r]), next = v_set1(p[BLOCK + r]);
        UNROLL for (int c = 0; c < HELD_VECS; c++)
        {
            vf x = LOAD(row + c * VL);
            v_settle(&x);
            acc[0][c] = v_fma(x, w, acc[0][c]);
            acc[1][c] = v_fma(x, next, acc[1][c]);
        }
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        UNROLL for (int c = 0; c < HELD_VECS; c++)
        {
            real *to = o + i * padded + c * VL;
            v_store(to, v_fma(v_set1(a[i]), v_load(to), acc[i][c]));
        }
    }
}

/* A last odd row would be a pass of its own: with seven rows that cost 3 % more than it gained. */
static int NAME(are_held)(int d, int rows) { return d == HELD_VECS * VL && rows % 2 == 0; }

static void NAME(held_rows_dots)(const void *const *k, int n, const real *q, int padded, int d,
                                 real *s, int rows)
{
    const int held = NAME(are_held)(d, rows);
    int j = 0;

    for (; held && j + HELD_KEYS <= n; j += HELD_KEYS)
        NO_UNROLL for (int g = 0; g < rows; g += 2)
            NAME(held_dots)(k + j, q + g * padded, padded, s + g * BLOCK + j);
    NAME(rows_dots)(k + j, n - j, q, padded, d, s + j, rows);
}

static void NAME(held_rows_sums)(const void *const *v, int n, const real *p, const real *a, int dv,
                                 real *o, int padded, int rows)
{
    static const real ones[2] = {1, 1};

    if (!NAME(are_held)(dv, rows)) {
        NAME(rows_sums)(v, n, p, a, dv, o, padded, rows);
        return;
    }
    for (int j = 0; j < n; j += SUMS_KEYS) {
        const int m = n - j < SUMS_KEYS ? n - j : SUMS_KEYS;
        NO_UNROLL for (int g = 0; g < rows; g += 2)
            NAME(held_sums)(v + j, m, p + g * BLOCK + j, j > 0 ? ones : a + g, o + g * padded,
                            padded);
    }
}
