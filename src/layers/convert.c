/*
 * layers/convert.c - one kind of layer from another.
 *
 *     fewer key/value heads   the mean of those that become one (Ainslie et al., 2023)
 *     MLA                     keys and values of all heads as products of a latent
 *     the other pairing       rows of queries and keys in another order
 *
 * Each makes the weights of the new layer in scratch and packs them as qkv_layer_create does.
 */
#include <string.h>

#include "layers/internal.h"
#include "layers/onednn.h"

/* ---- weights out of a layer -------------------------------------------------------------- */

static qkv_layer_weight rows_of(const qkv_matrix *m, int64_t first, int64_t rows, int64_t *n,
                                int64_t *cols)
{
    *n = rows;
    *cols = m->cols;
    return qkv_layer_weight_dense(m->w ? m->w + first * m->cols : NULL, m->bias ? m->bias + first : NULL, QKV_F32,
                                  m->cols);
}

static qkv_layer_weight vector_of(const float *v, int64_t rows, int64_t width, int64_t *n,
                                  int64_t *cols)
{
    *n = v ? rows : 0;
    *cols = width;
    return qkv_layer_weight_dense(v, NULL, QKV_F32, width);
}

/* Rows of `in` (cross: `memory`) where a role's begin. */
static qkv_layer_weight attention_rows(const qkv_layer *l, int32_t role, int64_t *n, int64_t *cols)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t q = (int64_t)d->n_q_heads * d->head_dim, k = (int64_t)d->n_kv_heads * d->head_dim,
                  v = (int64_t)d->n_kv_heads * d->head_dim_v, skip = d->cross ? 0 : q;
    const qkv_matrix *m = d->cross ? &l->memory : &l->in;

    if (role == QKV_ROLE_Q)
        return rows_of(&l->in, 0, q, n, cols);
    return role == QKV_ROLE_K ? rows_of(m, skip, k, n, cols) : rows_of(m, skip + k, v, n, cols);
}

static qkv_layer_weight weight_of(const qkv_layer *l, int32_t role, int64_t *n, int64_t *cols)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t latent = qkv_layer_latent(d), q = l->in.rows - latent;

    switch (role) {
    case QKV_ROLE_Q:
    case QKV_ROLE_K:
    case QKV_ROLE_V:
        if (d->kind == QKV_LAYER_MLA)
            return rows_of(&l->in, 0, role == QKV_ROLE_Q && !d->q_lora_rank ? q : 0, n, cols);
        return attention_rows(l, role, n, cols);
    case QKV_ROLE_O: return rows_of(&l->out, 0, l->out.rows, n, cols);
    case QKV_ROLE_Q_NORM: return vector_of(l->q_norm, d->head_dim, 1, n, cols);
    case QKV_ROLE_K_NORM: return vector_of(l->k_norm, d->head_dim, 1, n, cols);
    case QKV_ROLE_SINKS: return vector_of(l->sinks, d->n_q_heads, 1, n, cols);
    case QKV_ROLE_RELATIVE_BIAS:
        return vector_of(l->relative, d->relative_buckets, d->n_q_heads, n, cols);
    case QKV_ROLE_Q_A: return rows_of(&l->in, 0, d->q_lora_rank, n, cols);
    case QKV_ROLE_Q_A_NORM: return vector_of(l->q_a_norm, d->q_lora_rank, 1, n, cols);
    case QKV_ROLE_Q_B: return rows_of(&l->q_b, 0, l->q_b.rows, n, cols);
    case QKV_ROLE_KV_A:
        return rows_of(&l->in, q, d->kind == QKV_LAYER_MLA ? latent : 0, n, cols);
    case QKV_ROLE_KV_A_NORM: return vector_of(l->kv_a_norm, d->kv_lora_rank, 1, n, cols);
    default: return rows_of(&l->kv_b, 0, l->kv_b.rows, n, cols);
    }
}

/* Whether the description says that this weight has a bias; in a stack others may bring zeros. */
static int is_biased(const qkv_layer_desc *d, int32_t role)
{
    const int mla = d->kind == QKV_LAYER_MLA;

    return (role == QKV_ROLE_O && d->o_bias) || (role == QKV_ROLE_Q && d->q_bias && !mla) ||
           (role == QKV_ROLE_K && d->k_bias) || (role == QKV_ROLE_V && d->v_bias) ||
           ((role == QKV_ROLE_Q_A || role == QKV_ROLE_KV_A) && d->q_bias && mla);
}

qkv_status qkv_layer_weight_of(const qkv_layer *layer, int32_t role, qkv_layer_weight *weight,
                               int64_t *rows, int64_t *cols)
{
    if (!layer || !weight || !rows || !cols || role < 0 || role >= QKV_ROLE_COUNT)
        return QKV_ERR_ARGUMENT;
    *weight = weight_of(layer, role, rows, cols);
    if (*rows == 0)
        memset(weight, 0, sizeof *weight);
    else if (!weight->data)
        return QKV_ERR_UNSUPPORTED;
    else if (!is_biased(&layer->desc, role))
        weight->bias = NULL;
    return QKV_OK;
}

/* ---- scratch ----------------------------------------------------------------------------- */

/* The weights of the new layer, those of the old one at first. */
qkv_status qkv_conversion_check(const qkv_layer *layer, qkv_say say)
{
    if (!layer)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is NULL");
    if (layer->desc.weights != QKV_WEIGHTS_F32)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "the layer keeps its weights as %s; layers that keep them as f32 can be "
                          "converted",
                          qkv_weights_name(layer->desc.weights));
    return QKV_OK;
}

void qkv_conversion_begin(qkv_conversion *c, const qkv_layer *layer)
{
    int64_t rows, cols;

    memset(c, 0, sizeof *c);
    c->desc = layer->desc;
    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++)
        qkv_layer_weight_of(layer, role, &c->weights[role], &rows, &cols);
}

/* ---- fewer key/value heads --------------------------------------------------------------- */

static void mean_rows(float *to, const float *from, int64_t heads, int64_t merged, int64_t width)
{
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < width; i++) {
            double sum = 0;
            for (int64_t m = 0; m < merged; m++)
                sum += from[(h * merged + m) * width + i];
            to[h * width + i] = (float)(sum / (double)merged);
        }
}

/* One of k and v; returns the scratch that it used up. */
static float *pool(qkv_conversion *c, const qkv_layer *layer, int32_t role, int64_t heads,
                   int64_t head_rows, float *scratch)
{
    const int64_t merged = layer->desc.n_kv_heads / heads;
    qkv_layer_weight *w = &c->weights[role];
    const int64_t cols = w->row_stride, rows = heads * head_rows;

    mean_rows(scratch, w->data, heads, merged, head_rows * cols);
    w->data = scratch;
    if (w->bias) {
        mean_rows(scratch + rows * cols, w->bias, heads, merged, head_rows);
        w->bias = scratch + rows * cols;
    }
    return scratch + rows * (cols + 1);
}

static qkv_status refuse_mla(const qkv_layer *layer, qkv_say say)
{
    const qkv_status status = qkv_conversion_check(layer, say);
    if (status != QKV_OK)
        return status;
    if (layer->desc.kind == QKV_LAYER_MLA)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "the layer is MLA; layers with key/value heads can be converted");
    return QKV_OK;
}

qkv_status qkv_layer_pool_heads(const qkv_layer *layer, int32_t n_kv_heads,
                                const qkv_allocator *allocator, qkv_layer **made, char *text,
                                size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_conversion c;
    qkv_allocator a;
    qkv_status status = refuse_mla(layer, say);

    if (made)
        *made = NULL;
    if (status != QKV_OK)
        return status;
    const qkv_layer_desc *d = &layer->desc;
    if (n_kv_heads < 1 || d->n_kv_heads % n_kv_heads != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "n_kv_heads is %d; accepted are divisors of the layer's %d", n_kv_heads,
                          d->n_kv_heads);
    if (!made || !qkv_allocator_of(allocator, &a))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "made is NULL, or allocator lacks a function");
    qkv_conversion_begin(&c, layer);
    const size_t need = (size_t)n_kv_heads * (size_t)(d->head_dim + d->head_dim_v) *
                        (size_t)(c.weights[QKV_ROLE_K].row_stride + 1) * sizeof(float);
    float *scratch = a.alloc(a.ctx, need);
    if (!scratch)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for %zu bytes of weights", need);
    c.desc.n_kv_heads = n_kv_heads;
    float *next = pool(&c, layer, QKV_ROLE_K, n_kv_heads, d->head_dim, scratch);
    pool(&c, layer, QKV_ROLE_V, n_kv_heads, d->head_dim_v, next);
    status = qkv_layer_create(&c.desc, c.weights, allocator, made, text, bytes);
    a.free(a.ctx, scratch);
    return status;
}

/* ---- the other pairing ------------------------------------------------------------------- */

/* Where channel i of a head comes from. */
static int64_t source(const qkv_rope *rope, int32_t pairing, int64_t offset, int64_t i)
{
    const int64_t half = qkv_rope_pairs(rope), at = i - offset - rope->rotary_offset;

    if (at < 0 || at >= 2 * half)
        return i;
    return i - at + (pairing == QKV_ROPE_HALF_SPLIT ? at % half * 2 + at / half
                                                     : at % 2 * half + at / 2);
}

typedef struct reorder {
    const qkv_rope *rope;
    int32_t pairing;
    int64_t offset, width; /* of the rotary part, of a head */
    float *next;           /* free scratch */
} reorder;

/* Rows of heads in the other order; rows outside of the rotary part stay. */
static void turn_rows(reorder *r, qkv_layer_weight *w, int64_t rows)
{
    const int64_t cols = w->row_stride;
    const float *data = w->data, *bias = w->bias;
    float *to = r->next, *to_bias = to + rows * cols;

    if (!data)
        return;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t head = i / r->width * r->width;
        const int64_t from = head + source(r->rope, r->pairing, r->offset, i % r->width);
        memcpy(to + i * cols, data + from * cols, (size_t)cols * sizeof *to);
        to_bias[i] = bias ? bias[from] : 0;
    }
    w->data = to;
    w->bias = bias ? to_bias : NULL;
    r->next += rows * (cols + 1);
}

static void turn_all(qkv_conversion *c, const qkv_layer *l, reorder r)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t q = (int64_t)d->n_q_heads * d->head_dim;

    r.width = d->head_dim;
    if (d->kind == QKV_LAYER_MLA) {
        r.offset = qkv_layer_nope(d);
        turn_rows(&r, &c->weights[d->q_lora_rank ? QKV_ROLE_Q_B : QKV_ROLE_Q], q);
        r.offset = d->kv_lora_rank;
        r.width = qkv_layer_latent(d);
        turn_rows(&r, &c->weights[QKV_ROLE_KV_A], r.width);
        return;
    }
    turn_rows(&r, &c->weights[QKV_ROLE_Q], q);
    turn_rows(&r, &c->weights[QKV_ROLE_K], (int64_t)d->n_kv_heads * d->head_dim);
    turn_rows(&r, &c->weights[QKV_ROLE_Q_NORM], d->head_dim);
    turn_rows(&r, &c->weights[QKV_ROLE_K_NORM], d->head_dim);
}

qkv_status qkv_layer_pair(const qkv_layer *layer, int32_t pairing, const qkv_allocator *allocator,
                          qkv_layer **made, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_conversion c;
    qkv_allocator a;

    if (made)
        *made = NULL;
    if (!layer || !made || !qkv_allocator_of(allocator, &a))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "layer or made is NULL, or allocator lacks a function");
    qkv_status status = qkv_conversion_check(layer, say);
    if (status != QKV_OK)
        return status;
    const qkv_rope *rope = &layer->desc.rope;
    if (pairing != QKV_ROPE_HALF_SPLIT && pairing != QKV_ROPE_INTERLEAVED)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "pairing is %d; it must be a QKV_ROPE_ pairing",
                          pairing);
    if (rope->type == QKV_ROPE_NONE || rope->type == QKV_ROPE_PROPORTIONAL ||
        rope->pairing == pairing)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "rope.type is %s and its pairing %s; another pairing is for layers that "
                          "turn, in the other one, channels that lie together",
                          qkv_rope_type_name(rope->type),
                          rope->pairing == QKV_ROPE_INTERLEAVED ? "interleaved" : "half-split");
    qkv_conversion_begin(&c, layer);
    c.desc.rope.pairing = pairing;
    const size_t rows = (size_t)(layer->in.rows + layer->q_b.rows + 2 * layer->desc.head_dim);
    const size_t widest =
        (size_t)(layer->in.cols > layer->q_b.cols ? layer->in.cols : layer->q_b.cols);
    float *scratch = a.alloc(a.ctx, rows * (widest + 1) * sizeof *scratch);
    if (!scratch)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for %zu rows of weights", rows);
    turn_all(&c, layer, (reorder){.rope = rope, .pairing = pairing, .next = scratch});
    status = qkv_layer_create(&c.desc, c.weights, allocator, made, text, bytes);
    a.free(a.ctx, scratch);
    return status;
}
