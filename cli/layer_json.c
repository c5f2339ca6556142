/* layer_json.c - qkv layer info --json. */
#include <math.h>
#include <string.h>

#include "layer.h"
#include "options.h"

static json_t *number(double x) { return isnan(x) ? json_null() : cli_json_number(x); }

static json_t *bounded(int64_t n) { return n < 0 ? json_null() : json_integer(n); }

/* Frequencies for a sequence of one token or, if they depend on that, of all positions. */
static json_t *json_frequencies(const qkv_rope *r, int64_t tokens, double *factor)
{
    double f[512];
    json_t *list = json_array();

    if (qkv_rope_frequencies(r, tokens, f, factor, NULL, 0) == QKV_OK)
        for (int32_t i = 0; i < qkv_rope_pairs(r); i++)
            json_array_append_new(list, json_real(f[i]));
    return list;
}

static json_t *json_rope(const qkv_rope *r)
{
    double factor = NAN;

    if (r->type == QKV_ROPE_NONE)
        return json_null();
    json_t *list = json_frequencies(r, 1, &factor);
    json_t *table = json_pack(
        "{s:s, s:s, s:i, s:i, s:f, s:o, s:I, s:I, s:o, s:o}", "type", qkv_rope_type_name(r->type),
        "pairing", r->pairing == QKV_ROPE_INTERLEAVED ? "interleaved" : "half_split", "head_dim",
        (int)r->head_dim, "rotary_dim", (int)r->rotary_dim, "theta", r->theta, "factor",
        number(r->factor), "max_positions", (json_int_t)r->max_positions, "original_max_positions",
        (json_int_t)r->original_max_positions, "attention_factor", number(factor), "frequencies",
        list);
    if (r->type == QKV_ROPE_LONGROPE)
        json_object_set_new(table, "long_frequencies",
                            json_frequencies(r, r->original_max_positions + 1, NULL));
    return table;
}

static json_t *json_layers(const qkv_model *m, const cli_layers *group, int32_t only)
{
    json_t *list = json_array();

    for (int32_t i = 0; i < cli_layers_of(m, group->part); i++)
        if (cli_in_group(m, group, i) && (only < 0 || i == only))
            json_array_append_new(list, json_integer(i));
    return list;
}

/* Where the weights of the group's first layer lie. */
static json_t *json_weights(const qkv_model *m, const cli_layers *group)
{
    json_t *table = json_object();
    qkv_weight w;

    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        if (qkv_model_weight(m, group->part, group->first, role, &w, NULL, 0) != QKV_OK ||
            w.n_names == 0)
            continue;
        json_t *names = json_array();
        for (int32_t i = 0; i < w.n_names; i++)
            json_array_append_new(names, json_string(w.names[i]));
        json_object_set_new(
            table, qkv_role_name(role),
            json_pack("{s:o, s:b, s:b, s:I, s:I, s:i, s:i, s:I, s:i, s:I, s:I}", "names", names,
                      "bias", (int)w.has_bias, "transposed", (int)w.transposed, "rows",
                      (json_int_t)w.rows, "columns", (json_int_t)w.columns, "heads", (int)w.heads,
                      "width", (int)w.width, "first", (json_int_t)w.first, "group_heads",
                      (int)w.group_heads, "group_stride", (json_int_t)w.group_stride,
                      "head_stride", (json_int_t)w.head_stride));
    }
    return table;
}

static void add_scores(json_t *table, const qkv_layer_desc *l)
{
    static const char *const norms[] = {"none", "rms", "rms_plus_one", "layer"};
    static const char *const alibis[] = {"none", "plain", "scaled"};

    json_object_update_new(
        table,
        json_pack("{s:o, s:f, s:b, s:b, s:b, s:o, s:I, s:s, s:f, s:i, s:i, s:b}", "scale",
                  number(qkv_layer_scale(l)), "softcap", l->softcap, "sinks", (int)l->sinks,
                  "causal", (int)l->causal, "cross", (int)l->cross, "window",
                  bounded(l->window_left < 0 ? -1 : l->window_left + 1), "chunk_tokens",
                  (json_int_t)l->chunk_tokens, "alibi", alibis[l->alibi], "alibi_max_bias",
                  l->alibi_max_bias, "relative_buckets", (int)l->relative_buckets,
                  "relative_max_distance", (int)l->relative_max_distance, "relative_bidirectional",
                  (int)l->relative_bidirectional));
    json_object_update_new(
        table, json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:s, s:s, s:f, s:o}", "q_bias",
                         (int)l->q_bias, "k_bias", (int)l->k_bias, "v_bias", (int)l->v_bias,
                         "o_bias", (int)l->o_bias, "o_gate", (int)l->o_gate, "v_from_k",
                         (int)l->v_from_k, "qk_norm", norms[l->qk_norm], "latent_norm",
                         l->kind == QKV_LAYER_MLA ? norms[l->latent_norm] : "none", "norm_eps",
                         l->norm_eps, "rope", json_rope(&l->rope)));
}

static json_t *json_group(const qkv_model *m, const cli_layers *group, int32_t only)
{
    static const char *const parts[] = {"decoder", "encoder", "cross"};
    const qkv_layer_desc *l = &group->desc;
    char variant[32];
    json_t *table = json_pack(
        "{s:s, s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I}", "part", parts[group->part],
        "layers", json_layers(m, group, only), "variant",
        qkv_layer_variant(l, variant, sizeof variant), "n_q_heads", (int)l->n_q_heads, "n_kv_heads",
        (int)l->n_kv_heads, "head_dim", (int)l->head_dim, "head_dim_v", (int)l->head_dim_v,
        "q_lora_rank", (int)l->q_lora_rank, "kv_lora_rank", (int)l->kv_lora_rank, "rope_dim",
        (int)l->rope_dim, "cache_elements", (json_int_t)qkv_layer_cache_elements(l));

    if (l->kind == QKV_LAYER_STATE) {
        json_object_update_new(
            table, json_pack("{s:I, s:I, s:s}", "state_elements", (json_int_t)l->state_elements,
                             "state_parameters", (json_int_t)l->state_parameters, "state_type",
                             qkv_type_name((qkv_type)l->state_type)));
        return table;
    }
    add_scores(table, l);
    if (!m->sizing_only)
        json_object_set_new(table, "weights", json_weights(m, group));
    return table;
}

static json_t *json_ffn(const qkv_model *m)
{
    return json_pack(
        "{s:i, s:b, s:b, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "width", (int)m->d_ff, "gated",
        (int)m->ffn_gated, "bias", (int)m->ffn_bias, "experts", (int)m->n_experts, "experts_used",
        (int)m->n_experts_used, "experts_shared", (int)m->n_experts_shared, "expert_width",
        (int)m->d_ff_expert, "shared_width", (int)m->d_ff_shared, "first_dense_layers",
        (int)m->first_dense_layers, "expert_every", (int)m->expert_every);
}

int cli_layer_json(const qkv_model *m, const char *path, int32_t only)
{
    cli_layers groups[CLI_LAYER_GROUPS];
    const int32_t n = cli_group_layers(m, only, groups);
    const cli_kept kept = cli_what_is_kept(m);
    json_t *list = json_array(), *shared = json_array();

    for (int32_t g = 0; g < n; g++)
        json_array_append_new(list, json_group(m, &groups[g], only));
    for (int32_t i = 0; i < m->n_layers; i++)
        json_array_append_new(shared, json_integer(m->cache_of[i]));
    json_t *table = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:i, s:b, s:s, s:b, s:b, s:s}", "model",
        path, "model_type", m->model_type, "family", m->family, "n_layers", (int)m->n_layers,
        "encoder_layers", (int)m->encoder_layers, "d_model", (int)m->d_model, "vocab_size",
        (json_int_t)m->vocab_size, "max_positions", (json_int_t)m->max_positions,
        "position_embeddings", (json_int_t)m->position_embeddings, "token_types",
        (int)m->token_types, "tied_embeddings", (int)m->tied_embeddings, "dtype",
        qkv_type_name((qkv_type)m->weight_type), "sizing_only", (int)m->sizing_only,
        "scale_by_layer", (int)m->scale_by_layer, "unpriced", m->unpriced);
    json_object_update_new(
        table,
        json_pack("{s:o, s:[i,i,i], s:{s:I, s:I, s:I, s:I}, s:o, s:o}", "ffn", json_ffn(m), "norms",
                  (int)m->norms_a_layer, (int)m->norms_an_encoder_layer, (int)m->norms_besides,
                  "cache_elements", "token", (json_int_t)kept.token, "token_after_windows",
                  (json_int_t)kept.far_token, "memory_token", (json_int_t)kept.memory_token,
                  "state", (json_int_t)kept.state, "cache_of", shared, "kinds", list));
    return cli_print_json(table);
}
