/*
 * tmpl/attend_codes_tmpl.h - tiles of many queries on codes, by products of pairs of bf16.
 *
 * As attend_tmpl.h, on operands of code_groups_tmpl.h.  What codes are scaled by meets what the
 * products give and take:
 *
 *     scores    of each group of channels apart, times the key's scale, summed up in f32
 *     values    for each group, weights times the value's scale, rounded once in pairs
 *
 * so weights stay f32 until then.  Of 4 bits, what 0 stands for goes with the sum of the group's
 * q, and with the weights to all channels of the group.
 *
 * A key takes 544 dot products for 16 queries (D = 512 + 64, Dv = 512, groups of 128), five passes
 * over scores and four over weights, of 3 or 4 instructions each.
 *
 * Parameters: none.  Needs attend_tmpl.h and code_groups_tmpl.h.
 */

/* ---- scores -------------------------------------------------------------------------------- */

/* Sums of the queries' channels in a group, for each lane. */
static vf sum_queries(const real *qt, int steps, int width)
{
    const vf ones = v_pair(v_set1(1), v_set1(1));
    vf sum = v_zero();
    for (int i = 0; i < steps; i++)
        sum = v_dot(v_load(qt + i * width), ones, sum);
    return sum;
}

/* One group of channels: what their codes are scaled by, and where they begin; NULL: not coded. */
typedef struct key_group {
    const real *scales, *zeros;
    int c, n, finite;
} key_group;

/* Part of a score by its formula, number by number.  Where a scale is not finite, the sum times the
 * scale is not the sum of numbers times the scale: infinities of both signs make NaN. */
static vf plain_score(const real *qt, int width, const uint16_t *codes, int n, real scale,
                      const real *zero)
{
    vf sum = v_zero();
    for (int c = 0; c < n; c++) {
        const vf pair = v_load(qt + c / 2 * width);
        const real x = qkv_f32_of_bf16(codes[c]) * scale;
        const vf q = c % 2 ? v_pair_high(pair) : v_pair_low(pair);
        sum = v_fma(q, v_set1(zero ? x + *zero : x), sum);
    }
    return sum;
}

static inline int is_finite(real x) { return x - x == 0; }

/* Scores of one group join those before.  The last group's pass follows the largest score. */
static void join_scores(const tile_map *t, const code_block *x, const strip *y, int r0,
                        const key_group *g, real *top)
{
    const real *qt = t->qt + g->c / 2 * t->width;
    const char *codes = x->keys + r0 * x->k_step + g->c * (int64_t)sizeof(uint16_t);

    for (int z = y->z0; z < y->z1; z++) {
        const vf sum =
            g->zeros ? sum_queries(qt + z * VL, operand_steps(g->n), t->width) : v_zero();
        vf m = v_load(top + z * VL);
        for (int r = y->from; r < y->end; r++) {
            const int at = r * t->width + z * VL;
            const vf before = g->c == 0 ? v_zero() : v_load(t->s + at);
            vf s = v_load(x->part + at);
            if (!g->finite && !(is_finite(g->scales[r]) && (!g->zeros || is_finite(g->zeros[r]))))
                s = plain_score(qt + z * VL, t->width, (const void *)(codes + r * x->k_step), g->n,
                                g->scales[r], g->zeros ? g->zeros + r : NULL);
            else if (g->zeros)
                s = v_fma(s, v_set1(g->scales[r]), v_mul(sum, v_set1(g->zeros[r])));
            else if (g->scales)
                s = v_mul(s, v_set1(g->scales[r]));
            s = v_add(s, before);
            v_store(t->s + at, s);
            m = v_max(s, m); /* keeps m where the score is NaN */
        }
        v_store(top + z * VL, m);
    }
}

static void group_scores(const tile_map *t, const code_block *x, const strips *keys, int r0,
                         const key_group *g, real *top)
{
    const real *qt = t->qt + g->c / 2 * t->width;
    const char *rows = x->keys + r0 * x->k_step + g->c * (int64_t)sizeof(uint16_t);
    const int only = g->n == t->d && !g->scales;
    _Alignas(64) real unused[MAX_WIDTH];

    for (int i = 0; i < t->width; i += VL) {
        v_store(unused + i, v_set1(-(real)INFINITY));
        v_store(top + i, v_set1(-(real)INFINITY));
    }
    for (const strip *y = keys->of; y < keys->of + keys->n; y++) {
        scores_product(rows, x->k_step, y, qt, operand_steps(g->n), only ? t->s : x->part,
                       only ? top : unused, t->width, NULL);
        if (!only)
            join_scores(t, x, y, r0, g, top);
    }
}

static void coded_scores(const tile_map *t, const code_block *x, const strips *keys, int r0,
                         real *top)
{
    const code_groups *k = &x->k;

    for (int i = 0, c = 0; k->coded && c < k->dim; i++, c += k->size) {
        const key_group g = {k->scales + i * SCALE_ROW + r0,
                             k->type == QKV_U4 ? k->zeros + i * SCALE_ROW + r0 : NULL, c,
                             k->dim - c < k->size ? k->dim - c : k->size, k->finite};
        group_scores(t, x, keys, r0, &g, top);
    }
    const int rest = k->coded ? k->dim : 0;
    const key_group plain = {NULL, NULL, rest, t->d - rest, 1};
    if (rest < t->d)
        group_scores(t, x, keys, r0, &plain, top);
}

/* Weights stay single numbers, for their scales. */
static void soften_whole(const tile_map *t, const block_view *b, const real *top)
{
    soften_all(t, b, top, 1);
}

/* ---- values -------------------------------------------------------------------------------- */

/* Weights times numbers of their keys; where those are not finite, not for hidden keys. */
static inline vf scaled_weight(const tile_map *t, const block_view *b, const real *numbers,
                               int select, int r, int z)
{
    const vf w = v_load(t->s + r * t->width + z * VL), x = v_mul(w, v_set1(numbers[r]));
    return select ? v_select(visible(t, b, r, z), x, v_zero()) : x;
}

static void scale_to_pairs(const tile_map *t, const block_view *b, const real *scales, int select,
                           real *pairs)
{
    for (int z = 0; z < t->vectors; z++)
        for (int r = b->from[z]; r < b->end[z]; r += 2) {
            const vf p = scaled_weight(t, b, scales, select, r, z);
            const int last = r + 1 == b->end[z];
            const vf q = last ? v_zero() : scaled_weight(t, b, scales, select, r + 1, z);
            v_store(pairs + r / 2 * t->width + z * VL, v_pair(p, q));
        }
}

/* What the zeros of codes add to all channels of a group. */
static void add_zeros(const tile_map *t, const block_view *b, const real *zeros, int select,
                        int c, int n)
{
    for (int z = 0; z < t->vectors; z++) {
        vf sum = v_zero();
        for (int r = b->from[z]; r < b->end[z]; r++)
            sum = v_add(sum, scaled_weight(t, b, zeros, select, r, z));
        for (int i = c; i < c + n; i++) {
            real *o = t->ot + i * t->width + z * VL;
            v_store(o, v_add(v_load(o), sum));
        }
    }
}

/* values_product for codes that are not finite and may not meet some lanes: the same pairs in the
 * same order, with 0 for what a lane does not see. */
static void coded_selected(const tile_map *t, const block_view *b, const real *v, int64_t stride,
                           const real *pairs, int c, int n)
{
    for (int z = 0; z < t->vectors; z++)
        for (int i = 0; i < n; i++) {
            real *o = t->ot + (c + i) * t->width + z * VL;
            vf acc = v_zero();
            for (int r = b->from[z]; r < b->end[z]; r += 2) {
                const vf y = v_set1(v[r / 2 * stride + c + i]), none = v_zero();
                const vf low = v_select(visible(t, b, r, z), v_pair_low(y), none);
                const vf high = r + 1 < b->end[z]
                                    ? v_select(visible(t, b, r + 1, z), v_pair_high(y), none)
                                    : none;
                acc = v_dot(v_pair(low, high), v_load(pairs + r / 2 * t->width + z * VL), acc);
            }
            v_store(o, v_fma(v_load(t->rescale + z * VL), v_load(o), acc));
        }
}

static void coded_values(const tile_map *t, const block_view *b, const code_block *x,
                         const strips *keys, int r0)
{
    const real *v = x->values + r0 / KEY_UNIT * x->v_stride;
    const int select = b->hidden && !x->v.finite;

    for (int g = 0, c = 0; c < t->dv; g++, c += x->v.size) {
        const int n = t->dv - c < x->v.size ? t->dv - c : x->v.size;
        scale_to_pairs(t, b, x->v.scales + g * SCALE_ROW + r0, select, x->part);
        if (b->hidden && !x->finite)
            coded_selected(t, b, v, x->v_stride, x->part, c, n);
        else
            values_product(v + c, x->v_stride, keys, x->part, t->rescale, n, t->ot + c * t->width,
                           t->vectors, NULL);
        if (x->v.type == QKV_U4)
            add_zeros(t, b, x->v.zeros + g * SCALE_ROW + r0, select, c, n);
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* attend_block of attend_tmpl.h, with groups. */
static void attend_coded_block(const qkv_tile *tile, const tile_map *t, code_block *x)
{
    const qkv_shape *shape = tile->shape;
    const int raw = shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;
    _Alignas(64) real top[MAX_WIDTH];
    int r0 = 0, end = x->n;

    if (!raw)
        cut_range(&t->all, x->j0, x->n, &r0, &end);
    if (r0 >= end)
        return;
    block_view b = view_block(tile, t, x->j0 + r0, end - r0);
    if (!b.any && !raw)
        return;
    b.extra = raw ? x->extra : 0;
    const strips keys = cut_strips(t, &b, !raw);
    need_coded_keys(shape, t, x);
    coded_scores(t, x, &keys, r0, top);
    const int known = adjust_scores(tile, t, &b, top);
    if (!b.any)
        return;
    if (x->v.coded)
        soften_whole(t, &b, known ? top : NULL);
    else
        soften(t, &b, known ? top : NULL);
    need_coded_values(shape, t, x, b.hidden);
    if (x->v.coded) {
        coded_values(t, &b, x, &keys, r0);
        return;
    }
    const real *v = x->values + r0 / KEY_UNIT * x->v_stride;
    if (b.hidden && !x->finite)
        values_selected(t, &b, v, x->v_stride);
    else
        values_product(v, x->v_stride, &keys, t->s, t->rescale, t->dv, t->ot, t->vectors,
                       NULL);
}

static void attend_keys_coded(const qkv_tile *tile, const qkv_kv *kv, int64_t j0, int64_t j1)
{
    const int n_subs = sub_tiles_of(tile->n_lanes);
    tile_map maps[SUB_TILES];
    code_block x = code_block_of(tile, kv);

    for (int sub = 0; sub < n_subs; sub++)
        maps[sub] = map_tile(tile, sub);
    for (int64_t j = j0 / KEY_UNIT * KEY_UNIT, end; j < j1; j = end) {
        end = block_end(j, j1);
        x.j0 = j;
        x.n = (int)(end - j);
        x.extra = j < j0;
        x.have_keys = x.have_values = 0;
        x.finite = -1;
        for (int sub = 0; sub < n_subs; sub++)
            attend_coded_block(tile, &maps[sub], &x);
    }
}
