/*
 * tmpl/mask_tmpl.h - which keys of a block each lane sees, and what is added to its scores.
 *
 * Ranges (lengths, causal, windows) are two numbers a lane and cost nothing in blocks they do not
 * cut.  Masks lie along keys and scores along queries, so a block's part of a boolean mask or block
 * mask is transposed as bytes (`shows`), of a bias as numbers (`add`); both are made before the
 * product, so a block that all lanes hide is never multiplied.
 *
 * Parameters: none.  Needs one simd/ header, convert, layout, transpose and lane_mask templates.
 */

typedef struct block_view {
    int64_t j0;
    int n;
    int extra; /* keys at the start that were not asked for: runs begin at multiples of KEY_UNIT */
    int shown;  /* `shows` was made */
    int added;  /* `add` was made */
    int cut;    /* some lane's range ends in the block */
    int hidden; /* some lane may not see some key */
    int any;    /* some lane may see some key */
    int from[LANES], end[LANES]; /* the keys that each vector of lanes is multiplied with */
} block_view;

/* Ranges as reals, so that no integer vectors are needed: lo and hi count from those of the first
 * lane, first and last from the first key of a block.  Where such a number is too large to be
 * exact it is as far outside of any block.  Lanes past the last see nothing. */
static void begin_ranges(const tile_map *t)
{
    for (int i = 0; i < t->width; i++) {
        const int in_use = i < t->n_lanes;
        t->lo[i] = in_use ? (real)(t->lanes[i].lo - t->all.first_lo) : (real)INFINITY;
        t->hi[i] = in_use ? (real)(t->lanes[i].hi - t->all.first_hi) : -(real)INFINITY;
    }
}

static void load_ranges(const tile_map *t, const block_view *b)
{
    const vf lo = v_set1((real)(t->all.first_lo - b->j0));
    const vf hi = v_set1((real)(t->all.first_hi - b->j0));
    for (int i = 0; i < t->width; i += VL) {
        v_store(t->first + i, v_add(v_load(t->lo + i), lo));
        v_store(t->last + i, v_add(v_load(t->hi + i), hi));
    }
}

/* Is one of the first n bytes not 0? */
static int has_byte(const byte_row *a, int n)
{
    uint64_t words[SQUARE_BYTES / 8], found = 0;
    memcpy(words, a, sizeof words);
    for (int i = 0; i < SQUARE_BYTES / 8 && 8 * i < n; i++)
        found |= n - 8 * i < 8 ? words[i] & ~(~0ull << 8 * (n - 8 * i)) : words[i];
    return found != 0;
}

/* SQUARE_BYTES keys from r on of sixteen lanes from i on.  b learns what the mask's bytes say about
 * lanes in use and keys in the block. */
static void show_squares(const tile_map *t, const uint8_t *const rows[16], int i, int r,
                         block_view *b)
{
    const int keys = b->n - r < SQUARE_BYTES ? b->n - r : SQUARE_BYTES;
    byte_row a[16], any = {0}, hidden = {0};

    UNROLL for (int k = 0; k < 16; k++)
    {
        a[k] = (byte_row){0};
        if (i + k < t->n_lanes && keys == SQUARE_BYTES)
            memcpy(&a[k], rows[k] + r, sizeof a[k]);
        else if (i + k < t->n_lanes) /* the mask ends with the block */
            memcpy(&a[k], rows[k] + r, (size_t)keys);
        any |= a[k];
        hidden |= i + k < t->n_lanes ? (byte_row)(a[k] == 0) : (byte_row){0};
    }
    transpose_bytes(a);
    UNROLL for (int k = 0; k < 16; k++)
    {
        bytes16 squares[SQUARES];
        memcpy(squares, &a[k], sizeof squares);
        UNROLL for (int q = 0; q < SQUARES; q++)
            memcpy(t->shows + (r + 16 * q + k) * SHOWS + i, &squares[q], sizeof squares[q]);
    }
    b->any |= has_byte(&any, keys);
    b->hidden |= has_byte(&hidden, keys);
}

/* The bytes of one lane's keys: its mask where it lies, or a copy that the block mask has
 * thinned. */
static const uint8_t *lane_bytes(const qkv_tile *tile, const qkv_lane *lane, const block_view *b,
                                 uint8_t copy[BLOCK])
{
    const qkv_shape *shape = tile->shape;

    if (lane->mask && shape->mask_stride == 1 && !tile->mixed_blocks)
        return lane->mask + b->j0;
    for (int r = 0; r < b->n; r++)
        copy[r] = lane->mask ? lane->mask[(b->j0 + r) * shape->mask_stride] : 1;
    for (int64_t r = 0, run; tile->mixed_blocks && r < b->n; r += run) {
        run = shape->block_k - (b->j0 + r) % shape->block_k;
        run = run < b->n - r ? run : b->n - r;
        if (!block_bit(shape, lane, b->j0 + r))
            memset(copy + r, 0, (size_t)run);
    }
    return copy;
}

/* Lines of a row that the next block will read: rows lie pages apart, which no hardware sees
 * through. */
static void ask_ahead(const void *row, int64_t at, int bytes)
{
    for (int i = 0; row && i < bytes; i += 64)
        __builtin_prefetch((const char *)row + at + i, 0, 2);
}

static void make_shows(const qkv_tile *tile, const tile_map *t, block_view *b)
{
    uint8_t copies[16][BLOCK];
    const uint8_t *rows[16] = {NULL};

    b->shown = 1;
    for (int i = 0; i < t->width; i += 16) {
        for (int k = 0; k < 16 && i + k < t->n_lanes; k++) {
            rows[k] = lane_bytes(tile, &t->lanes[i + k], b, copies[k]);
            ask_ahead(t->lanes[i + k].mask, b->j0 + BLOCK, BLOCK);
        }
        for (int r = 0; r < b->n; r += SQUARE_BYTES)
            show_squares(t, rows, i, r, b);
    }
}

/* One lane's biases, VL keys from r on. */
static vf lane_biases(const qkv_shape *shape, const qkv_lane *lane, const block_view *b, int r)
{
    const int n = b->n - r < VL ? b->n - r : VL;
    const int64_t j = b->j0 + r, size = (int64_t)qkv_type_size((qkv_type)shape->bias_type);
    real x[VL] = {0};

    if (shape->bias_stride == 1 && shape->bias_type == REAL_TYPE && n == VL)
        return v_load((const real *)lane->bias + j);
    if (shape->bias_stride == 1)
        widen_row(x, (const char *)lane->bias + j * size, shape->bias_type, n);
    else
        for (int k = 0; k < n; k++)
            x[k] = (real)qkv_load_f64(lane->bias, shape->bias_type, (j + k) * shape->bias_stride);
    return v_load(x);
}

/* `add`, and whether it hides (-infinity) something, or all. */
static void make_add(const qkv_tile *tile, const tile_map *t, block_view *b)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)tile->shape->bias_type);
    const vf hiding = v_set1(-(real)INFINITY);
    vm some = v_eq(hiding, v_zero()), all = v_eq(hiding, hiding);

    b->added = 1;
    for (int i = 0; i < t->n_lanes; i++)
        ask_ahead(t->lanes[i].bias, (b->j0 + BLOCK) * size, BLOCK * (int)size);
    for (int i = 0; i < t->width; i += VL)
        for (int r = 0; r < b->n; r += VL) {
            vf a[VL];
            UNROLL for (int k = 0; k < VL; k++)
            {
                a[k] = v_zero();
                if (i + k < t->n_lanes) {
                    a[k] = lane_biases(tile->shape, &t->lanes[i + k], b, r);
                    const vm hidden = v_eq(a[k], hiding);
                    some = v_or(some, hidden);
                    all = v_and(all, hidden);
                }
            }
            transpose(a);
            UNROLL for (int k = 0; k < VL; k++)
            {
                if (r + k < b->n)
                    v_store(t->add + (r + k) * t->width + i, a[k]);
            }
        }
    b->hidden |= v_any(some);
    b->any &= v_any(v_eq(v_select(all, hiding, v_zero()), v_zero()));
}

/* Is there no byte to transpose, because every lane sees all of the block that its range shows? */
static int shows_all(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    for (int i = 0; i < t->n_lanes; i++) {
        const qkv_lane *lane = &t->lanes[i];
        const int64_t from = clamp(lane->lo, b->j0, b->j0 + b->n);
        const int64_t end = clamp(lane->hi + 1, b->j0, b->j0 + b->n);
        if (hides_some(tile, lane, from, (int)(end - from)))
            return 0;
    }
    return 1;
}

/* Looks at block j0 .. j0+n-1 for all lanes. */
static block_view view_block(const qkv_tile *tile, const tile_map *t, int64_t j0, int n)
{
    const qkv_shape *shape = tile->shape;
    block_view b = {.j0 = j0, .n = n};

    for (int z = 0; z < LANES; z++)
        b.end[z] = n;
    b.hidden = b.cut = t->all.last_lo > j0 || t->all.first_hi < j0 + n - 1;
    b.any = t->all.first_lo <= j0 + n - 1 && t->all.last_hi >= j0;
    if (!b.any || !(b.hidden || shape->has_mask || shape->has_bias || tile->mixed_blocks))
        return b;
    load_ranges(t, &b);
    if ((shape->has_mask || tile->mixed_blocks) && !shows_all(tile, t, &b)) {
        b.any = 0;
        make_shows(tile, t, &b);
    }
    if (b.any && shape->has_bias)
        make_add(tile, t, &b);
    return b;
}

/* Lanes of vector z that see key r of the block, by its range. */
static inline vm in_range(const tile_map *t, int r, int z)
{
    return v_and(v_le(v_load(t->first + z * VL), v_set1((real)r)),
                 v_le(v_set1((real)r), v_load(t->last + z * VL)));
}

/* Where the bias hides: -infinity does, a NaN is seen and must stay NaN. */
static inline vm added_hides(const tile_map *t, int r, int z)
{
    return v_eq(v_load(t->add + r * t->width + z * VL), v_set1(-(real)INFINITY));
}

/* By range, mask, block mask and bias together; for what is rare. */
static inline vm visible(const tile_map *t, const block_view *b, int r, int z)
{
    vf flag = v_set1(1);
    if (b->cut)
        flag = v_select(in_range(t, r, z), flag, v_zero());
    if (b->shown)
        flag = v_select(v_test(t->shows + r * SHOWS + z * VL), flag, v_zero());
    if (b->added)
        flag = v_select(added_hides(t, r, z), v_zero(), flag);
    return v_eq(flag, v_set1(1));
}
