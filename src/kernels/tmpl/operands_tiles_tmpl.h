/*
 * tmpl/operands_tiles_tmpl.h - what the tile instructions multiply: rows of 32 bf16 against pairs.
 *
 *     scores    C[key][query]     += A[key][32 channels]   B[16 pairs of channels][query]
 *     values    C[channel][query] += A[channel][32 keys]   B[16 pairs of keys][query]
 *
 * A tile is 16 rows of 64 bytes.  Rows of K in bf16 are A as they lie, if D is a multiple of 32 and the
 * keys fill whole tiles; queries and weights are B as the template has them, pairs in lanes.
 * V has to be turned, once a block for all sub-tiles.  A tile is read whole, so what is too short is
 * packed with zeros around it: what lies there in memory must not be read, and might be NaN.
 *
 *     kw, qt    [.. part][step][16 pairs]                  `part` and `step` of 32 channels inside a row
 *     vw        [32 keys][part][16 channels][16][32 keys]  whole tiles one after the other
 *     weights   [pair][part][width]                        over the scores they come from
 *
 * PARTS = 1: one bf16 for each number, rounded if it is not one.  PARTS = 2: f32 = high + low, which
 * keeps 16 bits or more of 24.
 *
 * The order inside a product of 32 keys is part of the rounding, so products begin at multiples of 32
 * keys, counted from key 0, whoever shares the tile.
 *
 * Parameters: PARTS.  Needs a simd/ header with v_pair and convert_tmpl.h; of the other operands
 * templates it defines the names that begin, masks and finish ask for.
 */
enum {
    KEY_UNIT = 32,
    SCALES_SCORES = 0, /* attend_tiles_tmpl.h does */
    STEP = 32,         /* channels or keys of one tile product */
    TILE_SIDE = 16
};

static inline vf exp_weight(vf x) { return PARTS == 1 ? exp2_bf16(x) : exp2_f32(x); }

static inline int steps_of(int d) { return (d + STEP - 1) / STEP; }
static inline int sides_of(int n) { return (n + TILE_SIDE - 1) / TILE_SIDE; }
static inline int operand_steps(int d) { return PARTS * steps_of(d) * (STEP / 2); }
/* Of vw: numbers of a step of 32 keys, and of a block. */
static inline int value_step_reals(int dv) { return PARTS * sides_of(dv) * TILE_SIDE * STEP / 2; }
static inline size_t operand_value_reals(int dv)
{
    return (size_t)(QKV_BLOCK_KEYS / STEP) * (size_t)value_step_reals(dv);
}

/* The first n elements of `type` at p as floats, n at most VL. */
static inline vf piece(const void *p, int type, int n)
{
    if (type == QKV_F32)
        return n == VL ? v_load(p) : v_load_n(p, n);
    if (type == QKV_BF16)
        return n == VL ? v_widen_bf16(p) : v_widen_bf16_n(p, n);
    return n == VL ? v_widen_f16(p) : v_widen_f16_n(p, n);
}

/* Numbers whose nearest bf16 is infinity stay below it, and infinity goes into the low part: high
 * + low is x, and products of parts are never infinity minus infinity. */
static inline vf below_overflow(vf x)
{
    const vf most = v_set1(-0x1.fep127f), y = v_max(most, x);
    return PARTS == 1 ? x : v_sub(v_zero(), v_max(most, v_sub(v_zero(), y)));
}

/* A row of n elements as bf16: the high parts of all steps, then the low ones. */
static void pack_row(uint16_t *dst, const void *src, int type, int n)
{
    const int padded = steps_of(n) * STEP;
    const char *from = src;
    const int size = (int)qkv_type_size((qkv_type)type);

    if (PARTS == 1 && type == QKV_BF16) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        memset(dst + n, 0, (size_t)(padded - n) * sizeof *dst);
        return;
    }
    for (int c = 0; c < padded; c += VL) {
        const int rest = n - c;
        const vf x = rest > 0 ? piece(from + c * size, type, rest < VL ? rest : VL) : v_zero();
        v_narrow_bf16(dst + c, below_overflow(x));
        if (PARTS == 2)
            v_narrow_bf16(dst + padded + c, v_sub(x, v_widen_bf16(dst + c)));
    }
}

static const real *query_row(real *row, const void *q, int type, int d)
{
    pack_row((uint16_t *)(void *)row, q, type, d);
    return row;
}
static inline vf scale_query(vf x, vf scale) /* the finished score has it */
{
    (void)scale;
    return x;
}

/* ---- keys ---- */

/* Keys of a run that begins at `from`, in a block that begins at j0 at or before it. */
typedef struct key_block {
    int64_t j0, from;
    int n;
} key_block;

/* Rows of 64 bytes or more that a tile load may read: where the keys lie, or a copy.  step receives the
 * bytes between them. */
static const char *key_operands(const qkv_shape *shape, real *kw, const qkv_kv *kv, int type,
                                const key_block *b, int64_t *step)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const int row = operand_steps(shape->head_dim);

    if (PARTS == 1 && type == QKV_BF16 && shape->head_dim % STEP == 0 && b->n % TILE_SIDE == 0 &&
        (!kv->pages || qkv_kv_run(kv, b->j0, b->j0 + b->n) == b->n)) {
        const int64_t first = qkv_kv_offset(kv, shape->k_stride, kv->k_page, b->j0);
        *step = shape->k_stride * size;
        return (const char *)kv->k + (kv->pages ? first : b->j0 * shape->k_stride) * size;
    }
    *step = row * (int64_t)sizeof(real);
    memset(kw, 0, (size_t)sides_of(b->n) * TILE_SIDE * (size_t)*step);
    for (int j = (int)(b->from - b->j0); j < b->n; j++) {
        const int64_t at = qkv_kv_offset(kv, shape->k_stride, kv->k_page, b->j0 + j);
        pack_row((uint16_t *)(void *)(kw + j * row), (const char *)kv->k + at * size, type,
                 shape->head_dim);
    }
    return (const char *)kw;
}

/* ---- values ---- */

/* n channels of two rows as pairs, in PARTS vectors.  NULL is a row of zeros. */
static inline void pair_piece(const char *p, const char *q, int type, int n, vf out[PARTS])
{
    static const uint32_t zeros[VL];
    const void *low = p ? (const void *)p : zeros, *high = q ? (const void *)q : zeros;

    if (PARTS == 1 && type == QKV_BF16) {
        out[0] = n == VL ? v_pair_rows(low, high) : v_pair_rows_n(low, high, n);
        return;
    }
    const vf x = piece(low, type, n), y = piece(high, type, n);
    out[0] = v_pair(below_overflow(x), below_overflow(y));
    if (PARTS == 2)
        out[PARTS - 1] = v_pair(v_sub(x, v_pair_low(out[0])), v_sub(y, v_pair_high(out[0])));
}

/* 32 keys of 16 channels: pairs of rows, then a transpose of pairs.  One part after the other lies
 * `part` numbers further. */
static void pack_values(real *to, int part, const char *const rows[STEP], int type, int64_t at, int n)
{
    vf a[PARTS][VL];

    for (int i = 0; i < VL; i++) {
        const char *p = rows[2 * i], *q = rows[2 * i + 1];
        vf pairs[PARTS];
        pair_piece(p ? p + at : NULL, q ? q + at : NULL, type, n, pairs);
        for (int k = 0; k < PARTS; k++)
            a[k][i] = pairs[k];
    }
    for (int k = 0; k < PARTS; k++) {
        transpose(a[k]);
        for (int i = 0; i < VL; i++)
            v_store(to + k * part + i * VL, a[k][i]);
    }
}

static void value_operands(const qkv_shape *shape, real *vw, const qkv_kv *kv, int type,
                           const key_block *b)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const int dv = shape->head_dim_v, part = value_step_reals(dv) / PARTS;

    for (int r = 0; r < b->n; r += STEP, vw += PARTS * part) {
        const char *rows[STEP];
        for (int k = 0; k < STEP; k++) {
            const int64_t j = b->j0 + r + k;
            const int there = r + k < b->n && j >= b->from;
            rows[k] = !there ? NULL
                             : (const char *)kv->v +
                                   qkv_kv_offset(kv, shape->v_stride, kv->v_page, j) * size;
        }
        for (int c = 0; c < dv; c += VL)
            pack_values(vw + c * (STEP / 2), part, rows, type, c * size, dv - c < VL ? dv - c : VL);
    }
}

/* Is every value of the block finite?  An exponent of ones is infinity or NaN. */
static int values_finite(const real *vw, int n, int dv)
{
    const uint16_t *x = (const uint16_t *)(const void *)vw;
    const int halves = steps_of(n) * value_step_reals(dv) * 2;
    int odd = 0;
    for (int i = 0; i < halves; i++)
        odd |= (x[i] & 0x7f80) == 0x7f80;
    return !odd;
}

/* One number; for what is rare. */
static inline real value_of(const real *v, int64_t stride, int r, int c)
{
    const real *tile = v + r / STEP * stride + c / TILE_SIDE * (TILE_SIDE * STEP / 2);
    real sum = 0;
    for (int k = 0; k < PARTS; k++) {
        const uint16_t *x = (const uint16_t *)(const void *)(tile + k * (stride / PARTS));
        sum += qkv_f32_of_bf16(x[c % TILE_SIDE * STEP + r % STEP]);
    }
    return sum;
}

/* The weights of two keys, over their scores or earlier ones. */
static inline void store_weights(real *s, int width, int r, int z, vf p, vf next)
{
    real *to = s + r / 2 * PARTS * width + z * VL;
    const vf pair = v_pair(p, next);
    v_store(to, pair);
    if (PARTS == 2)
        v_store(to + width,
                v_pair(v_sub(p, v_pair_low(pair)), v_sub(next, v_pair_high(pair))));
}
