/*
 * tmpl/finish_tmpl.h - states made one, and rows written out.
 *
 * A handful of numbers a row, so logarithms and exponentials are libm's, in double.
 *
 * Parameters: none.  Needs the templates of attend_tmpl.h.
 */

/* (m, l, o) of x joins that of t: both are rescaled to the larger maximum.  A part that saw nothing
 * has m = -infinity, l = 0, o = 0 and weighs exactly 0. */
static void merge_sub(const tile_map *t, const tile_map *x)
{
    const real *from = x->ot;
    vf a[LANES], b[LANES];

    for (int z = 0; z < t->vectors; z++) {
        const int at = z * VL;
        const vf m = v_max(v_load(t->m + at), v_load(x->m + at));
        const vf near = no_infinity(m);
        a[z] = weight_of_old(v_load(t->m + at), near);
        b[z] = weight_of_old(v_load(x->m + at), near);
        v_store(t->m + at, m);
        v_store(t->l + at, v_fma(v_load(t->l + at), a[z], v_mul(v_load(x->l + at), b[z])));
    }
    /* In the order of memory, which is where the states of long parts come from. */
    for (real *o = t->ot; o < t->ot + (int64_t)t->dv * t->width; o += t->width, from += t->width)
        for (int z = 0; z < t->vectors; z++) {
            const vf more = v_mul(v_load(from + z * VL), b[z]);
            v_store(o + z * VL, v_fma(v_load(o + z * VL), a[z], more));
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
        map_state(&x, tile, alias.out, sub);
        merge_sub(&t, &x);
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

__attribute__((unused)) /* where there is no decode_tmpl.h */
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

/* All that is asked for of one query beside o. */
static void write_scalars(const qkv_shape *shape, const qkv_lane *lane, const row_result *result)
{
    if (lane->lse)
        *(real *)lane->lse = (real)result->lse;
    if (shape->stage == QKV_STAGE_WEIGHTS)
        write_weights(shape, lane, result);
}

/* The same with o, which holds Dv numbers, scaled. */
__attribute__((unused)) /* where there is no decode_tmpl.h */
static void write_row(const qkv_shape *shape, const qkv_lane *lane, const real *o,
                      const row_result *result)
{
    narrow_row(lane->o, shape->o_type, o, shape->head_dim_v);
    write_scalars(shape, lane, result);
}

/* VL channels of one output, or the n that there are. */
INLINE void write_piece(void *o, int type, int c, vf x, int n)
{
    if (n == VL && type == REAL_TYPE) {
        v_store((real *)o + c, x);
        return;
    }
#ifdef QKV_WIDEN_F32
    if (n == VL && type == QKV_BF16) {
        v_narrow_bf16((uint16_t *)o + c, x);
        return;
    }
    if (n == VL && type == QKV_F16) {
        v_narrow_f16((uint16_t *)o + c, x);
        return;
    }
#endif
    real piece[VL];
    v_store(piece, x);
    narrow_row((char *)o + c * (int64_t)qkv_type_size((qkv_type)type), type, piece, n);
}

/* Outputs of n lanes from i on, each times its factor, turned into rows.  An empty lane's are 0,
 * because no weight but 0 ever met a value, and stay so. */
static void write_outputs(const tile_map *t, int type, int i, int n, const real factors[VL])
{
    const vf factor = v_load(factors);

    for (int c = 0; c < t->dv; c += VL) {
        const int channels = t->dv - c < VL ? t->dv - c : VL;
        vf a[VL];
        UNROLL for (int k = 0; k < VL; k++)
        {
            const real *o = t->ot + (int64_t)(c + k) * t->width + i;
            a[k] = k < channels ? v_mul(v_load(o), factor) : v_zero();
        }
        transpose(a);
        UNROLL for (int k = 0; k < VL; k++)
        {
            if (k < n)
                write_piece(t->lanes[i + k].o, type, c, a[k], channels);
        }
    }
}

/* Lanes i .. i+VL-1 of a sub-tile. */
static void finish_vector(const qkv_tile *tile, const tile_map *t, int i)
{
    const int n = t->n_lanes - i < VL ? t->n_lanes - i : VL;
    row_result results[VL];
    real factors[VL] = {0};

    for (int k = 0; k < n; k++) {
        results[k] = finish_row(tile->shape, &t->lanes[i + k], t->m[i + k], t->l[i + k]);
        factors[k] = (real)results[k].factor;
    }
    write_outputs(t, tile->shape->o_type, i, n, factors);
    for (int k = 0; k < n; k++)
        write_scalars(tile->shape, &t->lanes[i + k], &results[k]);
}

static void finish(const qkv_tile *tile)
{
    for (int sub = 0; sub < sub_tiles_of(tile->n_lanes); sub++) {
        const tile_map t = map_tile(tile, sub);
        for (int i = 0; i < t.n_lanes; i += VL)
            finish_vector(tile, &t, i);
    }
}
