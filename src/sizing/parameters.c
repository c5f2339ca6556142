/* sizing/parameters.c - parameters of attention and of whole models. */
#include <string.h>

#include "sizing/internal.h"

/* ---- one layer ---------------------------------------------------------------------------- */

/* Numbers of a norm over `width` channels. */
static uint64_t norm(int32_t kind, uint64_t width)
{
    return kind == QKV_NORM_NONE ? 0 : kind == QKV_NORM_LAYER ? 2 * width : width;
}

static uint64_t mla_parameters(const qkv_layer_desc *l, uint64_t *matrices)
{
    const uint64_t d = (uint64_t)l->d_model, h = (uint64_t)l->n_q_heads;
    const uint64_t q = (uint64_t)l->q_lora_rank, c = (uint64_t)l->kv_lora_rank;
    const uint64_t r = (uint64_t)l->rope_dim, all = (uint64_t)l->head_dim;
    const uint64_t v = (uint64_t)l->head_dim_v, n = all - r;

    *matrices =
        (q > 0 ? d * q + q * h * all : d * h * all) + d * (c + r) + c * h * (n + v) + h * v * d;
    return *matrices + (l->q_bias ? q + c + r : 0) + (l->o_bias ? d : 0) +
           (q > 0 ? norm(l->latent_norm, q) : 0) + norm(l->latent_norm, c);
}

static uint64_t head_parameters(const qkv_layer_desc *l, uint64_t *matrices)
{
    const uint64_t d = (uint64_t)l->d_model, h = (uint64_t)l->n_q_heads;
    const uint64_t from = l->d_memory > 0 ? (uint64_t)l->d_memory : d;
    const uint64_t g = (uint64_t)l->n_kv_heads, dk = (uint64_t)l->head_dim;
    const uint64_t dv = (uint64_t)l->head_dim_v, q = h * dk * (l->o_gate ? 2 : 1);

    *matrices = d * q + from * g * dk + (l->v_from_k ? 0 : from * g * dv) + h * dv * d;
    return *matrices + (l->q_bias ? q : 0) + (l->k_bias ? g * dk : 0) +
           (l->v_bias && !l->v_from_k ? g * dv : 0) + (l->o_bias ? d : 0) +
           2 * norm(l->qk_norm, dk) + (l->sinks ? h : 0);
}

uint64_t qkv_size_layer_parameters(const qkv_layer_desc *l, uint64_t *matrices)
{
    uint64_t unused, *m = matrices ? matrices : &unused;

    if (l->kind == QKV_LAYER_STATE) {
        *m = (uint64_t)l->state_parameters;
        return *m;
    }
    return l->kind == QKV_LAYER_MLA ? mla_parameters(l, m) : head_parameters(l, m);
}

/* ---- attention of all layers -------------------------------------------------------------- */

static void add_attention(const qkv_model *m, int32_t part, qkv_size_parameters *p, qkv_tally *t)
{
    for (int32_t i = 0; i < qkv_size_layers(m, part); i++) {
        const qkv_layer_desc *l = qkv_size_layer(m, part, i);
        uint64_t matrices, all = qkv_size_layer_parameters(l, &matrices);
        /* The first layer of a stack has the table of distances, the others use it. */
        if (i == 0 && l->kind != QKV_LAYER_STATE)
            all += (uint64_t)l->relative_buckets * (uint64_t)l->n_q_heads;
        if (part == QKV_PART_DECODER && m->cache_of[i] != i && l->kind == QKV_LAYER_ATTENTION) {
            /* No keys and values of its own, so no projection of them either. */
            const uint64_t rows = (uint64_t)l->n_kv_heads *
                                  (uint64_t)(l->head_dim + (l->v_from_k ? 0 : l->head_dim_v));
            matrices -= rows * (uint64_t)l->d_model;
            all -= rows * (uint64_t)l->d_model + norm(l->qk_norm, (uint64_t)l->head_dim) +
                   (l->k_bias ? (uint64_t)l->n_kv_heads * (uint64_t)l->head_dim : 0) +
                   (l->v_bias ? (uint64_t)l->n_kv_heads * (uint64_t)l->head_dim_v : 0);
        }
        if (i == 0)
            p->layer[part] = all;
        p->attention = qkv_tally_add(t, p->attention, all);
        if (l->kind == QKV_LAYER_STATE)
            p->states = qkv_tally_add(t, p->states, all);
        else
            p->matrices = qkv_tally_add(t, p->matrices, matrices);
    }
}

/* ---- blocks ------------------------------------------------------------------------------- */

/* A feed-forward block of this width. */
static uint64_t block(const qkv_model *m, int32_t width)
{
    const uint64_t d = (uint64_t)m->d_model, f = (uint64_t)width, n = m->ffn_gated ? 2 : 1;
    return (n + 1) * d * f + (m->ffn_bias ? n * f + d : 0);
}

static int has_experts(const qkv_model *m, int32_t layer)
{
    return m->n_experts > 0 && layer >= m->first_dense_layers &&
           (layer - m->first_dense_layers + 1) % m->expert_every == 0;
}

/* Blocks of one layer: all of it, the part that routers choose from, and what one token uses. */
void qkv_size_block(const qkv_model *m, int32_t layer, qkv_size_mlp *b)
{
    const int experts = layer >= 0 && has_experts(m, layer);

    memset(b, 0, sizeof *b);
    if (!experts) {
        b->fixed = m->d_ff > 0 ? block(m, m->d_ff) : 0;
        return;
    }
    b->expert = block(m, m->d_ff_expert);
    b->n = (uint64_t)m->n_experts;
    b->used = (uint64_t)m->n_experts_used;
    b->fixed = (uint64_t)m->n_experts * ((uint64_t)m->d_model + (m->ffn_bias ? 1 : 0)) +
               (m->d_ff_shared > 0 ? block(m, m->d_ff_shared) : 0);
}

static void add_blocks(const qkv_model *m, qkv_size_parameters *p, uint64_t *idle, qkv_tally *t)
{
    qkv_size_mlp b;

    for (int32_t i = 0; i < m->n_layers + m->encoder_layers; i++) {
        qkv_size_block(m, i < m->n_layers ? i : -1, &b);
        const uint64_t all = qkv_tally_mul(t, b.expert, b.n);
        p->experts = qkv_tally_add(t, p->experts, all);
        p->mlp = qkv_tally_add(t, p->mlp, qkv_tally_add(t, all, b.fixed));
        *idle = qkv_tally_add(t, *idle, qkv_tally_mul(t, b.expert, b.n - b.used));
    }
}

/* ---- all ---------------------------------------------------------------------------------- */

/* BERT has token types and a pooler, GPT-J biases at its output.  tests/sizing compares all
 * families with Transformers and would find others. */
static int has_more(const qkv_model *m)
{
    return m->sizing_only || strcmp(m->family, "bert") == 0 || strcmp(m->family, "gptj") == 0;
}

static void add_rest(const qkv_model *m, qkv_size_parameters *p)
{
    const uint64_t d = (uint64_t)m->d_model;
    const uint64_t norms = (uint64_t)m->norms_a_layer * (uint64_t)m->n_layers +
                           (uint64_t)m->norms_an_encoder_layer * (uint64_t)m->encoder_layers +
                           (uint64_t)m->norms_besides;

    p->norms = norms * d;
    p->embeddings = ((uint64_t)m->vocab_size + (uint64_t)m->position_embeddings) * d;
    p->head = m->tied_embeddings ? 0 : (uint64_t)m->vocab_size * d;
    const int no_blocks = m->n_experts > 0 ? m->d_ff_expert == 0 : m->d_ff == 0;
    p->missing = (no_blocks ? QKV_SIZE_NO_MLP : 0) | (m->vocab_size == 0 ? QKV_SIZE_NO_VOCAB : 0) |
                 (has_more(m) ? QKV_SIZE_PARTS : 0);
}

qkv_status qkv_size_parameters_find(const qkv_model *model, qkv_size_parameters *p, char *text,
                                    size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = qkv_size_check_model(model, say);
    qkv_tally t = {0};
    uint64_t idle = 0;

    if (status != QKV_OK)
        return status;
    if (!p)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "found is NULL");
    memset(p, 0, sizeof *p);
    for (int32_t part = 0; part < 3; part++)
        add_attention(model, part, p, &t);
    add_blocks(model, p, &idle, &t);
    add_rest(model, p);
    const uint64_t parts[] = {p->attention, p->mlp, p->norms, p->embeddings, p->head};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        p->total = qkv_tally_add(&t, p->total, parts[i]);
    /* Tied or not, the last hidden state meets the whole vocabulary. */
    p->active =
        p->total - p->embeddings - idle +
        (model->tied_embeddings ? (uint64_t)model->vocab_size * (uint64_t)model->d_model : 0);
    if (t.over)
        return qkv_refuse(
            say, QKV_ERR_ARGUMENT,
            "n_layers is %d, d_model is %d; models of 2^63 or more parameters are not "
            "counted",
            model->n_layers, model->d_model);
    return qkv_accept(say);
}
