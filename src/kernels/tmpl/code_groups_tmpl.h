/*
 * tmpl/code_groups_tmpl.h - a block of codes in groups of channels, as operands of pairs of bf16.
 *
 * Codes become pairs of bf16 in the scratch of widened keys and values, once for all queries of a
 * tile; they are exact there.  Scales stay apart: multiplying them in would round again.  Scales of
 * group g and row r of the block are scales[g SCALE_ROW + r], and of codes of 4 bits zeros[] what
 * the number 0 stands for.  That is the minimum for keys; codes of values are less 8, so that the
 * rounding of weights meets at most 8 steps, and their 0 is min + 8 step.
 *
 * Parameters: none.  Needs layout_tmpl.h, operands_pairs_tmpl.h and code_pairs_tmpl.h.
 */

enum { LEAST_GROUP = 16, SCALE_ROW = BLOCK + VL /* whole vectors are stored from anywhere on */ };

/* One side's codes, and what the rows of a block are scaled by; not coded: one group, no scales. */
typedef struct code_groups {
    const void *codes, *scale, *min;
    const qkv_scales *layout;
    int64_t stride, page, scale_page;
    int type, coded, dim, n, size; /* n groups of `size` channels, the last perhaps fewer */
    int less;                      /* what is taken off codes of 4 bits */
    real *scales, *zeros;          /* [n][SCALE_ROW] */
    int finite;
} code_groups;

static size_t group_reals(int32_t dim)
{
    return (size_t)(dim + LEAST_GROUP - 1) / LEAST_GROUP * SCALE_ROW;
}

static size_t scratch_of_groups(int32_t d, int32_t dv)
{
    return scratch_for(d, dv, SUB_TILES) + aligned_reals(BLOCK * MAX_WIDTH) +
           2 * aligned_reals(group_reals(d)) + 2 * aligned_reals(group_reals(dv));
}

/* A block of keys and values on its way through the sub-tiles. */
typedef struct code_block {
    const qkv_kv *kv;
    int64_t j0;
    int n, extra, have_keys, have_values, finite; /* finite: 1, 0, or -1: nobody has looked yet */
    code_groups k, v;
    const char *keys;
    int64_t k_step;
    const real *values;
    int64_t v_stride;
    real *part; /* [BLOCK][MAX_WIDTH] scores of one group; or [BLOCK / 2][] weights for one */
} code_block;

static void map_groups(code_groups *x, int type, int dim, const qkv_scales *layout, char **at)
{
    x->type = type;
    x->coded = qkv_type_is_coded(type);
    x->dim = dim;
    x->layout = layout;
    x->size = x->coded ? layout->group : dim;
    x->n = (dim + x->size - 1) / x->size;
    x->scales = take(at, group_reals(dim));
    x->zeros = take(at, group_reals(dim));
}

static code_block code_block_of(const qkv_tile *tile, const qkv_kv *kv)
{
    const qkv_shape *s = tile->shape;
    char *at = (char *)tile->scratch + scratch_for(s->head_dim, s->head_dim_v, SUB_TILES);
    code_block x = {.kv = kv, .part = take(&at, BLOCK * MAX_WIDTH)};

    x.k = (code_groups){.codes = kv->k, .scale = kv->k_scale, .min = kv->k_min,
                        .stride = s->k_stride, .page = kv->k_page, .scale_page = kv->k_scale_page};
    x.v = (code_groups){.codes = kv->v, .scale = kv->v_scale, .min = kv->v_min,
                        .stride = s->v_stride, .page = kv->v_page, .scale_page = kv->v_scale_page};
    map_groups(&x.k, s->k_type, s->head_dim - s->rope_dim, &s->k_scales, &at);
    x.v.less = U4_CENTER;
    map_groups(&x.v, s->v_type, s->head_dim_v, &s->v_scales, &at);
    return x;
}

/* ---- from codes to operands ---------------------------------------------------------------- */

static void load_groups(code_groups *x, const qkv_kv *kv, int64_t j0, int n)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)x->layout->type);

    x->finite = 1;
    for (int g = 0; x->coded && g < x->n; g++) {
        const int64_t at = g * x->layout->group_stride * size;
        real *scales = x->scales + g * SCALE_ROW, *zeros = x->zeros + g * SCALE_ROW;
        x->finite &= row_scales(scales, (const char *)x->scale + at, x->layout, kv, x->scale_page,
                                j0, n);
        if (x->type != QKV_U4)
            continue;
        x->finite &=
            row_scales(zeros, (const char *)x->min + at, x->layout, kv, x->scale_page, j0, n);
        for (int r = 0; r < n; r += VL) {
            real *to = zeros + r;
            v_store(to, v_fma(v_set1((real)x->less), v_load(scales + r), v_load(to)));
        }
    }
}

/* Row j as bf16: codes without their scale. */
static void code_row(uint16_t *dst, const code_groups *x, const code_tables *t, const qkv_kv *kv,
                     int64_t j)
{
    const int64_t at = qkv_kv_offset(kv, x->stride, x->page, j);
    const uint8_t *row = (const uint8_t *)x->codes + at * (int64_t)qkv_type_size((qkv_type)x->type);
    uint16_t last[4 * VL];

    if (!x->coded)
        copy_bf16(dst, row, x->type, x->dim);
    for (int c = 0; x->coded && c < x->dim; c += 4 * VL) {
        const int n = x->dim - c;
        uint16_t *to = n < 4 * VL ? last : dst + c;
        vf a, b;
        if (x->type == QKV_U4)
            v_nibbles_less(t, row + c / 2, n, x->less, &a, &b);
        else
            v_code_pairs(t, row + c, n, &a, &b);
        v_store((real *)(void *)to, a);
        v_store((real *)(void *)(to + 2 * VL), b);
        if (n < 4 * VL)
            memcpy(dst + c, last, (size_t)n * sizeof *dst);
    }
    if (x->dim % 2)
        dst[x->dim] = 0;
}

static code_tables tables_for(const code_groups *x)
{
    return tables_of(x->type == QKV_U4 ? QKV_I8 : x->type);
}

static void need_coded_keys(const qkv_shape *shape, const tile_map *t, code_block *x)
{
    const int64_t size = (int64_t)sizeof(uint16_t);
    const code_tables tables = tables_for(&x->k);
    const int steps = operand_steps(t->d);

    if (x->have_keys)
        return;
    x->have_keys = 1;
    load_groups(&x->k, x->kv, x->j0, x->n);
    x->keys = (const char *)t->kw;
    x->k_step = steps * (int64_t)sizeof(real);
    for (int r = 0; r < x->n; r++) {
        uint16_t *dst = (uint16_t *)(void *)(t->kw + r * steps);
        code_row(dst, &x->k, &tables, x->kv, x->j0 + r);
        const int64_t at =
            qkv_kv_offset(x->kv, shape->k_rope_stride, x->kv->k_rope_page, x->j0 + r);
        if (shape->rope_dim)
            copy_bf16(dst + x->k.dim, (const char *)x->kv->k_rope + at * size, QKV_BF16,
                      shape->rope_dim);
    }
}

/* Values of latent rows are the first channels of the keys, and the same numbers but of 4 bits. */
static int values_are_keys(const code_block *x)
{
    const code_groups *k = &x->k, *v = &x->v;
    return k->type != QKV_U4 && x->have_keys && k->codes == v->codes && k->type == v->type &&
           k->stride == v->stride && k->page == v->page && v->dim <= k->dim;
}

static void pair_coded_values(const tile_map *t, const code_block *x)
{
    const code_tables tables = tables_for(&x->v);
    const int steps = operand_steps(t->d), known = values_are_keys(x);
    uint16_t rows[2][QKV_MAX_HEAD_DIM + 1];

    for (int j = 0; j < x->n; j += 2) {
        const uint16_t *pair[2] = {rows[0], j + 1 < x->n ? rows[1] : NULL};
        for (int i = 0; i < 2 && j + i < x->n; i++)
            if (known)
                pair[i] = (const uint16_t *)(const void *)(t->kw + (j + i) * steps);
            else
                code_row(rows[i], &x->v, &tables, x->kv, x->j0 + j + i);
        pair_rows(t->vw + j / 2 * t->dv, pair[0], pair[1], t->dv);
    }
}

static void need_coded_values(const qkv_shape *shape, const tile_map *t, code_block *x, int hidden)
{
    if (!x->have_values && !x->v.coded) {
        x->values = value_operands(shape, t->vw, x->kv, x->v.type, x->j0, x->n, &x->v_stride);
    } else if (!x->have_values) {
        load_groups(&x->v, x->kv, x->j0, x->n);
        pair_coded_values(t, x);
        x->values = t->vw;
        x->v_stride = t->dv;
    }
    x->have_values = 1;
    if (x->v.type == QKV_I8 || x->v.type == QKV_U4)
        x->finite = 1;
    if (hidden && x->finite < 0)
        x->finite = values_finite(x->values, x->v_stride, x->n, t->dv);
}
