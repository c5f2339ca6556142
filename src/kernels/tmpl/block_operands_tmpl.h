/*
 * tmpl/block_operands_tmpl.h - a block of keys and values on its way into the products.
 *
 * Parameters: none.  Needs the operands, coming and layout templates.
 */

/* Keys and values of a block as the products read them, made when the first sub-tile asks. */
typedef struct block_operands {
    const qkv_kv *kv;
    int k_type, v_type;
    int64_t j0;
    int n, extra; /* extra: keys before the run, see block_view */
    const char *k;
    int64_t k_step;
    const real *v;
    int64_t v_stride;
    int finite; /* 1, 0, or -1: nobody has looked yet */
    coming values, keys; /* of this block, of the next */
} block_operands;

static block_operands operands_of(const qkv_shape *shape, const qkv_kv *kv, int k_type, int v_type,
                                  int64_t j, int64_t j1)
{
    const int64_t end = block_end(j, j1), next = block_end(end, kv->end);
    block_operands x = {.kv = kv, .k_type = k_type, .v_type = v_type, .j0 = j,
                        .n = (int)(end - j), .finite = -1};

    x.values = coming_rows(kv, kv->v, v_type, shape->v_stride, kv->v_page, shape->head_dim_v, j,
                           end);
    x.keys = coming_rows(kv, kv->k, k_type, shape->k_stride, kv->k_page,
                         shape->head_dim - shape->rope_dim, end, next);
    if (kv->v == kv->k) /* latent rows hold both */
        x.values.end = j;
    return x;
}

static void need_keys(const qkv_shape *shape, const tile_map *t, block_operands *x)
{
    if (!x->k)
        x->k = key_operands(shape, t->kw, x->kv, x->k_type, x->j0, x->n, &x->k_step);
}

static void need_values(const qkv_shape *shape, const tile_map *t, block_operands *x, int hidden)
{
    if (!x->v)
        x->v = value_operands(shape, t->vw, x->kv, x->v_type, x->j0, x->n, &x->v_stride);
    if (hidden && x->finite < 0)
        x->finite = values_finite(x->v, x->v_stride, x->n, t->dv);
}
