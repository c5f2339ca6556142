/*
 * tmpl/decode_tmpl.h - streaming attention of a few queries, rows instead of lanes.
 *
 * The same steps as attend_tmpl.h (scores, adjust, soften, values) for at most DECODE_LANES queries:
 * one row of scores a query, channels in the lanes of the products (row_products_tmpl.h).  The
 * rules for hidden keys are the same, and simpler here: a row reads zeros in place of
 * what it does not see.
 *
 * Parameters: none.  Needs one simd/ header, math, convert, layout, mask and finish templates.
 */
enum {
    /* Up to one vector of queries (at least 8): above that, lanes full of queries are the better
     * use of a vector. */
    DECODE_LANES = VL > 8 ? VL : 8,
    ROW_TILE = 4, /* rows that codes meet at once */
    MOST_ROWS = VL == 16 ? 6 : ROW_TILE, /* and that numbers do: 24 of 32 registers are sums */
    KEY_TILE = 8,
    VEC_TILE = 8,
    SUMS_KEYS = 8,
    HELD_KEYS = 8, /* what of K and V stays in the first cache level for two more rows */
    HELD_VECS = 8,
    HELD_AHEAD = 16, /* keys; see row_held_tmpl.h */
    AHEAD = 32,     /* keys; see row_products_tmpl.h */
    CODE_AHEAD = 64 /* of codes, whose rows are shorter; rows are found that far ahead for all */
};

/* How many of `rows` rows the next pass over a block takes: as many passes as must be, about alike. */
static inline int rows_of_pass(int rows)
{
    const int passes = (rows + MOST_ROWS - 1) / MOST_ROWS;
    return (rows + passes - 1) / passes;
}

/* What differs with the element type of K and V. */
typedef struct row_products {
    void (*dots)(const void *const *k, int n, const real *q, int padded, int d, real *s, int rows);
    void (*sums)(const void *const *v, int n, const real *p, const real *a, int dv, real *o,
                 int padded, int rows);
    int (*finite)(const void *const *v, int n, int dv);
} row_products;

#if defined(QKV_PAIRS)
#include "kernels/tmpl/row_pairs_tmpl.h"
#if defined(QKV_CODE_PAIRS)
#include "kernels/tmpl/code_pairs_tmpl.h"

#include "kernels/tmpl/nibble_pairs_tmpl.h"
#endif

static const row_products *products_of(int type)
{
#if defined(QKV_CODE_PAIRS)
    if (type == QKV_U4)
        return &products_u4;
    if (type != QKV_BF16)
        return type == QKV_I8 ? &products_i8 : type == QKV_E4M3 ? &products_e4m3 : &products_e5m2;
#endif
    (void)type;
    return &products_bf16;
}
#elif defined(QKV_WIDEN_F32)
#define ELEMENT float
#define NAME(x) x##_f32
#define LOAD(p) v_load(p)
#define LOAD_N(p, n) v_load_n(p, n)
#if defined(QKV_SETTLES) /* widened twice, elements of 16 bits gain nothing */
#define HELD
#endif
#include "kernels/tmpl/row_products_tmpl.h"

#define ELEMENT uint16_t
#define NAME(x) x##_bf16
#define LOAD(p) v_widen_bf16(p)
#define LOAD_N(p, n) v_widen_bf16_n(p, n)
#include "kernels/tmpl/row_products_tmpl.h"

#define ELEMENT uint16_t
#define NAME(x) x##_f16
#define LOAD(p) v_widen_f16(p)
#define LOAD_N(p, n) v_widen_f16_n(p, n)
#include "kernels/tmpl/row_products_tmpl.h"

static const row_products *products_of(int type)
{
    return type == QKV_F32 ? &products_f32 : type == QKV_BF16 ? &products_bf16 : &products_f16;
}
#else
#define ELEMENT real
#define NAME(x) x##_f64
#define LOAD(p) v_load(p)
#define LOAD_N(p, n) v_load_n(p, n)
#include "kernels/tmpl/row_products_tmpl.h"

static const row_products *products_of(int type)
{
    (void)type;
    return &products_f64;
}
#endif

#include "kernels/tmpl/row_layout_tmpl.h"

static void decode_begin(const qkv_tile *tile)
{
    const row_map t = map_rows(tile);
    const real scale = (real)tile->shape->scale;

    for (int i = 0; i < t.rows; i++) {
        real *q = t.q + i * t.d_padded;
        memset(q, 0, (size_t)t.d_padded * sizeof *q);
        query_operands(q, tile->lanes[i].q, tile->shape->q_type, t.d, scale);
#if defined(QKV_CODE_PAIRS)
        if (tile->shape->k_type == QKV_U4)
            t.q_sums[i] = scale * order_query_u4(q, t.d_padded);
#endif
        t.m[i] = -(real)INFINITY;
        t.l[i] = 0;
    }
    memset(t.o, 0, (size_t)(t.rows * t.dv_padded) * sizeof(real));
}

#include "kernels/tmpl/row_scores_tmpl.h"

#include "kernels/tmpl/block_rows_tmpl.h"

#if defined(QKV_CODE_PAIRS)
#include "kernels/tmpl/plain_scores_tmpl.h"
#else
#define plain_scores(shape, t, x, n) (void)0
#endif

/* ---- blocks ----------------------------------------------------------------------------------- */

/* Sums where NaN or infinity may not meet rows that do not see it: one row after the other, with zeros in
 * place of the values it does not see.  Their weights are 0, so that changes no bit of the usual sums. */
static void sums_selected(const row_map *t, const row_products *vp, const void *const *v, int n)
{
    static const real zeros[QKV_MAX_HEAD_DIM]; /* of any type, codes too */
    const void *rows[BLOCK + CODE_AHEAD + 1];

    for (int i = 0; i < t->rows; i++) {
        for (int j = 0; j <= n + CODE_AHEAD; j++)
            rows[j] = j < n && t->hides[i * BLOCK + j] ? zeros : v[j];
        vp->sums(rows, n, t->s + i * BLOCK, t->rescale + i, t->dv, t->o + i * t->dv_padded,
                 t->dv_padded, 1);
    }
}

static void decode_block(const qkv_tile *tile, const row_map *t, const block_rows *x,
                         const row_products *kp, const row_products *vp, int64_t j0, int n,
                         int extra)
{
    const qkv_shape *shape = tile->shape;
    const int raw = shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;
    block_view b = view_rows(tile, t, j0, n);

    if (!b.any && !raw)
        return;
    b.extra = raw ? extra : 0;
    kp->dots(x->k, n, t->q, t->d_padded, t->d, t->s, t->rows);
    for (int i = 0; SCALES_SCORES && i < t->rows; i++)
        for (real *s = t->s + i * BLOCK; s < t->s + i * BLOCK + n; s += VL)
            v_store(s, finish_score(v_load(s), (real)shape->scale));
    if (x->k_mins)
        finish_u4_scores(t, x->k_scales, x->k_mins, n);
    else if (x->k_scales)
        scale_rows(t, x->k_scales, n);
    if (x->k_scales && !x->k_finite)
        plain_scores(shape, t, x, n);
    adjust_rows(tile, t, &b);
    if (!b.any)
        return;
    for (int i = 0; i < t->rows; i++)
        soften_row(t, i, n);
    if (x->v_mins)
        add_mins(t, x, n);
    if (x->v_scales)
        scale_weights(t, x, n);
    if (!b.hidden || vp->finite(x->v, n, t->dv))
        vp->sums(x->v, n, t->s, t->rescale, t->dv, t->o, t->dv_padded, t->rows);
    else
        sums_selected(t, vp, x->v, n);
    if (x->v_mins)
        finish_u4_sums(t);
}

static void decode_keys(const qkv_tile *tile, const qkv_kv *kv, int k_type, int v_type, int64_t j0,
                        int64_t j1)
{
    static const uint16_t zeros[QKV_MAX_HEAD_DIM];
    const row_map t = map_rows(tile);
    block_rows x;
#if defined(QKV_CODE_PAIRS)
    const int k_read = k_type, v_read = v_type;
#else
    const int k_read = qkv_type_is_coded(k_type) || tile->shape->rope_dim ? REAL_TYPE : k_type;
    const int v_read = qkv_type_is_coded(v_type) ? REAL_TYPE : v_type;
#endif

    for (int64_t j = j0 / KEY_UNIT * KEY_UNIT, end; j < j1; j = end) {
        end = block_end(j, j1);
        const int n = (int)(end - j);
        find_block(&x, tile->shape, &t, kv, k_type, v_type, j, n, j1);
        if (n % KEY_UNIT) /* an odd last key is paired with nothing */
            x.v[n] = zeros;
        decode_block(tile, &t, &x, products_of(k_read), products_of(v_read), j, n, j < j0);
    }
}

/* ---- states ----------------------------------------------------------------------------------- */

static real exp_difference(real x, real m)
{
    real out[VL];
    v_store(out, v_exp(v_set1(m == -(real)INFINITY ? x : x - m)));
    return out[0];
}

static void decode_merge(const qkv_tile *tile, const void *other)
{
    row_map t = map_rows(tile), x = t;
    union { /* map_row_state takes writable memory; nothing of other is written */
        const void *in;
        void *out;
    } alias = {other};
    map_row_state(&x, alias.out);

    for (int i = 0; i < t.rows; i++) {
        const real m = x.m[i] > t.m[i] ? x.m[i] : t.m[i];
        const real a = exp_difference(t.m[i], m), b = exp_difference(x.m[i], m);
        t.m[i] = m;
        t.l[i] = t.l[i] * a + x.l[i] * b;
        for (int c = 0; c < t.dv_padded; c += VL) {
            real *o = t.o + i * t.dv_padded + c;
            const vf more = v_mul(v_load(x.o + i * t.dv_padded + c), v_set1(b));
            v_store(o, v_fma(v_load(o), v_set1(a), more));
        }
    }
}

static void decode_finish(const qkv_tile *tile)
{
    const row_map t = map_rows(tile);

    for (int i = 0; i < t.rows; i++) {
        const row_result result = finish_row(tile->shape, &tile->lanes[i], t.m[i], t.l[i]);
        for (int c = 0; c < t.dv; c++)
            t.row[c] = scaled(t.o[i * t.dv_padded + c], &result);
        write_row(tile->shape, &tile->lanes[i], t.row, &result);
    }
}
