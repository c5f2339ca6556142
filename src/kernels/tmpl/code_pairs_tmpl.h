/*
 * tmpl/code_pairs_tmpl.h - the two products for a few queries on codes of 8 bits that are exact in bf16.
 *
 * As row_pairs_tmpl.h; codes become pairs of bf16 in registers, on the way from memory to the dot
 * products of all heads of a group.  One scale a row: it multiplies the finished score (keys) or the
 * weight (values), where decoding each number would have put it but for the rounding.
 *
 *     64 codes of K, 4 rows      8 instructions and 8 dot products
 *     2 x 64 codes of V, 4 rows  20 instructions and 16 dot products
 *
 * Tried before: decoding a block into scratch first (through int32 and f32) costs as much
 * as the dot products themselves and made int8 no faster than bf16.
 *
 * Parameters: none.  Needs a simd/ header with v_code_pairs, row_pairs_tmpl.h.
 */

#include "kernels/simd/code_tables.h"

static inline code_tables tables_of(int type)
{
    const uint8_t(*table)[128] = type == QKV_I8     ? code_table_I8
                                 : type == QKV_E4M3 ? code_table_E4M3
                                                    : code_table_E5M2;
    return v_code_tables(table[0], table[1], type == QKV_I8);
}

INLINE void code_dots_tile(const code_tables *t, const void *const *keys, const real *q, int padded,
                           int d, real *s, const int KEYS, const int ROWS)
{
    vf acc[ROW_TILE][KEY_TILE];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int r = 0; r < KEY_TILE; r++) acc[g][r] = v_zero();
    }
    for (int c = 0; c < d; c += 4 * VL) {
        const int more = c + 2 * VL < d; /* q is padded to whole vectors, not to two of them */
        UNROLL for (int r = 0; r < KEYS; r++)
        {
            vf a, b;
            v_code_pairs(t, (const uint8_t *)keys[r] + c, d - c, &a, &b);
            UNROLL for (int g = 0; g < ROWS; g++)
            {
                acc[g][r] = v_dot(a, v_load(q + g * padded + c / 2), acc[g][r]);
                if (more)
                    acc[g][r] = v_dot(b, v_load(q + g * padded + c / 2 + VL), acc[g][r]);
            }
        }
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        v_sum4(acc[g], s + g * BLOCK);
        if (KEYS > 4)
            v_sum4(acc[g] + 4, s + g * BLOCK + 4);
    }
}

static inline void prefetch_codes(const void *row, int d)
{
    for (int at = 0; at < d; at += 64)
        __builtin_prefetch((const char *)row + at, 0, 2);
}

INLINE void code_dots_rows(const code_tables *t, const void *const *k, int n, const real *q,
                           int padded, int d, real *s, const int KEYS, const int ROWS)
{
    int j = 0;
    for (; j + KEYS <= n; j += KEYS) {
        UNROLL for (int r = 0; r < KEYS; r++) prefetch_codes(k[j + r + CODE_AHEAD], d);
        code_dots_tile(t, k + j, q, padded, d, s + j, KEYS, ROWS);
    }
    for (; j < n; j++) {
        real one[ROW_TILE * BLOCK];
        code_dots_tile(t, k + j, q, padded, d, one, 1, ROWS);
        for (int g = 0; g < ROWS; g++)
            s[g * BLOCK + j] = one[g * BLOCK];
    }
}

INLINE void code_dots_of(int type, const void *const *k, int n, const real *q, int padded, int d,
                         real *s, int rows)
{
    const code_tables tables = tables_of(type);
    for (; rows > 0; rows -= ROW_TILE, q += ROW_TILE * padded, s += ROW_TILE * BLOCK)
        switch (rows) {
        case 1:
            code_dots_rows(&tables, k, n, q, padded, d, s, KEY_TILE, 1);
            break;
        case 2:
            code_dots_rows(&tables, k, n, q, padded, d, s, 4, 2);
            break;
        case 3:
            code_dots_rows(&tables, k, n, q, padded, d, s, 4, 3);
            break;
        default:
            code_dots_rows(&tables, k, n, q, padded, d, s, 4, 4);
            break;
        }
}

/* 4 VL channels from `at` on, or the last of them. */
INLINE void code_sums_tile(const code_tables *t, const void *const *v, int at, int dv, int n,
                           const real *p, const real *a, real *o, int padded, const int ROWS)
{
    vf acc[ROW_TILE][4];

    UNROLL for (int g = 0; g < ROWS; g++)
    {
        UNROLL for (int z = 0; z < 4; z++) acc[g][z] = v_zero();
    }
    for (int j = 0; j < n; j += 2) {
        vf x[4];
        prefetch_codes((const uint8_t *)v[j + CODE_AHEAD] + at, 1);
        prefetch_codes((const uint8_t *)v[j + CODE_AHEAD + 1] + at, 1);
        v_zip_codes(t, (const uint8_t *)v[j] + at, (const uint8_t *)v[j + 1] + at, dv - at, x);
        UNROLL for (int g = 0; g < ROWS; g++)
        {
            const vf w = v_set1(p[g * (BLOCK / 2) + j / 2]);
            UNROLL for (int z = 0; z < 4; z++) acc[g][z] = v_dot(x[z], w, acc[g][z]);
        }
    }
    UNROLL for (int g = 0; g < ROWS; g++)
    {
        v_unzip_codes(acc[g]);
        UNROLL for (int z = 0; z < 4; z++)
        {
            real *to = o + g * padded + at + z * VL;
            if (at + z * VL < dv)
                v_store(to, v_fma(v_set1(a[g]), v_load(to), acc[g][z]));
        }
    }
}

INLINE void code_sums_of(int type, const void *const *v, int n, const real *s, const real *a, int dv,
                         real *o, int padded, int rows)
{
    const code_tables tables = tables_of(type);
    real p[ROW_TILE * BLOCK / 2 + VL];

    for (; rows > 0; rows -= ROW_TILE, s += ROW_TILE * BLOCK, a += ROW_TILE, o += ROW_TILE * padded) {
        round_weights(s, n, rows < ROW_TILE ? rows : ROW_TILE, p);
        for (int c = 0; c < dv; c += 4 * VL)
            switch (rows) {
            case 1:
                code_sums_tile(&tables, v, c, dv, n, p, a, o, padded, 1);
                break;
            case 2:
                code_sums_tile(&tables, v, c, dv, n, p, a, o, padded, 2);
                break;
            case 3:
                code_sums_tile(&tables, v, c, dv, n, p, a, o, padded, 3);
                break;
            default:
                code_sums_tile(&tables, v, c, dv, n, p, a, o, padded, 4);
                break;
            }
    }
}

INLINE int code_finite_of(int type, const void *const *v, int n, int dv)
{
    int finite = 1;
    for (int j = 0; type != QKV_I8 && j < n; j++)
        for (int c = 0; c < dv; c++) {
            const unsigned magnitude = ((const uint8_t *)v[j])[c] & 0x7f;
            finite &= magnitude < (type == QKV_E5M2 ? 0x7cu : 0x7fu);
        }
    return finite;
}

#define CODE_PRODUCTS(name, type)                                                                  \
    static void code_dots_##name(const void *const *k, int n, const real *q, int padded, int d,    \
                                 real *s, int rows)                                                \
    {                                                                                              \
        code_dots_of(type, k, n, q, padded, d, s, rows);                                           \
    }                                                                                              \
    static void code_sums_##name(const void *const *v, int n, const real *s, const real *a,        \
                                 int dv, real *o, int padded, int rows)                            \
    {                                                                                              \
        code_sums_of(type, v, n, s, a, dv, o, padded, rows);                                       \
    }                                                                                              \
    static int code_finite_##name(const void *const *v, int n, int dv)                             \
    {                                                                                              \
        return code_finite_of(type, v, n, dv);                                                     \
    }                                                                                              \
    static const row_products products_##name = {code_dots_##name, code_sums_##name,               \
                                                 code_finite_##name};

CODE_PRODUCTS(i8, QKV_I8)
CODE_PRODUCTS(e4m3, QKV_E4M3)
CODE_PRODUCTS(e5m2, QKV_E5M2)

/* n numbers of type F32 or F16, `step` apart; up to VL - 1 more of `out` may be overwritten. */
static void load_scales(real *out, const void *scales, int32_t type, int64_t at, int64_t step,
                        int n)
{
    const float *f = (const float *)scales + at;
    const uint16_t *h = (const uint16_t *)scales + at;
    int r = 0;

    if (type == QKV_F32 && step == 1)
        memcpy(out, f, (size_t)n * sizeof *out);
    else if (type == QKV_F32)
        for (; r < n; r++)
            out[r] = f[r * step];
    else if (step == 1) /* int4 of a cache; one at a time they took a fifth of the time */
        for (; r < n; r += VL)
            v_store(out + r, n - r >= VL ? v_widen_f16(h + r) : v_widen_f16_n(h + r, n - r));
    else
        for (; r < n; r++)
            out[r] = qkv_f32_of_f16(h[r * step]);
}

/* The scales (or mins) of rows j0 .. j0+n-1, and zeros up to a whole vector; returns whether all are finite. */
static int row_scales(real *out, const void *scales, const qkv_scales *s, const qkv_kv *kv,
                      int64_t page, int64_t j0, int n)
{
    vf probe = v_zero();

    for (int64_t j = j0, run; j < j0 + n; j += run) {
        run = qkv_kv_run(kv, j, j0 + n);
        load_scales(out + (j - j0), scales, s->type, qkv_kv_offset(kv, s->token_stride, page, j),
                    s->token_stride, (int)run);
    }
    for (int r = n; r % VL; r++)
        out[r] = 0;
    for (int r = 0; r < n; r += VL)
        probe = v_fma(v_load(out + r), v_zero(), probe);
    return !has_nan(probe);
}
