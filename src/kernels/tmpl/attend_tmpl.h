/*
 * tmpl/attend_tmpl.h - streaming attention of one tile of queries, for every ISA.
 *
 * For each block of at most BLOCK keys (FlashAttention-2, Dao 2023, algorithm 1):
 *
 *     S    = K Q^T                                    scores_product
 *     S    = cap, ALiBi, bias, -infinity where hidden  adjust_scores (scores_tmpl.h)
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
 * products), and only if it is not take the slow product that has 0 there.
 *
 * A row whose scores are all -infinity has m = -infinity; exp(m - m) would be NaN.  The
 * maximum is replaced by 0 then, all weights are 0, and finish decides: no visible key gives zeros;
 * visible keys that all scored -infinity give NaN, as the formula does.
 *
 * A tile's sub-tiles take turns at each block, so that widening or pairing keys and values is done
 * once for all of them.
 *
 * Parameters: none.  Needs one simd/ header, math, operands, products, convert, layout, mask and
 * scores templates.
 */

/* VL queries into their lanes of qt.  Rows are read to whole vectors: past their end there is
 * room. */
static void load_queries(const qkv_tile *tile, const tile_map *t, int i)
{
    const qkv_shape *shape = tile->shape;
    const int steps = operand_steps(t->d), stride = steps + VL;
    const vf scale = v_set1((real)shape->scale);
    const real *rows[VL];

    for (int k = 0; k < VL; k++) {
        real *row = t->row + k * stride;
        rows[k] = row;
        if (i + k < t->n_lanes)
            rows[k] = query_row(row, t->lanes[i + k].q, shape->q_type, t->d);
        else
            memset(row, 0, (size_t)steps * sizeof *row);
    }
    for (int c = 0; c < steps; c += VL) {
        vf a[VL];
        UNROLL for (int k = 0; k < VL; k++) a[k] = v_load(rows[k] + c);
        transpose(a);
        UNROLL for (int k = 0; k < VL; k++)
        {
            if (c + k < steps)
                v_store(t->qt + i + (c + k) * t->width, scale_query(a[k], scale));
        }
    }
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
        begin_ranges(&t);
        for (int i = 0; i < t.width; i += VL)
            load_queries(tile, &t, i);
        for (int64_t i = 0; i < (int64_t)t.dv * t.width; i += VL)
            v_store(t.ot + i, v_zero());
    }
}

#if !defined(QKV_TILES) /* attend_tiles_tmpl.h takes the same steps in another order */

/* values_product for blocks with NaN or infinity in V and pairs that may not meet: the same sums in the
 * same order, with 0 in place of values that a lane does not see.  Their weights are 0 already, so no
 * other bit changes. */
static void values_selected(const tile_map *t, const block_view *b, const real *v, int64_t stride)
{
    const vm nobody = v_eq(v_zero(), v_set1(1));

    for (int c = 0; c < t->dv; c++)
        for (int z = 0; z < t->vectors; z++) {
            vf acc = v_zero();
            for (int r = b->from[z]; r < b->end[z]; r += KEY_UNIT) {
                vm see[KEY_UNIT];
                for (int k = 0; k < KEY_UNIT; k++)
                    see[k] = r + k < b->end[z] ? visible(t, b, r + k, z) : nobody;
                const int step = r / KEY_UNIT;
                const vf p = v_load(t->s + step * t->width + z * VL);
                acc = madd(shown_operand(v + step * stride + c, see), p, acc);
            }
            real *o = t->ot + (int64_t)c * t->width + z * VL;
            v_store(o, v_fma(v_load(t->rescale + z * VL), v_load(o), acc));
        }
}

#include "kernels/tmpl/block_operands_tmpl.h"

/* Scores of Z vectors of queries to weights, which replace them; updates l, and leaves exp(m_old -
 * m_new) in rescale.  m: the new maximum.  WHOLE: as single numbers, not as operands. */
INLINE void weigh(const tile_map *t, const vf m[LANES], int from, int n, int z0, const int Z,
                  const int FAR, const int WHOLE)
{
    const int width = t->width;
    const vf scale = v_set1(t->scale), unit = v_set1(t->scale * weight_unit());
    real *s = t->s + z0 * VL;
    vf near[LANES], shift[LANES], sum[LANES];

    UNROLL for (int z = 0; z < Z; z++)
    {
        near[z] = no_infinity(m[z]);
        shift[z] = weight_shift(near[z]);
        sum[z] = v_zero();
    }
#define WEIGHT(r)                                                                                  \
    exp_weight(FAR ? exponent_far(v_load(s + (r)*width + z * VL), scale, near[z], unit, shift[z])  \
                   : exponent(v_load(s + (r)*width + z * VL), unit, shift[z]))
    int r = from;
    for (; r + 2 <= n; r += 2) {
        UNROLL for (int z = 0; z < Z; z++)
        {
            const vf p = WEIGHT(r), next = WEIGHT(r + 1);
            sum[z] = v_add(v_add(sum[z], p), next);
            if (WHOLE) {
                v_store(s + r * width + z * VL, p);
                v_store(s + (r + 1) * width + z * VL, next);
            } else {
                store_weights(s, width, r, z, p, next);
            }
        }
    }
    UNROLL for (int z = 0; z < Z && r < n; z++)
    {
        const vf p = WEIGHT(r);
        sum[z] = v_add(sum[z], p);
        if (WHOLE)
            v_store(s + r * width + z * VL, p);
        else
            store_last_weight(s, width, r, z, p);
    }
#undef WEIGHT
    UNROLL for (int z = 0; z < Z; z++)
    {
        const int at = (z0 + z) * VL;
        const vf a = weight_of_old(v_load(t->m + at), near[z]);
        v_store(t->rescale + at, a);
        v_store(t->l + at, v_fma(v_load(t->l + at), a, sum[z]));
        v_store(t->m + at, m[z]);
    }
}

static void weigh_far(const tile_map *t, vf m, int from, int n, int z, int whole)
{
    const vf one[LANES] = {m};
    if (whole)
        weigh(t, one, from, n, z, 1, 1, 1);
    else
        weigh(t, one, from, n, z, 1, 1, 0);
}

/* Raises the maximum of Z vectors of queries at once, which hides its latency and that of the sum.
 * `top` has the largest scores, or is NULL where they were changed since the product. */
INLINE void soften_width(const tile_map *t, const real *top, int from, int n, int z0, const int Z,
                         const int WHOLE)
{
    const vf scale = v_set1(t->scale);
    const real *s = t->s + z0 * VL;
    vf m[LANES];
    int far = 0;

    UNROLL for (int z = 0; z < Z; z++)
        m[z] = top ? v_load(top + (z0 + z) * VL) : v_set1(-(real)INFINITY);
    for (int r = from; !top && r < n; r++) {
        UNROLL for (int z = 0; z < Z; z++) /* keeps m where the score is NaN */
            m[z] = v_max(v_load(s + r * t->width + z * VL), m[z]);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        m[z] = v_max(v_mul(m[z], scale), v_load(t->m + (z0 + z) * VL));
        far |= any_far(no_infinity(m[z]));
    }
    if (!far) {
        weigh(t, m, from, n, z0, Z, 0, WHOLE);
        return;
    }
    UNROLL for (int z = 0; z < Z; z++) weigh_far(t, m[z], from, n, z0 + z, WHOLE);
}

/* Pairs of weights go where the scores of an earlier key were: all vectors of a row must have been
 * read, so they go together or, one vector after the other, in columns of their own. */
INLINE void soften_all(const tile_map *t, const block_view *b, const real *top, const int WHOLE)
{
#if LANES == 3
    if (t->vectors == 3 && b->from[0] == b->from[2] && b->end[0] == b->end[2]) {
        soften_width(t, top, b->from[0], b->end[0], 0, 3, WHOLE);
        return;
    }
#endif
    for (int z = 0; z < t->vectors; z++)
        soften_width(t, top, b->from[z], b->end[z], z, 1, WHOLE);
}

static void soften(const tile_map *t, const block_view *b, const real *top)
{
    soften_all(t, b, top, 0);
}

/* Which of n keys from j0 on some ranges show, in whole units counted from j0.  A key that shares
 * its unit with a visible one is multiplied with it, so it must be looked at and hidden. */
static void cut_range(const lane_bounds *x, int64_t j0, int n, int *from, int *end)
{
    const int64_t lo = clamp(x->first_lo - j0, 0, n) / CUT_KEYS * CUT_KEYS;
    const int64_t hi = (clamp(x->last_hi + 1 - j0, 0, n) + CUT_KEYS - 1) / CUT_KEYS * CUT_KEYS;
    *from = (int)lo;
    *end = (int)clamp(hi, lo, n);
}

/* The staircase of a block: both ends ascend with the vectors, so those that see a key are
 * neighbours. */
static strips cut_strips(const tile_map *t, block_view *b, int narrow)
{
    strips out = {.n = 0};

    for (int z = 0; NARROWS && narrow && b->cut && z < t->vectors; z++)
        cut_range(&t->of[z], b->j0, b->n, &b->from[z], &b->end[z]);
    for (int r = b->from[0], next; r < b->n; r = next) {
        int z0 = 0, z1 = 0;
        next = b->n;
        for (int z = 0; z < t->vectors; z++) {
            z0 += b->end[z] <= r;
            z1 += b->from[z] <= r;
            next = b->from[z] > r && b->from[z] < next ? b->from[z] : next;
            next = b->end[z] > r && b->end[z] < next ? b->end[z] : next;
        }
        if (z0 < z1)
            out.of[out.n++] = (strip){r, next, z0, z1};
    }
    return out;
}

static void attend_block(const qkv_tile *tile, const tile_map *t, block_operands *x)
{
    const qkv_shape *shape = tile->shape;
    const int raw = shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;
    int r0 = 0, end = x->n;

    if (!raw)
        cut_range(&t->all, x->j0, x->n, &r0, &end);
    if (r0 >= end)
        return;
    block_view b = view_block(tile, t, x->j0 + r0, end - r0);
    if (!b.any && !raw)
        return;
    b.extra = raw ? x->extra : 0; /* later stages show them as hidden, which they are */
    const strips keys = cut_strips(t, &b, !raw);
    _Alignas(64) real top[MAX_WIDTH];
    for (int i = 0; i < t->width; i += VL)
        v_store(top + i, v_set1(-(real)INFINITY));
    need_keys(shape, t, x);
    const int asks = tile->streams && !x->v; /* the first sub-tile does */
    for (const strip *y = keys.of; y < keys.of + keys.n; y++)
        scores_product(x->k + r0 * x->k_step, x->k_step, y, t->qt, operand_steps(t->d),
                       t->s, top, t->width, asks && y == keys.of ? &x->values : NULL);
    const int known = adjust_scores(tile, t, &b, top);
    if (!b.any)
        return;
    soften(t, &b, known ? top : NULL);
    need_values(shape, t, x, b.hidden);
    const real *v = x->v + r0 / KEY_UNIT * x->v_stride;
    if (b.hidden && !x->finite)
        values_selected(t, &b, v, x->v_stride);
    else
        values_product(v, x->v_stride, &keys, t->s, t->rescale, t->dv, t->ot, t->vectors,
                       asks ? &x->keys : NULL);
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
        block_operands x = operands_of(tile->shape, kv, k_type, v_type, j, j1);
        x.extra = j < j0;
        for (int sub = 0; sub < n_subs; sub++)
            attend_block(tile, &maps[sub], &x);
    }
}

#endif
