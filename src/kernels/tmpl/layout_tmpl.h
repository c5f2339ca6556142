/*
 * tmpl/layout_tmpl.h - how a tile's scratch and state lie in memory.
 *
 * A tile is up to SUB_TILES sub-tiles of MAX_WIDTH queries each.  The products see one sub-tile; the
 * others exist so that what is done once for a block of keys (widening, pairing) serves them all.
 *
 *     scratch   s      [BLOCK][width]    scores, then weights, of one block of keys
 *               add    [BLOCK][width]    bias
 *               shows  [BLOCK][SHOWS]    bytes, not 0 where mask and block mask let a lane see a key
 *               kw     [BLOCK][steps]    keys as the product reads them, if not from where they lie
 *               vw     [BLOCK][Dv]       values likewise
 *               row    [VL][max(D, Dv)]  rows on their way in or out
 *               of each sub-tile:
 *               qt     [steps][width]    queries, transposed
 *               first, last, position, slope, rescale   [width]   one number a lane
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

typedef struct tile_map {
    int d, dv, width, vectors;
    int n_lanes;           /* of this sub-tile */
    const qkv_lane *lanes; /* its first */
    int64_t first_lo, last_lo, first_hi, last_hi; /* bounds of the lanes' lo and hi */
    real *s, *add, *kw, *vw, *row;
    uint8_t *shows;
    real *qt, *first, *last, *position, *slope, *rescale;
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
static int lanes_of_sub(int n_lanes, int sub)
{
    const int rest = n_lanes - sub * MAX_WIDTH;
    return rest < MAX_WIDTH ? rest : MAX_WIDTH;
}

/* Rows of queries (steps) or of outputs (Dv), with room for transpose_rows to read past them. */
static size_t row_reals(size_t steps, size_t dv) { return VL * ((steps > dv ? steps : dv) + VL); }

static size_t scratch_for(int32_t d, int32_t dv, int n_subs)
{
    const size_t w = MAX_WIDTH, steps = (size_t)operand_steps(d);
    return 2 * aligned_reals(BLOCK * w) + BLOCK * SHOWS + aligned_reals(BLOCK * steps) +
           aligned_reals(operand_value_reals(dv)) + aligned_reals(row_reals(steps, (size_t)dv)) +
           (size_t)n_subs * (aligned_reals(steps * w) + 5 * aligned_reals(w));
}

static size_t sub_state_bytes(int width, int dv)
{
    return 2 * aligned_reals((size_t)width) + aligned_reals((size_t)dv * (size_t)width);
}

static size_t state_bytes(int32_t n_lanes, int32_t dv)
{
    size_t bytes = 0;
    for (int sub = 0; sub < sub_tiles_of(n_lanes); sub++)
        bytes += sub_state_bytes(vectors_for(lanes_of_sub(n_lanes, sub)) * VL, dv);
    return bytes;
}

static real *take(char **at, size_t n)
{
    real *p = (real *)(void *)*at;
    *at += aligned_reals(n);
    return p;
}

static void map_state(tile_map *t, void *state, int sub)
{
    /* Every sub-tile before the last is full. */
    char *at = (char *)state + (size_t)sub * sub_state_bytes(MAX_WIDTH, t->dv);
    t->m = take(&at, (size_t)t->width);
    t->l = take(&at, (size_t)t->width);
    t->ot = take(&at, (size_t)t->dv * (size_t)t->width);
}

static void map_ranges(tile_map *t)
{
    t->first_lo = t->first_hi = INT64_MAX;
    t->last_lo = t->last_hi = INT64_MIN;
    for (int i = 0; i < t->n_lanes; i++) {
        const int64_t lo = t->lanes[i].lo, hi = t->lanes[i].hi;
        t->first_lo = lo < t->first_lo ? lo : t->first_lo;
        t->last_lo = lo > t->last_lo ? lo : t->last_lo;
        t->first_hi = hi < t->first_hi ? hi : t->first_hi;
        t->last_hi = hi > t->last_hi ? hi : t->last_hi;
    }
}

static tile_map map_tile(const qkv_tile *tile, int sub)
{
    tile_map t;
    t.d = tile->shape->head_dim;
    t.dv = tile->shape->head_dim_v;
    t.n_lanes = lanes_of_sub(tile->n_lanes, sub);
    t.lanes = tile->lanes + sub * MAX_WIDTH;
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
    at += (size_t)sub * (aligned_reals(steps * w) + 5 * aligned_reals(w));
    t.qt = take(&at, steps * w);
    t.first = take(&at, w);
    t.last = take(&at, w);
    t.position = take(&at, w);
    t.slope = take(&at, w);
    t.rescale = take(&at, w);
    map_state(&t, tile->state, sub);
    map_ranges(&t);
    return t;
}
