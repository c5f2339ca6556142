/*
 * tmpl/layout_tmpl.h - how a tile's scratch and state lie in memory.
 *
 *     scratch   qt   [D][width]        queries, scaled, transposed
 *               s    [BLOCK][width]    scores, then weights, of one block of keys
 *               add  [BLOCK][width]    what mask, bias and block mask add; -infinity hides
 *               kw   [BLOCK][D]        keys widened to the compute type (unused if they are it)
 *               vw   [BLOCK][Dv]       values likewise
 *               row  [max(D, Dv)]      one row on its way in or out
 *               first, last, position, slope, rescale   [width]   one number a lane
 *     state     m [width]  l [width]  ot [Dv][width]
 *
 * width is the number of lanes in use, rounded up to whole vectors that the products are
 * instantiated for.
 *
 * Parameters: none.  Needs one simd/ header.
 */
enum {
    BLOCK = QKV_BLOCK_KEYS, /* s and add stay in L1/L2 at 128 x 48 x 4 bytes each */
    MAX_WIDTH = LANES * VL
};

typedef struct tile_map {
    int d, dv, width, vectors;
    real *qt, *s, *add, *kw, *vw, *row;
    real *first, *last, *position, *slope, *rescale;
    real *m, *l, *ot;
} tile_map;

/* Where the block of key j ends, within j1. */
static inline int64_t block_end(int64_t j, int64_t j1)
{
    const int64_t end = (j / BLOCK + 1) * BLOCK;
    return end < j1 ? end : j1;
}

static inline size_t aligned_reals(size_t n) { return (n * sizeof(real) + 63) / 64 * 64; }

static int vectors_for(int n_lanes)
{
    const int vectors = (n_lanes + VL - 1) / VL;
    return LANES > 3 && vectors > 2 ? LANES : vectors;
}

static size_t scratch_bytes(int32_t d, int32_t dv)
{
    const size_t w = MAX_WIDTH, widest = (size_t)(d > dv ? d : dv);
    return aligned_reals((size_t)d * w) + 2 * aligned_reals(BLOCK * w) +
           aligned_reals(BLOCK * (size_t)d) + aligned_reals(BLOCK * (size_t)dv) +
           aligned_reals(widest) + 5 * aligned_reals(w);
}

static size_t state_bytes(int32_t n_lanes, int32_t dv)
{
    const size_t w = (size_t)vectors_for(n_lanes) * VL;
    return 2 * aligned_reals(w) + aligned_reals((size_t)dv * w);
}

static real *take(char **at, size_t n)
{
    real *p = (real *)(void *)*at;
    *at += aligned_reals(n);
    return p;
}

static void map_state(tile_map *t, void *state)
{
    char *at = state;
    t->m = take(&at, (size_t)t->width);
    t->l = take(&at, (size_t)t->width);
    t->ot = take(&at, (size_t)t->dv * (size_t)t->width);
}

static tile_map map_tile(const qkv_tile *tile)
{
    tile_map t;
    t.d = tile->shape->head_dim;
    t.dv = tile->shape->head_dim_v;
    t.vectors = vectors_for(tile->n_lanes);
    t.width = t.vectors * VL;

    const size_t w = (size_t)t.width, d = (size_t)t.d, dv = (size_t)t.dv;
    char *at = tile->scratch;
    t.qt = take(&at, d * w);
    t.s = take(&at, BLOCK * w);
    t.add = take(&at, BLOCK * w);
    t.kw = take(&at, BLOCK * d);
    t.vw = take(&at, BLOCK * dv);
    t.row = take(&at, d > dv ? d : dv);
    t.first = take(&at, w);
    t.last = take(&at, w);
    t.position = take(&at, w);
    t.slope = take(&at, w);
    t.rescale = take(&at, w);
    map_state(&t, tile->state);
    return t;
}
