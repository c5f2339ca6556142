/* model_texts.c - a small configuration of each family, and changing one field of it. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model_test.h"

#define HF(type, more) HF_HEADS(type, "2", more)
#define HF_HEADS(type, kv, more)                                                                   \
    "{\"model_type\": \"" type "\", \"num_hidden_layers\": 6, \"hidden_size\": 64, "               \
    "\"num_attention_heads\": 8, \"num_key_value_heads\": " kv ", \"head_dim\": 16, "              \
    "\"intermediate_size\": 96, \"vocab_size\": 100, \"max_position_embeddings\": 512, "           \
    "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": false" more "}"
#define GPT(type, more)                                                                            \
    "{\"model_type\": \"" type "\", \"n_layer\": 3, \"n_embd\": 64, \"n_head\": 4, "               \
    "\"n_positions\": 128, \"vocab_size\": 100, \"n_inner\": null" more "}"
#define WINDOW ", \"sliding_window\": 32"
#define MLA                                                                                        \
    ", \"kv_lora_rank\": 32, \"q_lora_rank\": 24, \"qk_nope_head_dim\": 16, "                      \
    "\"qk_rope_head_dim\": 8, \"v_head_dim\": 12, \"n_routed_experts\": 4, "                       \
    "\"num_experts_per_tok\": 2, \"n_shared_experts\": 1, \"moe_intermediate_size\": 32, "         \
    "\"first_k_dense_replace\": 1, \"attention_bias\": true, \"rope_scaling\": {\"type\": "        \
    "\"yarn\", \"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 1.0, "                         \
    "\"original_max_position_embeddings\": 64}"
#define LINEAR                                                                                     \
    ", \"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, \"linear_key_head_dim\": 8, "   \
    "\"linear_value_head_dim\": 8, \"linear_conv_kernel_dim\": 4, \"partial_rotary_factor\": 0.25"

const model_text model_texts[] = {
    {"llama", HF("llama", ", \"attention_bias\": false, \"rope_theta\": 500000.0, "
                          "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
                          "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                          "\"original_max_position_embeddings\": 64}")},
    {"mistral", HF("mistral", WINDOW)},
    {"mixtral", HF("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 2")},
    {"qwen2", HF("qwen2", WINDOW ", \"use_sliding_window\": true, \"max_window_layers\": 4")},
    {"qwen3", HF("qwen3", ", \"attention_bias\": true, \"rope_parameters\": {\"rope_type\": "
                          "\"dynamic\", \"factor\": 2, \"rope_theta\": 1e6}")},
    {"qwen3_moe", HF("qwen3_moe", ", \"num_experts\": 4, \"num_experts_per_tok\": 2, "
                                  "\"moe_intermediate_size\": 32, \"decoder_sparse_step\": 2, "
                                  "\"mlp_only_layers\": []")},
    {"qwen3_next", HF("qwen3_next", LINEAR)},
    {"qwen3_5", "{\"model_type\": \"qwen3_5\", \"text_config\": " HF("qwen3_5_text", LINEAR) "}"},
    {"qwen3_5_moe", HF("qwen3_5_moe_text", LINEAR ", \"num_experts\": 4")},
    {"phi3", HF("phi3", ", \"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": "
                        "\"su\", \"short_factor\": [1, 1, 1, 1, 1, 1, 1, 1.5], "
                        "\"long_factor\": [2, 2, 2, 2, 2, 2, 2, 9]}")},
    {"gemma2", HF("gemma2", WINDOW ", \"query_pre_attn_scalar\": 20")},
    {"gemma3", "{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", "
               "\"hidden_size\": 64, \"num_hidden_layers\": 7, \"intermediate_size\": 96, "
               "\"sliding_window\": 32, \"rope_scaling\": {\"rope_type\": \"linear\", "
               "\"factor\": 8.0}}, \"vision_config\": {\"num_attention_heads\": 3}}"},
    {"gemma3n", HF("gemma3n_text", WINDOW ", \"num_kv_shared_layers\": 1, \"layer_types\": "
                                          "[\"sliding_attention\", \"full_attention\", "
                                          "\"sliding_attention\", \"full_attention\", "
                                          "\"sliding_attention\", \"full_attention\"]")},
    {"gemma4", HF("gemma4_text", WINDOW ", \"global_head_dim\": 32, \"attention_k_eq_v\": true, "
                                        "\"num_global_key_value_heads\": 1")},
    {"gpt_oss", HF("gpt_oss", WINDOW ", \"num_local_experts\": 4, \"rope_scaling\": "
                                     "{\"rope_type\": \"yarn\", \"factor\": 32.0, "
                                     "\"truncate\": false, "
                                     "\"original_max_position_embeddings\": 64}")},
    {"llama4", HF("llama4_text", ", \"attention_chunk_size\": 64, \"intermediate_size_mlp\": 128, "
                                 "\"no_rope_layers\": [1, 1, 1, 0, 1, 1]")},
    {"gpt2", GPT("gpt2", ", \"scale_attn_by_inverse_layer_idx\": true")},
    {"gpt_bigcode", GPT("gpt_bigcode", ", \"multi_query\": true")},
    {"gpt_neox", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
                 "\"num_attention_heads\": 4, \"intermediate_size\": 256, \"rotary_pct\": 0.5, "
                 "\"rotary_emb_base\": 10000, \"max_position_embeddings\": 128}"},
    {"gptj", GPT("gptj", ", \"rotary_dim\": 8")},
    {"falcon", "{\"model_type\": \"falcon\", \"hidden_size\": 64, \"num_hidden_layers\": 2, "
               "\"num_attention_heads\": 8, \"num_kv_heads\": 2, \"new_decoder_architecture\": "
               "true, \"multi_query\": true, \"alibi\": false, \"bias\": true}"},
    {"mpt", "{\"model_type\": \"mpt\", \"d_model\": 64, \"n_heads\": 4, \"n_layers\": 2, "
            "\"attn_config\": {\"alibi\": true, \"alibi_bias_max\": 8, \"softmax_scale\": 0.5, "
            "\"attn_type\": \"multihead_attention\", \"clip_qkv\": null}}"},
    {"bloom", "{\"model_type\": \"bloom\", \"hidden_size\": 96, \"n_layer\": 2, \"n_head\": 6}"},
    {"bert", "{\"model_type\": \"bert\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
             "\"num_attention_heads\": 4, \"intermediate_size\": 128, "
             "\"max_position_embeddings\": 32, \"position_embedding_type\": \"absolute\"}"},
    {"t5", "{\"model_type\": \"t5\", \"d_model\": 64, \"d_kv\": 8, \"num_layers\": 2, "
           "\"num_decoder_layers\": 3, \"num_heads\": 4, \"d_ff\": 128, "
           "\"relative_attention_num_buckets\": 16, \"feed_forward_proj\": \"gated-gelu\"}"},
    {"bart", "{\"model_type\": \"bart\", \"d_model\": 64, \"encoder_layers\": 2, "
             "\"decoder_layers\": 3, \"encoder_attention_heads\": 4, "
             "\"decoder_attention_heads\": 8, \"encoder_ffn_dim\": 128, "
             "\"max_position_embeddings\": 32}"},
    {"deepseek_v2", HF_HEADS("deepseek_v2", "8", MLA)},
    {"deepseek_v3", HF_HEADS("deepseek_v3", "8", MLA ", \"rope_interleave\": true")},
};

const int n_model_texts = (int)(sizeof model_texts / sizeof model_texts[0]);

const char *model_text_of(const char *family)
{
    for (int i = 0; i < n_model_texts; i++)
        if (strcmp(model_texts[i].name, family) == 0)
            return model_texts[i].json;
    return NULL;
}

qkv_status model_from(const char *json, const char *as, qkv_model *model, char text[512])
{
    qkv_config_file *file;
    qkv_status status = qkv_config_parse("test", json, strlen(json), &file, text, 512);

    if (status != QKV_OK)
        return status;
    const qkv_config config = qkv_config_of(file);
    status = qkv_model_read(&config, as, model, text, 512);
    qkv_config_close(file);
    return status;
}

/* The table that describes the model. */
static json_t *inner(json_t *root)
{
    json_t *text = json_object_get(root, "text_config");
    return json_is_object(text) ? text : root;
}

int model_replace(const char *json, const char *key, const char *value, char *out, size_t bytes)
{
    json_t *root = json_loads(json, 0, NULL);
    json_t *at = root != NULL ? inner(root) : NULL;
    json_t *v = value != NULL ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    int there = at != NULL && json_object_get(at, key) != NULL;

    if (at != NULL && value == NULL)
        json_object_del(at, key);
    else if (at != NULL)
        json_object_set_new(at, key, v);
    const size_t n = root != NULL ? json_dumpb(root, out, bytes - 1, 0) : 0;
    out[n < bytes ? n : 0] = '\0';
    json_decref(root);
    return there;
}

const char *model_key(const char *json, int index, char key[64])
{
    json_t *root = json_loads(json, 0, NULL), *value;
    const char *name;

    key[0] = '\0';
    json_object_foreach(inner(root), name, value) if (index-- == 0) snprintf(key, 64, "%s", name);
    json_decref(root);
    return key;
}
