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
 * A tile's sub-tiles take turns at each block, so that widening or pairing keys and values is done
 * once for all of them.
 *
 * Parameters: none.  Needs one simd/ header, math, operands, products, convert, layout and mask
 * templates.
 */

/* VL queries into their lanes of qt. */
static void load_queries(const qkv_tile *tile, const tile_map *t, int i)
{
    const qkv_shape *shape = tile->shape;
    const int steps = operand_steps(t->d), stride = steps + VL;

    for (int k = 0; k < VL; k++) {
        real *row = t->row + k * stride;
        if (i + k < t->n_lanes)
            query_operands(row, t->lanes[i + k].q, shape->q_type, t->d, (real)shape->scale);
        else
            memset(row, 0, (size_t)steps * sizeof *row);
    }
    transpose_rows(t->row, stride, steps, t->qt + i, t->width);
}

static void begin(const qkv_tile *tile)
{
    for (int sub = 0; sub < sub_tiles_of(tile->n_lanes); sub++) {
        const tile_map t = map_tile(tile, sub);
        for (int i = 0; i < t.width; i++) {
            t.m[i] = -(real)INFINITY;
            t.l[i] = 0;
            t.slope[i] = i < t.n_lanes ? (real)t.lanes[i].slope : 0;
        }
        for (int i = 0; i < t.width; i += VL)
            load_queries(tile, &t, i);
        for (int64_t i = 0; i < (int64_t)t.dv * t.width; i += VL)
            v_store(t.ot + i, v_zero());
    }
}

/* Rows of weights receive column r of the block at the stage asked for. */
static void look_at_scores(const qkv_tile *tile, const tile_map *t, const block_view *b)
{
    const qkv_shape *shape = tile->shape;
    for (int i = 0; i < t->n_lanes; i++) {
        real *row = t->lanes[i].weights;
        for (int r = b->extra; row && r < b->n; r++)
            row[(b->j0 + r) * shape->weights_stride] = t->s[r * t->width + i];
    }
}

static void cap_scores(const qkv_shape *shape, const tile_map *t, int n)
{
    const vf c = v_set1((real)shape->softcap), inverse = v_set1((real)(1 / shape->softcap));
    const int ordinary = shape->softcap > 1e-30 && shape->softcap < 1e30;
    for (int i = 0; i < n * t->width; i += VL) {
        real *s = t->s + i;
        const vf x = v_load(s);
        v_store(s, v_mul(c, v_tanh(ordinary ? v_mul(x, inverse) : v_div(x, c))));
    }
}

/* ALiBi: -slope |p - j|. */
static void slope_scores(const tile_map *t, const block_view *b)
{
    for (int i = 0; i < t->width; i++)
        t->position[i] = i < t->n_lanes ? (real)(t->lanes[i].position - b->j0) : 0;
    for (int r = 0; r < b->n; r++)
        for (int i = 0; i < t->width; i += VL) {
            real *s = t->s + r * t->width + i;
            const vf distance = v_abs(v_sub(v_load(t->position + i), v_set1((real)r)));
            const vf penalty = v_mul(v_load(t->slope + i), distance);
            /* The bias joins the penalty before the score, as the budget has it. */
            if (b->added) {
                real *add = t->add + r * t->width + i;
                v_store(add, v_sub(v_load(add), penalty));
            } else {
                v_store(s, v_sub(v_load(s), penalty));
            }
        }
}

static void add_scores(const tile_map *t, const block_view *b)
{
    for (int i = 0; i < b->n * t->width; i += VL)
        v_store(t->s + i, v_add(v_load(t->s + i), v_load(t->add + i)));
}

/* Hides by selection, one reason after the other: most blocks have one at most. */
static void hide_scores(const tile_map *t, const block_view *b)
{
    const vf hidden = v_set1(-(real)INFINITY);
    for (int r = 0; r < b->n; r++)
        for (int z = 0; z < t->vectors; z++) {
            real *s = t->s + r * t->width + z * VL;
            vf x = v_load(s);
            if (b->cut)
                x = v_select(in_range(t, r, z), x, hidden);
            if (b->shown)
                x = v_select(v_test(t->shows + r * SHOWS + z * VL), x, hidden);
            if (b->added)
                x = v_select(added_hides(t, r, z), hidden, x);
            v_store(s, x);
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
    if (shape->has_slopes)
        slope_scores(t, b);
    if (b->added)
        add_scores(t, b);
    if (b->hidden)
        hide_scores(t, b);
    if (shape->stage == QKV_STAGE_BIASED || shape->stage == QKV_STAGE_WEIGHTS)
        look_at_scores(tile, t, b);
}

/* values_product for blocks with NaN or infinity in V and pairs that may not meet. */
static void values_selected(const tile_map *t, const block_view *b, const real *v, int64_t stride)
{
    for (int c = 0; c < t->dv; c++)
        for (int z = 0; z < t->vectors; z++) {
            vf acc = v_zero();
            for (int r = 0; r < b->n; r++) {
                const vf p = weights_of(t->s, t->width, r, z);
                const vf next = v_fma(v_set1(value_of(v, stride, r, c)), p, acc);
                acc = v_select(visible(t, b, r, z), next, acc);
            }
            real *o = t->ot + (int64_t)c * t->width + z * VL;
            v_store(o, v_fma(v_load(t->rescale + z * VL), v_load(o), acc));
        }
}

#if !defined(QKV_TILES) /* attend_tiles_tmpl.h takes the same steps in another order */

/* Scores to weights for Z vectors of queries at once, which hides the latency of the running maximum
 * and sum; raises m, updates l, leaves exp(m_old - m_new) in rescale. */
INLINE void soften_width(const tile_map *t, int n, int z0, const int Z)
{
    const int width = t->width;
    real *s = t->s;
    vf m[LANES], shift[LANES], sum[LANES];

    UNROLL for (int z = 0; z < Z; z++) m[z] = v_load(t->m + (z0 + z) * VL);
    for (int r = 0; r < n; r++) {
        UNROLL for (int z = 0; z < Z; z++) /* keeps m where the score is NaN */
            m[z] = v_max(v_load(s + r * width + (z0 + z) * VL), m[z]);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        shift[z] = v_select(v_eq(m[z], v_set1(-(real)INFINITY)), v_zero(), m[z]);
        sum[z] = v_zero();
    }
    int r = 0;
    for (; r + 2 <= n; r += 2) {
        UNROLL for (int z = 0; z < Z; z++)
        {
            const real *at = s + r * width + (z0 + z) * VL;
            const vf p = exp_weight(v_sub(v_load(at), shift[z]));
            const vf next = exp_weight(v_sub(v_load(at + width), shift[z]));
            sum[z] = v_add(v_add(sum[z], p), next);
            store_weights(s, width, r, z0 + z, p, next);
        }
    }
    UNROLL for (int z = 0; z < Z && r < n; z++)
    {
        const vf p = exp_weight(v_sub(v_load(s + r * width + (z0 + z) * VL), shift[z]));
        sum[z] = v_add(sum[z], p);
        store_last_weight(s, width, r, z0 + z, p);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        const int at = (z0 + z) * VL;
        const vf a = v_exp(v_sub(v_load(t->m + at), shift[z]));
        v_store(t->rescale + at, a);
        v_store(t->l + at, v_fma(v_load(t->l + at), a, sum[z]));
        v_store(t->m + at, m[z]);
    }
}

/* Pairs of weights go where the scores of an earlier key were: all vectors of a row must have been
 * read, so they go together or, one vector after the other, in columns of their own. */
static void soften(const tile_map *t, int n)
{
#if LANES == 3
    if (t->vectors == 3) {
        soften_width(t, n, 0, 3);
        return;
    }
#endif
    for (int z = 0; z < t->vectors; z++)
        soften_width(t, n, z, 1);
}

/* Keys and values of a block as the products read them, made when the first sub-tile asks. */
typedef struct block_operands {
    const qkv_kv *kv;
    int k_type, v_type;
    int64_t j0;
    int n, extra; /* extra: keys before the run, see block_view */
    const char *k;
    int64_t k_step;
    const real *v;
    int64_t v_stride;
    int finite; /* 1, 0, or -1: nobody has looked yet */
} block_operands;

static void need_keys(const qkv_shape *shape, const tile_map *t, block_operands *x)
{
    if (!x->k)
        x->k = key_operands(shape, t->kw, x->kv, x->k_type, x->j0, x->n, &x->k_step);
}

static void need_values(const qkv_shape *shape, const tile_map *t, block_operands *x, int hidden)
{
    if (!x->v)
        x->v = value_operands(shape, t->vw, x->kv, x->v_type, x->j0, x->n, &x->v_stride);
    if (hidden && x->finite < 0)
        x->finite = values_finite(x->v, x->v_stride, x->n, t->dv);
}

/* The keys of the block that this sub-tile's ranges show, in whole units: from r0, n.  A key that
 * shares its unit with a visible one is multiplied with it, so it must be looked at and hidden. */
static int64_t trim_block(const tile_map *t, const block_operands *x, int *r0)
{
    const int64_t lo = clamp(t->first_lo - x->j0, 0, x->n) / KEY_UNIT * KEY_UNIT;
    const int64_t end = clamp(t->last_hi + 1 - x->j0, 0, x->n) + KEY_UNIT - 1;
    *r0 = (int)lo;
    return clamp(end / KEY_UNIT * KEY_UNIT, 0, x->n) - lo;
}

static void attend_block(const qkv_tile *tile, const tile_map *t, block_operands *x)
{
    const qkv_shape *shape = tile->shape;
    const int raw = shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;
    int r0 = 0;
    const int n = raw ? x->n : (int)trim_block(t, x, &r0);

    if (n <= 0)
        return;
    block_view b = view_block(tile, t, x->j0 + r0, n);
    if (!b.any && !raw)
        return;
    b.extra = raw ? x->extra : 0; /* later stages show them as hidden, which they are */
    need_keys(shape, t, x);
    scores_product(x->k + r0 * x->k_step, x->k_step, n, t->qt, operand_steps(t->d),
                   (real)shape->scale, t->s, t->vectors);
    adjust_scores(tile, t, &b);
    if (!b.any)
        return;
    soften(t, n);
    need_values(shape, t, x, b.hidden);
    const real *v = x->v + r0 / KEY_UNIT * x->v_stride;
    if (b.hidden && !x->finite)
        values_selected(t, &b, v, x->v_stride);
    else
        values_product(v, x->v_stride, operand_keys(n), t->s, t->rescale, t->dv, t->ot,
                       t->vectors);
}

static void attend_keys(const qkv_tile *tile, const qkv_kv *kv, int k_type, int v_type, int64_t j0,
                        int64_t j1)
{
    const int n_subs = sub_tiles_of(tile->n_lanes);
    tile_map maps[SUB_TILES];

    for (int sub = 0; sub < n_subs; sub++)
        maps[sub] = map_tile(tile, sub);
    for (int64_t j = j0 / KEY_UNIT * KEY_UNIT, end; j < j1; j = end) {
        end = block_end(j, j1);
        block_operands x = {.kv = kv, .k_type = k_type, .v_type = v_type, .j0 = j,
                            .n = (int)(end - j), .extra = j < j0, .finite = -1};
        for (int sub = 0; sub < n_subs; sub++)
            attend_block(tile, &maps[sub], &x);
    }
}

#endif
