/*
 * tmpl/row_scores_tmpl.h - rows of scores between the two products: masks, biases, softmax.
 *
 * As mask_tmpl.h and attend_tmpl.h have it for lanes.  A row sees a key or not; what is added to its
 * scores is gathered only where a mask or a bias says something.
 *
 * Parameters: none.  Needs one simd/ header, mask and math templates, and row_map of decode_tmpl.h.
 */

/* One row's view of block j0 .. j0+n-1: fills hides and, if it has something to add, add. */
static void view_row(const qkv_tile *tile, const row_map *t, int i, block_view *b)
{
    const qkv_lane *lane = &tile->lanes[i];
    const int first = (int)clamp(lane->lo - b->j0, 0, b->n);
    const int last = (int)clamp(lane->hi - b->j0, -1, b->n - 1);
    real *add = t->add + i * BLOCK;
    uint8_t *hides = t->hides + i * BLOCK;
    int hidden = 0;

    memset(hides, 1, (size_t)b->n);
    if (first <= last) {
        memset(hides + first, 0, (size_t)(last - first + 1));
        if (b->added)
            memset(add + first, 0, (size_t)(last - first + 1) * sizeof *add);
    }
    if (b->added && first <= last &&
        (lane->bias || hides_some(tile, lane, b->j0 + first, last - first + 1))) {
        gather_added(tile, lane, b->j0 + first, last - first + 1, add + first);
        for (int r = first; r <= last; r++)
            hides[r] = add[r] == -(real)INFINITY;
    }
    for (int r = 0; r < b->n; r++)
        hidden += hides[r];
    b->hidden |= hidden > 0;
    b->any |= hidden < b->n;
}

/* Does every row see the whole block?  Most blocks are such, and the time between the two products is time
 * in which memory idles. */
static int all_see(const qkv_tile *tile, const row_map *t, int64_t j0, int n)
{
    for (int i = 0; i < t->rows; i++)
        if (tile->lanes[i].lo > j0 || tile->lanes[i].hi < j0 + n - 1)
            return 0;
    return 1;
}

static block_view view_rows(const qkv_tile *tile, const row_map *t, int64_t j0, int n)
{
    block_view b = {.j0 = j0, .n = n};

    b.added = tile->shape->has_mask || tile->shape->has_bias || tile->mixed_blocks;
    if (!b.added && all_see(tile, t, j0, n)) {
        memset(t->hides, 0, (size_t)t->rows * BLOCK);
        b.any = 1;
        return b;
    }
    for (int i = 0; i < t->rows; i++)
        view_row(tile, t, i, &b);
    return b;
}

/* ---- scores ----------------------------------------------------------------------------------- */

static void look_at_rows(const qkv_tile *tile, const row_map *t, const block_view *b)
{
    for (int i = 0; i < t->rows; i++) {
        real *row = tile->lanes[i].weights;
        for (int r = b->extra; row && r < b->n; r++)
            row[(b->j0 + r) * tile->shape->weights_stride] = t->s[i * BLOCK + r];
    }
}

static void cap_row(const qkv_shape *shape, real *s, int n)
{
    const vf c = v_set1((real)shape->softcap);
    for (int r = 0; r < n; r += VL)
        v_store(s + r, v_mul(c, v_tanh(v_div(v_load(s + r), c))));
}

static void bias_row(const qkv_tile *tile, const row_map *t, const block_view *b, int i)
{
    const qkv_lane *lane = &tile->lanes[i];
    const real *add = t->add + i * BLOCK;
    const uint8_t *hides = t->hides + i * BLOCK;
    real *s = t->s + i * BLOCK;

    for (int r = 0; r < b->n; r++) {
        real more = b->added && !hides[r] ? add[r] : 0;
        if (tile->shape->has_slopes) {
            const real distance = (real)(lane->position - b->j0 - r);
            more -= (real)lane->slope * (distance < 0 ? -distance : distance);
        }
        s[r] = hides[r] ? -(real)INFINITY : s[r] + more;
    }
}

static void adjust_rows(const qkv_tile *tile, const row_map *t, const block_view *b)
{
    const qkv_shape *shape = tile->shape;

    if (shape->stage == QKV_STAGE_SCORES)
        look_at_rows(tile, t, b);
    for (int i = 0; shape->softcap > 0 && i < t->rows; i++)
        cap_row(shape, t->s + i * BLOCK, b->n);
    if (shape->stage == QKV_STAGE_CAPPED)
        look_at_rows(tile, t, b);
    for (int i = 0; i < t->rows; i++)
        if (shape->has_slopes || b->added || b->hidden)
            bias_row(tile, t, b, i);
    if (shape->stage == QKV_STAGE_BIASED || shape->stage == QKV_STAGE_WEIGHTS)
        look_at_rows(tile, t, b);
}

/* As soften in attend_tmpl.h, along a row. */
static void soften_row(const row_map *t, int i, int n)
{
    real *s = t->s + i * BLOCK;
    const int whole = padded_to_vectors(n);
    real lanes[VL];

    for (int r = n; r < whole; r++)
        s[r] = -(real)INFINITY;
    vf top = v_set1(t->m[i]);
    for (int r = 0; r < whole; r += VL)
        top = v_max(v_load(s + r), top);
    v_store(lanes, top);
    real m = lanes[0];
    for (int z = 1; z < VL; z++)
        m = lanes[z] > m ? lanes[z] : m;

    const vf shift = v_set1(m == -(real)INFINITY ? 0 : m);
    vf sum = v_zero();
    for (int r = 0; r < whole; r += VL) {
        const vf p = v_exp_weight(v_sub(v_load(s + r), shift));
        sum = v_add(sum, p);
        v_store(s + r, p);
    }
    v_store(lanes, v_exp(v_sub(v_set1(t->m[i]), shift)));
    const vf parts[4] = {sum, v_zero(), v_zero(), v_zero()};
    real sums[4];
    v_sum4(parts, sums);
    t->rescale[i] = lanes[0];
    t->l[i] = t->l[i] * lanes[0] + sums[0];
    t->m[i] = m;
}
