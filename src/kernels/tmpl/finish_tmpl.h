/*
 * tmpl/finish_tmpl.h - states made one, and rows written out.
 *
 * A handful of numbers a row, so logarithms and exponentials are libm's, in double.
 *
 * Parameters: none.  Needs the templates of attend_tmpl.h.
 */

/* (m, l, o) of x joins that of t: both are rescaled to the larger maximum.  A part that saw nothing
 * has m = -infinity, l = 0, o = 0 and weighs exactly 0. */
static void merge_vector(const tile_map *t, const tile_map *x, int at)
{
    const vf m = v_max(v_load(t->m + at), v_load(x->m + at));
    const vf shift = v_select(v_eq(m, v_set1(-(real)INFINITY)), v_zero(), m);
    const vf a = v_exp(v_sub(v_load(t->m + at), shift));
    const vf b = v_exp(v_sub(v_load(x->m + at), shift));
    v_store(t->m + at, m);
    v_store(t->l + at, v_fma(v_load(t->l + at), a, v_mul(v_load(x->l + at), b)));
    for (int c = 0; c < t->dv; c++) {
        real *o = t->ot + (int64_t)c * t->width + at;
        const vf more = v_mul(v_load(x->ot + (int64_t)c * t->width + at), b);
        v_store(o, v_fma(v_load(o), a, more));
    }
}

static void merge_states(const qkv_tile *tile, const void *other)
{
    union { /* map_state takes writable memory; nothing of other is written */
        const void *in;
        void *out;
    } alias = {other};

    for (int sub = 0; sub < sub_tiles_of(tile->n_lanes); sub++) {
        tile_map t = map_tile(tile, sub), x = t;
        map_state(&x, alias.out, sub);
        for (int z = 0; z < t.vectors; z++)
            merge_vector(&t, &x, z * VL);
    }
}

/* What a row needs to be written: o is multiplied by `factor`. */
typedef struct row_result {
    double lse, factor;
    int empty;
} row_result;

/* The sink is one more logit without a value: it enters the maximum and the sum, once, here. */
static row_result finish_row(const qkv_shape *shape, const qkv_lane *lane, real row_m, real row_l)
{
    const double sink = shape->has_sinks ? lane->sink : -INFINITY;
    const double m = (double)row_m, l = (double)row_l;
    row_result out = {sink, 0, 0};

    if (m == -INFINITY && l == 0 && !sees_any_key(shape, lane)) {
        out.empty = 1;
        return out;
    }
    const double top = sink > m ? sink : m;
    /* NaN if all visible scores are -infinity without a sink.  exp and log are called where they
     * matter: for every row they took a twentieth of a short prefill. */
    const double own = top == m && m != -INFINITY ? 1 : exp(m - top);
    const double sum = l * own + (sink == -INFINITY ? 0 : exp(sink - top));
    if (lane->lse || shape->stage == QKV_STAGE_WEIGHTS)
        out.lse = top + log(sum);
    out.factor = own / sum;
    return out;
}

static real scaled(real o, const row_result *result)
{
    return result->empty ? 0 : (real)((double)o * result->factor);
}

/* Rows of weights hold biased scores until now: exp(s - lse), and 0 where hidden.  Asks for
 * visibility anew, because a visible score may be -infinity too. */
static void write_weights(const qkv_shape *shape, const qkv_lane *lane, const row_result *result)
{
    real *row = lane->weights;
    for (int64_t j = 0; j < shape->kv_len; j++) {
        real *w = row + j * shape->weights_stride;
        const int hidden = result->empty || j < lane->lo || j > lane->hi ||
                           added_to(shape, lane, j) == -(real)INFINITY;
        *w = hidden ? 0 : (real)exp((double)*w - result->lse);
    }
}

/* All that is asked for of one query; o holds Dv numbers, scaled. */
static void write_row(const qkv_shape *shape, const qkv_lane *lane, const real *o,
                      const row_result *result)
{
    narrow_row(lane->o, shape->o_type, o, shape->head_dim_v);
    if (lane->lse)
        *(real *)lane->lse = (real)result->lse;
    if (shape->stage == QKV_STAGE_WEIGHTS)
        write_weights(shape, lane, result);
}

/* Lanes i .. i+VL-1 of a sub-tile, turned back into rows. */
static void finish_vector(const qkv_tile *tile, const tile_map *t, int i)
{
    const int stride = t->dv + VL;

    for (int c = 0; c < t->dv; c += VL) {
        vf a[VL];
        for (int k = 0; k < VL; k++)
            a[k] = c + k < t->dv ? v_load(t->ot + (int64_t)(c + k) * t->width + i) : v_zero();
        transpose(a);
        for (int k = 0; k < VL; k++)
            v_store(t->row + k * stride + c, a[k]);
    }
    for (int k = 0; k < VL && i + k < t->n_lanes; k++) {
        const qkv_lane *lane = &t->lanes[i + k];
        const row_result result = finish_row(tile->shape, lane, t->m[i + k], t->l[i + k]);
        real *row = t->row + k * stride;
        for (int c = 0; c < t->dv; c++)
            row[c] = scaled(row[c], &result);
        write_row(tile->shape, lane, row, &result);
    }
}

static void finish(const qkv_tile *tile)
{
    for (int sub = 0; sub < sub_tiles_of(tile->n_lanes); sub++) {
        const tile_map t = map_tile(tile, sub);
        for (int i = 0; i < t.n_lanes; i += VL)
            finish_vector(tile, &t, i);
    }
}
