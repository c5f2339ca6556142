/* read.c - reading configurations: values and sentences. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_test.h"

#define LARGEST 8192

/* A family's text with one key replaced. */
static const char *with(const char *family, const char *key, const char *value)
{
    static char out[LARGEST];
    model_replace(model_text_of(family), key, value, out, sizeof out);
    return out;
}

/* ---- values --------------------------------------------------------------------------------- */

static void check_family(int i)
{
    char text[512];
    qkv_model m;
    qkv_layer_desc l;

    if (!t_case("%s", model_texts[i].name))
        return;
    const qkv_status status = model_from(model_texts[i].json, NULL, &m, text);
    t_check(status == QKV_OK, "refused: %s", text);
    if (status != QKV_OK)
        return;
    t_check(strcmp(m.family, model_texts[i].name) == 0, "read as %s", m.family);
    t_check(m.struct_size == sizeof m && m.n_kinds >= 1, "size or kinds");
    t_check(m.unpriced[0] == '\0', "not looked at: %s", m.unpriced);
    for (int32_t part = 0; part < 3; part++) {
        const int32_t n = part == 0 ? m.n_layers : m.encoder_layers == 0 ? 0
                          : part == 1 ? m.encoder_layers : m.n_layers;
        for (int32_t layer = 0; layer < n; layer++) {
            t_check(qkv_model_layer(&m, part, layer, &l, text, sizeof text) == QKV_OK, "%s", text);
            t_check(qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK, "%s", text);
        }
        t_check(qkv_model_layer(&m, part, n, &l, NULL, 0) == QKV_ERR_ARGUMENT, "layer %d", n);
        t_check(qkv_model_layer(&m, part, -1, &l, NULL, 0) == QKV_ERR_ARGUMENT, "layer -1");
    }
    t_check(qkv_model_layer(&m, 3, 0, &l, NULL, 0) == QKV_ERR_ARGUMENT, "part 3");
    /* The text of a family, read as itself whatever it calls itself. */
    static char changed[LARGEST];
    model_replace(model_texts[i].json, "model_type", "\"nonsense\"", changed, sizeof changed);
    t_check(model_from(changed, model_texts[i].name, &m, text) == QKV_OK, "--as: %s", text);
    t_check(model_from(changed, NULL, &m, text) == QKV_ERR_UNSUPPORTED, "nonsense is accepted");
}

static qkv_layer_desc layer_of(const char *json, int32_t part, int32_t layer)
{
    char text[512];
    qkv_model m;
    qkv_layer_desc l;

    qkv_layer_desc_init(&l);
    const qkv_status status = model_from(json, NULL, &m, text);
    t_check(status == QKV_OK, "refused: %s", text);
    if (status == QKV_OK)
        qkv_model_layer(&m, part, layer, &l, NULL, 0);
    return l;
}

static void check_windows_and_heads(void)
{
    if (t_case("window of 1 key")) {
        const qkv_layer_desc l = layer_of(with("mistral", "sliding_window", "1"), 0, 0);
        t_check(l.window_left == 0, "it sees %lld before itself", (long long)l.window_left);
    }
    if (t_case("no window: null")) {
        const qkv_layer_desc l = layer_of(with("mistral", "sliding_window", "null"), 0, 0);
        t_check(l.window_left == QKV_UNBOUNDED, "null is a window");
    }
    if (t_case("no window given: the default")) {
        const qkv_layer_desc l = layer_of(with("mistral", "sliding_window", NULL), 0, 0);
        t_check(l.window_left == 4095, "%lld", (long long)l.window_left);
    }
    if (t_case("qwen2 windows begin at a layer")) {
        t_check(layer_of(model_text_of("qwen2"), 0, 3).window_left == QKV_UNBOUNDED, "layer 3");
        t_check(layer_of(model_text_of("qwen2"), 0, 4).window_left == 31, "layer 4");
        const char *off = with("qwen2", "use_sliding_window", "false");
        t_check(layer_of(off, 0, 5).window_left == QKV_UNBOUNDED, "not used");
    }
    if (t_case("heads without kv heads")) {
        t_check(layer_of(with("llama", "num_key_value_heads", NULL), 0, 0).n_kv_heads == 8, "none");
        t_check(layer_of(with("mistral", "num_key_value_heads", "null"), 0, 0).n_kv_heads == 8,
                "null");
    }
}

static void check_scales_and_rotations(void)
{
    if (t_case("gpt2 divides by the layer")) {
        t_check(layer_of(model_text_of("gpt2"), 0, 2).scale == 0.25 / 3, "%g",
                layer_of(model_text_of("gpt2"), 0, 2).scale);
        t_check(layer_of(with("gpt2", "scale_attn_weights", "false"), 0, 1).scale == 0.5, "alone");
    }
    if (t_case("gemma3 has two rotations")) {
        const qkv_layer_desc local = layer_of(model_text_of("gemma3"), 0, 0);
        const qkv_layer_desc full = layer_of(model_text_of("gemma3"), 0, 5);
        t_check(local.rope.type == QKV_ROPE_DEFAULT && local.rope.theta == 1e4, "local");
        t_check(full.rope.type == QKV_ROPE_LINEAR && full.rope.theta == 1e6, "full");
        t_check(local.window_left == 31 && full.window_left == QKV_UNBOUNDED, "windows");
        t_check(local.qk_norm == QKV_NORM_RMS_PLUS_ONE && local.n_q_heads == 8, "norm or heads");
    }
    if (t_case("longrope's factors")) {
        char text[512];
        qkv_model m;
        qkv_layer_desc l;
        t_check(model_from(model_text_of("phi3"), NULL, &m, text) == QKV_OK, "%s", text);
        qkv_model_layer(&m, 0, 0, &l, NULL, 0);
        t_check(l.rope.short_factor == m.rope_factors[0] && l.rope.n_factors == 8, "pointers");
        t_check(l.rope.short_factor[7] == 1.5 && l.rope.long_factor[7] == 9, "values");
        t_check(m.kinds[0].rope.short_factor == NULL, "a kind points into a model that may move");
    }
    if (t_case("llama4 rotates by a list")) {
        t_check(layer_of(model_text_of("llama4"), 0, 3).rope.type == QKV_ROPE_NONE, "layer 3");
        t_check(layer_of(model_text_of("llama4"), 0, 3).chunk_tokens == 0, "layer 3 has chunks");
        t_check(layer_of(model_text_of("llama4"), 0, 4).chunk_tokens == 64, "layer 4 has none");
    }
}

static void check_parts(void)
{
    if (t_case("t5's biases")) {
        const qkv_layer_desc encoder = layer_of(model_text_of("t5"), QKV_PART_ENCODER, 0);
        const qkv_layer_desc cross = layer_of(model_text_of("t5"), QKV_PART_CROSS, 2);
        t_check(encoder.relative_bidirectional && !encoder.causal && encoder.scale == 1, "encoder");
        t_check(layer_of(model_text_of("t5"), 0, 0).relative_buckets == 16, "decoder");
        t_check(cross.cross && cross.relative_buckets == 0 && !cross.causal, "cross");
    }
    if (t_case("deepseek without a latent for queries")) {
        const qkv_layer_desc l = layer_of(with("deepseek_v3", "q_lora_rank", "null"), 0, 0);
        t_check(l.q_lora_rank == 0 && l.kv_lora_rank == 32 && l.head_dim == 24, "widths");
        t_check(l.q_bias && l.o_bias && !l.k_bias, "biases");
    }
    if (t_case("tables of single layers")) {
        const char *json =
            with("gemma4", "per_layer_config",
                 "{\"05\": {\"head_dim\": 64, \"num_key_value_heads\": 4}, \"0\": {}}");
        const qkv_layer_desc own = layer_of(json, 0, 5), local = layer_of(json, 0, 0);
        t_check(own.head_dim == 64 && own.n_kv_heads == 4 && own.rope.head_dim == 64, "layer 5");
        t_check(own.rope.rotary_dim == 16 && own.v_from_k, "layer 5's rotation");
        t_check(local.head_dim == 16 && local.n_kv_heads == 2, "layer 0");
        t_check(layer_of(model_text_of("gemma4"), 0, 5).head_dim == 32, "without tables");
    }
    if (t_case("dtype and ties")) {
        char text[512];
        qkv_model m;
        model_from(with("llama", "torch_dtype", "\"bfloat16\""), NULL, &m, text);
        t_check(m.weight_type == QKV_BF16 && !m.tied_embeddings, "%s", text);
        model_from("{\"model_type\": \"gemma3\", \"dtype\": \"float16\", \"tie_word_embeddings\": "
                   "false, \"text_config\": {\"hidden_size\": 64, \"num_hidden_layers\": 1}}",
                   NULL, &m, text);
        t_check(m.weight_type == QKV_F16 && !m.tied_embeddings && m.nested, "%s", text);
        t_check(strcmp(m.model_type, "gemma3") == 0, "an outer model_type: %s", m.model_type);
    }
}

void test_read_values(void)
{
    for (int i = 0; i < n_model_texts; i++)
        check_family(i);
    if (t_case("every family has a text")) {
        t_check(qkv_family_count() == n_model_texts, "%d families, %d texts", qkv_family_count(),
                n_model_texts);
        t_check(qkv_family_name(-1) == NULL && qkv_family_name(qkv_family_count()) == NULL, "ends");
    }
    check_windows_and_heads();
    check_scales_and_rotations();
    check_parts();
}

/* ---- sentences ------------------------------------------------------------------------------ */

static void says(const char *name, const char *json, qkv_status expected, const char *words)
{
    char text[512] = "";
    qkv_model m;

    if (!t_case("%s", name))
        return;
    const qkv_status status = model_from(json, NULL, &m, text);
    t_check(status == expected, "%s instead of %s: %s", qkv_status_name(status),
            qkv_status_name(expected), text);
    t_check(strstr(text, words) != NULL, "\"%s\" does not say \"%s\"", text, words);
}

#define WRONG(family, key, value, words)                                                           \
    says(family "/" key "=" value, with(family, key, value), QKV_ERR_FORMAT, words)
#define CANNOT(family, key, value, words)                                                          \
    says(family "/" key "=" value, with(family, key, value), QKV_ERR_UNSUPPORTED, words)
#define MISSING(family, key)                                                                       \
    says(family "/no " key, with(family, key, NULL), QKV_ERR_FORMAT, key " is missing")

static void check_demands(void)
{
    MISSING("llama", "hidden_size");
    MISSING("llama", "num_hidden_layers");
    MISSING("llama", "num_attention_heads");
    MISSING("gpt2", "n_head");
    MISSING("t5", "num_heads");
    MISSING("bart", "decoder_layers");
    MISSING("deepseek_v3", "kv_lora_rank");
    MISSING("deepseek_v3", "q_lora_rank");
    MISSING("gpt_oss", "rope_scaling");
    MISSING("llama", "model_type");
    says("nothing", "{}", QKV_ERR_FORMAT, "model_type is missing; known are llama, mistral");
}

static void check_words(void)
{
    CANNOT("llama", "model_type", "\"mamba\"", "model_type is \"mamba\", which is not known; known "
                                               "are llama, mistral");
    WRONG("llama", "model_type", "7", "model_type is 7");
    WRONG("llama", "num_attention_heads", "\"8\"", "num_attention_heads is \"8\"; accepted are "
                                                   "whole numbers from 1 to 65536");
    WRONG("llama", "num_attention_heads", "8.0", "num_attention_heads is 8;");
    WRONG("llama", "num_attention_heads", "true", "num_attention_heads is true");
    WRONG("llama", "num_hidden_layers", "1025", "num_hidden_layers is 1025");
    WRONG("llama", "num_key_value_heads", "3", "num_key_value_heads is 3; accepted are divisors");
    WRONG("llama", "head_dim", "-16", "head_dim is -16");
    WRONG("llama", "rope_theta", "0", "rope_theta is 0");
    WRONG("llama", "rope_scaling", "[1]", "rope_scaling is a list");
    CANNOT("llama", "rope_scaling", "{\"type\": \"magic\"}", "rope_scaling/type is \"magic\"");
    WRONG("llama", "rope_scaling", "{\"type\": \"linear\"}", "rope_scaling/factor is missing");
    WRONG("llama", "rope_scaling", "{\"type\": \"linear\", \"factor\": 0.5}", "factor is 0.5");
    WRONG("llama", "rope_parameters", "{\"rope_theta\": 1}", "rope_scaling and rope_parameters");
    WRONG("llama", "partial_rotary_factor", "1.5", "partial_rotary_factor is 1.5");
    WRONG("llama", "attention_bias", "1", "attention_bias is 1; accepted are true and false");
    WRONG("qwen3", "rope_theta", "10", "mean the same");
    WRONG("phi3", "original_max_position_embeddings", "63.5", "original_max_position_embeddings");
    WRONG("phi3", "rope_scaling", "{\"type\": \"su\", \"short_factor\": [1], \"long_factor\": [1]}",
          "rope_scaling/short_factor is a list of 1; longrope needs a list of 8");
    WRONG("phi3", "rope_scaling", "{\"type\": \"su\"}", "rope_scaling/short_factor is no list");
    WRONG("mistral", "layer_types", "[\"full_attention\"]", "layer_types is a list of 1");
    WRONG("mistral", "layer_types",
          "[\"full_attention\", \"full_attention\", \"full_attention\", \"full_attention\", "
          "\"full_attention\", \"full_attention\"]",
          "layer_types/0 is full_attention; a mistral model does not look at that list");
    CANNOT("gemma2", "layer_types", "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]",
           "layer_types/0 is \"a\"; a gemma2 model has full_attention and sliding_attention");
    WRONG("gemma2", "sliding_window", "null", "layer 0 is sliding_attention, and sliding_window");
    CANNOT("gemma2", "use_bidirectional_attention", "true", "use_bidirectional_attention is true");
    CANNOT("bert", "is_decoder", "true", "is_decoder is true");
    CANNOT("bert", "position_embedding_type", "\"relative_key\"", "\"relative_key\"; accepted");
    CANNOT("gpt2", "add_cross_attention", "true", "add_cross_attention is true");
    CANNOT("gpt2", "rope_scaling", "{\"type\": \"linear\", \"factor\": 2}", "has no rotation");
    CANNOT("mpt", "attn_config", "{\"clip_qkv\": 6}", "attn_config/clip_qkv is 6");
    CANNOT("mpt", "attn_config", "{\"alibi\": false}", "attn_config/alibi is false");
    CANNOT("mpt", "attn_config", "{\"attn_type\": \"multiquery_attention\"}", "attn_type is");
    WRONG("gpt2", "hidden_size", "65", "n_embd is 64 and hidden_size is 65; they mean the same");
    WRONG("bloom", "n_head", "7", "hidden_size is 96 and n_head is 7");
    WRONG("deepseek_v3", "num_key_value_heads", "4", "num_key_value_heads is 4");
    WRONG("gemma3", "hidden_size", "-1", "text_config/hidden_size is -1");
    WRONG("gemma3n", "num_kv_shared_layers", "6", "num_kv_shared_layers is 6, and no layer before");
    WRONG("falcon", "num_kv_heads", "3", "num_kv_heads is 3");
    WRONG("gptj", "rotary_dim", "7", "rotary_dim is 7");
    CANNOT("qwen3", "per_layer_config", "{\"3\": {\"num_attention_heads\": 4}}",
           "per_layer_config/3/num_attention_heads is given");
    CANNOT("qwen3", "per_layer_config", "7", "per_layer_config is 7; accepted for a qwen3");
    CANNOT("t5", "per_layer_config", "{\"0\": {}}", "per_layer_config is a table; accepted for a");
    CANNOT("deepseek_v3", "index_topk", "2048", "index_topk is 2048");
}

void test_read_sentences(void)
{
    char text[512];
    qkv_model m;

    check_demands();
    check_words();
    if (t_case("as: unknown"))
        t_check(model_from(model_text_of("llama"), "lama", &m, text) == QKV_ERR_UNSUPPORTED &&
                    strstr(text, "no family lama; known are llama") != NULL, "%s", text);
    if (t_case("unpriced")) {
        model_from(with("llama", "attention_magic", "3"), NULL, &m, text);
        t_check(strcmp(m.unpriced, "attention_magic") == 0, "\"%s\"", m.unpriced);
        model_from(with("llama", "attention_magic", "false"), NULL, &m, text);
        t_check(m.unpriced[0] == '\0', "false is something: \"%s\"", m.unpriced);
        model_from(with("qwen3_moe", "mlp_only_layers", "[1]"), NULL, &m, text);
        t_check(strcmp(m.unpriced, "mlp_only_layers") == 0, "\"%s\"", m.unpriced);
        model_from(with("gemma3", "kv_cache_thing", "3"), NULL, &m, text);
        t_check(strcmp(m.unpriced, "text_config/kv_cache_thing") == 0, "\"%s\"", m.unpriced);
        model_from(with("llama", "rope_scaling", "{\"type\": \"default\", \"spice\": 1}"), NULL, &m,
                   text);
        t_check(strcmp(m.unpriced, "rope_scaling/spice") == 0, "\"%s\"", m.unpriced);
    }
    if (t_case("names that are too long")) {
        char json[2048], key[600];
        memset(key, 'k', sizeof key);
        key[sizeof key - 1] = '\0';
        snprintf(json, sizeof json, "{\"model_type\": \"llama\", \"hidden_size\": 8, "
                 "\"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"attention_a\": 1, "
                 "\"attention_%s\": 1, \"rope_scaling\": {\"type\": \"default\", \"%s\": 1}}",
                 key, key);
        t_check(model_from(json, NULL, &m, text) == QKV_OK, "%s", text);
        t_check(strcmp(m.unpriced, "rope_scaling, attention_a") == 0, "\"%s\"", m.unpriced);
        key[500] = '\0';
        snprintf(json, sizeof json, "{\"model_type\": \"%s\"}", key);
        t_check(model_from(json, NULL, &m, text) == QKV_ERR_UNSUPPORTED, "a long model_type");
    }
    if (t_case("many unpriced")) {
        char json[4096] = "{\"model_type\": \"bloom\", \"hidden_size\": 96, \"n_layer\": 2, "
                          "\"n_head\": 6";
        for (int i = 0; i < 40; i++)
            snprintf(json + strlen(json), sizeof json - strlen(json), ", \"attention_%d\": 1", i);
        strcat(json, "}");
        t_check(model_from(json, NULL, &m, text) == QKV_OK, "%s", text);
        const size_t n = strlen(m.unpriced);
        t_check(n < sizeof m.unpriced && strcmp(m.unpriced + n - 5, ", ...") == 0, "\"%s\"",
                m.unpriced);
    }
    if (t_case("short texts")) {
        qkv_config_file *file;
        t_check(qkv_config_parse("x", "{}", 2, &file, NULL, 0) == QKV_OK, "parse");
        const qkv_config config = qkv_config_of(file);
        char small[8];
        t_check(qkv_model_read(&config, NULL, &m, NULL, 0) == QKV_ERR_FORMAT, "no text");
        t_check(qkv_model_read(&config, NULL, &m, small, 8) == QKV_ERR_FORMAT, "a short text");
        t_check(strcmp(small, "model_t") == 0, "\"%s\"", small);
        qkv_config_close(file);
    }
}
