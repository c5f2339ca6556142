/* weights.c - the places of weights, and checkpoints that have them or do not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model_test.h"

static int32_t check_names(const qkv_weight *w)
{
    for (int32_t n = 0; n < w->n_names; n++) {
        t_check(strlen(w->names[n]) > 2 && strchr(w->names[n], '*') == NULL, "%s", w->names[n]);
        t_check((w->biases[n][0] != '\0') == w->has_bias, "bias of %s", w->names[n]);
        for (int32_t o = 0; o < n; o++)
            t_check(strcmp(w->names[n], w->names[o]) != 0, "%s twice", w->names[n]);
    }
    return w->n_names;
}

/* Rows of queries, keys and values of one tensor: each row belongs to exactly one of them. */
static void check_rows(const qkv_weight roles[3])
{
    const int64_t rows = roles[0].rows;
    unsigned char *seen = t_scratch((size_t)rows);
    const int fused = strcmp(roles[0].names[0], roles[1].names[0]) == 0;

    memset(seen, 0, (size_t)rows);
    for (int r = 0; r < (fused ? 3 : 1); r++)
        for (int32_t h = 0; h < roles[r].heads; h++)
            for (int32_t d = 0; d < roles[r].width; d++) {
                const int64_t row = qkv_weight_row(&roles[r], h, d);
                t_check(row >= 0 && row < rows, "row %lld of %lld", (long long)row,
                        (long long)rows);
                if (row >= 0 && row < rows)
                    seen[row]++;
            }
    for (int64_t i = 0; i < rows; i++)
        t_check(seen[i] == 1, "row %lld is used %d times", (long long)i, seen[i]);
}

static void check_layer(const qkv_model *m, int32_t part, int32_t layer)
{
    qkv_weight w[QKV_ROLE_COUNT];
    char text[300];

    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        const qkv_status status =
            qkv_model_weight(m, part, layer, role, &w[role], text, sizeof text);
        t_check(status == (m->sizing_only ? QKV_ERR_UNSUPPORTED : QKV_OK), "%s: %s",
                qkv_role_name(role), text);
        if (status != QKV_OK)
            return;
        check_names(&w[role]);
        t_check(w[role].role == role && w[role].struct_size == sizeof w[role], "role or size");
    }
    const int mla = w[QKV_ROLE_KV_B].n_names > 0;
    t_check(w[QKV_ROLE_O].n_names > 0, "no output projection");
    t_check(mla == (w[QKV_ROLE_K].n_names == 0), "keys and a latent");
    t_check((w[QKV_ROLE_Q].n_names == 0) == (w[QKV_ROLE_Q_A].n_names > 0), "queries");
    if (!mla)
        check_rows(w);
}

void test_weights(void)
{
    char text[512];
    qkv_model m;

    for (int i = 0; i < n_model_texts; i++) {
        if (!t_case("%s", model_texts[i].name))
            continue;
        t_check(model_from(model_texts[i].json, NULL, &m, text) == QKV_OK, "%s", text);
        for (int32_t layer = 0; layer < m.n_layers; layer++)
            check_layer(&m, QKV_PART_DECODER, layer);
        for (int32_t layer = 0; layer < m.encoder_layers; layer++)
            check_layer(&m, QKV_PART_ENCODER, layer);
    }
    if (t_case("role names")) {
        t_check(strcmp(qkv_role_name(QKV_ROLE_KV_A_NORM), "kv_a_norm") == 0, "kv_a_norm");
        t_check(strcmp(qkv_role_name(-1), "?") == 0 && strcmp(qkv_role_name(14), "?") == 0, "none");
    }
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

static char folder[64];

static const char *in_folder(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *content)
{
    char text[300];
    t_check(qkv_file_write(in_folder(name), content, strlen(content), text, sizeof text) == QKV_OK,
            "%s", text);
}

/* A file with n tensors of a bart-like layer: name, rows, columns (0: a vector). */
typedef struct shape {
    const char *name;
    int64_t rows, columns;
    qkv_type type;
} shape;

static void put_tensors(const char *file, const shape *shapes, int n)
{
    qkv_tensor tensors[8];
    const char *names[8];
    char text[300];

    for (int i = 0; i < n; i++) {
        const int64_t sizes[] = {shapes[i].rows, shapes[i].columns};
        names[i] = shapes[i].name;
        t_check(qkv_tensor_alloc(&tensors[i], shapes[i].type ? shapes[i].type : QKV_F32,
                                 shapes[i].columns ? 2 : 1, sizes) == QKV_OK, "memory");
        if (shapes[i].type == QKV_NONE)
            ((float *)tensors[i].data)[0] = (float)i + 1;
    }
    t_check(qkv_safetensors_write(in_folder(file), n, names, tensors, text, sizeof text) == QKV_OK,
            "%s", text);
    for (int i = 0; i < n; i++)
        qkv_tensor_free(&tensors[i]);
}

static void begin(void)
{
    snprintf(folder, sizeof folder, "/tmp/qkv-model-XXXXXX");
    t_check(mkdtemp(folder) != NULL, "mkdtemp");
}

static void end(void)
{
    static const char *const files[] = {"config.json", "model.safetensors", "a.safetensors",
                                        "b.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        unlink(in_folder(files[i]));
    rmdir(folder);
}

static const char config_json[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 1, \"hidden_size\": 8, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"attention_bias\": true}";

#define SELF "layers.0.self_attn."
static const shape q_and_k[] = {{"model." SELF "q_proj.weight", 8, 8, 0},
                                {"model." SELF "q_proj.bias", 8, 0, 0},
                                {"model." SELF "k_proj.weight", 4, 8, 0},
                                {"model." SELF "k_proj.bias", 4, 0, 0}};

static qkv_status find(const qkv_checkpoint *c, int32_t role, qkv_safetensors_entry *e,
                       qkv_safetensors_entry *bias, char text[300])
{
    qkv_model m;
    qkv_weight w;
    const qkv_config config = qkv_checkpoint_config(c);

    t_check(qkv_model_read(&config, NULL, &m, text, 300) == QKV_OK, "%s", text);
    t_check(qkv_model_weight(&m, 0, 0, role, &w, text, 300) == QKV_OK, "%s", text);
    return qkv_checkpoint_weight(c, &w, e, bias, text, 300);
}

static void check_both(const char *name)
{
    qkv_checkpoint *c;
    qkv_safetensors_entry e, bias;
    char text[300];

    t_check(qkv_checkpoint_open(folder, &c, text, sizeof text) == QKV_OK, "%s: %s", name, text);
    if (c == NULL)
        return;
    t_check(find(c, QKV_ROLE_Q, &e, &bias, text) == QKV_OK, "%s: %s", name, text);
    t_check(e.rank == 2 && *(const float *)e.data == 1 && *(const float *)bias.data == 2, "q");
    t_check(find(c, QKV_ROLE_K, &e, &bias, text) == QKV_OK, "%s: %s", name, text);
    t_check(e.shape[0] == 4 && *(const float *)e.data != 1, "k");
    t_check(find(c, QKV_ROLE_V, &e, &bias, text) == QKV_ERR_FORMAT &&
                strstr(text, SELF "v_proj.weight\"") != NULL, "v: %s", text);
    t_check(qkv_checkpoint_tensor(c, "nothing", &e, text, sizeof text) == QKV_ERR_ARGUMENT, "name");
    qkv_checkpoint_close(c);
}

void test_checkpoints(void)
{
    if (t_case("one file")) {
        begin();
        put("config.json", config_json);
        put_tensors("model.safetensors", q_and_k, 4);
        check_both("one file");
        end();
    }
    if (t_case("without a prefix")) {
        const shape bare[] = {{SELF "q_proj.weight", 8, 8, 0}, {SELF "q_proj.bias", 8, 0, 0},
                              {SELF "k_proj.weight", 4, 8, 0}, {SELF "k_proj.bias", 4, 0, 0}};
        begin();
        put("config.json", config_json);
        put_tensors("model.safetensors", bare, 4);
        check_both("without a prefix");
        end();
    }
    if (t_case("two files")) {
        begin();
        put("config.json", config_json);
        put_tensors("a.safetensors", q_and_k, 2);
        put_tensors("b.safetensors", q_and_k + 1, 3); /* q's bias is there twice, a's counts */
        put("model.safetensors.index.json",
            "{\"metadata\": {}, \"weight_map\": {\"model." SELF "q_proj.weight\": "
            "\"a.safetensors\", \"model." SELF "q_proj.bias\": \"a.safetensors\", \"model." SELF
            "k_proj.weight\": \"b.safetensors\", \"model." SELF "k_proj.bias\": "
            "\"b.safetensors\"}}");
        check_both("two files");
        end();
    }
}

static void no_checkpoint(const char *name, const char *index, const char *words)
{
    qkv_checkpoint *c;
    char text[300] = "";

    if (!t_case("%s", name))
        return;
    begin();
    put("config.json", config_json);
    put_tensors("a.safetensors", q_and_k, 2);
    if (index != NULL)
        put("model.safetensors.index.json", index);
    t_check(qkv_checkpoint_open(folder, &c, text, sizeof text) != QKV_OK && c == NULL, "opened");
    t_check(strstr(text, words) != NULL, "\"%s\" does not say \"%s\"", text, words);
    qkv_checkpoint_close(c);
    end();
}

static void no_weight(const char *name, const shape *shapes, int n, const char *words)
{
    qkv_checkpoint *c;
    qkv_safetensors_entry e, bias;
    char text[300] = "";

    if (!t_case("%s", name))
        return;
    begin();
    put("config.json", config_json);
    put_tensors("model.safetensors", shapes, n);
    t_check(qkv_checkpoint_open(folder, &c, text, sizeof text) == QKV_OK, "%s", text);
    t_check(find(c, QKV_ROLE_Q, &e, &bias, text) != QKV_OK, "found");
    t_check(strstr(text, words) != NULL, "\"%s\" does not say \"%s\"", text, words);
    qkv_checkpoint_close(c);
    end();
}

void test_checkpoint_refusals(void)
{
    const shape flat[] = {{SELF "q_proj.weight", 64, 0, 0}};
    const shape wide[] = {{SELF "q_proj.weight", 8, 9, 0}};
    const shape numbers[] = {{SELF "q_proj.weight", 8, 8, QKV_I32}};
    const shape bald[] = {{SELF "q_proj.weight", 8, 8, 0}};
    const shape short_bias[] = {{SELF "q_proj.weight", 8, 8, 0}, {SELF "q_proj.bias", 4, 0, 0}};

    no_checkpoint("nothing", NULL, "has neither model.safetensors nor");
    no_checkpoint("no map", "{\"weight_map\": 3}", "weight_map is no table");
    no_checkpoint("an empty map", "{\"weight_map\": {}}", "weight_map is no table");
    no_checkpoint("cut", "{\"weight_map\": {", "not valid JSON");
    no_checkpoint("out of the folder", "{\"weight_map\": {\"x\": \"../a.safetensors\"}}",
                  "weight_map/x is \"../a.safetensors\"; accepted are names");
    no_checkpoint("elsewhere", "{\"weight_map\": {\"x\": \"/etc/a.safetensors\"}}", "accepted are");
    no_checkpoint("hidden", "{\"weight_map\": {\"x\": \".a.safetensors\"}}", "accepted are names");
    no_checkpoint("no text", "{\"weight_map\": {\"x\": 3}}", "weight_map/x is no text");
    no_checkpoint("another kind", "{\"weight_map\": {\"x\": \"config.json\"}}", "accepted are");
    no_checkpoint("not there", "{\"weight_map\": {\"x\": \"c.safetensors\"}}", "c.safetensors");
    no_weight("no matrix", flat, 1, "has shape [64]; config.json asks for [8, 8]");
    no_weight("another width", wide, 1, "has shape [8, 9]");
    no_weight("another type", numbers, 1, "dtype I32");
    no_weight("no bias", bald, 1, "no tensor is named \"" SELF "q_proj.bias\"");
    no_weight("a short bias", short_bias, 2, "has shape [4]; config.json asks for [8]");
    if (t_case("index and file differ")) {
        qkv_checkpoint *c;
        qkv_safetensors_entry e;
        char text[300];
        begin();
        put("config.json", config_json);
        put_tensors("a.safetensors", q_and_k, 2);
        put("model.safetensors.index.json", "{\"weight_map\": {\"x\": \"a.safetensors\"}}");
        t_check(qkv_checkpoint_open(folder, &c, text, sizeof text) == QKV_OK, "%s", text);
        t_check(qkv_checkpoint_tensor(c, "x", &e, text, sizeof text) == QKV_ERR_FORMAT, "x");
        t_check(qkv_checkpoint_tensor(c, q_and_k[0].name, &e, text, sizeof text) ==
                    QKV_ERR_ARGUMENT, "a name that the index does not have");
        qkv_checkpoint_close(c);
        end();
    }
    if (t_case("no folder")) {
        qkv_checkpoint *c;
        t_check(qkv_checkpoint_open("/nowhere/at/all", &c, NULL, 0) == QKV_ERR_SYSTEM, "opened");
        t_check(qkv_checkpoint_open(NULL, &c, NULL, 0) == QKV_ERR_ARGUMENT, "NULL");
    }
}
