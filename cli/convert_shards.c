/*
 * convert_shards.c - the files of weights of a converted model: as many as before, with the same
 * tensors in the same order.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "convert.h"

#define INDEX  "model.safetensors.index.json"
#define SINGLE "model.safetensors"

/* ---- weights ------------------------------------------------------------------------------ */

/* The table of the old file, for its __metadata__.  The library has checked the file. */
static json_t *read_header(const char *path)
{
    unsigned char length[8];
    uint64_t n = 0;
    json_t *header = NULL;
    FILE *f = fopen(path, "rb");

    if (f != NULL && fread(length, 1, 8, f) == 8) {
        for (int i = 0; i < 8; i++)
            n |= (uint64_t)length[i] << 8 * i;
        char *text = n < (uint64_t)1 << 30 ? malloc((size_t)n + 1) : NULL;
        if (text != NULL && fread(text, 1, (size_t)n, f) == n)
            header = json_loadb(text, (size_t)n, 0, NULL);
        free(text);
    }
    if (f != NULL)
        fclose(f);
    return header;
}

/* Names, types, shapes and places of all tensors of a file, in the order in which they lie. */
static json_t *new_header(const convert_model *c, const qkv_safetensors *file, const char *path)
{
    json_t *old = read_header(path), *header = json_object();
    int64_t at = 0;

    if (json_object_get(old, "__metadata__") != NULL)
        json_object_set(header, "__metadata__", json_object_get(old, "__metadata__"));
    json_decref(old);
    for (int64_t i = 0; i < qkv_safetensors_count(file); i++) {
        qkv_safetensors_entry e;
        qkv_safetensors_entry_at(file, i, &e);
        const convert_tensor *t = convert_find_tensor(c, e.name);
        const int64_t end = at + (t != NULL ? t->bytes : (int64_t)e.bytes);
        json_t *shape = json_array();
        for (int32_t r = 0; r < (t != NULL ? t->rank : e.rank); r++)
            json_array_append_new(shape, json_integer(t != NULL ? t->shape[r] : e.shape[r]));
        json_object_set_new(header, e.name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", e.dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    return header;
}

static int put_header(FILE *f, const char *path, json_t *header)
{
    unsigned char length[8];
    char *text = json_dumps(header, JSON_COMPACT);
    int code = text != NULL ? CLI_DONE : cli_complain_memory("a header", 0);

    if (code == CLI_DONE) {
        const size_t used = strlen(text), padding = (8 - used % 8) % 8;
        for (int i = 0; i < 8; i++)
            length[i] = (unsigned char)((uint64_t)(used + padding) >> 8 * i);
        code = convert_put(f, path, length, 8);
        if (code == CLI_DONE)
            code = convert_put(f, path, text, used);
        if (code == CLI_DONE)
            code = convert_put(f, path, "        ", padding);
    }
    free(text);
    return code;
}

static int put_tensors(convert_model *c, FILE *f, const char *path, const qkv_safetensors *file)
{
    int code = CLI_DONE;

    for (int64_t i = 0; code == CLI_DONE && i < qkv_safetensors_count(file); i++) {
        qkv_safetensors_entry e;
        qkv_safetensors_entry_at(file, i, &e);
        const convert_tensor *t = convert_find_tensor(c, e.name);
        void *data = t != NULL ? convert_tensor_data(c, t) : NULL;
        if (t != NULL && data == NULL)
            return CLI_WRONG;
        code = t != NULL ? convert_put(f, path, data, (size_t)t->bytes)
                         : convert_put(f, path, e.data, e.bytes);
        free(data);
    }
    return code;
}

static int write_file(convert_model *c, const char *name)
{
    char from[CONVERT_PATH], to[CONVERT_PATH], text[CLI_TEXT];
    qkv_safetensors *file = NULL;

    if (convert_join(from, c->r->directory, name) != CLI_DONE ||
        convert_join(to, c->temporary, name) != CLI_DONE)
        return CLI_WRONG;
    if (qkv_safetensors_open(from, &file, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    json_t *header = new_header(c, file, from);
    FILE *f = fopen(to, "wbx");
    int code = f != NULL ? CLI_DONE : cli_complain("%s cannot be made: %s", to, strerror(errno));
    if (code == CLI_DONE)
        code = put_header(f, to, header);
    if (code == CLI_DONE)
        code = put_tensors(c, f, to, file);
    if (f != NULL)
        code = convert_close(f, to, code);
    json_decref(header);
    qkv_safetensors_close(file);
    c->n_weight_files++;
    return code;
}

/* ---- the index ---------------------------------------------------------------------------- */

/* metadata says how much there is: bytes, and in newer files parameters. */
static void count_anew(const convert_model *c, json_t *index)
{
    json_t *metadata = json_object_get(index, "metadata");
    json_int_t bytes = 0, elements = 0;

    for (int32_t i = 0; i < c->n_tensors; i++) {
        const convert_tensor *t = &c->tensors[i];
        const json_int_t size = (json_int_t)qkv_type_size((qkv_type)t->type);
        qkv_safetensors_entry e;
        if (qkv_checkpoint_tensor(c->old, t->name, &e, NULL, 0) != QKV_OK)
            continue;
        bytes += t->bytes - (json_int_t)e.bytes;
        elements += (t->bytes - (json_int_t)e.bytes) / size;
    }
    const struct {
        const char *name;
        json_int_t more;
    } counts[] = {{"total_size", bytes}, {"total_parameters", elements}};
    for (int i = 0; i < 2; i++) {
        const json_t *was = json_object_get(metadata, counts[i].name);
        if (json_is_number(was)) /* some have it as 123.0 */
            json_object_set_new(metadata, counts[i].name,
                                json_integer((json_int_t)json_number_value(was) + counts[i].more));
    }
}

/* Each file that the index names, once. */
static int write_shards(convert_model *c, const char *path)
{
    json_t *index = json_load_file(path, 0, NULL), *done = json_object(), *file;
    const char *tensor;
    int code = index != NULL ? CLI_DONE : cli_complain("%s cannot be read", path);

    json_object_foreach(json_object_get(index, "weight_map"), tensor, file)
    {
        const char *name = json_string_value(file);
        if (code != CLI_DONE || name == NULL || json_object_get(done, name) != NULL)
            continue;
        json_object_set_new(done, name, json_true());
        code = write_file(c, name);
    }
    if (code == CLI_DONE) {
        count_anew(c, index);
        code = convert_write_json(c, INDEX, index);
    }
    json_decref(done);
    json_decref(index);
    return code;
}

int convert_write_weights(convert_model *c)
{
    char single[CONVERT_PATH], index[CONVERT_PATH];

    if (convert_join(single, c->r->directory, SINGLE) != CLI_DONE ||
        convert_join(index, c->r->directory, INDEX) != CLI_DONE)
        return CLI_WRONG;
    return access(single, F_OK) == 0 ? write_file(c, SINGLE) : write_shards(c, index);
}
