/* layers/same.c - whether two layers may share a plan: equal in everything but weights. */
#include <math.h>
#include <string.h>

#include "layers/internal.h"

static int same_number(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static int same_factors(const double *a, const double *b, int32_t n)
{
    return (a == NULL) == (b == NULL) && (!a || memcmp(a, b, (size_t)n * sizeof *a) == 0);
}

static int same_rope(const qkv_rope *a, const qkv_rope *b)
{
    return a->type == b->type && a->pairing == b->pairing && a->precision == b->precision &&
           a->head_dim == b->head_dim && a->rotary_offset == b->rotary_offset &&
           a->rotary_dim == b->rotary_dim && same_number(a->theta, b->theta) &&
           same_number(a->factor, b->factor) && a->max_positions == b->max_positions &&
           a->original_max_positions == b->original_max_positions &&
           same_number(a->attention_factor, b->attention_factor) &&
           same_number(a->beta_fast, b->beta_fast) && same_number(a->beta_slow, b->beta_slow) &&
           same_number(a->mscale, b->mscale) && same_number(a->mscale_all_dim, b->mscale_all_dim) &&
           a->truncate == b->truncate && same_number(a->low_freq_factor, b->low_freq_factor) &&
           same_number(a->high_freq_factor, b->high_freq_factor) &&
           a->n_factors == b->n_factors &&
           same_factors(a->short_factor, b->short_factor, a->n_factors) &&
           same_factors(a->long_factor, b->long_factor, a->n_factors);
}

static int same_widths(const qkv_layer_desc *a, const qkv_layer_desc *b)
{
    return a->kind == b->kind && a->d_model == b->d_model && a->d_memory == b->d_memory &&
           a->n_q_heads == b->n_q_heads && a->n_kv_heads == b->n_kv_heads &&
           a->head_dim == b->head_dim && a->head_dim_v == b->head_dim_v &&
           a->q_lora_rank == b->q_lora_rank && a->kv_lora_rank == b->kv_lora_rank &&
           a->rope_dim == b->rope_dim && a->weights == b->weights;
}

static int same_scores(const qkv_layer_desc *a, const qkv_layer_desc *b)
{
    return same_number(a->scale, b->scale) && same_number(a->softcap, b->softcap) &&
           a->sinks == b->sinks && a->causal == b->causal && a->cross == b->cross &&
           a->window_left == b->window_left && a->window_right == b->window_right &&
           a->chunk_tokens == b->chunk_tokens && a->alibi == b->alibi &&
           same_number(a->alibi_max_bias, b->alibi_max_bias) &&
           a->relative_buckets == b->relative_buckets &&
           a->relative_max_distance == b->relative_max_distance &&
           a->relative_bidirectional == b->relative_bidirectional;
}

int qkv_layer_same(const qkv_layer_desc *a, const qkv_layer_desc *b)
{
    return same_widths(a, b) && same_scores(a, b) && a->q_bias == b->q_bias &&
           a->k_bias == b->k_bias && a->v_bias == b->v_bias && a->o_bias == b->o_bias &&
           a->qk_norm == b->qk_norm && a->latent_norm == b->latent_norm &&
           same_number(a->norm_eps, b->norm_eps) && same_rope(&a->rope, &b->rope);
}

int32_t qkv_layer_latent(const qkv_layer_desc *d) { return d->kv_lora_rank + d->rope_dim; }
int32_t qkv_layer_nope(const qkv_layer_desc *d) { return d->head_dim - d->rope_dim; }
