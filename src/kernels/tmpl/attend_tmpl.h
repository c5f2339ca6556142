/*
 * tmpl/attend_tmpl.h - streaming attention of one tile of queries, for every ISA.
 *
 * For each block of at most BLOCK keys (FlashAttention-2, Dao 2023, algorithm 1):
 *
 *     S    = K Q^T                                    scores_product
 *     S    = cap, ALiBi, bias, -infinity where hidden  adjust_scores
 *     m'   = max(m, max S)        a = exp(m - m')
 *     P    = exp(S - m')          l = a l + sum P      soften
 *     O    = a O + V P                                 values_product
 *
 * Maximum, sum and masks are vertical in this layout (queries in lanes): there is no
 * horizontal reduction anywhere.
 *
 * Hidden keys.  Their scores become -infinity by selection and their weights exactly 0, but
 * 0 times a NaN in V is NaN, for the lanes that do not see the key as for those that do.  So blocks
 * with a hidden pair look whether V is finite (one pass over n Dv numbers, against n Dv width
 * products), and only if it is not take the slow product that selects per lane.
 *
 * A row whose scores are all -infinity has m = -infinity; exp(m - m) would be NaN.  The
 * maximum is replaced by 0 then, all weights are 0, and finish decides: no visible key gives zeros;
 * visible keys that all scored -infinity give NaN, as the formula does.
 *
 * Parameters: none.  Needs one simd/ header, math, products, convert, layout and mask templates.
 */

static void begin(const qkv_tile *tile)
{
    const qkv_shape *shape = tile->shape;
    const tile_map t = map_tile(tile);
    const real scale = (real)shape->scale;

    for (int i = 0; i < t.width; i++) {
        t.m[i] = -(real)INFINITY;
        t.l[i] = 0;
        t.slope[i] = i < tile->n_lanes ? (real)tile->lanes[i].slope : 0;
        if (i < tile->n_lanes)
            widen_row(t.row, tile->lanes[i].q, shape->q_type, t.d);
        for (int c = 0; c < t.d; c++)
            t.qt[(int64_t)c * t.width + i] = i < tile->n_lanes ? t.row[c] * scale : 0;
    }
    for (int64_t i = 0; i < (int64_t)t.dv * t.width; i += VL)
        v_store(t.ot + i, v_zero());
}

/* Rows of weights receive column r of the block at the stage asked for. */
static void look_at_scores(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    const qkv_shape *shape = tile->shape;
    for (int i = 0; i < tile->n_lanes; i++) {
        real *row = tile->lanes[i].weights;
        for (int r = 0; row && r < b->n; r++)
            row[(b->j0 + r) * shape->weights_stride] = t->s[r * t->width + i];
    }
}

static void cap_scores(const qkv_shape *shape, const tile_map *t, int n)
{
    const vf c = v_set1((real)shape->softcap);
    for (int i = 0; i < n * t->width; i += VL) {
        real *s = t->s + i;
        v_store(s, v_mul(c, v_tanh(v_div(v_load(s), c))));
    }
}

/* ALiBi, bias, visibility. */
static void bias_scores(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    const int slopes = tile->shape->has_slopes;
    for (int i = 0; slopes && i < t->width; i++)
        t->position[i] = i < tile->n_lanes ? (real)(tile->lanes[i].position - b->j0) : 0;
    for (int r = 0; r < b->n; r++)
        for (int z = 0; z < t->vectors; z++) {
            real *s = t->s + r * t->width + z * VL;
            vf more = v_zero();
            if (slopes) {
                const vf distance = v_abs(v_sub(v_load(t->position + z * VL), v_set1((real)r)));
                more = v_sub(v_zero(), v_mul(v_load(t->slope + z * VL), distance));
            }
            if (b->added)
                more = v_add(more, v_load(t->add + r * t->width + z * VL));
            const vf x = v_add(v_load(s), more);
            v_store(s, b->hidden ? v_select(visible(t, b, r, z), x, v_set1(-(real)INFINITY)) : x);
        }
}

static void adjust_scores(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    const qkv_shape *shape = tile->shape;

    if (shape->stage == QKV_STAGE_SCORES)
        look_at_scores(tile, t, b);
    if (shape->softcap > 0)
        cap_scores(shape, t, b->n);
    if (shape->stage == QKV_STAGE_CAPPED)
        look_at_scores(tile, t, b);
    if (shape->has_slopes || b->added || b->hidden)
        bias_scores(tile, t, b);
    if (shape->stage == QKV_STAGE_BIASED || shape->stage == QKV_STAGE_WEIGHTS)
        look_at_scores(tile, t, b);
}

/* Scores to weights; raises m, updates l, leaves exp(m_old - m_new) in rescale. */
static void soften(const tile_map *t, int n)
{
    for (int z = 0; z < t->vectors; z++) {
        real *s = t->s + z * VL;
        const vf old = v_load(t->m + z * VL);
        vf m = old;
        for (int r = 0; r < n; r++)
            m = v_max(v_load(s + r * t->width), m); /* keeps m where the score is NaN */
        const vf shift = v_select(v_eq(m, v_set1(-(real)INFINITY)), v_zero(), m);
        vf sum = v_zero();
        for (int r = 0; r < n; r++) {
            const vf p = v_exp(v_sub(v_load(s + r * t->width), shift));
            sum = v_add(sum, p);
            v_store(s + r * t->width, p);
        }
        const vf a = v_exp(v_sub(old, shift));
        v_store(t->rescale + z * VL, a);
        v_store(t->l + z * VL, v_fma(v_load(t->l + z * VL), a, sum));
        v_store(t->m + z * VL, m);
    }
}

/* Is every value of the block finite?  x times 0 is NaN if not. */
static int all_finite(const real *v, int64_t stride, int n, int dv)
{
    vf probe = v_zero();
    real rest = 0;
    for (int j = 0; j < n; j++) {
        const real *row = v + j * stride;
        int c = 0;
        for (; c + VL <= dv; c += VL)
            probe = v_fma(v_load(row + c), v_zero(), probe);
        for (; c < dv; c++)
            rest += row[c] * 0;
    }
    probe = v_add(probe, v_set1(rest));
    return !has_nan(probe);
}

/* values_product for blocks with NaN or infinity in V and pairs that may not meet. */
static void values_selected(const tile_map *t, const block_view *b, const real *v, int64_t stride)
{
    for (int c = 0; c < t->dv; c++)
        for (int z = 0; z < t->vectors; z++) {
            vf acc = v_zero();
            for (int r = 0; r < b->n; r++) {
                const vf p = v_load(t->s + r * t->width + z * VL);
                const vf next = v_fma(v_set1(v[r * stride + c]), p, acc);
                acc = v_select(visible(t, b, r, z), next, acc);
            }
            real *o = t->ot + (int64_t)c * t->width + z * VL;
            v_store(o, v_fma(v_load(t->rescale + z * VL), v_load(o), acc));
        }
}

static const real *as_reals(real *buffer, const void *rows, int type, int64_t j0, int64_t *stride,
                            int n, int d)
{
    const char *first = (const char *)rows + j0 * *stride * (int64_t)qkv_type_size((qkv_type)type);
    if (type == REAL_TYPE)
        return (const real *)(const void *)first;
    widen_rows(buffer, first, type, *stride, n, d);
    *stride = d;
    return buffer;
}

static void attend_block(const qkv_tile *tile, const tile_map *t, const void *k, int k_type,
                         const void *v, int v_type, int64_t j0, int n)
{
    const qkv_shape *shape = tile->shape;
    const block_view b = view_block(tile, t, j0, n);
    const int raw = shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;

    if (!b.any && !raw)
        return;
    int64_t k_stride = shape->k_stride, v_stride = shape->v_stride;
    const real *kr = as_reals(t->kw, k, k_type, j0, &k_stride, n, t->d);
    scores_product(kr, k_stride, n, t->qt, t->d, t->s, t->vectors);
    adjust_scores(tile, t, &b);
    if (!b.any)
        return;
    soften(t, n);
    const real *vr = as_reals(t->vw, v, v_type, j0, &v_stride, n, t->dv);
    if (b.hidden && !all_finite(vr, v_stride, n, t->dv))
        values_selected(t, &b, vr, v_stride);
    else
        values_product(vr, v_stride, n, t->s, t->rescale, t->dv, t->ot, t->vectors);
}

static void attend_keys(const qkv_tile *tile, const void *k, int k_type, const void *v, int v_type,
                        int64_t j0, int64_t j1)
{
    const tile_map t = map_tile(tile);
    for (int64_t j = j0, end; j < j1; j = end) {
        end = block_end(j, j1);
        attend_block(tile, &t, k, k_type, v, v_type, j, (int)(end - j));
    }
}
