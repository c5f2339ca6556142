/*
 * tmpl/layout_tmpl.h - how a tile's scratch and state lie in memory.
 *
 * A tile is up to SUB_TILES sub-tiles of MAX_WIDTH queries each.  The products see one sub-tile;
 * the others exist so that what is done once for a block of keys (widening, pairing) serves them
 * all.
 *
 *     scratch   s      [BLOCK][width]    scores, then weights, of one block of keys
 *               add    [BLOCK][width]    bias
 *               shows  [BLOCK][SHOWS]    bytes, not 0 where masks let a lane see a key
 *               kw     [BLOCK][steps]    keys as the product reads them, if not from where they lie
 *               vw     [BLOCK][Dv]       values likewise
 *               row    [VL][max(D, Dv)]  rows on their way in or out
 *               of each sub-tile:
 *               qt     [steps][width]    queries, transposed
 *               lo, hi, first, last, position, slope, rescale   [width]   one number a lane
 *     state     of each sub-tile: m [width]  l [width]  ot [Dv][width]
 *
 * width is the number of lanes in use, rounded up to whole vectors that the products are
 * instantiated for.  steps is D, or the pairs of channels in D (the operands say).
 *
 * Parameters: none.  Needs one simd/ header.
 */
enum {
    BLOCK = QKV_BLOCK_KEYS, /* s and add stay in L1/L2 at 128 x 48 x 4 bytes each */
    MAX_WIDTH = LANES * VL,
    SHOWS = (MAX_WIDTH + 15) / 16 * 16,
    SUB_TILES = 3
};

/* Bounds of the lo and hi of some lanes.  Both ascend with the lanes (kernel.h). */
typedef struct lane_bounds {
    int64_t first_lo, last_lo, first_hi, last_hi;
} lane_bounds;

typedef struct tile_map {
    int d, dv, width, vectors;
    int n_lanes;           /* of this sub-tile */
    const qkv_lane *lanes; /* its first */
    lane_bounds all, of[LANES]; /* of the sub-tile, of each vector */
    real scale; /* what the products leave for the softmax to multiply scores with */
    real *s, *add, *kw, *vw, *row;
    uint8_t *shows;
    real *qt, *lo, *hi, *first, *last, *position, *slope, *rescale;
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

static int sub_tiles_of(int n_lanes) { return (n_lanes + MAX_WIDTH - 1) / MAX_WIDTH; }

/* The first lane of a sub-tile.  Few wide vectors are shared out evenly, 64 queries as 32 and 32
 * rather than 48 and 16: products of one vector are slower. */
static int first_of_sub(int n_lanes, int sub)
{
    const int subs = sub_tiles_of(n_lanes), vectors = (n_lanes + VL - 1) / VL;
    const int first = LANES > 3 ? sub * MAX_WIDTH : vectors * sub / subs * VL;
    return first < n_lanes ? first : n_lanes;
}
static int lanes_of_sub(int n_lanes, int sub)
{
    return first_of_sub(n_lanes, sub + 1) - first_of_sub(n_lanes, sub);
}

/* Rows of queries (steps) or of outputs (Dv), with room to read past them. */
static size_t row_reals(size_t steps, size_t dv) { return VL * ((steps > dv ? steps : dv) + VL); }

static size_t scratch_for(int32_t d, int32_t dv, int n_subs)
{
    const size_t w = MAX_WIDTH, steps = (size_t)operand_steps(d);
    return 2 * aligned_reals(BLOCK * w) + BLOCK * SHOWS + aligned_reals(BLOCK * steps) +
           aligned_reals(operand_value_reals(dv)) + aligned_reals(row_reals(steps, (size_t)dv)) +
           (size_t)n_subs * (aligned_reals(steps * w) + 7 * aligned_reals(w));
}

/* Bytes of the states of the sub-tiles before sub. */
static size_t states_before(int n_lanes, int sub, int dv)
{
    size_t bytes = 0;
    for (int i = 0; i < sub; i++) {
        const size_t width = (size_t)(vectors_for(lanes_of_sub(n_lanes, i)) * VL);
        bytes += 2 * aligned_reals(width) + aligned_reals((size_t)dv * width);
    }
    return bytes;
}

static size_t state_bytes(int32_t n_lanes, int32_t dv)
{
    return states_before(n_lanes, sub_tiles_of(n_lanes), dv);
}

static real *take(char **at, size_t n)
{
    real *p = (real *)(void *)*at;
    *at += aligned_reals(n);
    return p;
}

static void map_state(tile_map *t, const qkv_tile *tile, void *state, int sub)
{
    char *at = (char *)state + states_before(tile->n_lanes, sub, t->dv);
    t->m = take(&at, (size_t)t->width);
    t->l = take(&at, (size_t)t->width);
    t->ot = take(&at, (size_t)t->dv * (size_t)t->width);
}

static lane_bounds bounds_of(const qkv_lane *lanes, int n)
{
    return (lane_bounds){lanes[0].lo, lanes[n - 1].lo, lanes[0].hi, lanes[n - 1].hi};
}

static void map_ranges(tile_map *t)
{
    t->all = bounds_of(t->lanes, t->n_lanes);
    for (int z = 0; z < LANES; z++) {
        const int first = z * VL < t->n_lanes ? z * VL : t->n_lanes - 1, n = t->n_lanes - first;
        t->of[z] = bounds_of(t->lanes + first, n < VL ? n : VL);
    }
}

/* Scores may stay as the product leaves them, if nothing but -infinity replaces one.  A property
 * of the plan, so that all rows are rounded alike; not of whether weights are asked for, which must
 * not change the output. */
static int keeps_scale(const qkv_shape *x)
{
    return SCALES_SCORES && !x->has_bias && !x->has_slopes && !(x->softcap > 0) &&
           x->scale > 1e-30 && x->scale < 1e30;
}

static tile_map map_tile(const qkv_tile *tile, int sub)
{
    tile_map t;
    t.d = tile->shape->head_dim;
    t.dv = tile->shape->head_dim_v;
    t.n_lanes = lanes_of_sub(tile->n_lanes, sub);
    t.lanes = tile->lanes + first_of_sub(tile->n_lanes, sub);
    t.vectors = vectors_for(t.n_lanes);
    t.width = t.vectors * VL;

    const size_t w = MAX_WIDTH, steps = (size_t)operand_steps(t.d), dv = (size_t)t.dv;
    char *at = tile->scratch;
    t.s = take(&at, BLOCK * w);
    t.add = take(&at, BLOCK * w);
    t.shows = (uint8_t *)at;
    at += BLOCK * SHOWS;
    t.kw = take(&at, BLOCK * steps);
    t.vw = take(&at, operand_value_reals(t.dv));
    t.row = take(&at, row_reals(steps, dv));
    at += (size_t)sub * (aligned_reals(steps * w) + 7 * aligned_reals(w));
    t.qt = take(&at, steps * w);
    t.lo = take(&at, w);
    t.hi = take(&at, w);
    t.first = take(&at, w);
    t.last = take(&at, w);
    t.position = take(&at, w);
    t.slope = take(&at, w);
    t.rescale = take(&at, w);
    map_state(&t, tile, tile->state, sub);
    map_ranges(&t);
    t.scale = keeps_scale(tile->shape) ? (real)tile->shape->scale : 1;
    return t;
}
