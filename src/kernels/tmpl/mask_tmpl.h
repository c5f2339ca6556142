/*
 * tmpl/mask_tmpl.h - which keys of a block each lane sees, and what is added to its scores.
 *
 * Ranges (lengths, causal, windows) are two numbers a lane and cost nothing in blocks they do not
 * cut.  Boolean mask, bias and block mask are gathered into the `add` array, where -infinity
 * hides; it is built before the product, so a block that all lanes hide is never multiplied.
 *
 * Parameters: none.  Needs one simd/ header and layout_tmpl.h.
 */
#include <math.h>

typedef struct block_view {
    int64_t j0;
    int n;
    int ranged; /* the range of some lane cuts this block: compare */
    int added;  /* `add` was built */
    int hidden; /* some lane may not see some key */
    int any;    /* some lane sees some key */
} block_view;

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Ranges relative to the block, as reals: small integers are exact, and no integer vectors are
 * needed.  Lanes past the last see nothing. */
static void load_ranges(const qkv_tile *tile, const tile_map *t, block_view *b)
{
    for (int i = 0; i < t->width; i++) {
        int64_t first = 1, last = 0;
        if (i < tile->n_lanes) {
            first = clamp(tile->lanes[i].lo - b->j0, 0, b->n);
            last = clamp(tile->lanes[i].hi - b->j0, -1, b->n - 1);
            b->ranged |= first > 0 || last < b->n - 1;
            b->any |= first <= last;
        }
        t->first[i] = (real)first;
        t->last[i] = (real)last;
    }
    b->hidden |= b->ranged;
}

static int block_bit(const qkv_shape *shape, const qkv_lane *lane, int64_t j)
{
    const int64_t bit = lane->block_row + j / shape->block_k;
    return shape->block_bits[bit >> 3] >> (bit & 7) & 1;
}

/* What one lane adds to key j: the bias, or -infinity where mask, bias or block mask hide it. */
static real added_to(const qkv_shape *shape, const qkv_lane *lane, int64_t j)
{
    if (lane->mask && !lane->mask[j * shape->mask_stride])
        return -(real)INFINITY;
    if (shape->block_k && !block_bit(shape, lane, j))
        return -(real)INFINITY;
    if (!lane->bias)
        return 0;
    return (real)qkv_load_f64(lane->bias, shape->bias_type, j * shape->bias_stride);
}

/* One column of `add`; says what it found in b. */
static void add_column(const qkv_shape *shape, const qkv_lane *lane, const tile_map *t, int i,
                       block_view *b, int *any)
{
    const int first = (int)t->first[i], last = (int)t->last[i];
    for (int r = 0; r < b->n; r++) {
        real x = -(real)INFINITY;
        if (r >= first && r <= last) {
            x = added_to(shape, lane, b->j0 + r);
            const int hides = x == -(real)INFINITY;
            b->hidden |= hides;
            *any |= !hides;
        }
        t->add[r * t->width + i] = x;
    }
}

/* Looks at block j0 .. j0+n-1 for all lanes. */
static block_view view_block(const qkv_tile *tile, const tile_map *t, int64_t j0, int n)
{
    const qkv_shape *shape = tile->shape;
    block_view b = {.j0 = j0, .n = n};

    load_ranges(tile, t, &b);
    b.added = shape->has_mask || shape->has_bias || tile->mixed_blocks;
    if (!b.added || !b.any)
        return b;
    b.any = 0;
    for (int i = 0; i < tile->n_lanes; i++)
        add_column(shape, &tile->lanes[i], t, i, &b, &b.any);
    for (int i = tile->n_lanes; i < t->width; i++)
        for (int r = 0; r < n; r++)
            t->add[r * t->width + i] = -(real)INFINITY;
    return b;
}

/* Lanes of vector z that see key r of the block. */
static inline vm visible(const tile_map *t, const block_view *b, int r, int z)
{
    const int at = z * VL;
    vm seen = v_and(v_le(v_load(t->first + at), v_set1((real)r)),
                    v_le(v_set1((real)r), v_load(t->last + at)));
    if (b->added) {
        const vf a = v_load(t->add + r * t->width + at);
        /* Not v_le(a, -inf) negated: a NaN in the bias is visible and must stay NaN. */
        const vm hides = v_eq(a, v_set1(-(real)INFINITY));
        const vf flag = v_select(hides, v_zero(), v_select(seen, v_set1(1), v_zero()));
        seen = v_eq(flag, v_set1(1));
    }
    return seen;
}

/* Does this lane see any key at all?  Asked only about rows whose every score was -infinity. */
static int sees_any_key(const qkv_shape *shape, const qkv_lane *lane)
{
    for (int64_t j = lane->lo; j <= lane->hi; j++)
        if (added_to(shape, lane, j) != -(real)INFINITY)
            return 1;
    return 0;
}
