/*
 * tmpl/decode_tmpl.h - streaming attention of a few queries, rows instead of lanes.
 *
 * The same steps as attend_tmpl.h (scores, adjust, soften, values) for at most DECODE_LANES queries:
 * one row of scores a query, channels in the lanes of the products (row_products_tmpl.h).  The
 * rules for hidden keys are the same, and simpler here: a row skips a key by not adding it.
 *
 *     scratch   q [rows][D padded]   s, add [rows][BLOCK]   hides [rows][BLOCK]   row [max(D, Dv)]
 *     state     m, l [DECODE_LANES]   o [rows][Dv padded]
 *
 * Parameters: none.  Needs one simd/ header, math, convert, layout, mask and finish templates.
 */
enum {
    /* Up to one vector of queries (at least 8): above that, lanes full of queries are the better
     * use of a vector. */
    DECODE_LANES = VL > 8 ? VL : 8,
    ROW_TILE = 4,
    KEY_TILE = 8,
    VEC_TILE = 8,
    SUMS_KEYS = 16,
    AHEAD = 32 /* keys; see row_products_tmpl.h */
};

/* What differs with the element type of K and V. */
typedef struct row_products {
    void (*dots)(const void *const *k, int n, const real *q, int padded, int d, real *s, int rows);
    void (*sums)(const void *const *v, int n, const real *p, const real *a, int dv, real *o,
                 int padded, int rows);
    int (*finite)(const void *const *v, int n, int dv);
    void (*selected)(const void *const *v, int n, const real *p, const uint8_t *hides, real a,
                     int dv, real *o);
} row_products;

#if defined(QKV_PAIRS)
#include "kernels/tmpl/row_pairs_tmpl.h"
#if defined(QKV_CODE_PAIRS)
#include "kernels/tmpl/code_pairs_tmpl.h"
#endif

static const row_products *products_of(int type)
{
#if defined(QKV_CODE_PAIRS)
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

typedef struct row_map {
    int d, dv, d_padded, dv_padded, rows;
    real *q, *s, *add, *row, *rescale;
    uint8_t *hides;
    real *decoded; /* rows of codes as numbers: K, then V; kernels for codes have room for them */
    real *m, *l, *o;
} row_map;

static int padded_to_vectors(int n) { return (n + VL - 1) / VL * VL; }

static size_t decode_scratch_bytes(int32_t d, int32_t dv)
{
    const size_t widest = (size_t)(d > dv ? d : dv);
    return aligned_reals(DECODE_LANES * (size_t)padded_to_vectors(operand_steps(d))) +
           2 * aligned_reals(DECODE_LANES * BLOCK) + aligned_reals(widest) +
           aligned_reals(DECODE_LANES) + DECODE_LANES * BLOCK;
}

static size_t decode_state_bytes(int32_t n_lanes, int32_t dv)
{
    return 2 * aligned_reals(DECODE_LANES) +
           aligned_reals((size_t)n_lanes * (size_t)padded_to_vectors(dv));
}

static void map_row_state(row_map *t, void *state)
{
    char *at = state;
    t->m = take(&at, DECODE_LANES);
    t->l = take(&at, DECODE_LANES);
    t->o = take(&at, (size_t)t->rows * (size_t)t->dv_padded);
}

static row_map map_rows(const qkv_tile *tile)
{
    row_map t;
    char *at = tile->scratch;

    t.d = tile->shape->head_dim;
    t.dv = tile->shape->head_dim_v;
    t.d_padded = padded_to_vectors(operand_steps(t.d));
    t.dv_padded = padded_to_vectors(t.dv);
    t.rows = tile->n_lanes;
    t.q = take(&at, DECODE_LANES * (size_t)t.d_padded);
    t.s = take(&at, DECODE_LANES * BLOCK);
    t.add = take(&at, DECODE_LANES * BLOCK);
    t.row = take(&at, (size_t)(t.d > t.dv ? t.d : t.dv));
    t.rescale = take(&at, DECODE_LANES);
    t.hides = (uint8_t *)at;
    t.decoded = (real *)(void *)(at + DECODE_LANES * BLOCK);
    map_row_state(&t, tile->state);
    return t;
}

static void decode_begin(const qkv_tile *tile)
{
    const row_map t = map_rows(tile);
    const real scale = (real)tile->shape->scale;

    for (int i = 0; i < t.rows; i++) {
        real *q = t.q + i * t.d_padded;
        memset(q, 0, (size_t)t.d_padded * sizeof *q);
        query_operands(q, tile->lanes[i].q, tile->shape->q_type, t.d, scale);
        t.m[i] = -(real)INFINITY;
        t.l[i] = 0;
    }
    memset(t.o, 0, (size_t)(t.rows * t.dv_padded) * sizeof(real));
}

/* ---- masks ------------------------------------------------------------------------------------ */

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

static block_view view_rows(const qkv_tile *tile, const row_map *t, int64_t j0, int n)
{
    block_view b = {.j0 = j0, .n = n};

    b.added = tile->shape->has_mask || tile->shape->has_bias || tile->mixed_blocks;
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

/* ---- blocks ----------------------------------------------------------------------------------- */

/* The rows of keys j0 .. j0+n-1 and of AHEAD + 1 more; past the last key j1 - 1 its own again, so that
 * nothing beyond is asked for. */
static void find_rows(const void **rows, const void *base, const qkv_kv *kv, int64_t stride,
                      int64_t page, int64_t size, int64_t j0, int n, int64_t j1)
{
    const int64_t end = j0 + n + AHEAD + 1 < j1 ? j0 + n + AHEAD + 1 : j1;

    for (int64_t j = j0, run; j < end; j += run) {
        const char *row = (const char *)base + qkv_kv_offset(kv, stride, page, j) * size;
        run = qkv_kv_run(kv, j, end);
        for (int64_t r = 0; r < run; r++)
            rows[j - j0 + r] = row + r * stride * size;
    }
    for (int r = (int)(end - j0); r <= n + AHEAD; r++)
        rows[r] = rows[end - j0 - 1];
}

/* Scales are those of codes whose rows hold the codes themselves; NULL: none. */
typedef struct block_rows {
    const void *k[BLOCK + AHEAD + 1], *v[BLOCK + AHEAD + 1];
    const real *k_scales, *v_scales;
    int v_scales_finite;
} block_rows;

static void scale_rows(const row_map *t, const real *scales, int n)
{
    for (int i = 0; i < t->rows; i++)
        for (int r = 0; r < n; r++)
            t->s[i * BLOCK + r] *= scales[r];
}

/* Weights times scales.  A hidden key's scale may be anything; its weight stays 0. */
static void scale_weights(const row_map *t, const block_rows *x, int n)
{
    scale_rows(t, x->v_scales, n);
    for (int i = 0; !x->v_scales_finite && i < t->rows; i++)
        for (int r = 0; r < n; r++)
            if (t->hides[i * BLOCK + r])
                t->s[i * BLOCK + r] = 0;
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
    if (x->k_scales)
        scale_rows(t, x->k_scales, n);
    adjust_rows(tile, t, &b);
    if (!b.any)
        return;
    for (int i = 0; i < t->rows; i++)
        soften_row(t, i, n);
    if (x->v_scales)
        scale_weights(t, x, n);
    if (!b.hidden || vp->finite(x->v, n, t->dv)) {
        vp->sums(x->v, n, t->s, t->rescale, t->dv, t->o, t->dv_padded, t->rows);
        return;
    }
    for (int i = 0; i < t->rows; i++)
        vp->selected(x->v, n, t->s + i * BLOCK, t->hides + i * BLOCK, t->rescale[i], t->dv,
                     t->o + i * t->dv_padded);
}

#if defined(QKV_WIDEN_F32) && !defined(QKV_PAIRS)
/* Codes are decoded into scratch, whose rows stand for theirs. */
static size_t decoded_bytes(int32_t d, int32_t dv)
{
    return aligned_reals(BLOCK * (size_t)d) + aligned_reals(BLOCK * (size_t)dv);
}

static void find_decoded(const void **rows, real *decoded, const qkv_shape *shape,
                         const coded_side *x, const qkv_kv *kv, int64_t j0, int n, int rope)
{
    decode_rows(decoded, shape, x, kv, j0, n, rope);
    for (int r = 0; r <= n + AHEAD; r++)
        rows[r] = decoded + (r < n ? r : n - 1) * (x->d + rope);
}

static int find_coded_keys(block_rows *x, const qkv_shape *shape, const row_map *t,
                           const qkv_kv *kv, int type, int64_t j0, int n)
{
    if (!qkv_type_is_coded(type) && !shape->rope_dim)
        return 0;
    const coded_side side = coded_keys(shape, kv);
    find_decoded(x->k, t->decoded, shape, &side, kv, j0, n, shape->rope_dim);
    return 1;
}

static int find_coded_values(block_rows *x, const qkv_shape *shape, const row_map *t,
                             const qkv_kv *kv, int type, int64_t j0, int n)
{
    if (!qkv_type_is_coded(type))
        return 0;
    const coded_side side = coded_values(shape, kv);
    char *at = (char *)t->decoded + aligned_reals(BLOCK * (size_t)t->d);
    find_decoded(x->v, (real *)(void *)at, shape, &side, kv, j0, n, 0);
    return 1;
}
#else
#define find_coded_keys(x, shape, t, kv, type, j0, n) 0
#define find_coded_values(x, shape, t, kv, type, j0, n) 0
#endif

#if defined(QKV_CODE_PAIRS)
static size_t code_scale_bytes(void) { return 2 * BLOCK * sizeof(real); }

static void find_scales(block_rows *x, const qkv_shape *shape, const row_map *t, const qkv_kv *kv,
                        int k_type, int v_type, int64_t j, int n)
{
    real *k_scales = t->decoded, *v_scales = t->decoded + BLOCK;

    if (qkv_type_is_coded(k_type)) {
        row_scales(k_scales, kv->k_scale, &shape->k_scales, kv, kv->k_scale_page, j, n);
        x->k_scales = k_scales;
    }
    if (qkv_type_is_coded(v_type)) {
        x->v_scales_finite = row_scales(v_scales, kv->v_scale, &shape->v_scales, kv,
                                        kv->v_scale_page, j, n);
        x->v_scales = v_scales;
    }
}
#else
#define find_scales(x, shape, t, kv, k_type, v_type, j, n) (void)0
#endif

static void find_block(block_rows *x, const qkv_shape *shape, const row_map *t, const qkv_kv *kv,
                       int k_type, int v_type, int64_t j, int n, int64_t j1)
{
    (void)t;
    x->k_scales = x->v_scales = NULL;
    find_scales(x, shape, t, kv, k_type, v_type, j, n);
    if (!find_coded_keys(x, shape, t, kv, k_type, j, n))
        find_rows(x->k, kv->k, kv, shape->k_stride, kv->k_page,
                  (int64_t)qkv_type_size((qkv_type)k_type), j, n, j1);
    if (!find_coded_values(x, shape, t, kv, v_type, j, n))
        find_rows(x->v, kv->v, kv, shape->v_stride, kv->v_page,
                  (int64_t)qkv_type_size((qkv_type)v_type), j, n, j1);
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
