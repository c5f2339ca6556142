/* layer_inputs.c - the layer of qkv layer run, and what goes into it. */
#include <stdlib.h>
#include <string.h>

#include "layer_run.h"
#include "load.h"

/* A .npy file of floats [.., .., width] as f32; [T, width] has B = 1. */
static int load_floats(const char *option, const char *path, int64_t width, int64_t *B, int64_t *T,
                       float **numbers, int32_t *type, int32_t *rank)
{
    char text[CLI_TEXT], shape[CLI_SHAPE];
    qkv_tensor t = {0};

    if (qkv_npy_read(path, &t, text, sizeof text) != QKV_OK)
        return cli_complain("--%s: %s", option, text);
    int code = CLI_DONE;
    const int64_t b = t.rank == 3 ? t.shape[0] : 1;
    if (t.type < QKV_F64 || t.type > QKV_BF16)
        code = cli_complain("--%s: %s has type %s; accepted are f64, f32, f16 and bf16", option,
                            path, qkv_type_name((qkv_type)t.type));
    else if (t.rank < 2 || t.rank > 3 || t.shape[t.rank - 1] != width || (*B > 0 && b != *B) ||
             qkv_tensor_elements(&t) == 0)
        code = cli_complain("--%s: %s has shape %s; [%s,T,%lld] is expected, T at least 1", option,
                            path, cli_shape_text(&t, shape), *B > 0 ? "as --in" : "B",
                            (long long)width);
    const size_t n = (size_t)qkv_tensor_elements(&t);
    *numbers = code == CLI_DONE ? malloc(n * sizeof **numbers) : NULL;
    if (code == CLI_DONE && *numbers == NULL)
        code = cli_complain_memory(path, n * sizeof **numbers);
    if (code == CLI_DONE) {
        qkv_convert(*numbers, QKV_F32, t.data, (qkv_type)t.type, n);
        *B = b;
        *T = t.shape[t.rank - 2];
        *type = t.type;
        *rank = t.rank;
    }
    qkv_tensor_free(&t);
    return code;
}

/* Lengths of sequences, [B] or one for all; fallback where there is no option. */
static int load_lens(const layer_run *r, cli_input input, const char *spec, int64_t fallback,
                     int64_t most, int32_t **lens)
{
    qkv_tensor in[CLI_N_INPUTS];
    cli_options options;

    *lens = calloc((size_t)r->B, sizeof **lens);
    if (*lens == NULL)
        return cli_complain_memory("lengths", (size_t)r->B * sizeof **lens);
    memset(&options, 0, sizeof options);
    options.input[input] = spec;
    int code = cli_load_inputs(&options, in);
    const int64_t n = code == CLI_DONE && spec ? qkv_tensor_elements(&in[input]) : 0;
    if (code == CLI_DONE && spec && n != 1 && n != r->B)
        code = cli_complain("--%s has %lld values; --in has %lld sequences",
                            cli_input_option(input), (long long)n, (long long)r->B);
    for (int64_t b = 0; code == CLI_DONE && b < r->B; b++) {
        const int64_t v = n == 0 ? fallback : ((const int64_t *)in[input].data)[n == 1 ? 0 : b];
        if (v < 0 || v > most)
            code = cli_complain("--%s: sequence %lld has %lld; accepted are 0 to %lld",
                                cli_input_option(input), (long long)b, (long long)v,
                                (long long)most);
        (*lens)[b] = (int32_t)v;
    }
    for (int i = 0; i < CLI_N_INPUTS; i++)
        qkv_tensor_free(&in[i]);
    return code;
}

static int load_positions(layer_run *r)
{
    char text[CLI_TEXT], shape[CLI_SHAPE];
    qkv_tensor t = {0};
    const int64_t rows = r->B * r->T;

    r->positions = calloc((size_t)rows, sizeof *r->positions);
    if (r->positions == NULL)
        return cli_complain_memory("positions", (size_t)rows * sizeof *r->positions);
    for (int64_t i = 0; i < rows; i++)
        r->positions[i] = i % r->T;
    if (r->positions_path == NULL)
        return CLI_DONE;
    if (qkv_npy_read(r->positions_path, &t, text, sizeof text) != QKV_OK)
        return cli_complain("--positions: %s", text);
    const int64_t n = qkv_tensor_elements(&t);
    int code = CLI_DONE;
    if ((t.type != QKV_I32 && t.type != QKV_I64) || (n != rows && n != r->T))
        code = cli_complain("--positions: %s is %s %s; i32 or i64 [%lld,%lld] or [%lld] is expected",
                            r->positions_path, qkv_type_name((qkv_type)t.type),
                            cli_shape_text(&t, shape), (long long)r->B, (long long)r->T,
                            (long long)r->T);
    for (int64_t i = 0; code == CLI_DONE && i < rows; i++)
        r->positions[i] = t.type == QKV_I64 ? ((const int64_t *)t.data)[i % n]
                                            : ((const int32_t *)t.data)[i % n];
    qkv_tensor_free(&t);
    return code;
}

int layer_run_inputs(layer_run *r)
{
    const qkv_layer_desc *d = qkv_layer_desc_of(r->layer);
    int32_t type, rank;

    r->d = d->d_model;
    r->wide = d->d_memory ? d->d_memory : d->d_model;
    if ((r->memory_path != NULL) != d->cross)
        return cli_complain(d->cross ? "--memory is not given; cross-attention needs it"
                                     : "--memory is given; this layer's attention is no "
                                       "cross-attention");
    if (d->cross && r->kv_starts_text)
        return cli_complain("--kv-starts is given; it is for self-attention");
    int code = load_floats("in", r->in, r->d, &r->B, &r->T, &r->x, &r->type, &r->rank);
    if (code == CLI_DONE && d->cross)
        code = load_floats("memory", r->memory_path, r->wide, &r->B, &r->Tm, &r->memory, &type,
                           &rank);
    const int64_t keys = d->cross ? r->Tm : r->T;
    if (code == CLI_DONE)
        code = load_lens(r, CLI_KV_LENS, r->kv_lens_text, keys, keys, &r->kv_lens);
    if (code == CLI_DONE)
        code = load_lens(r, CLI_KV_STARTS, r->kv_starts_text, 0, keys, &r->kv_starts);
    if (code == CLI_DONE)
        code = load_positions(r);
    if (code == CLI_DONE && r->decode > r->T)
        return cli_complain("--prefill-then-decode is %lld; --in has %lld tokens",
                            (long long)r->decode, (long long)r->T);
    for (int64_t b = 0; code == CLI_DONE && b < r->B; b++) {
        const int64_t end = d->cross ? r->T : r->kv_lens[b], from = d->cross ? 0 : r->kv_starts[b];
        for (int64_t t = from; t < end; t++)
            if (r->positions[b * r->T + t] >= r->rope_len)
                r->rope_len = r->positions[b * r->T + t] + 1;
    }
    return code;
}

int layer_run_load(layer_run *r)
{
    char text[CLI_TEXT];
    qkv_checkpoint *checkpoint = NULL;
    qkv_model model;

    if (qkv_checkpoint_open(r->directory, &checkpoint, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const qkv_config config = qkv_checkpoint_config(checkpoint);
    qkv_status status = qkv_model_read(&config, r->family, &model, text, sizeof text);
    if (status == QKV_OK && r->memory_path && !r->part_given)
        r->part = QKV_PART_CROSS;
    if (status == QKV_OK)
        status = qkv_layer_load_as(checkpoint, &model, r->part, (int32_t)r->layer_number,
                                   r->weights, NULL, &r->layer, text, sizeof text);
    qkv_checkpoint_close(checkpoint);
    return status == QKV_OK ? CLI_DONE : cli_complain("%s: %s", r->directory, text);
}
