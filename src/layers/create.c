/* layers/create.c - a layer: what its description asks for, packed into one block. */
#include <math.h>
#include <string.h>

#include "layers/internal.h"

void *qkv_carve(qkv_carver *c, size_t bytes)
{
    const size_t at = c->used;
    c->used += (bytes + QKV_LAYERS_ALIGN - 1) / QKV_LAYERS_ALIGN * QKV_LAYERS_ALIGN;
    return c->memory ? c->memory + at : NULL;
}

/* ---- what there must be ----------------------------------------------------------------- */

/* Is there such a weight? */
static int wanted(const qkv_layer_desc *d, int32_t role)
{
    const int mla = d->kind == QKV_LAYER_MLA, latent_q = mla && d->q_lora_rank > 0;

    switch (role) {
    case QKV_ROLE_O: return 1;
    case QKV_ROLE_SINKS: return d->sinks;
    case QKV_ROLE_RELATIVE_BIAS: return d->relative_buckets > 0;
    case QKV_ROLE_Q: return !latent_q;
    case QKV_ROLE_K:
    case QKV_ROLE_V: return !mla;
    case QKV_ROLE_Q_NORM:
    case QKV_ROLE_K_NORM: return !mla && d->qk_norm != QKV_NORM_NONE;
    case QKV_ROLE_Q_A:
    case QKV_ROLE_Q_B: return latent_q;
    case QKV_ROLE_Q_A_NORM: return latent_q && d->latent_norm != QKV_NORM_NONE;
    case QKV_ROLE_KV_A:
    case QKV_ROLE_KV_B: return mla;
    case QKV_ROLE_KV_A_NORM: return mla && d->latent_norm != QKV_NORM_NONE;
    default: return 0;
    }
}

/* Has it a bias?  MLA with a latent of queries has none in q. */
static int biased(const qkv_layer_desc *d, int32_t role)
{
    switch (role) {
    case QKV_ROLE_O: return d->o_bias;
    case QKV_ROLE_Q: return d->kind != QKV_LAYER_MLA && d->q_bias;
    case QKV_ROLE_K: return d->kind != QKV_LAYER_MLA && d->k_bias;
    case QKV_ROLE_V: return d->kind != QKV_LAYER_MLA && d->v_bias;
    case QKV_ROLE_Q_A: return d->kind == QKV_LAYER_MLA && d->q_lora_rank > 0 && d->q_bias;
    case QKV_ROLE_KV_A: return d->kind == QKV_LAYER_MLA && d->q_bias;
    default: return 0;
    }
}

static qkv_status check(const qkv_layer_desc *d, const qkv_layer_weight *weights, qkv_say say)
{
    qkv_status status;

    if (!d || !weights)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "desc or weights is NULL");
    status = qkv_layer_desc_check(d, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    if (d->kind == QKV_LAYER_STATE)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "kind is QKV_LAYER_STATE; attention and MLA are computed");
    if (d->o_gate || d->v_from_k)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED, "%s is 1; such layers can be sized, not run",
                          d->o_gate ? "o_gate" : "v_from_k");
    if (d->cross && (d->rope.type != QKV_ROPE_NONE || d->window_left >= 0 || d->window_right >= 0 ||
                     d->chunk_tokens || d->alibi || d->relative_buckets || d->causal ||
                     d->kind == QKV_LAYER_MLA))
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "cross is 1 with causal, MLA, rope, a window, chunks, alibi or relative "
                          "buckets; distances between two sequences are not defined");
    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        status = qkv_weight_check(&weights[role], role, wanted(d, role), biased(d, role), say);
        if (status != QKV_OK)
            return status;
    }
    return QKV_OK;
}

/* ---- packing ---------------------------------------------------------------------------- */

static float *carve_vector(qkv_carver *c, const qkv_layer_weight *w, int64_t rows)
{
    float *v = w->data ? qkv_carve(c, (size_t)rows * sizeof(float)) : NULL;
    if (v)
        qkv_weight_copy(v, w, rows, 1, rows);
    return v;
}

/* One of the weights that are stacked in a matrix. */
typedef struct slab {
    int32_t role;
    int64_t rows, head_rows;
} slab;

/* Stacks weights that read the same input into one matrix, so that one product computes them. */
static void carve_matrix(qkv_carver *c, qkv_matrix *m, const qkv_layer_weight *weights,
                         const slab *slabs, int n, int64_t cols)
{
    int biases = 0;
    int64_t row = 0;

    m->rows = 0;
    m->cols = cols;
    for (int i = 0; i < n; i++) {
        m->rows += slabs[i].rows;
        biases += weights[slabs[i].role].bias != NULL;
    }
    m->w = qkv_carve(c, (size_t)(m->rows * cols) * sizeof(float));
    m->bias = biases ? qkv_carve(c, (size_t)m->rows * sizeof(float)) : NULL;
    for (int i = 0; c->memory && i < n; i++) {
        const slab *s = &slabs[i];
        const qkv_layer_weight *w = &weights[s->role];
        qkv_weight_copy(m->w + row * cols, w, s->rows, cols, s->head_rows);
        if (w->bias)
            qkv_bias_copy(m->bias + row, w, s->rows, s->head_rows);
        else if (m->bias)
            memset(m->bias + row, 0, (size_t)s->rows * sizeof(float));
        row += s->rows;
    }
}

static void carve_attention(qkv_carver *c, qkv_layer *l, const qkv_layer_weight *w)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t q = d->n_q_heads * (int64_t)d->head_dim, k = d->n_kv_heads * (int64_t)d->head_dim,
                  v = d->n_kv_heads * (int64_t)d->head_dim_v;
    const slab slabs[3] = {{QKV_ROLE_Q, q, d->head_dim},
                           {QKV_ROLE_K, k, d->head_dim},
                           {QKV_ROLE_V, v, d->head_dim_v}};

    carve_matrix(c, &l->in, w, slabs, d->cross ? 1 : 3, d->d_model);
    if (d->cross)
        carve_matrix(c, &l->memory, w, slabs + 1, 2, d->d_memory ? d->d_memory : d->d_model);
}

static void carve_mla(qkv_carver *c, qkv_layer *l, const qkv_layer_weight *w)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, q = heads * d->head_dim, ranks = d->q_lora_rank;
    const int64_t up = qkv_layer_nope(d) + d->head_dim_v, latent = qkv_layer_latent(d);
    const slab in[2] = {
        ranks ? (slab){QKV_ROLE_Q_A, ranks, ranks} : (slab){QKV_ROLE_Q, q, d->head_dim},
        {QKV_ROLE_KV_A, latent, latent}};
    const slab q_b = {QKV_ROLE_Q_B, q, d->head_dim};
    const slab kv_b = {QKV_ROLE_KV_B, heads * up, up};

    carve_matrix(c, &l->in, w, in, 2, d->d_model);
    if (ranks)
        carve_matrix(c, &l->q_b, w, &q_b, 1, ranks);
    carve_matrix(c, &l->kv_b, w, &kv_b, 1, d->kv_lora_rank);
    l->q_a_norm = carve_vector(c, &w[QKV_ROLE_Q_A_NORM], ranks);
    l->kv_a_norm = carve_vector(c, &w[QKV_ROLE_KV_A_NORM], d->kv_lora_rank);
}

static double *carve_factors(qkv_carver *c, const double *from, int32_t n)
{
    double *to = from && n > 0 ? qkv_carve(c, (size_t)n * sizeof *to) : NULL;
    if (to)
        memcpy(to, from, (size_t)n * sizeof *to);
    return to;
}

static void carve_rest(qkv_carver *c, qkv_layer *l, const qkv_layer_weight *w)
{
    qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, o = heads * d->head_dim_v;
    const slab out = {QKV_ROLE_O, d->d_model, d->d_model};
    const double *short_factor = d->rope.short_factor, *long_factor = d->rope.long_factor;

    carve_matrix(c, &l->out, w, &out, 1, o);
    l->q_norm = carve_vector(c, &w[QKV_ROLE_Q_NORM], d->head_dim);
    l->k_norm = carve_vector(c, &w[QKV_ROLE_K_NORM], d->head_dim);
    l->sinks = carve_vector(c, &w[QKV_ROLE_SINKS], heads);
    if (d->relative_buckets) {
        l->relative = qkv_carve(c, (size_t)(d->relative_buckets * heads) * sizeof(float));
        if (c->memory)
            qkv_weight_copy(l->relative, &w[QKV_ROLE_RELATIVE_BIAS], d->relative_buckets, heads,
                            d->relative_buckets);
    }
    l->slopes = d->alibi ? qkv_carve(c, (size_t)heads * sizeof(float)) : NULL;
    if (l->slopes)
        qkv_alibi_slopes(l->slopes, d->n_q_heads, d->alibi_max_bias);
    for (int64_t h = 0; l->slopes && d->alibi == QKV_ALIBI_SCALED && h < heads; h++)
        l->slopes[h] *= (float)d->scale;
    d->rope.short_factor = carve_factors(c, short_factor, d->rope.n_factors);
    d->rope.long_factor = carve_factors(c, long_factor, d->rope.n_factors);
}

/* Counts, or fills what c has memory for. */
static size_t build(qkv_carver c, qkv_layer *l, const qkv_layer_weight *weights)
{
    qkv_carve(&c, sizeof *l);
    if (l->desc.kind == QKV_LAYER_MLA)
        carve_mla(&c, l, weights);
    else
        carve_attention(&c, l, weights);
    carve_rest(&c, l, weights);
    return c.used;
}

/* ---- the calls --------------------------------------------------------------------------- */

qkv_status qkv_layer_create(const qkv_layer_desc *desc, const qkv_layer_weight *weights,
                            const qkv_allocator *allocator, qkv_layer **layer, char *text,
                            size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_layer made;
    const qkv_carver counting = {NULL, 0};

    if (!layer)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is NULL");
    *layer = NULL;
    const qkv_status status = check(desc, weights, say);
    if (status != QKV_OK)
        return status;
    memset(&made, 0, sizeof made);
    if (!qkv_allocator_of(allocator, &made.allocator))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "allocator lacks a function");
    qkv_layer_desc_init(&made.desc); /* desc may be of an older program, and shorter */
    memcpy(&made.desc, desc,
           desc->struct_size < sizeof made.desc ? desc->struct_size : sizeof made.desc);
    made.desc.struct_size = sizeof made.desc;
    made.desc.scale = qkv_layer_scale(desc);
    made.bytes = build(counting, &made, weights) + QKV_LAYERS_ALIGN;
    void *block = made.allocator.alloc(made.allocator.ctx, made.bytes);
    if (!block)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for a layer of %zu bytes", made.bytes);
    qkv_layer *l = block; /* weights begin at the next multiple of the alignment */
    const size_t skip = QKV_LAYERS_ALIGN - (uintptr_t)block % QKV_LAYERS_ALIGN;
    *l = made;
    l->desc.rope.short_factor = desc->rope.short_factor;
    l->desc.rope.long_factor = desc->rope.long_factor;
    build((qkv_carver){(unsigned char *)block + skip, 0}, l, weights);
    *layer = l;
    return qkv_accept(say);
}

void qkv_layer_destroy(qkv_layer *layer)
{
    if (layer) {
        const qkv_allocator a = layer->allocator;
        a.free(a.ctx, layer);
    }
}

const qkv_layer_desc *qkv_layer_desc_of(const qkv_layer *layer) { return &layer->desc; }

size_t qkv_layer_bytes(const qkv_layer *layer) { return layer->bytes; }

qkv_status qkv_layer_cache_config(const qkv_layer *layer, qkv_cache_config *config)
{
    if (!layer || !config || config->struct_size != sizeof *config)
        return QKV_ERR_ARGUMENT;
    const qkv_layer_desc *d = &layer->desc;
    const int mla = d->kind == QKV_LAYER_MLA;
    config->flags = mla ? config->flags | QKV_CACHE_LATENT : config->flags & ~QKV_CACHE_LATENT;
    config->n_layers = 1;
    config->n_kv_heads = mla ? 1 : d->n_kv_heads;
    config->head_dim = mla ? qkv_layer_latent(d) : d->head_dim;
    config->head_dim_v = mla ? d->kv_lora_rank : d->head_dim_v;
    config->window_left = d->window_left;
    return QKV_OK;
}
