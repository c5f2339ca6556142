/*
 * tmpl/plain_scores_tmpl.h - scores of codes whose scale is not finite, by their formula.
 *
 * Products of codes are scaled when they are summed up.  An infinite scale would make infinity of a sum
 * whose numbers, each scaled, are infinities of both signs, or NaN where a code or a channel of q is 0.
 * So such keys, which only a broken cache has, are taken number by number.
 *
 * Parameters: none.  Needs block_rows_tmpl.h and nibble_pairs_tmpl.h.
 */

/* The number of code c of a row before its scale. */
static real code_number(int type, const uint8_t *row, int c)
{
    switch (type) {
    case QKV_I8:
        return (real)(int8_t)row[c];
    case QKV_U4:
        return (real)(row[c / 2] >> c % 2 * 4 & 15);
    case QKV_E5M2:
        return qkv_f32_of_f16((uint16_t)(row[c] << 8));
    default: /* e4m3 has no infinity, and a bias of 7 where f16 has 15 */
        if ((row[c] & 0x7f) == 0x7f)
            return (real)NAN;
        return 256 * qkv_f32_of_f16((uint16_t)((row[c] & 0x80) << 8 | (row[c] & 0x7f) << 7));
    }
}

/* Channel c of a query, which order_query_u4 has put elsewhere for codes of 4 bits. */
static real query_number(int type, const real *q, int c)
{
    const int in = c % NIBBLES, at = c - in + in % 4 * (NIBBLES / 4) + in / 4;

    return qkv_f32_of_bf16(((const uint16_t *)(const void *)q)[type == QKV_U4 ? at : c]);
}

static void plain_scores(const qkv_shape *shape, const row_map *t, const block_rows *x, int n)
{
    const int type = shape->k_type;

    for (int r = 0; r < n; r++) {
        const real scale = x->k_scales[r], min = x->k_mins ? x->k_mins[r] : 0;
        if (scale - scale == 0 && min - min == 0)
            continue;
        for (int i = 0; i < t->rows; i++) {
            real sum = 0;
            for (int c = 0; c < t->d; c++) {
                const real number = code_number(type, x->k[r], c) * scale;
                sum += query_number(type, t->q + i * t->d_padded, c) *
                       (x->k_mins ? min + number : number);
            }
            t->s[i * BLOCK + r] = sum * (real)shape->scale;
        }
    }
}
