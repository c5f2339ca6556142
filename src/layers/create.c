/* layers/create.c - a layer: what its description asks for, packed into one block. */
#include <math.h>
#include <string.h>

#include "layers/onednn.h"
#include "layers/pack.h"

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

static qkv_status check_format(const qkv_layer_desc *d, qkv_say say)
{
    const int64_t o = (int64_t)d->n_q_heads * d->head_dim_v;

    if (d->weights == QKV_WEIGHTS_F32)
        return QKV_OK;
    if (d->weights == QKV_WEIGHTS_INT8 &&
        (o > QKV_ONEDNN_MOST_INPUTS || d->d_model > QKV_ONEDNN_MOST_INPUTS ||
         d->d_memory > QKV_ONEDNN_MOST_INPUTS || d->q_lora_rank > QKV_ONEDNN_MOST_INPUTS))
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "weights are int8 and a matrix has more than %d input channels, whose "
                          "sums need not fit 32 bits; accepted for this layer are f32 and bf16",
                          QKV_ONEDNN_MOST_INPUTS);
    return qkv_onednn_check(d->weights, say);
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
    status = check_format(d, say);
    for (int32_t role = 0; role < QKV_ROLE_COUNT && status == QKV_OK; role++)
        status = qkv_weight_check(&weights[role], role, wanted(d, role), biased(d, role), say);
    return status;
}

/* ---- packing ---------------------------------------------------------------------------- */

static float *carve_vector(qkv_packer *p, int32_t role, int64_t rows)
{
    const qkv_layer_weight *w = &p->weights[role];
    float *v = w->data ? qkv_carve(&p->carver, (size_t)rows * sizeof(float)) : NULL;
    if (v)
        qkv_weight_copy(v, w, 0, rows, 1, rows);
    return v;
}

static void carve_attention(qkv_packer *p, qkv_layer *l)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t q = d->n_q_heads * (int64_t)d->head_dim, k = d->n_kv_heads * (int64_t)d->head_dim,
                  v = d->n_kv_heads * (int64_t)d->head_dim_v;
    const qkv_slab slabs[3] = {{QKV_ROLE_Q, q, d->head_dim},
                               {QKV_ROLE_K, k, d->head_dim},
                               {QKV_ROLE_V, v, d->head_dim_v}};

    qkv_pack_matrix(p, &l->in, p->format, slabs, d->cross ? 1 : 3, d->d_model);
    if (d->cross)
        qkv_pack_matrix(p, &l->memory, p->format, slabs + 1, 2,
                        d->d_memory ? d->d_memory : d->d_model);
}

static void carve_mla(qkv_packer *p, qkv_layer *l)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, q = heads * d->head_dim, ranks = d->q_lora_rank;
    const int64_t up = qkv_layer_nope(d) + d->head_dim_v, latent = qkv_layer_latent(d);
    const qkv_slab in[2] = {
        ranks ? (qkv_slab){QKV_ROLE_Q_A, ranks, ranks} : (qkv_slab){QKV_ROLE_Q, q, d->head_dim},
        {QKV_ROLE_KV_A, latent, latent}};
    const qkv_slab q_b = {QKV_ROLE_Q_B, q, d->head_dim};
    const qkv_slab kv_b = {QKV_ROLE_KV_B, heads * up, up};

    qkv_pack_matrix(p, &l->in, p->format, in, 2, d->d_model);
    if (ranks)
        qkv_pack_matrix(p, &l->q_b, p->format, &q_b, 1, ranks);
    qkv_pack_matrix(p, &l->kv_b, QKV_WEIGHTS_F32, &kv_b, 1, d->kv_lora_rank);
    l->q_a_norm = carve_vector(p, QKV_ROLE_Q_A_NORM, ranks);
    l->kv_a_norm = carve_vector(p, QKV_ROLE_KV_A_NORM, d->kv_lora_rank);
}

static double *carve_factors(qkv_carver *c, const double *from, int32_t n)
{
    double *to = from && n > 0 ? qkv_carve(c, (size_t)n * sizeof *to) : NULL;
    if (to)
        memcpy(to, from, (size_t)n * sizeof *to);
    return to;
}

static void carve_rest(qkv_packer *p, qkv_layer *l)
{
    qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, o = heads * d->head_dim_v;
    const qkv_slab out = {QKV_ROLE_O, d->d_model, d->d_model};
    const double *short_factor = d->rope.short_factor, *long_factor = d->rope.long_factor;

    qkv_pack_matrix(p, &l->out, p->format, &out, 1, o);
    l->q_norm = carve_vector(p, QKV_ROLE_Q_NORM, d->head_dim);
    l->k_norm = carve_vector(p, QKV_ROLE_K_NORM, d->head_dim);
    l->sinks = carve_vector(p, QKV_ROLE_SINKS, heads);
    if (d->relative_buckets) {
        l->relative = qkv_carve(&p->carver, (size_t)(d->relative_buckets * heads) * sizeof(float));
        if (l->relative)
            qkv_weight_copy(l->relative, &p->weights[QKV_ROLE_RELATIVE_BIAS], 0,
                            d->relative_buckets, heads, d->relative_buckets);
    }
    l->slopes = d->alibi ? qkv_carve(&p->carver, (size_t)heads * sizeof(float)) : NULL;
    if (l->slopes)
        qkv_alibi_slopes(l->slopes, d->n_q_heads, d->alibi_max_bias);
    for (int64_t h = 0; l->slopes && d->alibi == QKV_ALIBI_SCALED && h < heads; h++)
        l->slopes[h] *= (float)d->scale;
    d->rope.short_factor = carve_factors(&p->carver, short_factor, d->rope.n_factors);
    d->rope.long_factor = carve_factors(&p->carver, long_factor, d->rope.n_factors);
}

const qkv_matrix *qkv_layer_matrix(const qkv_layer *layer, int i)
{
    const qkv_matrix *const all[QKV_NARROW_MATRICES] = {&layer->in, &layer->memory, &layer->q_b,
                                                        &layer->out};
    return all[i];
}

/* Counts, or fills what p has memory for. */
static void build(qkv_packer *p, qkv_layer *l)
{
    qkv_carve(&p->carver, sizeof *l);
    if (l->desc.kind == QKV_LAYER_MLA)
        carve_mla(p, l);
    else
        carve_attention(p, l);
    carve_rest(p, l);
}

static void forget_layouts(qkv_layer *l)
{
    for (int i = 0; i < QKV_NARROW_MATRICES; i++)
        qkv_narrow_end((qkv_narrow *)(uintptr_t)&qkv_layer_matrix(l, i)->narrow);
}

/* ---- the calls --------------------------------------------------------------------------- */

static void describe(qkv_layer *l, const qkv_layer_desc *desc)
{
    qkv_layer_desc_init(&l->desc); /* desc may be of an older program, and shorter */
    memcpy(&l->desc, desc, desc->struct_size < sizeof l->desc ? desc->struct_size : sizeof l->desc);
    l->desc.struct_size = sizeof l->desc;
    l->desc.scale = qkv_layer_scale(desc);
}

/* The block, filled; counted is p after counting. */
static qkv_status fill(qkv_packer p, const qkv_layer *counted, const qkv_layer_desc *desc,
                       qkv_layer **layer)
{
    const qkv_allocator *a = &counted->allocator;
    void *block = a->alloc(a->ctx, counted->bytes);
    p.scratch = block && p.scratch_bytes ? a->alloc(a->ctx, p.scratch_bytes) : NULL;

    if (!block || (p.scratch_bytes && !p.scratch)) {
        a->free(a->ctx, block);
        return QKV_ERR_MEMORY;
    }
    qkv_layer *l = block; /* weights begin at the next multiple of the alignment */
    const size_t skip = QKV_LAYERS_ALIGN - (uintptr_t)block % QKV_LAYERS_ALIGN;
    *l = *counted;
    l->desc.rope.short_factor = desc->rope.short_factor;
    l->desc.rope.long_factor = desc->rope.long_factor;
    p.carver = (qkv_carver){(unsigned char *)block + skip, 0};
    build(&p, l);
    a->free(a->ctx, p.scratch);
    if (p.status == QKV_OK)
        *layer = l;
    else
        a->free(a->ctx, block);
    return p.status;
}

qkv_status qkv_layer_create(const qkv_layer_desc *desc, const qkv_layer_weight *weights,
                            const qkv_allocator *allocator, qkv_layer **layer, char *text,
                            size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_layer made;

    if (!layer)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is NULL");
    *layer = NULL;
    qkv_status status = check(desc, weights, say);
    if (status != QKV_OK)
        return status;
    memset(&made, 0, sizeof made);
    if (!qkv_allocator_of(allocator, &made.allocator))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "allocator lacks a function");
    describe(&made, desc);
    qkv_packer p = {.weights = weights, .format = made.desc.weights, .status = QKV_OK};
    build(&p, &made);
    made.bytes = p.carver.used + QKV_LAYERS_ALIGN;
    status = p.status == QKV_OK ? fill(p, &made, desc, layer) : p.status;
    if (status == QKV_OK)
        return qkv_accept(say);
    forget_layouts(&made);
    if (status == QKV_ERR_MEMORY)
        return qkv_refuse(say, status, "no memory for a layer of %zu bytes", made.bytes);
    return qkv_refuse(say, status, "oneDNN refuses these weights as %s (%s)",
                      qkv_weights_name(made.desc.weights), qkv_status_name(status));
}

void qkv_layer_destroy(qkv_layer *layer)
{
    if (layer) {
        const qkv_allocator a = layer->allocator;
        forget_layouts(layer);
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
