/*
 * tmpl/mask_tmpl.h - which keys of a block each lane sees, and what is added to its scores.
 *
 * Ranges (lengths, causal, windows) are two numbers a lane and cost nothing in blocks they do not
 * cut.  Boolean mask, bias and block mask are gathered into the `add` array, where -infinity
 * hides; it is built before the product, so a block that all lanes hide is never multiplied.
 *
 * Parameters: none.  Needs one simd/ header, convert_tmpl.h and layout_tmpl.h.
 */
#include <math.h>
#include <string.h>

typedef struct block_view {
    int64_t j0;
    int n;
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
            b->hidden |= first > 0 || last < b->n - 1;
            b->any |= first <= last;
        }
        t->first[i] = (real)first;
        t->last[i] = (real)last;
    }
}

static int block_bit(const qkv_shape *shape, const qkv_lane *lane, int64_t j)
{
    return qkv_block_bit(shape->block_bits, lane->block_row + j / shape->block_k);
}

/* What one lane adds to key j: the bias, or -infinity where mask, bias or block mask hide it.  The
 * rule for single keys; gather_added is the same for many. */
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

/* Is there nothing to gather for this lane: no bias, no hidden block, and a mask without a zero
 * among keys j .. j+n-1?  memchr reads a mask faster than anything written here. */
static int adds_nothing(const qkv_tile *tile, const qkv_lane *lane, int64_t j, int n)
{
    const qkv_shape *shape = tile->shape;

    if (n <= 0)
        return 1;
    if (shape->has_bias || (shape->has_mask && shape->mask_stride != 1))
        return 0;
    if (shape->has_mask && memchr(lane->mask + j, 0, (size_t)n))
        return 0;
    for (int64_t at = j; tile->mixed_blocks && at < j + n;
         at = (at / shape->block_k + 1) * shape->block_k)
        if (!block_bit(shape, lane, at))
            return 0;
    return 1;
}

static int same_column(const qkv_lane *x, const qkv_lane *y, const tile_map *t, int i)
{
    return x->mask == y->mask && x->bias == y->bias && x->block_row == y->block_row &&
           t->first[i] == t->first[i - 1] && t->last[i] == t->last[i - 1];
}

/* The n numbers from the lane's row that belong to keys j .. j+n-1, without branches on what the
 * mask holds: a random mask would be mispredicted every other key. */
static void gather_added(const qkv_tile *tile, const qkv_lane *lane, int64_t j, int n, real *x)
{
    const qkv_shape *shape = tile->shape;
    const size_t size = qkv_type_size((qkv_type)shape->bias_type);

    if (!lane->bias)
        memset(x, 0, (size_t)n * sizeof *x);
    else if (shape->bias_stride == 1)
        widen_row(x, (const char *)lane->bias + j * (int64_t)size, shape->bias_type, n);
    else
        for (int r = 0; r < n; r++)
            x[r] = (real)qkv_load_f64(lane->bias, shape->bias_type, (j + r) * shape->bias_stride);
    if (lane->mask && shape->mask_stride == 1)
        for (int r = 0; r < n; r++)
            x[r] = lane->mask[j + r] ? x[r] : -(real)INFINITY;
    else if (lane->mask)
        for (int r = 0; r < n; r++)
            x[r] = lane->mask[(j + r) * shape->mask_stride] ? x[r] : -(real)INFINITY;
    for (int r = 0; tile->mixed_blocks && r < n; r++)
        x[r] = block_bit(shape, lane, j + r) ? x[r] : -(real)INFINITY;
}

/* Column i of `add`; says what it found in b.  Heads that share a mask come one after another, so
 * most columns of a group are copies of the one before. */
static void add_column(const qkv_tile *tile, const tile_map *t, int i, block_view *b)
{
    const qkv_lane *lane = &tile->lanes[i];
    const int first = (int)t->first[i], last = (int)t->last[i], w = t->width;
    real x[BLOCK];
    int hidden = 0;

    if (i > 0 && same_column(lane, lane - 1, t, i)) {
        for (int r = 0; r < b->n; r++)
            t->add[r * w + i] = t->add[r * w + i - 1];
        return;
    }
    for (int r = 0; r < b->n; r++)
        x[r] = -(real)INFINITY;
    if (first <= last)
        gather_added(tile, lane, b->j0 + first, last - first + 1, x + first);
    for (int r = 0; r < b->n; r++) {
        hidden += x[r] == -(real)INFINITY;
        t->add[r * w + i] = x[r];
    }
    b->hidden |= hidden > 0;
    b->any |= hidden < b->n;
}

/* Looks at block j0 .. j0+n-1 for all lanes. */
static block_view view_block(const qkv_tile *tile, const tile_map *t, int64_t j0, int n)
{
    const qkv_shape *shape = tile->shape;
    block_view b = {.j0 = j0, .n = n};
    int plain = 1;

    load_ranges(tile, t, &b);
    if (!b.any || !(shape->has_mask || shape->has_bias || tile->mixed_blocks))
        return b;
    for (int i = 0; plain && i < tile->n_lanes; i++)
        plain = adds_nothing(tile, &tile->lanes[i], j0 + (int)t->first[i],
                             (int)t->last[i] - (int)t->first[i] + 1);
    if (plain)
        return b;
    b.added = 1;
    b.any = 0;
    for (int i = 0; i < tile->n_lanes; i++)
        add_column(tile, t, i, &b);
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
