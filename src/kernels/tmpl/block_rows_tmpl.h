/*
 * tmpl/block_rows_tmpl.h - where the rows of a block of keys and values lie, and what codes are scaled by.
 *
 * Products take pointers to rows, so a row of pages costs one load more than a row of a tensor.  Codes
 * without products of their own are decoded into scratch, whose rows stand for theirs; those with
 * some (code_pairs_tmpl.h, nibble_pairs_tmpl.h) are left where they are, and scores and weights take their
 * scales.
 *
 * Parameters: none.  Needs row_map of decode_tmpl.h and the templates of codes that the tier has.
 */

/* The rows of keys j0 .. j0+n-1 and of CODE_AHEAD + 1 more; past the last key j1 - 1 its own again, so that
 * nothing beyond is asked for. */
static void find_rows(const void **rows, const void *base, const qkv_kv *kv, int64_t stride,
                      int64_t page, int64_t size, int64_t j0, int n, int64_t j1)
{
    const int64_t end = j0 + n + CODE_AHEAD + 1 < j1 ? j0 + n + CODE_AHEAD + 1 : j1;

    for (int64_t j = j0, run; j < end; j += run) {
        const char *row = (const char *)base + qkv_kv_offset(kv, stride, page, j) * size;
        run = qkv_kv_run(kv, j, end);
        for (int64_t r = 0; r < run; r++)
            rows[j - j0 + r] = row + r * stride * size;
    }
    for (int r = (int)(end - j0); r <= n + CODE_AHEAD; r++)
        rows[r] = rows[end - j0 - 1];
}

/* Scales are those of codes whose rows hold the codes themselves; NULL: none. */
typedef struct block_rows {
    const void *k[BLOCK + CODE_AHEAD + 1], *v[BLOCK + CODE_AHEAD + 1];
    const real *k_scales, *v_scales, *k_mins, *v_mins;
    int k_finite, v_scales_finite, v_mins_finite; /* k_finite: scales and mins */
} block_rows;

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
    for (int r = 0; r <= n + CODE_AHEAD; r++)
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
/* Whole vectors of scales are stored from anywhere in a block on, and the next array is filled later. */
static size_t code_scale_bytes(void) { return (4 * BLOCK + VL) * sizeof(real); }

static void find_scales(block_rows *x, const qkv_shape *shape, const row_map *t, const qkv_kv *kv,
                        int k_type, int v_type, int64_t j, int n)
{
    real *k_scales = t->decoded, *v_scales = t->decoded + BLOCK;

    if (qkv_type_is_coded(k_type)) {
        x->k_finite = row_scales(k_scales, kv->k_scale, &shape->k_scales, kv,
                                 kv->k_scale_page, j, n);
        x->k_scales = k_scales;
    }
    if (qkv_type_is_coded(v_type)) {
        x->v_scales_finite = row_scales(v_scales, kv->v_scale, &shape->v_scales, kv,
                                        kv->v_scale_page, j, n);
        x->v_scales = v_scales;
    }
    if (k_type == QKV_U4) {
        x->k_mins = v_scales + BLOCK;
        x->k_finite &= row_scales(v_scales + BLOCK, kv->k_min, &shape->k_scales, kv,
                                  kv->k_scale_page, j, n);
    }
    if (v_type == QKV_U4) {
        x->v_mins = v_scales + 2 * BLOCK;
        x->v_mins_finite = row_scales(v_scales + 2 * BLOCK, kv->v_min, &shape->v_scales, kv,
                                      kv->v_scale_page, j, n);
    }
}
#else
#define find_scales(x, shape, t, kv, k_type, v_type, j, n) (void)0
#endif

static void find_block(block_rows *x, const qkv_shape *shape, const row_map *t, const qkv_kv *kv,
                       int k_type, int v_type, int64_t j, int n, int64_t j1)
{
    (void)t;
    x->k_scales = x->v_scales = x->k_mins = x->v_mins = NULL;
    find_scales(x, shape, t, kv, k_type, v_type, j, n);
    if (!find_coded_keys(x, shape, t, kv, k_type, j, n))
        find_rows(x->k, kv->k, kv, shape->k_stride, kv->k_page,
                  (int64_t)qkv_type_size((qkv_type)k_type), j, n, j1);
    if (!find_coded_values(x, shape, t, kv, v_type, j, n))
        find_rows(x->v, kv->v, kv, shape->v_stride, kv->v_page,
                  (int64_t)qkv_type_size((qkv_type)v_type), j, n, j1);
}

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

#if defined(QKV_CODE_PAIRS)
/* Scores of codes in nibble_pairs_tmpl.h, which are 1 + c / 16, become those of min + c step: what 1 adds
 * is the sum of q. */
static void finish_u4_scores(const row_map *t, const real *steps, const real *mins, int n)
{
    for (int i = 0; i < t->rows; i++) {
        const vf sum = v_set1(t->q_sums[i]);
        real *s = t->s + i * BLOCK;
        for (int r = 0; r < n; r += VL) {
            const vf codes = v_mul(v_sub(v_load(s + r), sum), v_set1(16));
            v_store(s + r, v_fma(codes, v_load(steps + r), v_mul(sum, v_load(mins + r))));
        }
    }
}

/* The middle of the codes of VL rows; 0 where a row may not be seen. */
static inline vf middles(const block_rows *x, int r, const uint8_t *hides)
{
    const vf all = v_fma(v_set1(U4_CENTER), v_load(x->v_scales + r), v_load(x->v_mins + r));
    return hides ? v_select(v_test(hides + r), v_zero(), all) : all;
}

/* The part of the values that is the same for all channels: min, and CENTER steps.  Hidden keys have a weight
 * of 0, which their scales may not meet if one is not finite. */
static void add_mins(const row_map *t, const block_rows *x, int n)
{
    const int finite = x->v_mins_finite && x->v_scales_finite;

    for (int i = 0; i < t->rows; i++) {
        const real *p = t->s + i * BLOCK;
        const uint8_t *hides = finite ? NULL : t->hides + i * BLOCK;
        vf sum = v_zero();
        for (int r = 0; r < n; r += VL)
            sum = v_fma(r + VL <= n ? v_load(p + r) : v_load_n(p + r, n - r), middles(x, r, hides),
                        sum);
        const vf parts[4] = {sum, v_zero(), v_zero(), v_zero()};
        real sums[4];
        v_sum4(parts, sums);
        t->v_mins[i] = sums[0];
    }
}

static void finish_u4_sums(const row_map *t)
{
    for (int i = 0; i < t->rows; i++)
        for (int c = i * t->dv_padded; c < (i + 1) * t->dv_padded; c += VL)
            v_store(t->o + c, v_add(v_load(t->o + c), v_set1(t->v_mins[i])));
}
#else
#define finish_u4_sums(t) (void)0
#define finish_u4_scores(t, steps, mins, n) (void)0
#define add_mins(t, x, n) (void)0
#endif
