/*
 * model/rules.c - fields that are there without being read.
 *
 * Some may have one value only, because another would change results in a way that is not known
 * here.  Of the rest, those whose names speak of attention are listed as unpriced, unless they say
 * nothing.
 */
#include <string.h>

#include "model/reader.h"

/* Must be missing, null, false or 0 whatever the family. */
static const char nowhere[] = "add_cross_attention prefix_lm index_topk";

/* Read by every family, or known to be harmless. */
static const char known_everywhere[] =
    "model_type text_config layer_types per_layer_config rope_scaling rope_parameters rope_theta "
    "dtype torch_dtype "
    "attention_dropout attn_pdrop attention_probs_dropout_prob use_cache pruned_heads "
    "_attn_implementation attn_implementation _attn_implementation_internal cache_implementation "
    "reorder_and_upcast_attn attention_softmax_in_fp32 scale_attention_softmax_in_fp32 "
    "output_attentions output_hidden_states norm_topk_prob output_router_logits "
    "max_position_embeddings classifier_dropout final_logit_softcapping router_aux_loss_coef "
    "initializer_range _sliding_window_pattern add_cross_attention prefix_lm moe_jitter_noise "
    "expert_capacity";

/* Parts of names that speak of attention or of what it keeps. */
static const char *const suspicious[] = {
    "attn",  "attention", "head",  "rope",   "rotary", "window", "kv",    "cache",
    "alibi", "position",  "softcap", "sink", "latent", "lora_rank", "ssm", "mamba",
    "conv_", "linear_",   "index_", "sparse_", "qk_",  "chunk",  "nextn", "mtp",
    "expert", "moe",      "quantization", "bidirectional", "query"};

/* Is it in the list already? */
static int is_listed(const reader *r, const char *name)
{
    char whole[READER_PATH + sizeof r->base];

    if (!qkv_join(whole, sizeof whole, r->base, name, ""))
        return 1;
    const size_t n = strlen(whole);
    for (const char *at = r->model->unpriced; (at = strstr(at, whole)) != NULL; at += n)
        if ((at == r->model->unpriced || at[-1] == ' ') && (at[n] == ',' || at[n] == '\0'))
            return 1;
    return 0;
}

void qkv_unpriced(reader *r, const char *name)
{
    char *list = r->model->unpriced;
    const size_t n = strlen(list), room = sizeof r->model->unpriced;
    const qkv_say say = {list + n, room - n};

    if (r->status != QKV_OK || *name == '\0' || is_listed(r, name))
        return;
    if (n + strlen(r->base) + strlen(name) + 8 <= room)
        qkv_refuse(say, QKV_OK, "%s%s%s", n > 0 ? ", " : "", r->base, name);
    else if (n + 6 <= room && (n < 5 || strcmp(list + n - 5, ", ...") != 0))
        qkv_refuse(say, QKV_OK, ", ...");
}

/* ---- rules ---------------------------------------------------------------------------------- */

/* One word of a list: "name", or "name=value" if a value besides nothing is accepted. */
static void check_zero(reader *r, const char *word, size_t n)
{
    char name[READER_PATH], words[VALUE_WORDS];
    const char *accepted = NULL;

    memcpy(name, word, n);
    name[n] = '\0';
    char *sign = strchr(name, '=');
    if (sign != NULL) {
        *sign = '\0';
        accepted = sign + 1;
    }
    const qkv_config_value v = qkv_value_at(r, name);
    const char *said = qkv_value_words(&v, words);
    if (qkv_value_is_nothing(&v) || (accepted != NULL && strcmp(said, accepted) == 0) ||
        (accepted != NULL && v.kind == QKV_CONFIG_TEXT && strcmp(v.text, accepted) == 0))
        return;
    REFUSE(r, QKV_ERR_UNSUPPORTED, "%s%s is %s; accepted for a %s model are null, false%s%s",
           r->base, name, said, r->f->name, accepted != NULL ? " and " : " and 0",
           accepted != NULL ? accepted : "");
}

static void check_one(reader *r, const char *word, size_t n)
{
    char name[READER_PATH];

    memcpy(name, word, n);
    name[n] = '\0';
    if (!qkv_bool_at(r, name, 1))
        REFUSE(r, QKV_ERR_UNSUPPORTED, "%s%s is false; accepted for a %s model is true", r->base,
               name, r->f->name);
}

static void for_words(reader *r, const char *words, void (*check)(reader *, const char *, size_t))
{
    for (const char *at = words; at != NULL && *at != '\0';) {
        const char *end = strchr(at, ' ');
        const size_t n = end != NULL ? (size_t)(end - at) : strlen(at);
        if (n > 0 && n < READER_PATH)
            check(r, at, n);
        at = end != NULL ? end + 1 : NULL;
    }
}

void qkv_read_rules(reader *r)
{
    for_words(r, nowhere, check_zero);
    for_words(r, r->f->zero, check_zero);
    for_words(r, r->f->one, check_one);
}

/* ---- what nobody has looked at -------------------------------------------------------------- */

static int is_suspicious(const char *key)
{
    for (size_t i = 0; i < sizeof suspicious / sizeof suspicious[0]; i++)
        if (strstr(key, suspicious[i]) != NULL)
            return 1;
    return 0;
}

/* The name of a rule, without what it accepts. */
static int in_rules(const char *rules, const char *key)
{
    const size_t n = strlen(key);

    for (const char *at = rules; at != NULL && n > 0; at = strchr(at, ' ')) {
        at += *at == ' ';
        if (strncmp(at, key, n) == 0 && (at[n] == ' ' || at[n] == '=' || at[n] == '\0'))
            return 1;
    }
    return 0;
}

static int is_known(const reader *r, const char *key)
{
    if (qkv_words_have(known_everywhere, key) || in_rules(nowhere, key) ||
        qkv_words_have(r->f->known, key) || in_rules(r->f->zero, key) || in_rules(r->f->one, key))
        return 1;
    for (int f = 0; f < F_COUNT; f++)
        if (qkv_words_have(r->f->fields[f], key))
            return 1;
    return 0;
}

/* A vision or audio part is another model. */
static int is_other_part(const qkv_config_value *v, const char *key)
{
    const size_t n = strlen(key);
    return v->kind == QKV_CONFIG_TABLE && n > 7 && strcmp(key + n - 7, "_config") == 0 &&
           strcmp(key, "quantization_config") != 0;
}

void qkv_read_unknown(reader *r)
{
    char path[sizeof r->base];
    const char *key;
    const size_t n = strlen(r->base);

    memcpy(path, r->base, sizeof path);
    if (n > 0)
        path[n - 1] = '\0'; /* without the slash */
    for (int64_t i = 0; (key = r->config->key(r->config->ctx, path, i)) != NULL; i++) {
        if (strlen(key) >= READER_PATH || is_known(r, key) || !is_suspicious(key))
            continue;
        const qkv_config_value v = qkv_value_at(r, key);
        if (!qkv_value_is_nothing(&v) && !is_other_part(&v, key))
            qkv_unpriced(r, key);
    }
}
