/*
 * tmpl/scores_tmpl.h - what happens to a block of scores between the product and the softmax.
 *
 * Scale (where the product left it out), soft-cap, ALiBi, bias, and -infinity where a key is hidden;
 * and looks at the scores at the stage asked for.  Each step is one pass over the rows that a
 * vector of queries has in the block (block_view), a load and a store for a few operations: a
 * tenth of the time of a product of D = 64.  So bias, hiding and the search for the maximum
 * share a pass, and ranges alone are looked at where they cut.
 *
 * Parameters: none.  Needs one simd/ header, math, operands, layout and mask templates.
 */

/* Rows of weights receive column r of the block at the stage asked for, with the scale it may still
 * lack. */
static void look_at_scores(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    const qkv_shape *shape = tile->shape;
    for (int i = 0; i < t->n_lanes; i++) {
        real *row = t->lanes[i].weights;
        const int from = b->from[i / VL] > b->extra ? b->from[i / VL] : b->extra;
        for (int r = from; row && r < b->end[i / VL]; r++)
            row[(b->j0 + r) * shape->weights_stride] = t->s[r * t->width + i] * t->scale;
    }
}

static void scale_scores(const qkv_shape *shape, const tile_map *t, const block_view *b)
{
    const vf scale = v_set1((real)shape->scale);
    for (int z = 0; z < t->vectors; z++)
        for (int r = b->from[z]; r < b->end[z]; r++) {
            real *s = t->s + r * t->width + z * VL;
            v_store(s, v_mul(v_load(s), scale));
        }
}

static void cap_scores(const qkv_shape *shape, const tile_map *t, const block_view *b)
{
    const vf c = v_set1((real)shape->softcap), inverse = v_set1((real)(1 / shape->softcap));
    const int ordinary = shape->softcap > 1e-30 && shape->softcap < 1e30;
    for (int z = 0; z < t->vectors; z++)
        for (int r = b->from[z]; r < b->end[z]; r++) {
            real *s = t->s + r * t->width + z * VL;
            const vf x = v_load(s);
            v_store(s, v_mul(c, v_tanh(ordinary ? v_mul(x, inverse) : v_div(x, c))));
        }
}

/* ALiBi: -slope |p - j|. */
static void slope_scores(const tile_map *t, const block_view *b)
{
    for (int i = 0; i < t->width; i++)
        t->position[i] = i < t->n_lanes ? (real)(t->lanes[i].position - b->j0) : 0;
    for (int z = 0; z < t->vectors; z++) {
        const vf slope = v_load(t->slope + z * VL), position = v_load(t->position + z * VL);
        for (int r = b->from[z]; r < b->end[z]; r++) {
            const int at = r * t->width + z * VL;
            const vf penalty = v_mul(slope, v_abs(v_sub(position, v_set1((real)r))));
            /* The bias joins the penalty before the score, as the budget has it. */
            if (b->added)
                v_store(t->add + at, v_sub(v_load(t->add + at), penalty));
            else
                v_store(t->s + at, v_sub(v_load(t->s + at), penalty));
        }
    }
}

/* Adds biases and hides by selection, one reason after the other: most blocks have one at most.
 * Returns the largest score. */
static vf change_rows(const tile_map *t, const block_view *b, int z, int from, int end)
{
    const vf hidden = v_set1(-(real)INFINITY);
    const int cut = b->cut, shown = b->shown, added = b->added;
    vf top = hidden;
    for (int r = from; r < end; r++) {
        real *s = t->s + r * t->width + z * VL;
        vf x = v_load(s);
        if (added)
            x = v_select(added_hides(t, r, z), hidden,
                         v_add(x, v_load(t->add + r * t->width + z * VL)));
        if (cut)
            x = v_select(in_range(t, r, z), x, hidden);
        if (shown)
            x = v_select(v_test(t->shows + r * SHOWS + z * VL), x, hidden);
        v_store(s, x);
        top = v_max(x, top);
    }
    return top;
}

/* Where only ranges hide, they do at the ends: before the last lane's first key and behind the
 * first lane's last.  Returns whether top has the largest scores. */
static int change_scores(const tile_map *t, const block_view *b, real *top)
{
    const int all = b->shown || b->added;
    for (int z = 0; z < t->vectors; z++) {
        const lane_bounds *x = &t->of[z];
        const int from = b->from[z], end = b->end[z], full = z * VL + VL <= t->n_lanes;
        const int lo = (int)clamp(x->last_lo - b->j0, from, end);
        const int hi = (int)clamp(x->first_hi + 1 - b->j0, from, end);
        if (all || lo >= hi || !full) {
            v_store(top + z * VL, change_rows(t, b, z, from, end));
        } else {
            change_rows(t, b, z, from, lo);
            change_rows(t, b, z, hi, end);
        }
    }
    return all;
}

/* Scores as the product left them, to what the softmax takes.  top has the largest scores of the
 * product; returns whether it has those of the result. */
static int adjust_scores(const qkv_tile *tile, const tile_map *t, const block_view *b, real *top)
{
    const qkv_shape *shape = tile->shape;
    const int scaled = SCALES_SCORES && !keeps_scale(shape);
    int known = !scaled && !(shape->softcap > 0) && !shape->has_slopes;

    if (scaled)
        scale_scores(shape, t, b);
    if (shape->stage == QKV_STAGE_SCORES)
        look_at_scores(tile, t, b);
    if (shape->softcap > 0)
        cap_scores(shape, t, b);
    if (shape->stage == QKV_STAGE_CAPPED)
        look_at_scores(tile, t, b);
    if (shape->has_slopes)
        slope_scores(t, b);
    if (b->hidden || b->added)
        known = change_scores(t, b, top);
    if (shape->stage == QKV_STAGE_BIASED || shape->stage == QKV_STAGE_WEIGHTS)
        look_at_scores(tile, t, b);
    return known;
}
