/*
 * tmpl/row_layout_tmpl.h - where the numbers of a decoding tile lie.
 *
 *     scratch   q [rows][D padded]   s, add [rows][BLOCK]   hides [rows][BLOCK]   row [max(D, Dv)]
 *     state     m, l [DECODE_LANES]   o [rows][Dv padded]
 *
 * layout_tmpl.h is the same for tiles with queries in lanes.
 *
 * Parameters: none.  Included by decode_tmpl.h, which has DECODE_LANES.
 */
typedef struct row_map {
    int d, dv, d_padded, dv_padded, rows;
    real *q, *s, *add, *row, *rescale;
    uint8_t *hides;
    real *decoded; /* rows of codes as numbers: K, then V; kernels for codes have room for them */
    real *q_sums, *v_mins; /* of codes of 4 bits */
    real *m, *l, *o;
} row_map;

static int padded_to_vectors(int n) { return (n + VL - 1) / VL * VL; }

/* Of a query's operands: nibble_pairs_tmpl.h takes four vectors at a time. */
static int padded_query(int d)
{
    const int n = padded_to_vectors(operand_steps(d));
#if defined(QKV_CODE_PAIRS)
    return (n + 4 * VL - 1) / (4 * VL) * (4 * VL);
#else
    return n;
#endif
}

static size_t decode_scratch_bytes(int32_t d, int32_t dv)
{
    const size_t widest = (size_t)(d > dv ? d : dv);
    return aligned_reals(DECODE_LANES * (size_t)padded_query(d)) +
           2 * aligned_reals(DECODE_LANES * BLOCK) + aligned_reals(widest) +
           3 * aligned_reals(DECODE_LANES) + DECODE_LANES * BLOCK;
}

static size_t decode_state_bytes(int32_t n_lanes, int32_t dv)
{
    return 2 * aligned_reals(DECODE_LANES) +
           aligned_reals((size_t)n_lanes * (size_t)padded_to_vectors(dv));
}

static void map_row_state(row_map *t, void *state)
{
    char *at = state;
    t->m = take(&at, DECODE_LANES);
    t->l = take(&at, DECODE_LANES);
    t->o = take(&at, (size_t)t->rows * (size_t)t->dv_padded);
}

static row_map map_rows(const qkv_tile *tile)
{
    row_map t;
    char *at = tile->scratch;

    t.d = tile->shape->head_dim;
    t.dv = tile->shape->head_dim_v;
    t.d_padded = padded_query(t.d);
    t.dv_padded = padded_to_vectors(t.dv);
    t.rows = tile->n_lanes;
    t.q = take(&at, DECODE_LANES * (size_t)t.d_padded);
    t.s = take(&at, DECODE_LANES * BLOCK);
    t.add = take(&at, DECODE_LANES * BLOCK);
    t.row = take(&at, (size_t)(t.d > t.dv ? t.d : t.dv));
    t.rescale = take(&at, DECODE_LANES);
    t.q_sums = take(&at, DECODE_LANES);
    t.v_mins = take(&at, DECODE_LANES);
    t.hides = (uint8_t *)at;
    t.decoded = (real *)(void *)(at + DECODE_LANES * BLOCK);
    map_row_state(&t, tile->state);
    return t;
}
