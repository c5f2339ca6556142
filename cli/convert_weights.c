/* convert_weights.c - tensors of a converted checkpoint. */
#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* ---- which tensors change ----------------------------------------------------------------- */

static int changes(const convert_kind *kind, const qkv_layer_desc *d, int32_t role)
{
    if (kind->what == CONVERT_HEADS)
        return role == QKV_ROLE_K || role == QKV_ROLE_V;
    if (d->kind == QKV_LAYER_MLA)
        return role == QKV_ROLE_KV_A || role == (d->q_lora_rank ? QKV_ROLE_Q_B : QKV_ROLE_Q);
    return role == QKV_ROLE_Q || role == QKV_ROLE_K || role == QKV_ROLE_Q_NORM ||
           role == QKV_ROLE_K_NORM;
}

const convert_tensor *convert_find_tensor(const convert_model *c, const char *name)
{
    for (int32_t i = 0; i < c->n_tensors; i++)
        if (strcmp(c->tensors[i].name, name) == 0)
            return &c->tensors[i];
    return NULL;
}

/* entry as it is; w as the new model has it. */
static int add(convert_model *c, int32_t layer, const qkv_safetensors_entry *entry,
               const qkv_weight *w, int is_bias)
{
    if (entry->data == NULL || convert_find_tensor(c, entry->name) != NULL)
        return CLI_DONE;
    if (strlen(entry->name) >= sizeof c->tensors->name)
        return cli_complain("%s: the name of this tensor is too long", entry->name);
    if (entry->type != QKV_F32 && entry->type != QKV_F16 && entry->type != QKV_BF16)
        return cli_complain("%s is stored as %s; accepted are F32, F16 and BF16", entry->name,
                            entry->dtype);
    convert_tensor *more =
        realloc(c->tensors, ((size_t)c->n_tensors + 1) * sizeof *c->tensors);
    if (more == NULL)
        return cli_complain_memory("a list of tensors", (size_t)c->n_tensors * sizeof *more);
    c->tensors = more;
    convert_tensor *t = &c->tensors[c->n_tensors++];
    const int vector = is_bias || w->columns == 0;
    *t = (convert_tensor){.layer = layer, .is_bias = is_bias, .type = entry->type,
                          .rank = vector ? 1 : 2,
                          .shape = {w->transposed && !vector ? w->columns : w->rows,
                                    w->transposed && !vector ? w->rows : w->columns}};
    memcpy(t->name, entry->name, strlen(entry->name) + 1);
    t->bytes = t->shape[0] * (vector ? 1 : t->shape[1]) *
               (int64_t)qkv_type_size((qkv_type)t->type);
    return CLI_DONE;
}

/* The place of a role before and after; n_names 0 if there is none. */
static int places(const convert_model *c, int32_t layer, int32_t role, qkv_weight *w,
                  qkv_safetensors_entry *entry, qkv_safetensors_entry *bias)
{
    qkv_weight was;
    char text[CLI_TEXT];

    if (qkv_model_weight(&c->model, QKV_PART_DECODER, layer, role, &was, text, sizeof text) !=
            QKV_OK ||
        qkv_model_weight(&c->made, QKV_PART_DECODER, layer, role, w, text, sizeof text) != QKV_OK ||
        (was.n_names > 0 &&
         qkv_checkpoint_weight(c->old, &was, entry, bias, text, sizeof text) != QKV_OK))
        return cli_complain("layer %d: %s", (int)layer, text);
    return CLI_DONE;
}

int convert_list_tensors(convert_model *c)
{
    char text[CLI_TEXT];

    for (int32_t layer = 0; layer < c->model.n_layers; layer++) {
        qkv_layer_desc d;
        if (qkv_model_layer(&c->model, QKV_PART_DECODER, layer, &d, text, sizeof text) != QKV_OK)
            return cli_complain("layer %d: %s", (int)layer, text);
        for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
            qkv_weight w;
            qkv_safetensors_entry entry, bias;
            int code = changes(&c->kind, &d, role) ? places(c, layer, role, &w, &entry, &bias)
                                                   : -1;
            if (code == CLI_DONE && w.n_names > 0)
                code = add(c, layer, &entry, &w, 0);
            if (code == CLI_DONE && w.n_names > 0 && w.has_bias)
                code = add(c, layer, &bias, &w, 1);
            if (code == CLI_WRONG)
                return code;
        }
    }
    return CLI_DONE;
}

/* ---- what they become --------------------------------------------------------------------- */

/* The rows of one role, at their places in the tensor. */
static void place_rows(const qkv_weight *w, const float *from, int64_t cols, float *to)
{
    for (int32_t h = 0; h < w->heads; h++)
        for (int32_t d = 0; d < w->width; d++) {
            const int64_t row = qkv_weight_row(w, h, d);
            const float *source = from + ((int64_t)h * w->width + d) * cols;
            for (int64_t i = 0; i < cols; i++)
                to[w->transposed && cols > 1 ? i * w->rows + row : row * cols + i] = source[i];
        }
}

/* All roles that lie in the tensor; fused projections have several. */
static int fill(const convert_model *c, const convert_tensor *t, float *to)
{
    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        qkv_weight w;
        qkv_layer_weight made;
        qkv_safetensors_entry entry, bias;
        int64_t rows, cols;
        if (places(c, t->layer, role, &w, &entry, &bias) != CLI_DONE)
            return CLI_WRONG;
        if (w.n_names == 0)
            continue;
        const qkv_safetensors_entry *place = t->is_bias ? &bias : &entry;
        if ((t->is_bias && !w.has_bias) || place->data == NULL ||
            strcmp(place->name, t->name) != 0)
            continue;
        qkv_layer_weight_of(c->layer, role, &made, &rows, &cols);
        if (rows != (int64_t)w.heads * w.width || (t->is_bias && made.bias == NULL))
            return cli_complain("%s: layer %d has %lld rows of it and the new config.json %lld",
                                t->name, (int)t->layer, (long long)rows,
                                (long long)w.heads * w.width);
        place_rows(&w, t->is_bias ? made.bias : made.data, t->is_bias ? 1 : cols, to);
    }
    return CLI_DONE;
}

static int make_layer(convert_model *c, int32_t number)
{
    char text[CLI_TEXT];
    qkv_layer *old = NULL;

    if (c->layer != NULL && c->layer_number == number)
        return CLI_DONE;
    qkv_layer_destroy(c->layer);
    c->layer = NULL;
    if (qkv_layer_load(c->old, &c->model, QKV_PART_DECODER, number, NULL, &old, text,
                       sizeof text) != QKV_OK)
        return cli_complain("layer %d: %s", (int)number, text);
    c->layer_number = number;
    const int code = convert_layer(&c->kind, old, &c->layer);
    qkv_layer_destroy(old);
    return code;
}

void *convert_tensor_data(convert_model *c, const convert_tensor *t)
{
    const int64_t n = t->bytes / (int64_t)qkv_type_size((qkv_type)t->type);
    float *numbers = calloc((size_t)n, sizeof *numbers);
    void *data = malloc((size_t)t->bytes);

    if (numbers == NULL || data == NULL) {
        cli_complain_memory(t->name, (size_t)t->bytes);
    } else if (make_layer(c, t->layer) == CLI_DONE && fill(c, t, numbers) == CLI_DONE) {
        qkv_convert(data, (qkv_type)t->type, numbers, QKV_F32, (size_t)n);
        free(numbers);
        return data;
    }
    free(numbers);
    free(data);
    return NULL;
}

/* ---- what was written --------------------------------------------------------------------- */

/* The same bits once rounded to the type; a NaN is any NaN. */
static int same_rounded(const float *made, const float *read, int64_t n, qkv_type type)
{
    for (int64_t i = 0; i < n; i++) {
        float one = made[i];
        if (type != QKV_F32) {
            uint16_t rounded;
            qkv_convert(&rounded, type, &one, QKV_F32, 1);
            qkv_convert(&one, QKV_F32, &rounded, type, 1);
        }
        if (memcmp(&one, &read[i], sizeof one) != 0 && (one == one || read[i] == read[i]))
            return 0;
    }
    return 1;
}

int convert_check_layer(const convert_model *c, const qkv_checkpoint *written, int32_t layer,
                        const qkv_layer *made, const qkv_layer *read)
{
    char text[CLI_TEXT];

    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        qkv_weight w;
        qkv_layer_weight a, b;
        qkv_safetensors_entry entry, bias;
        int64_t rows, cols, rows_b, cols_b;
        qkv_layer_weight_of(made, role, &a, &rows, &cols);
        qkv_layer_weight_of(read, role, &b, &rows_b, &cols_b);
        if (rows != rows_b || cols != cols_b || (a.bias == NULL) != (b.bias == NULL))
            return cli_complain("layer %d: %s was read back in another shape", (int)layer,
                                qkv_role_name(role));
        if (rows == 0)
            continue;
        if (qkv_model_weight(&c->made, QKV_PART_DECODER, layer, role, &w, text, sizeof text) !=
                QKV_OK ||
            qkv_checkpoint_weight(written, &w, &entry, &bias, text, sizeof text) != QKV_OK)
            return cli_complain("layer %d: %s", (int)layer, text);
        if (!same_rounded(a.data, b.data, rows * cols, (qkv_type)entry.type) ||
            (a.bias && !same_rounded(a.bias, b.bias, rows, (qkv_type)bias.type)))
            return cli_complain("layer %d: %s was read back with other numbers", (int)layer,
                                qkv_role_name(role));
    }
    return CLI_DONE;
}
