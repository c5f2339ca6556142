/*
 * tmpl/finish_tmpl.h - states made one, and rows written out.
 *
 * A handful of numbers a row, so logarithms and exponentials are libm's, in double.
 *
 * Parameters: none.  Needs the templates of attend_tmpl.h.
 */

/* (m, l, o) of other joins that of the tile: both are rescaled to the larger maximum.  A part
 * that saw nothing has m = -infinity, l = 0, o = 0 and weighs exactly 0. */
static void merge_states(const qkv_tile *tile, const void *other)
{
    tile_map t = map_tile(tile), x = t;
    union { /* map_state takes writable memory; nothing of other is written */
        const void *in;
        void *out;
    } alias = {other};
    map_state(&x, alias.out);

    for (int z = 0; z < t.vectors; z++) {
        const int at = z * VL;
        const vf m = v_max(v_load(t.m + at), v_load(x.m + at));
        const vf shift = v_select(v_eq(m, v_set1(-(real)INFINITY)), v_zero(), m);
        const vf a = v_exp(v_sub(v_load(t.m + at), shift));
        const vf b = v_exp(v_sub(v_load(x.m + at), shift));
        v_store(t.m + at, m);
        v_store(t.l + at, v_fma(v_load(t.l + at), a, v_mul(v_load(x.l + at), b)));
        for (int c = 0; c < t.dv; c++) {
            real *o = t.ot + (int64_t)c * t.width + at;
            const vf more = v_mul(v_load(x.ot + (int64_t)c * t.width + at), b);
            v_store(o, v_fma(v_load(o), a, more));
        }
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
    const double own = exp(m - top); /* NaN if all visible scores are -infinity without a sink */
    const double sum = l * own + (sink == -INFINITY ? 0 : exp(sink - top));
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

static void finish(const qkv_tile *tile)
{
    const tile_map t = map_tile(tile);

    for (int i = 0; i < tile->n_lanes; i++) {
        const row_result result = finish_row(tile->shape, &tile->lanes[i], t.m[i], t.l[i]);
        for (int c = 0; c < t.dv; c++)
            t.row[c] = scaled(t.ot[(int64_t)c * t.width + i], &result);
        write_row(tile->shape, &tile->lanes[i], t.row, &result);
    }
}
