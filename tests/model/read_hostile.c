/* read_hostile.c - wrong values in every field, broken files, random bytes, older structs. */
#include <stdio.h>
#include <string.h>

#include "model_test.h"

#define LARGEST 8192

/* ---- hostile values ------------------------------------------------------------------------- */

typedef struct reading {
    const char *json, *as;
    qkv_model *model;
    char *text;
    qkv_status status;
} reading;

static void read_call(void *arg)
{
    reading *r = arg;
    r->status = model_from(r->json, r->as, r->model, r->text);
}

/* Every field of every family with every wrong value: accepted or refused with a sentence, never a
 * signal, and what is accepted is sound. */
static void hostile(const char *json, const char *key)
{
    static const char *const values[] = {
        "null", "true", "false", "0", "-1", "1", "3", "2147483648", "9223372036854775807",
        "-9223372036854775808", "0.5", "-0.0", "1e308", "1e-320", "\"\"", "\"x\"", "[]", "[1, 2]",
        "[[[]]]", "{}", "{\"a\": {}}", "[null, null, null, null, null, null]",
        "{\"rope_type\": \"yarn\", \"factor\": 1e300}", "{\"full_attention\": {\"type\": 3}}",
        "{\"rope_type\": \"longrope\", \"short_factor\": [1e308], \"long_factor\": {}}"};
    static char changed[LARGEST];
    char text[512];
    qkv_model *m = t_scratch(sizeof *m);
    qkv_layer_desc l;

    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        memset(text, 0, sizeof text);
        model_replace(json, key, values[v], changed, sizeof changed);
        reading r = {changed, NULL, m, text, QKV_OK};
        t_call(read_call, &r);
        t_check(strlen(text) > 1, "%s = %s: no sentence", key, values[v]);
        for (int32_t i = 0; r.status == QKV_OK && i < m->n_layers; i++)
            t_check(qkv_model_layer(m, 0, i, &l, NULL, 0) == QKV_OK &&
                        qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK,
                    "%s = %s: accepted, but %s", key, values[v], text);
    }
}

void test_read_hostile(void)
{
    char key[64];

    for (int i = 0; i < n_model_texts; i++)
        for (int k = 0; *model_key(model_texts[i].json, k, key) != '\0'; k++)
            if (t_case("%s/%s", model_texts[i].name, key))
                hostile(model_texts[i].json, key);
}

/* ---- broken files --------------------------------------------------------------------------- */

static void broken(const char *name, const char *data, size_t n, const char *words)
{
    qkv_config_file *file;
    char text[512] = "";

    if (!t_case("%s", name))
        return;
    const qkv_status status = qkv_config_parse("f.json", data, n, &file, text, sizeof text);
    t_check(status == QKV_ERR_FORMAT && file == NULL, "%s", qkv_status_name(status));
    t_check(strncmp(text, "f.json: ", 8) == 0 && strstr(text, words) != NULL, "\"%s\"", text);
    qkv_config_close(file);
}

static char *repeated(const char *open, const char *middle, const char *close, int n)
{
    static char text[300000];
    char *at = text;

    for (int i = 0; i < n; i++)
        at += sprintf(at, "%s", open);
    at += sprintf(at, "%s", middle);
    for (int i = 0; i < n; i++)
        at += sprintf(at, "%s", close);
    return text;
}

static void broken_text(const char *name, const char *data, const char *words)
{
    broken(name, data, strlen(data), words);
}

static void check_limits(void)
{
    qkv_config_file *file;
    char text[512];

    if (t_case("32 levels")) {
        const char *json = repeated("{\"a\": ", "1", "}", 32);
        t_check(qkv_config_parse("x", json, strlen(json), &file, text, 512) == QKV_OK, "%s", text);
        qkv_config_close(file);
    }
    broken_text("33 levels", repeated("{\"a\": ", "{}", "}", 33), "nested more than 32 deep");
    broken_text("100000 levels", repeated("[", "", "]", 100000), "not valid JSON");
    if (t_case("4097 keys")) {
        char *json = t_scratch(5000 * 16), *at = json;
        at += sprintf(at, "{\"k\": 0");
        for (int i = 0; i < 4096; i++)
            at += sprintf(at, ", \"%d\": 0", i);
        sprintf(at, "}");
        t_check(qkv_config_parse("x", json, strlen(json), &file, text, 512) == QKV_ERR_FORMAT &&
                    strstr(text, "4097 keys") != NULL, "%s", text);
    }
    if (t_case("too large")) {
        char *json = t_scratch((4 << 20) + 8);
        memset(json, ' ', (4 << 20) + 8);
        json[0] = '{', json[1] = '}';
        t_check(qkv_config_parse("x", json, 4 << 20, &file, text, 512) == QKV_OK, "%s", text);
        qkv_config_close(file);
        t_check(qkv_config_parse("x", json, (4 << 20) + 1, &file, text, 512) == QKV_ERR_FORMAT,
                "accepted");
    }
}

void test_read_broken(void)
{
    const char *json = model_text_of("llama");

    for (size_t n = 0; n < strlen(json); n++) {
        char name[32];
        snprintf(name, sizeof name, "cut/%zu", n);
        broken(name, json, n, "not valid JSON");
    }
    broken_text("a list", "[1, 2]", "not a table");
    broken_text("a number", "7", "not valid JSON");
    broken_text("twice", "{\"a\": 1, \"a\": 2}", "duplicate");
    broken_text("NaN", "{\"a\": NaN}", "not valid JSON");
    broken_text("Infinity", "{\"a\": Infinity}", "not valid JSON");
    broken_text("1e999", "{\"a\": 1e999}", "not valid JSON");
    broken_text("2^63", "{\"a\": 9223372036854775808}", "not valid JSON");
    broken_text("text after the end", "{} x", "not valid JSON");
    broken_text("comma", "{\"a\": 1,}", "not valid JSON");
    broken("NUL", "{\"a\": 1\0}", 9, "a byte of 0");
    broken_text("no UTF-8", "{\"a\": \"\xff\xfe\"}", "not valid JSON");
    check_limits();
}

/* ---- random bytes --------------------------------------------------------------------------- */

void test_read_random(void)
{
    static char json[LARGEST];
    char text[512];
    qkv_model *m;

    for (int i = 0; i < n_model_texts; i++) {
        if (!t_case("%s", model_texts[i].name))
            continue;
        t_rng rng = t_rng_of(t_seed() + (uint64_t)i);
        m = t_scratch(sizeof *m);
        for (int n = t_times(400); n > 0; n--) {
            const size_t length = strlen(model_texts[i].json);
            memcpy(json, model_texts[i].json, length + 1);
            for (int64_t flips = t_between(&rng, 1, 4); flips > 0; flips--)
                json[t_below(&rng, (int64_t)length)] = (char)t_between(&rng, 32, 126);
            reading r = {json, t_chance(&rng, 20) ? model_texts[i].name : NULL, m, text, QKV_OK};
            t_call(read_call, &r);
        }
    }
}

/* ---- structs of other versions --------------------------------------------------------------- */

void test_read_structs(void)
{
    char text[512];
    qkv_config_file *file;
    qkv_model m;
    qkv_layer_desc l;
    qkv_weight w;

    if (!t_case("sizes"))
        return;
    const char *json = model_text_of("llama");
    t_check(qkv_config_parse("x", json, strlen(json), &file, text, sizeof text) == QKV_OK, "%s",
            text);
    const qkv_config config = qkv_config_of(file);
    t_check(qkv_model_read(NULL, NULL, &m, text, sizeof text) == QKV_ERR_ARGUMENT, "no config");
    t_check(qkv_model_read(&config, NULL, NULL, NULL, 0) == QKV_ERR_ARGUMENT, "no model");
    memset(&m, 0xee, sizeof m);
    const size_t older = offsetof(qkv_model, unpriced);
    t_check(qkv_model_read_sized(&config, NULL, &m, older, text, sizeof text) == QKV_OK, "older");
    t_check(m.struct_size == older && (unsigned char)m.unpriced[0] == 0xee, "wrote too much");
    t_check(qkv_model_layer(&m, 0, 0, &l, text, sizeof text) == QKV_OK, "%s", text);
    t_check(qkv_model_layer(NULL, 0, 0, &l, NULL, 0) == QKV_ERR_ARGUMENT, "no model");
    t_check(qkv_model_layer(&m, 0, 0, NULL, NULL, 0) == QKV_ERR_ARGUMENT, "no desc");
    t_check(qkv_model_weight(&m, 0, 0, QKV_ROLE_Q, NULL, NULL, 0) == QKV_ERR_ARGUMENT, "no weight");
    t_check(qkv_model_weight(&m, 0, 0, QKV_ROLE_COUNT, &w, NULL, 0) == QKV_ERR_ARGUMENT, "role");
    memset(&m, 0, sizeof m);
    t_check(qkv_model_layer(&m, 0, 0, &l, NULL, 0) == QKV_ERR_ARGUMENT, "an empty model");
    qkv_config_close(file);
}
