/*
 * tmpl/operands_pairs_tmpl.h - what the products multiply: pairs of bf16 in lanes of 32 bits.
 *
 * A row of K in bf16 is pairs of channels as it lies and is broadcast from there (copied only if D is
 * odd or the run is broken); two rows of V are paired once a block, and the weights of two keys as
 * they leave the softmax.  Sums are f32.  The scale multiplies the finished score, so q is not
 * rounded again; where nothing else is done to scores, it does so inside the weights' exponent.
 *
 * Pairs of keys begin at even keys, counted from key 0, whoever shares the tile: the order
 * inside a pair is part of the rounding.
 *
 * Parameters: none.  Needs a simd/ header with v_dot and v_pair, convert_tmpl.h.
 * operands_real_tmpl.h is the other choice and defines the same names.
 */
enum { KEY_UNIT = 2, SCALES_SCORES = 1 };

static inline vf madd(vf x, vf y, vf sum) { return v_dot(x, y, sum); }
static inline vf finish_score(vf sum, real scale) { return v_mul(sum, v_set1(scale)); }
static inline vf exp_weight(vf x) { return exp2_bf16(x); }

static inline int operand_steps(int d) { return (d + 1) / 2; }
static inline int operand_keys(int n) { return (n + 1) / 2; }
/* Numbers in vw. */
static inline size_t operand_value_reals(int dv) { return QKV_BLOCK_KEYS / 2 * (size_t)dv; }

/* n elements of `type`, rounded to bf16 if they are not, and a zero to make the number even. */
static void copy_bf16(uint16_t *dst, const void *src, int type, int n)
{
    int i = 0;
    if (type == QKV_BF16)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    else if (type == QKV_F32)
        for (; i + VL <= n; i += VL)
            v_narrow_bf16(dst + i, v_load((const float *)src + i));
    for (; type != QKV_BF16 && i < n; i++)
        dst[i] = qkv_bf16_of_f64(qkv_load_f64(src, type, i));
    if (n % 2)
        dst[n] = 0;
}

/* One query as pairs, in whole vectors: where it lies, or in `row`. */
static const real *query_row(real *row, const void *q, int type, int d)
{
    if (type == QKV_BF16 && d % (2 * VL) == 0 && (uintptr_t)q % sizeof(real) == 0)
        return q;
    copy_bf16((uint16_t *)(void *)row, q, type, d);
    return row;
}
static inline vf scale_query(vf x, vf scale)
{
    (void)scale;
    return x;
}

/* The same, always in row. */
static void query_operands(real *row, const void *q, int type, int d, real scale)
{
    (void)scale;
    copy_bf16((uint16_t *)(void *)row, q, type, d);
}

static const char *key_operands(const qkv_shape *shape, real *kw, const qkv_kv *kv, int type,
                                int64_t j0, int n, int64_t *step)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const int steps = operand_steps(shape->head_dim);

    if (type == QKV_BF16 && shape->head_dim % 2 == 0 && qkv_kv_run(kv, j0, j0 + n) == n) {
        *step = shape->k_stride * size;
        return (const char *)kv->k + qkv_kv_offset(kv, shape->k_stride, kv->k_page, j0) * size;
    }
    for (int j = 0; j < n; j++) {
        const int64_t at = qkv_kv_offset(kv, shape->k_stride, kv->k_page, j0 + j);
        copy_bf16((uint16_t *)(void *)(kw + j * steps), (const char *)kv->k + at * size, type,
                  shape->head_dim);
    }
    *step = steps * (int64_t)sizeof(real);
    return (const char *)kw;
}

/* Rows p and q (NULL: zeros) as pairs. */
static void pair_rows(real *dst, const uint16_t *p, const uint16_t *q, int n)
{
    static const uint16_t zeros[VL] = {0};
    int c = 0;
    for (; q && c + 2 * VL <= n; c += 2 * VL) {
        vf lo, hi;
        v_zip_rows(p + c, q + c, &lo, &hi);
        v_unzip(&lo, &hi);
        v_store(dst + c, lo);
        v_store(dst + c + VL, hi);
    }
    for (; c + VL <= n; c += VL)
        v_store(dst + c, v_pair_rows(p + c, q ? q + c : zeros));
    if (c < n) {
        real last[VL];
        v_store(last, v_pair_rows_n(p + c, q ? q + c : zeros, n - c));
        memcpy(dst + c, last, (size_t)(n - c) * sizeof *dst);
    }
}

static const uint16_t *value_row(const qkv_shape *shape, uint16_t *buffer, const qkv_kv *kv,
                                 int type, int64_t j)
{
    const int64_t at = qkv_kv_offset(kv, shape->v_stride, kv->v_page, j);
    if (type == QKV_BF16)
        return (const uint16_t *)kv->v + at;
    copy_bf16(buffer, (const char *)kv->v + at * (int64_t)qkv_type_size((qkv_type)type), type,
              shape->head_dim_v);
    return buffer;
}

static const real *value_operands(const qkv_shape *shape, real *vw, const qkv_kv *kv, int type,
                                  int64_t j0, int n, int64_t *stride)
{
    uint16_t rows[2][QKV_MAX_HEAD_DIM + 1];
    const int dv = shape->head_dim_v;

    for (int j = 0; j < n; j += 2)
        pair_rows(vw + j / 2 * dv, value_row(shape, rows[0], kv, type, j0 + j),
                  j + 1 < n ? value_row(shape, rows[1], kv, type, j0 + j + 1) : NULL, dv);
    *stride = dv;
    return vw;
}

/* Row r/2 of pairs lies before row r of scores, which is read by then. */
static inline void store_weights(real *s, int width, int r, int z, vf p, vf next)
{
    v_store(s + r / 2 * width + z * VL, v_pair(p, next));
}
static inline void store_last_weight(real *s, int width, int r, int z, vf p)
{
    v_store(s + r / 2 * width + z * VL, v_pair(p, v_zero()));
}

/* A pair spread over the lanes, with 0 in the half of a key that a lane does not see. */
static inline vf shown_operand(const real *pair, const vm see[2])
{
    const uint16_t *x = (const uint16_t *)(const void *)pair;
    const uint16_t halves[2][2] = {{x[0], 0}, {0, x[1]}};
    real low, high;
    memcpy(&low, halves[0], sizeof low);
    memcpy(&high, halves[1], sizeof high);
    return v_select(see[0], v_select(see[1], v_set1(*pair), v_set1(low)),
                    v_select(see[1], v_set1(high), v_zero()));
}

static int values_finite(const real *v, int64_t stride, int n, int dv)
{
    const uint16_t *x = (const uint16_t *)(const void *)v;
    const int64_t rows = operand_keys(n);
    uint16_t odd = 0;
    for (int64_t i = 0; stride == dv && i < rows * 2 * dv; i++)
        odd |= (x[i] & 0x7f80) == 0x7f80;
    for (int64_t j = 0; stride != dv && j < rows; j++)
        for (int c = 0; c < 2 * dv; c++)
            odd |= (x[j * 2 * stride + c] & 0x7f80) == 0x7f80;
    return !odd;
}
