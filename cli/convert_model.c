/*
 * convert_model.c - a whole checkpoint with another kind of attention.
 *
 * No list says which families can hold which result.  The new config.json is tried: it is read as
 * any other is, and must describe the layers that the conversion makes; otherwise the family is
 * refused by name.  When everything is written the folder is opened like any model, and each layer
 * compared with what was made, before it gets its name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* ---- the new config.json ------------------------------------------------------------------ */

/* What may say so. */
static const struct edit {
    const char *key;
    int what, boolean;
} edits[] = {{"num_key_value_heads", CONVERT_HEADS, 0}, {"num_kv_heads", CONVERT_HEADS, 0},
             {"multi_query", CONVERT_HEADS, 1}, {"rope_interleave", CONVERT_PAIRING, 1}};

static json_t *edited(const convert_model *c, const json_t *config, const struct edit *e)
{
    json_t *copy = json_deep_copy(config);
    json_t *table = c->model.nested ? json_object_get(copy, "text_config") : copy;
    const int yes = c->kind.what == CONVERT_HEADS ? c->kind.heads == 1
                                                  : c->kind.pairing == QKV_ROPE_INTERLEAVED;

    json_object_set_new(table, e->key,
                        e->boolean ? json_boolean(yes) : json_integer(c->kind.heads));
    return copy;
}

/* All but the factors of longrope, which lie in the models. */
static int same_layer(const qkv_layer_desc *a, const qkv_layer_desc *b)
{
    qkv_layer_desc x = *a, y = *b;
    x.rope.short_factor = x.rope.long_factor = y.rope.short_factor = y.rope.long_factor = NULL;
    return memcmp(&x, &y, sizeof x) == 0;
}

/* Whether c->made is the old model with its layers converted. */
static int describes(const convert_model *c)
{
    if (c->made.n_layers != c->model.n_layers || strcmp(c->made.family, c->model.family) != 0)
        return 0;
    for (int32_t i = 0; i < c->model.n_layers; i++) {
        qkv_layer_desc was, is;
        if (qkv_model_layer(&c->model, QKV_PART_DECODER, i, &was, NULL, 0) != QKV_OK ||
            qkv_model_layer(&c->made, QKV_PART_DECODER, i, &is, NULL, 0) != QKV_OK)
            return 0;
        if (c->kind.what == CONVERT_HEADS)
            was.n_kv_heads = c->kind.heads;
        else
            was.rope.pairing = c->kind.pairing;
        if (!same_layer(&was, &is))
            return 0;
    }
    return 1;
}

/* Reads a configuration into c->made; 1 if it is what is wanted. */
static int suits(convert_model *c, const json_t *config)
{
    char *text = json_dumps(config, JSON_COMPACT);
    qkv_config_file *file = NULL;
    int good = 0;

    if (text != NULL &&
        qkv_config_parse("the new config.json", text, strlen(text), &file, NULL, 0) == QKV_OK) {
        const qkv_config source = qkv_config_of(file);
        good = qkv_model_read(&source, c->r->family, &c->made, NULL, 0) == QKV_OK && describes(c);
        qkv_config_close(file);
    }
    free(text);
    return good;
}

static int refuse_family(const convert_model *c)
{
    if (c->kind.what == CONVERT_LATENT)
        return cli_complain("--to %s: family %s cannot say so, and no other one can: those with "
                            "latents have a norm on them; --layer N converts single layers",
                            c->kind.word, c->model.family);
    return cli_complain("--to %s: no field in the config.json of family %s says so for its layers; "
                        "--layer N converts single layers",
                        c->kind.word, c->model.family);
}

static int make_config(convert_model *c)
{
    char path[CONVERT_PATH];
    json_error_t error;

    if (convert_join(path, c->r->directory, "config.json") != CLI_DONE)
        return CLI_WRONG;
    json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (config == NULL)
        return cli_complain("%s: %s", path, error.text);
    const json_t *table = c->model.nested ? json_object_get(config, "text_config") : config;
    /* Fields that are there before fields that might be. */
    for (int there = 1; c->config == NULL && there >= 0; there--)
        for (size_t i = 0; c->config == NULL && i < sizeof edits / sizeof edits[0]; i++) {
            if (edits[i].what != (int)c->kind.what ||
                (json_object_get(table, edits[i].key) != NULL) != there)
                continue;
            json_t *tried = edited(c, config, &edits[i]);
            if (suits(c, tried))
                c->config = tried;
            else
                json_decref(tried);
        }
    json_decref(config);
    return c->config != NULL ? CLI_DONE : refuse_family(c);
}

/* ---- the old model ------------------------------------------------------------------------ */

/* Layers beyond those that config.json counts (DeepSeek-V3 predicts a second token with one) would keep their
 * old form beside a config.json that says the new one. */
static int refuse_more_layers(const convert_model *c)
{
    qkv_safetensors_entry e;
    char name[64];

    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", (int)c->model.n_layers);
    if (qkv_checkpoint_tensor(c->old, name, &e, NULL, 0) == QKV_OK)
        return cli_complain("%s: %s belongs to a layer beyond the %d of config.json; such layers are "
                            "not converted, and may not stay as they are",
                            c->r->directory, name, (int)c->model.n_layers);
    return CLI_DONE;
}

static int open_old(convert_model *c)
{
    char text[CLI_TEXT];

    if (qkv_checkpoint_open(c->r->directory, &c->old, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const qkv_config config = qkv_checkpoint_config(c->old);
    if (qkv_model_read(&config, c->r->family, &c->model, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", c->r->directory, text);
    if (c->model.encoder_layers > 0)
        return cli_complain("%s: %s is an encoder-decoder; --layer N converts single layers",
                            c->r->directory, c->model.family);
    for (int32_t i = 0; i < c->model.n_layers; i++)
        if (c->model.cache_of[i] != i)
            return cli_complain("%s: layer %d uses the keys and values of layer %d; models whose "
                                "layers share them are not converted",
                                c->r->directory, (int)i, (int)c->model.cache_of[i]);
    return refuse_more_layers(c);
}

static int load(const convert_model *c, const qkv_checkpoint *from, const qkv_model *model,
                int32_t layer, qkv_layer **made)
{
    char text[CLI_TEXT];

    if (qkv_layer_load(from, model, QKV_PART_DECODER, layer, NULL, made, text, sizeof text) !=
        QKV_OK)
        return cli_complain("%s: layer %d: %s", c->r->directory, (int)layer, text);
    return CLI_DONE;
}

/* Everything that the conversion itself refuses, before anything is written. */
static int try_layers(convert_model *c)
{
    int code = CLI_DONE;

    for (int32_t i = 0; code == CLI_DONE && i < c->model.n_layers; i++) {
        qkv_layer *old = NULL, *made = NULL;
        code = load(c, c->old, &c->model, i, &old);
        if (code == CLI_DONE)
            code = convert_layer(&c->kind, old, &made);
        if (code == CLI_DONE && i == 0 && c->r->in != NULL) {
            c->r->layer = old;
            code = layer_run_inputs(c->r);
            c->r->layer = NULL;
        }
        qkv_layer_destroy(old);
        qkv_layer_destroy(made);
    }
    return code;
}

/* ---- what was written --------------------------------------------------------------------- */

static int run(convert_model *c, qkv_layer *layer)
{
    c->r->layer = layer;
    const int code = layer_run_compute(c->r);
    c->r->layer = NULL;
    return code;
}

static int compare_outputs(convert_model *c, qkv_layer *old, qkv_layer *read, json_t *row)
{
    layer_run *r = c->r;

    if (run(c, old) != CLI_DONE)
        return CLI_WRONG;
    float *before = r->out;
    r->out = NULL;
    const int code = run(c, read);
    if (code == CLI_DONE) {
        const convert_change change = convert_compare(before, r->out, r->B * r->T * r->d);
        json_object_set_new(row, "largest_change", cli_json_number(change.largest));
        json_object_set_new(row, "rms_change", cli_json_number(change.rms));
    }
    free(before);
    return code;
}

static int check_layer(convert_model *c, const qkv_checkpoint *written, int32_t i)
{
    qkv_layer *old = NULL, *made = NULL, *read = NULL;
    char was[32], is[32];

    int code = load(c, c->old, &c->model, i, &old);
    if (code == CLI_DONE)
        code = convert_layer(&c->kind, old, &made);
    if (code == CLI_DONE)
        code = load(c, written, &c->made, i, &read);
    if (code == CLI_DONE)
        code = convert_check_layer(c, written, i, made, read);
    if (code == CLI_DONE) {
        const qkv_layer *both[2] = {old, read};
        for (int k = 0; k < 2; k++) {
            c->kept[k] += convert_kept(both[k]);
            c->parameters[k] += convert_parameters(both[k]);
        }
        qkv_layer_variant(qkv_layer_desc_of(old), was, sizeof was);
        qkv_layer_variant(qkv_layer_desc_of(read), is, sizeof is);
        json_t *row = json_pack("{s:i, s:s, s:s}", "layer", (int)i, "from", was, "to", is);
        if (c->r->in != NULL)
            code = compare_outputs(c, old, read, row);
        json_array_append_new(c->rows, row);
    }
    qkv_layer_destroy(old);
    qkv_layer_destroy(made);
    qkv_layer_destroy(read);
    return code;
}

static int check_written(convert_model *c)
{
    char text[CLI_TEXT];
    qkv_checkpoint *written = NULL;

    if (qkv_checkpoint_open(c->temporary, &written, text, sizeof text) != QKV_OK)
        return cli_complain("what was written cannot be read: %s", text);
    const qkv_config config = qkv_checkpoint_config(written);
    int code = CLI_DONE;
    if (qkv_model_read(&config, c->r->family, &c->made, text, sizeof text) != QKV_OK)
        code = cli_complain("what was written cannot be read: %s", text);
    for (int32_t i = 0; code == CLI_DONE && i < c->model.n_layers; i++)
        code = check_layer(c, written, i);
    qkv_checkpoint_close(written);
    return code;
}

/* ---- the report --------------------------------------------------------------------------- */

static int print(convert_model *c)
{
    if (c->json)
        return cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:O, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:O}", "written", c->target,
            "family", c->model.family, "to", c->kind.word, "layers", c->rows, "cache_elements",
            (json_int_t)c->kept[1], "cache_elements_before", (json_int_t)c->kept[0], "parameters",
            (json_int_t)c->parameters[1], "parameters_before", (json_int_t)c->parameters[0],
            "tensors_changed", (int)c->n_tensors, "weight_files", (int)c->n_weight_files,
            "other_files", (int)c->n_other_files, "left_out", c->left_out));
    const json_t *row, *first = json_array_get(c->rows, 0);
    size_t i;
    printf("%s, %d layers of %s to %s (%s): %s\n", c->model.family, (int)c->model.n_layers,
           json_string_value(json_object_get(first, "from")),
           json_string_value(json_object_get(first, "to")), c->kind.word, c->target);
    if (c->r->in != NULL)
        printf("  layer  largest change  rms change, as shares of the output's\n");
    json_array_foreach(c->rows, i, row)
        if (c->r->in != NULL)
            printf("  %5zu  %14.3g  %10.3g\n", i,
                   json_number_value(json_object_get(row, "largest_change")),
                   json_number_value(json_object_get(row, "rms_change")));
    printf("  cache       %lld elements a token in all layers, before %lld\n",
           (long long)c->kept[1], (long long)c->kept[0]);
    printf("  parameters  %lld of attention, before %lld\n", (long long)c->parameters[1],
           (long long)c->parameters[0]);
    printf("  files       %d of weights (%d tensors changed), config.json, %d others\n",
           (int)c->n_weight_files, (int)c->n_tensors, (int)c->n_other_files);
    json_array_foreach(c->left_out, i, row)
        printf("  left out    %s\n", json_string_value(row));
    return CLI_DONE;
}

int convert_checkpoint(convert_model *c)
{
    c->rows = json_array();
    int code = open_old(c);
    if (code == CLI_DONE && c->kind.what == CONVERT_LATENT)
        code = refuse_family(c);
    if (code == CLI_DONE)
        code = try_layers(c);
    if (code == CLI_DONE)
        code = make_config(c);
    if (code == CLI_DONE)
        code = convert_list_tensors(c);
    if (code == CLI_DONE)
        code = convert_folder_begin(c);
    if (code == CLI_DONE)
        code = convert_folder_fill(c);
    if (code == CLI_DONE)
        code = check_written(c);
    if (code == CLI_DONE)
        code = convert_folder_finish(c);
    if (code == CLI_DONE)
        code = print(c);
    convert_folder_remove(c);
    qkv_layer_destroy(c->layer);
    qkv_checkpoint_close(c->old);
    json_decref(c->config);
    json_decref(c->left_out);
    json_decref(c->rows);
    free(c->tensors);
    return code;
}
