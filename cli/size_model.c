/* size_model.c - the model of qkv size: from a configuration or from flags. */
#include <stdio.h>
#include <string.h>

#include "size.h"

int size_model_of_config(const char *path, const char *as, qkv_model *model)
{
    char text[CLI_TEXT];
    qkv_config_file *file = NULL;

    if (qkv_config_open(path, &file, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const qkv_config config = qkv_config_of(file);
    const qkv_status status = qkv_model_read(&config, as, model, text, sizeof text);
    qkv_config_close(file);
    return status == QKV_OK ? CLI_DONE : cli_complain("%s: %s", path, text);
}

/* ---- flags -------------------------------------------------------------------------------- */

static int check_flags(const size_flags *f)
{
    const struct {
        const char *name;
        int64_t value;
    } needed[] = {{"layers", f->layers}, {"heads", f->heads}, {"d-model", f->d_model}};

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (needed[i].value == 0)
            return cli_complain("--%s is not given; a model in flags needs --layers, --heads and "
                                "--d-model",
                                needed[i].name);
    if (f->head_dim == 0 && f->d_model % f->heads != 0)
        return cli_complain("--head-dim is not given, and --d-model %lld is not a multiple of "
                            "--heads %lld",
                            (long long)f->d_model, (long long)f->heads);
    if (f->head_dim == 0 && f->d_model / f->heads > 1024)
        return cli_complain("--head-dim is not given, and --d-model %lld / --heads %lld is %lld; "
                            "accepted are up to 1024",
                            (long long)f->d_model, (long long)f->heads,
                            (long long)(f->d_model / f->heads));
    if (f->latent == 0 && (f->rope_dim > 0 || f->q_latent > 0))
        return cli_complain("--rope-dim or --q-latent is given without --latent");
    if (f->latent > 0 && f->kv_heads > 0)
        return cli_complain("--kv-heads is given with --latent, which all heads share");
    if (f->full_every > 0 && f->window == 0)
        return cli_complain("--full-every is %lld without --window", (long long)f->full_every);
    return CLI_DONE;
}

static void describe(const size_flags *f, qkv_layer_desc *l)
{
    const int64_t dim = f->head_dim > 0 ? f->head_dim : f->d_model / f->heads;

    qkv_layer_desc_init(l);
    l->d_model = (int32_t)f->d_model;
    l->n_q_heads = (int32_t)f->heads;
    l->n_kv_heads = (int32_t)(f->kv_heads > 0 ? f->kv_heads : f->heads);
    l->head_dim = (int32_t)(dim + f->rope_dim);
    l->head_dim_v = (int32_t)(f->head_dim_v > 0 ? f->head_dim_v : dim);
    if (f->latent > 0) {
        l->kind = QKV_LAYER_MLA;
        l->kv_lora_rank = (int32_t)f->latent;
        l->rope_dim = (int32_t)f->rope_dim;
        l->q_lora_rank = (int32_t)f->q_latent;
    }
    if (f->window > 0)
        l->window_left = f->window - 1;
}

int size_model_of_flags(const size_flags *f, qkv_model *model)
{
    char text[CLI_TEXT];
    qkv_layer_desc layer;

    if (check_flags(f) != CLI_DONE)
        return CLI_WRONG;
    describe(f, &layer);
    if (qkv_size_model_of(&layer, (int32_t)f->layers, model, text, sizeof text) != QKV_OK)
        return cli_complain("the flags describe no layer: %s", text);
    if (f->full_every > 0) {
        model->n_kinds = 2;
        model->kinds[1] = model->kinds[0];
        model->kinds[1].window_left = QKV_UNBOUNDED;
        for (int64_t i = 0; i < f->layers; i++)
            model->kind_of[QKV_PART_DECODER][i] = (i + 1) % f->full_every == 0;
    }
    model->d_ff = (int32_t)f->d_ff;
    model->ffn_gated = 1;
    model->vocab_size = f->vocab;
    model->tied_embeddings = f->tied;
    model->norms_a_layer = 2;
    model->norms_besides = 1;
    return CLI_DONE;
}

/* ---- in words ----------------------------------------------------------------------------- */

/* "GQA-8 of 32 x 128", "MLA of 512 + 64 for 128 heads", "state" */
static void layer_words(const qkv_layer_desc *l, char *text, size_t bytes)
{
    char variant[32];

    qkv_layer_variant(l, variant, sizeof variant);
    if (l->kind == QKV_LAYER_STATE)
        snprintf(text, bytes, "a state of %lld elements", (long long)l->state_elements);
    else if (l->kind == QKV_LAYER_MLA)
        snprintf(text, bytes, "MLA of %d + %d for %d heads", l->kv_lora_rank, l->rope_dim,
                 l->n_q_heads);
    else if (l->head_dim == l->head_dim_v)
        snprintf(text, bytes, "%s, %d query and %d key/value heads of %d", variant, l->n_q_heads,
                 l->n_kv_heads, l->head_dim);
    else
        snprintf(text, bytes, "%s, %d query and %d key/value heads of %d and %d", variant,
                 l->n_q_heads, l->n_kv_heads, l->head_dim, l->head_dim_v);
}

static int count_kind(const qkv_model *m, int32_t part, int32_t kind)
{
    const int32_t n = part == QKV_PART_ENCODER                           ? m->encoder_layers
                      : part == QKV_PART_CROSS && m->encoder_layers == 0 ? 0
                                                                         : m->n_layers;
    int count = 0;
    for (int32_t i = 0; i < n; i++)
        count += m->kind_of[part][i] == kind;
    return count;
}

const char *size_model_words(const qkv_model *m, char *text, size_t bytes)
{
    static const char *const parts[] = {"", " of the encoder", " of cross-attention"};
    size_t used = (size_t)snprintf(text, bytes, "d_model %d", m->d_model);

    for (int32_t part = 0; part < 3; part++)
        for (int32_t kind = 0; kind < m->n_kinds && used < bytes; kind++) {
            const int n = count_kind(m, part, kind);
            const qkv_layer_desc *l = &m->kinds[kind];
            char words[128], window[64] = "";
            if (n == 0)
                continue;
            layer_words(l, words, sizeof words);
            if (l->kind != QKV_LAYER_STATE && l->window_left != QKV_UNBOUNDED &&
                l->window_left < INT32_MAX)
                snprintf(window, sizeof window, ", window %lld", (long long)l->window_left + 1);
            else if (l->kind != QKV_LAYER_STATE && l->chunk_tokens > 0)
                snprintf(window, sizeof window, ", chunks of %lld", (long long)l->chunk_tokens);
            used += (size_t)snprintf(text + used, bytes - used, "\n  %4d layer%s%s: %s%s", n,
                                     n == 1 ? "" : "s", parts[part], words, window);
        }
    return text;
}
