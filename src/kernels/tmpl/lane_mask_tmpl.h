/*
 * tmpl/lane_mask_tmpl.h - what mask, bias and block mask say about the keys of one lane.
 *
 * Parameters: none.  Needs one simd/ header and convert_tmpl.h.
 */

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
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

/* May mask or block mask hide one of keys j .. j+n-1?  memchr reads a mask faster than anything
 * written here. */
static int hides_some(const qkv_tile *tile, const qkv_lane *lane, int64_t j, int n)
{
    const qkv_shape *shape = tile->shape;

    if (n <= 0)
        return 0;
    if (shape->has_mask && (shape->mask_stride != 1 || memchr(lane->mask + j, 0, (size_t)n)))
        return 1;
    for (int64_t at = j; tile->mixed_blocks && at < j + n;
         at = (at / shape->block_k + 1) * shape->block_k)
        if (!block_bit(shape, lane, at))
            return 1;
    return 0;
}

/* The n numbers from the lane's row that belong to keys j .. j+n-1, without branches on what the
 * mask holds: a random mask would be mispredicted every other key. */
__attribute__((unused)) /* where there is no decode_tmpl.h */
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

/* Does this lane see any key at all?  Asked only about rows whose every score was -infinity. */
static int sees_any_key(const qkv_shape *shape, const qkv_lane *lane)
{
    for (int64_t j = lane->lo; j <= lane->hi; j++)
        if (added_to(shape, lane, j) != -(real)INFINITY)
            return 1;
    return 0;
}
