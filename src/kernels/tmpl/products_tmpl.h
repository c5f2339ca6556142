/*
 * tmpl/products_tmpl.h - the two matrix products of a tile, queries in lanes.
 *
 *     scores    S^T[key][query]   = sum_d K[key][d] Q^T[d][query]
 *     values    O^T[c][query]     = a[query] O^T[c][query] + sum_j V[j][c] P^T[j][query]
 *
 * One vector holds VL queries.  An element of K or V is broadcast from where it lies, so neither is
 * packed or transposed; Q^T, S^T and O^T have `width` queries a row, a multiple of VL.  A tile of
 * R keys (or channels) by Z vectors keeps R Z accumulators and spends Z loads and R broadcasts on
 * R Z FMAs:
 *
 *     AVX-512  R = 8, Z = 3:  24 FMAs, 11 loads a step; two FMAs and two loads a cycle, so FMA bound
 *     AVX2     R = 6, Z = 2:  12 FMAs,  8 loads
 *
 * Each score is one chain of D FMAs.  The values of a block of keys are summed from zero and then
 * added to what earlier blocks gave: that shortens the chains of a long sequence from Tk to
 * about sqrt of that, and the rescaling by a = exp(m_old - m_new) rides on the final FMA for free.
 *
 * Tried and left: keeping O^T in the accumulators across blocks (no fresh sums) saves nothing and
 * loses accuracy.
 *
 * Parameters: none.  Needs one simd/ header.
 */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define INLINE static inline __attribute__((always_inline))

/* R keys from k, k_stride apart, against Z vectors of queries. */
INLINE void scores_tile(const real *k, int64_t k_stride, const real *qt, int d, real *s, int width,
                        const int R, const int Z)
{
    vf acc[TILE][LANES];
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_zero();
    }
    for (int i = 0; i < d; i++) {
        vf q[LANES];
        UNROLL for (int z = 0; z < Z; z++) q[z] = v_load(qt + (int64_t)i * width + z * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            const vf x = v_set1(k[r * k_stride + i]);
            UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_fma(x, q[z], acc[r][z]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++) v_store(s + r * width + z * VL, acc[r][z]);
    }
}

/* R channels from v, of n keys v_stride apart, weighted by p; added to a times ot. */
INLINE void values_tile(const real *v, int64_t v_stride, const real *p, int n, const real *a,
                        real *ot, int width, const int R, const int Z)
{
    vf acc[TILE][LANES];
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_zero();
    }
    for (int j = 0; j < n; j++) {
        vf w[LANES];
        UNROLL for (int z = 0; z < Z; z++) w[z] = v_load(p + j * width + z * VL);
        UNROLL for (int r = 0; r < R; r++)
        {
            const vf x = v_set1(v[j * v_stride + r]);
            UNROLL for (int z = 0; z < Z; z++) acc[r][z] = v_fma(x, w[z], acc[r][z]);
        }
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

/* All n keys: full tiles, then the rest in halves, so that no row past the last is read. */
INLINE void scores_width(const real *k, int64_t k_stride, int n, const real *qt, int d, real *s,
                         const int Z)
{
    const int width = Z * VL;
    int j = 0;
    for (; j + TILE <= n; j += TILE)
        scores_tile(k + j * k_stride, k_stride, qt, d, s + j * width, width, TILE, Z);
    for (; j + 2 <= n; j += 2)
        scores_tile(k + j * k_stride, k_stride, qt, d, s + j * width, width, 2, Z);
    if (j < n)
        scores_tile(k + j * k_stride, k_stride, qt, d, s + j * width, width, 1, Z);
}

INLINE void values_width(const real *v, int64_t v_stride, int n, const real *p, const real *a,
                         int dv, real *ot, const int Z)
{
    const int width = Z * VL;
    int c = 0;
    for (; c + TILE <= dv; c += TILE)
        values_tile(v + c, v_stride, p, n, a, ot + c * width, width, TILE, Z);
    for (; c + 2 <= dv; c += 2)
        values_tile(v + c, v_stride, p, n, a, ot + c * width, width, 2, Z);
    if (c < dv)
        values_tile(v + c, v_stride, p, n, a, ot + c * width, width, 1, Z);
}

/* A few queries (decoding) fill fewer vectors; LANES of them are instantiated one by one. */
static void scores_product(const real *k, int64_t k_stride, int n, const real *qt, int d, real *s,
                           int vectors)
{
    switch (vectors) {
    case 1:
        scores_width(k, k_stride, n, qt, d, s, 1);
        break;
#if LANES >= 2
    case 2:
        scores_width(k, k_stride, n, qt, d, s, 2);
        break;
#endif
#if LANES == 3
    case 3:
        scores_width(k, k_stride, n, qt, d, s, 3);
        break;
#elif LANES > 3
    default:
        scores_width(k, k_stride, n, qt, d, s, LANES);
        break;
#endif
    }
}

static void values_product(const real *v, int64_t v_stride, int n, const real *p, const real *a,
                           int dv, real *ot, int vectors)
{
    switch (vectors) {
    case 1:
        values_width(v, v_stride, n, p, a, dv, ot, 1);
        break;
#if LANES >= 2
    case 2:
        values_width(v, v_stride, n, p, a, dv, ot, 2);
        break;
#endif
#if LANES == 3
    case 3:
        values_width(v, v_stride, n, p, a, dv, ot, 3);
        break;
#elif LANES > 3
    default:
        values_width(v, v_stride, n, p, a, dv, ot, LANES);
        break;
#endif
    }
}
