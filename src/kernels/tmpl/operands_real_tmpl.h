/*
 * tmpl/operands_real_tmpl.h - what the products multiply: numbers of the compute type.
 *
 * The scale goes into the queries (one rounding), keys and values are read from where they lie if
 * they are of the compute type and in one run, and are widened into scratch otherwise.
 *
 * Parameters: none.  Needs one simd/ header, convert_tmpl.h and, in f32, codes_tmpl.h.  operands_pairs_tmpl.h is the other
 * choice and defines the same names.
 */
enum {
    KEY_UNIT = 1, /* runs of keys begin at multiples of this */
    SCALES_SCORES = 0
};

static inline vf madd(vf x, vf y, vf sum) { return v_fma(x, y, sum); }
static inline vf finish_score(vf sum, real scale)
{
    (void)scale;
    return sum;
}
static inline vf exp_weight(vf x) { return IS_F32 ? exp2_f32(x) : v_exp(x); }

static inline int operand_steps(int d) { return d; }  /* of the product with K */
static inline int operand_keys(int n) { return n; }   /* steps of the product with V */
/* Numbers in vw. */
static inline size_t operand_value_reals(int dv) { return QKV_BLOCK_KEYS * (size_t)dv; }

/* One query as numbers, in whole vectors: where it lies, or in `row`. */
static const real *query_row(real *row, const void *q, int type, int d)
{
    if (type == REAL_TYPE && d % VL == 0)
        return q;
    widen_row(row, q, type, d);
    return row;
}
static inline vf scale_query(vf x, vf scale) { return v_mul(x, scale); }

/* The same with its scale, always in row. */
__attribute__((unused)) /* where there is no decode_tmpl.h */
static void query_operands(real *row, const void *q, int type, int d, real scale)
{
    widen_row(row, q, type, d);
    for (int c = 0; c < d; c++)
        row[c] *= scale;
}

/* A block of n rows of d elements, stride elements apart, as contiguous reals. */
static void widen_rows(real *dst, const void *src, int type, int64_t stride, int n, int d)
{
    const char *row = src;
    const int64_t step = stride * (int64_t)qkv_type_size((qkv_type)type);
    for (int j = 0; j < n; j++)
        widen_row(dst + (int64_t)j * d, row + j * step, type, d);
}

static const void *gather_rows(real *buffer, const void *rows, int type, const qkv_kv *kv,
                               int64_t page, int64_t *stride, int64_t j0, int n, int d)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const int whole = qkv_kv_run(kv, j0, j0 + n) == n;

    if (whole && type == REAL_TYPE)
        return (const char *)rows + qkv_kv_offset(kv, *stride, page, j0) * size;
    for (int64_t j = 0, run; j < n; j += run) {
        run = qkv_kv_run(kv, j0 + j, j0 + n);
        widen_rows(buffer + j * d,
                   (const char *)rows + qkv_kv_offset(kv, *stride, page, j0 + j) * size, type,
                   *stride, (int)run, d);
    }
    *stride = d;
    return buffer;
}

/* Keys j0 .. j0+n-1; step receives the bytes between them. */
static const char *key_operands(const qkv_shape *shape, real *kw, const qkv_kv *kv, int type,
                                int64_t j0, int n, int64_t *step)
{
    int64_t stride = shape->k_stride;
#ifdef QKV_WIDEN_F32
    if (qkv_type_is_coded(type) || shape->rope_dim) {
        const coded_side x = coded_keys(shape, kv);
        decode_rows(kw, shape, &x, kv, j0, n, shape->rope_dim);
        *step = shape->head_dim * (int64_t)sizeof(real);
        return (const char *)kw;
    }
#endif
    const void *k = gather_rows(kw, kv->k, type, kv, kv->k_page, &stride, j0, n, shape->head_dim);
    *step = stride * (int64_t)sizeof(real);
    return k;
}

/* Values likewise; stride receives the numbers between them. */
static const real *value_operands(const qkv_shape *shape, real *vw, const qkv_kv *kv, int type,
                                  int64_t j0, int n, int64_t *stride)
{
#ifdef QKV_WIDEN_F32
    if (qkv_type_is_coded(type)) {
        const coded_side x = coded_values(shape, kv);
        decode_rows(vw, shape, &x, kv, j0, n, 0);
        *stride = shape->head_dim_v;
        return vw;
    }
#endif
    *stride = shape->v_stride;
    return gather_rows(vw, kv->v, type, kv, kv->v_page, stride, j0, n, shape->head_dim_v);
}

/* Weights of Z vectors of queries and of two keys, in place of their scores; the second may be
 * missing. */
static inline void store_weights(real *s, int width, int r, int z, vf p, vf next)
{
    v_store(s + r * width + z * VL, p);
    v_store(s + (r + 1) * width + z * VL, next);
}
static inline void store_last_weight(real *s, int width, int r, int z, vf p)
{
    v_store(s + r * width + z * VL, p);
}

/* A value spread over the lanes, 0 in those that do not see it; for the product that selects. */
static inline vf shown_operand(const real *x, const vm *see)
{
    return v_select(*see, v_set1(*x), v_zero());
}

/* Is every one of n values finite?  x times 0 is NaN if not. */
static int values_finite(const real *v, int64_t stride, int n, int dv)
{
    vf probe[4] = {v_zero(), v_zero(), v_zero(), v_zero()}; /* four, to hide their latency */
    real rest = 0;
    for (int j = 0; j < n; j++) {
        const real *row = v + j * stride;
        int c = 0;
        for (; c + 4 * VL <= dv; c += 4 * VL) {
            UNROLL for (int k = 0; k < 4; k++)
                probe[k] = v_fma(v_load(row + c + k * VL), v_zero(), probe[k]);
        }
        for (; c + VL <= dv; c += VL)
            probe[0] = v_fma(v_load(row + c), v_zero(), probe[0]);
        for (; c < dv; c++)
            rest += row[c] * 0;
    }
    const vf all = v_add(v_add(probe[0], probe[1]), v_add(probe[2], probe[3]));
    return !has_nan(v_add(all, v_set1(rest)));
}
