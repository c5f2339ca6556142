/* variants.c - one layer for each thing that a layer can have. */
#include <math.h>
#include <string.h>

#include "layers_test.h"

static void set_nothing(qkv_layer_desc *d) { (void)d; }
static void set_mha(qkv_layer_desc *d) { d->n_kv_heads = 6; }
static void set_mqa(qkv_layer_desc *d) { d->n_kv_heads = 1; }
static void set_widths(qkv_layer_desc *d) { d->head_dim_v = 5; }
static void set_biases(qkv_layer_desc *d) { d->q_bias = d->k_bias = d->v_bias = d->o_bias = 1; }
static void set_one_bias(qkv_layer_desc *d) { d->v_bias = 1; }

static void set_rope(qkv_layer_desc *d)
{
    qkv_rope_init(&d->rope);
    d->rope.head_dim = d->head_dim;
}

static void set_partial(qkv_layer_desc *d)
{
    set_rope(d);
    d->rope.rotary_dim = 4;
    d->rope.rotary_offset = 2;
    d->rope.pairing = QKV_ROPE_INTERLEAVED;
}

static void set_norm(qkv_layer_desc *d)
{
    set_rope(d);
    d->qk_norm = QKV_NORM_RMS;
    d->norm_eps = 1e-5;
}

static void set_norm_plus_one(qkv_layer_desc *d)
{
    set_norm(d);
    d->qk_norm = QKV_NORM_RMS_PLUS_ONE;
    d->head_dim_v = 12;
}

static void set_layer_norm(qkv_layer_desc *d) { d->qk_norm = QKV_NORM_LAYER; }

static void set_scores(qkv_layer_desc *d)
{
    set_rope(d);
    d->scale = 0.7;
    d->softcap = 1.5;
}

static void set_sinks(qkv_layer_desc *d)
{
    set_biases(d);
    d->sinks = 1;
    d->window_left = 3;
}

static void set_window(qkv_layer_desc *d)
{
    set_rope(d);
    d->window_left = 4;
}

static void set_chunks(qkv_layer_desc *d)
{
    set_rope(d);
    d->chunk_tokens = 5;
}

static void set_alibi(qkv_layer_desc *d) { d->alibi = QKV_ALIBI_PLAIN; }

static void set_alibi_scaled(qkv_layer_desc *d)
{
    d->alibi = QKV_ALIBI_SCALED;
    d->n_q_heads = d->n_kv_heads = 4;
    d->alibi_max_bias = 6;
}

static void set_relative(qkv_layer_desc *d)
{
    d->scale = 1;
    d->relative_buckets = 8;
    d->relative_max_distance = 9;
}

static void set_encoder(qkv_layer_desc *d)
{
    set_biases(d);
    d->causal = 0;
}

static void set_encoder_relative(qkv_layer_desc *d)
{
    set_relative(d);
    d->causal = 0;
    d->relative_bidirectional = 1;
}

static void set_encoder_window(qkv_layer_desc *d)
{
    set_rope(d);
    d->causal = 0;
    d->window_left = 2;
    d->window_right = 3;
}

static void set_cross(qkv_layer_desc *d)
{
    d->causal = 0;
    d->cross = 1;
    d->d_memory = 14;
}

static void set_cross_biases(qkv_layer_desc *d)
{
    set_cross(d);
    set_biases(d);
    d->d_memory = 0;
    d->qk_norm = QKV_NORM_RMS;
    d->sinks = 1;
}

static void set_mla(qkv_layer_desc *d)
{
    d->kind = QKV_LAYER_MLA;
    d->n_kv_heads = d->n_q_heads;
    d->q_lora_rank = 7;
    d->kv_lora_rank = 9;
    d->rope_dim = 4;
    d->head_dim = 10;
    d->head_dim_v = 5;
    qkv_rope_init(&d->rope);
    d->rope.head_dim = 4;
    d->rope.pairing = QKV_ROPE_INTERLEAVED;
}

static void set_mla_direct(qkv_layer_desc *d)
{
    set_mla(d);
    d->q_lora_rank = 0;
}

static void set_mla_yarn(qkv_layer_desc *d)
{
    set_mla(d);
    d->q_bias = d->o_bias = 1;
    d->rope.type = QKV_ROPE_YARN;
    d->rope.factor = 40;
    d->rope.original_max_positions = 8;
    d->rope.max_positions = 320;
    d->rope.mscale = d->rope.mscale_all_dim = 1;
}

static void set_mla_plain(qkv_layer_desc *d)
{
    set_mla(d);
    d->latent_norm = QKV_NORM_NONE;
    d->rope.type = QKV_ROPE_NONE;
}

const variant variants[] = {
    {"gqa", set_nothing},
    {"mha", set_mha},
    {"mqa", set_mqa},
    {"widths", set_widths},
    {"biases", set_biases},
    {"one_bias", set_one_bias},
    {"rope", set_rope},
    {"partial", set_partial},
    {"norm", set_norm},
    {"norm_plus_one", set_norm_plus_one},
    {"layer_norm", set_layer_norm},
    {"scores", set_scores},
    {"sinks", set_sinks},
    {"window", set_window},
    {"chunks", set_chunks},
    {"alibi", set_alibi},
    {"alibi_scaled", set_alibi_scaled},
    {"relative", set_relative},
    {"encoder", set_encoder},
    {"encoder_relative", set_encoder_relative},
    {"encoder_window", set_encoder_window},
    {"cross", set_cross},
    {"cross_biases", set_cross_biases},
    {"mla", set_mla},
    {"mla_direct", set_mla_direct},
    {"mla_yarn", set_mla_yarn},
    {"mla_plain", set_mla_plain},
};
const int n_variants = (int)(sizeof variants / sizeof *variants);

int32_t kept_as = QKV_WEIGHTS_F32;

const char *kept(void)
{
    static const char *const names[] = {"", "bf16/", "int8/", "packed/"};
    return names[kept_as];
}

qkv_layer_desc desc_of(const variant *v)
{
    qkv_layer_desc d;
    qkv_layer_desc_init(&d);
    d.d_model = 20;
    d.n_q_heads = 6;
    d.n_kv_heads = 2;
    d.head_dim = d.head_dim_v = 8;
    d.weights = kept_as;
    v->set(&d);
    return d;
}
