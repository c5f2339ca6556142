/*
 * tmpl/products_tmpl.h - the two matrix products of a tile, queries in lanes.
 *
 *     scores    S^T[key][query]   = sum_d K[key][d] Q^T[d][query]
 *     values    O^T[c][query]     = a[query] O^T[c][query] + sum_j V[j][c] P^T[j][query]
 *
 * One vector holds VL queries.  An element of K or V is broadcast from where it lies, so neither is
 * transposed; Q^T, S^T and O^T have `width` queries a row, a multiple of VL.  A tile of
 * R keys (or channels) by Z vectors keeps R Z accumulators and spends Z loads and R broadcasts on
 * R Z multiply-adds:
 *
 *     AVX-512  R = 8, Z = 3:  24 multiply-adds, 11 loads a step; FMA bound at two loads a cycle
 *     AVX2     R = 4, Z = 3:  12 multiply-adds,  7 loads.  R = 6, Z = 2 needs 8 and leaves a
 *                             rest of every 128 keys, which cost a tenth of the speed
 *
 * What a step is, the operands decide (operands_real_tmpl.h, operands_pairs_tmpl.h): one channel or
 * key by an FMA, or a pair of them in the two halves of a lane by a dot product.
 *
 * Each score is one chain of multiply-adds.  The values of a block of keys are summed from zero
 * and then added to what earlier blocks gave: that shortens the chains of a long sequence from Tk
 * to about sqrt of that, and the rescaling by a = exp(m_old - m_new) rides on the final FMA for
 * free.
 *
 * Where ranges cut a block, each vector of queries sees keys of its own: a staircase.  Products go
 * over it in strips, runs of keys with the vectors that see one of them; the sums of the values
 * stay in registers from strip to strip, so what a query's sum is does not depend on its
 * neighbours.
 *
 * What is read next is asked for on the way (coming_tmpl.h; NULL: nothing).
 *
 * Tried and left: keeping O^T in the accumulators across blocks (no fresh sums) saves nothing and
 * loses accuracy.
 *
 * Parameters: none.  Needs one simd/ header, coming_tmpl.h and one of the operands templates.
 */
enum {
    /* Keys or channels of a tile with one vector alone, whose chains hide the latency of an FMA by
     * themselves: four do not. */
    LONE_TILE = TILE == 4 && LANES == 3 ? 8 : TILE,

    /* Are a tile's TILE chains enough for one vector alone?  Then ranges cut vectors apart, at
     * whole tiles. */
    NARROWS = TILE >= 8 && LANES == 3,
    CUT_KEYS = NARROWS ? TILE : KEY_UNIT,
    STRIPS = 2 * LANES
};

/* Keys from .. end-1 of a block with vectors z0 .. z1-1 of a sub-tile. */
typedef struct strip {
    int from, end, z0, z1;
} strip;

/* A block's strips, in ascending order. */
typedef struct strips {
    int n;
    strip of[STRIPS];
} strips;

/* A step's operand, spread over all lanes.  Pairs of 16-bit numbers need not be aligned as one. */
static inline vf v_set1_from(const char *p)
{
    real x;
    memcpy(&x, p, sizeof x);
    return v_set1(x);
}

/* madd with the operand at p in all lanes of x, for those that meet one vector only. */
static inline vf madd_at(const char *p, vf y, vf sum)
{
#if defined(QKV_PAIRS) && defined(QKV_DOT_AT)
    return v_dot_at(p, y, sum);
#else
    return madd(v_set1_from(p), y, sum);
#endif
}

/* Steps from .. end-1 of R keys, k_step bytes apart, against Z vectors of queries. */
INLINE void add_channels(vf acc[LONE_TILE][LANES], const char *k, int64_t k_step, const real *qt,
                         int width, int from, int end, const int R, const int Z)
{
    for (int i = from; i < end; i++) {
        vf q[LANES];
        UNROLL for (int z = 0; z < Z; z++) q[z] = v_load(qt + (int64_t)i * width + z * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            const char *at = k + r * k_step + (int64_t)i * (int64_t)sizeof(real);
            if (Z == 1) {
                acc[r][0] = madd_at(at, q[0], acc[r][0]);
                continue;
            }
            const vf x = v_set1_from(at);
            UNROLL for (int z = 0; z < Z; z++) acc[r][z] = madd(x, q[z], acc[r][z]);
        }
    }
}

/* R keys from j on, of n.  `top` follows the largest score of each query: a maximum costs nothing
 * here, where only the FMA units have work. */
INLINE void scores_tile(const char *k, int64_t k_step, int j, int n, const real *qt, int steps,
                        real *s, real *top, int width, const coming *next, const int R, const int Z)
{
    vf acc[LONE_TILE][LANES];
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_zero();
    }
    k += j * k_step;
    s += j * width;
    for (int i = 0, end; i < steps; i = end) {
        end = next && i + PACE < steps ? i + PACE : steps;
        if (next)
            ask_rows(next, (int64_t)j * steps + R * i, (int64_t)j * steps + R * end,
                     (int64_t)n * steps);
        add_channels(acc, k, k_step, qt, width, i, end, R, Z);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        vf m = v_load(top + z * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            v_store(s + r * width + z * VL, acc[r][z]);
            m = v_max(acc[r][z], m); /* keeps m where the score is NaN */
        }
        v_store(top + z * VL, m);
    }
}

/* acc += V P over keys from .. end-1, counted as the operands have them. */
INLINE void add_keys(vf acc[LONE_TILE][LANES], int from, int end, const real *v, int64_t v_stride,
                     const real *p, int width, const int R, const int z0, const int z1)
{
    for (int j = from; j < end; j++) {
        vf w[LANES];
        UNROLL for (int z = z0; z < z1; z++) w[z] = v_load(p + j * width + z * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            const real *at = v + j * v_stride + r;
            if (z1 - z0 == 1) {
                acc[r][z0] = madd_at((const char *)at, w[z0], acc[r][z0]);
                continue;
            }
            const vf y = v_set1(*at);
            UNROLL for (int z = z0; z < z1; z++) acc[r][z] = madd(y, w[z], acc[r][z]);
        }
    }
}

/* The same over the keys of a strip. */
INLINE void add_strip(vf acc[LONE_TILE][LANES], const strip *x, const real *v, int64_t v_stride,
                      const real *p, int width, const int R, const int z0, const int z1)
{
    add_keys(acc, x->from / KEY_UNIT, operand_keys(x->end), v, v_stride, p, width, R, z0, z1);
}

/* And over a strip of all vectors, while `next` is asked for.  The tile is that of channels
 * c .. c+R-1 of dv. */
INLINE void add_whole_strip(vf acc[LONE_TILE][LANES], const strip *x, const real *v, int64_t v_stride,
                            const real *p, int width, const coming *next, int c, int dv,
                            const int R, const int Z)
{
    const int from = x->from / KEY_UNIT, end = operand_keys(x->end);

    for (int j = from, to; j < end; j = to) {
        to = next && j + PACE < end ? j + PACE : end;
        if (next) {
            const int64_t n = end - from, before = c * n - (int64_t)R * from;
            ask_rows(next, before + R * j, before + R * to, dv * n);
        }
        add_keys(acc, j, to, v, v_stride, p, width, R, 0, Z);
    }
}

/* Channels c .. c+R-1 of dv, of keys v_stride apart, weighted by p; added to a times ot. */
INLINE void values_tile(const real *v, int64_t v_stride, const real *p, const strips *keys,
                        const real *a, int c, int dv, real *ot, int width, const coming *next,
                        const int R, const int Z)
{
    vf acc[LONE_TILE][LANES];
    v += c;
    ot += c * width;
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_zero();
    }
    for (const strip *x = keys->of; x < keys->of + keys->n; x++) {
        const int z0 = x->z0, z1 = x->z1;
        if (!NARROWS || z1 - z0 == Z)
            add_whole_strip(acc, x, v, v_stride, p, width, x == keys->of ? next : NULL, c, dv, R,
                            Z);
        else if (z1 == 1)
            add_strip(acc, x, v, v_stride, p, width, R, 0, 1);
        else if (z0 == 0)
            add_strip(acc, x, v, v_stride, p, width, R, 0, Z - 1);
        else if (z1 == Z)
            z0 == Z - 1 ? add_strip(acc, x, v, v_stride, p, width, R, Z - 1, Z)
                        : add_strip(acc, x, v, v_stride, p, width, R, 1, Z);
        else
            add_strip(acc, x, v, v_stride, p, width, R, 1, Z - 1);
    }
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++)
        {
            real *o = ot + r * width + z * VL;
            v_store(o, v_fma(v_load(a + z * VL), v_load(o), acc[r][z]));
        }
    }
}

/* n keys: full tiles, then the rest in halves, so that no row past the last is read. */
INLINE void scores_width(const char *k, int64_t k_step, int n, const real *qt, int steps,
                         real *s, real *top, int width, const coming *next, const int Z)
{
    int j = 0;
    for (; Z == 1 && LONE_TILE > TILE && j + LONE_TILE <= n; j += LONE_TILE)
        scores_tile(k, k_step, j, n, qt, steps, s, top, width, next, LONE_TILE, Z);
    for (; j + TILE <= n; j += TILE)
        scores_tile(k, k_step, j, n, qt, steps, s, top, width, next, TILE, Z);
    for (; TILE > 4 && j + 4 <= n; j += 4)
        scores_tile(k, k_step, j, n, qt, steps, s, top, width, next, 4, Z);
    for (; j + 2 <= n; j += 2)
        scores_tile(k, k_step, j, n, qt, steps, s, top, width, next, 2, Z);
    if (j < n)
        scores_tile(k, k_step, j, n, qt, steps, s, top, width, next, 1, Z);
}

INLINE void values_width(const real *v, int64_t v_stride, const strips *keys, const real *p,
                         const real *a, int dv, real *ot, const coming *next, const int Z)
{
    const int width = Z * VL;
    int c = 0;
    for (; Z == 1 && LONE_TILE > TILE && c + LONE_TILE <= dv; c += LONE_TILE)
        values_tile(v, v_stride, p, keys, a, c, dv, ot, width, next, LONE_TILE, Z);
    for (; c + TILE <= dv; c += TILE)
        values_tile(v, v_stride, p, keys, a, c, dv, ot, width, next, TILE, Z);
    for (; TILE > 4 && c + 4 <= dv; c += 4)
        values_tile(v, v_stride, p, keys, a, c, dv, ot, width, next, 4, Z);
    for (; c + 2 <= dv; c += 2)
        values_tile(v, v_stride, p, keys, a, c, dv, ot, width, next, 2, Z);
    if (c < dv)
        values_tile(v, v_stride, p, keys, a, c, dv, ot, width, next, 1, Z);
}

/* Keys of one strip; k and s lie at the block's first key.  Short sequences and cut blocks have
 * fewer vectors than LANES, which are instantiated one by one. */
static void scores_product(const char *k, int64_t k_step, const strip *x, const real *qt, int steps,
                           real *s, real *top, int width, const coming *next)
{
    const int n = x->end - x->from;

    k += x->from * k_step;
    s += x->from * width + x->z0 * VL;
    qt += x->z0 * VL;
    top += x->z0 * VL;
    switch (x->z1 - x->z0) {
    case 1:
        scores_width(k, k_step, n, qt, steps, s, top, width, next, 1);
        break;
#if LANES >= 2
    case 2:
        scores_width(k, k_step, n, qt, steps, s, top, width, next, 2);
        break;
#endif
#if LANES >= 3
    default:
        scores_width(k, k_step, n, qt, steps, s, top, width, next, LANES);
        break;
#endif
    }
}

/* All strips of a block. */
static void values_product(const real *v, int64_t v_stride, const strips *keys, const real *p,
                           const real *a, int dv, real *ot, int vectors, const coming *next)
{
    switch (vectors) {
    case 1:
        values_width(v, v_stride, keys, p, a, dv, ot, next, 1);
        break;
#if LANES >= 2
    case 2:
        values_width(v, v_stride, keys, p, a, dv, ot, next, 2);
        break;
#endif
#if LANES >= 3
    default:
        values_width(v, v_stride, keys, p, a, dv, ot, next, LANES);
        break;
#endif
    }
}
