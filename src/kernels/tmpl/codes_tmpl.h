/*
 * tmpl/codes_tmpl.h - rows of codes as numbers of the compute type.
 *
 * A block of keys is decoded once for all queries of a tile, so once for all heads of a group.
 * Formats: qkv_desc in qkv/attention.h.  fp8 goes through f16, which holds every e4m3 after a shift
 * (exponent bias 15 instead of 7: times 2^8) and is e5m2 with a byte of zeros; the hardware's widening
 * then treats subnormals.
 *
 * Parameters: none.  Needs one simd/ header that widens f16, and convert_tmpl.h.
 */

/* One side (keys or values) of a qkv_kv. */
typedef struct coded_side {
    const void *codes, *scale, *min;
    int type, d; /* channels that are codes */
    int64_t stride, page, scale_page;
    const qkv_scales *scales;
} coded_side;

static coded_side coded_keys(const qkv_shape *shape, const qkv_kv *kv)
{
    return (coded_side){kv->k, kv->k_scale, kv->k_min, shape->k_type,
                        shape->head_dim - shape->rope_dim, shape->k_stride, kv->k_page,
                        kv->k_scale_page, &shape->k_scales};
}

static coded_side coded_values(const qkv_shape *shape, const qkv_kv *kv)
{
    return (coded_side){kv->v, kv->v_scale, kv->v_min, shape->v_type, shape->head_dim_v,
                        shape->v_stride, kv->v_page, kv->v_scale_page, &shape->v_scales};
}

static void decode_i8(real *dst, const int8_t *codes, int n, real scale)
{
    for (int c = 0; c < n; c++)
        dst[c] = (real)codes[c] * scale;
}

/* n may be odd only at the end of a row. */
static void decode_u4(real *dst, const uint8_t *codes, int n, real scale, real min)
{
    for (int c = 0; c < n / 2; c++) {
        dst[2 * c] = min + (real)(codes[c] & 15) * scale;
        dst[2 * c + 1] = min + (real)(codes[c] >> 4) * scale;
    }
    if (n % 2)
        dst[n - 1] = min + (real)(codes[n / 2] & 15) * scale;
}

static void decode_fp8(real *dst, const uint8_t *codes, int n, int type, real scale)
{
    uint16_t h[QKV_MAX_HEAD_DIM];
    const real factor = type == QKV_E4M3 ? 256 : 1; /* not of the scale, which might overflow */

    for (int c = 0; c < n; c++) {
        const unsigned x = codes[c];
        const unsigned e4m3 = (x & 0x80) << 8 | ((x & 0x7f) == 0x7f ? 0x7e00u : (x & 0x7f) << 7);
        h[c] = (uint16_t)(type == QKV_E5M2 ? x << 8 : e4m3);
    }
    widen_row(dst, h, QKV_F16, n);
    for (int c = 0; c < n; c++)
        dst[c] = dst[c] * factor * scale;
}

/* Codes c0 .. c0+n-1 of a row. */
static void decode_group(real *dst, const coded_side *x, const uint8_t *row, int c0, int n,
                         int64_t at)
{
    const real scale = (real)qkv_load_f32(x->scale, x->scales->type, at);

    switch (x->type) {
    case QKV_I8:
        decode_i8(dst + c0, (const int8_t *)row + c0, n, scale);
        break;
    case QKV_U4:
        decode_u4(dst + c0, row + c0 / 2, n, scale, (real)qkv_load_f32(x->min, x->scales->type, at));
        break;
    default:
        decode_fp8(dst + c0, row + c0, n, x->type, scale);
        break;
    }
}

static void decode_i8_channels(real *dst, const int8_t *codes, const float *scales, int n)
{
    for (int c = 0; c < n; c++)
        dst[c] = (real)codes[c] * scales[c];
}

/* Row j of codes, or of a plain type. */
static void decode_row(real *dst, const coded_side *x, const qkv_kv *kv, int64_t j)
{
    const int64_t at = qkv_kv_offset(kv, x->stride, x->page, j);
    const uint8_t *row = (const uint8_t *)x->codes + at * (int64_t)qkv_type_size((qkv_type)x->type);

    if (!qkv_type_is_coded(x->type)) {
        widen_row(dst, row, x->type, x->d);
        return;
    }
    const qkv_scales *s = x->scales;
    const int64_t first = qkv_kv_offset(kv, s->token_stride, x->scale_page, j);
    if (x->type == QKV_I8 && s->group == 1 && s->group_stride == 1 && s->type == QKV_F32) {
        decode_i8_channels(dst, (const int8_t *)row, (const float *)x->scale + first, x->d);
        return;
    }
    for (int c = 0, g = 0; c < x->d; c += s->group, g++)
        decode_group(dst, x, row, c, x->d - c < s->group ? x->d - c : s->group,
                     first + g * s->group_stride);
}

/* Rows j0 .. j0+n-1, d numbers each, one after another; the keys' other channels are put behind. */
static void decode_rows(real *dst, const qkv_shape *shape, const coded_side *x, const qkv_kv *kv,
                        int64_t j0, int n, int rope)
{
    const int d = x->d + rope;
    const int64_t size = rope ? (int64_t)qkv_type_size((qkv_type)shape->k_rope_type) : 0;

    for (int r = 0; r < n; r++) {
        decode_row(dst + r * d, x, kv, j0 + r);
        if (rope)
            widen_row(dst + r * d + x->d,
                      (const char *)kv->k_rope +
                          qkv_kv_offset(kv, shape->k_rope_stride, kv->k_rope_page, j0 + r) * size,
                      shape->k_rope_type, rope);
    }
}
