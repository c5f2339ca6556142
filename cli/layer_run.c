/* layer_run.c - qkv layer run: hidden states from a file through one layer's attention. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer_run.h"
#include "load.h"

/* ---- options ------------------------------------------------------------------------------ */

static const char *const parts[] = {"decoder", "encoder", "cross"};
static const char *const executions[] = {"auto", "expanded", "absorbed"};
/* The order of QKV_WEIGHTS_. */
static const char *const weights[] = {"f32", "bf16", "int8", "f32_packed"};

static int word_of(const char *option, const char *value, const char *const *words, int32_t *index)
{
    for (int32_t i = 0; i < 3; i++)
        if (strcmp(value, words[i]) == 0) {
            *index = i;
            return CLI_DONE;
        }
    return cli_complain("--%s is %s; accepted are %s, %s and %s", option, value, words[0], words[1],
                        words[2]);
}

static int weights_of(const char *value, int32_t *format)
{
    for (*format = QKV_WEIGHTS_F32; *format <= QKV_WEIGHTS_F32_PACKED; ++*format)
        if (strcmp(value, weights[*format]) == 0)
            return CLI_DONE;
    return cli_complain("--weights is %s; accepted are f32, bf16, int8 and f32_packed", value);
}

int layer_run_part(layer_run *r, const char *value)
{
    r->part_given = 1;
    return word_of("part", value, parts, &r->part);
}

static int format_of(const char *value, int32_t *format)
{
    for (int32_t f = QKV_FORMAT_F32; f <= QKV_FORMAT_E5M2; f++)
        if (strcmp(value, qkv_format_name(f)) == 0) {
            *format = f;
            return CLI_DONE;
        }
    return cli_complain("--cache is %s; accepted are f32, f16, bf16, int8, int8_channel, int4, "
                        "e4m3 and e5m2",
                        value);
}

/* clang-format off */
static const struct option known[] = {
    {"layer", required_argument, NULL, 'l'}, {"in", required_argument, NULL, 'i'},
    {"output", required_argument, NULL, 'o'}, {"memory", required_argument, NULL, 'm'},
    {"positions", required_argument, NULL, 'p'}, {"kv-lens", required_argument, NULL, 'k'},
    {"kv-starts", required_argument, NULL, 's'},
    {"prefill-then-decode", required_argument, NULL, 'd'},
    {"cache", required_argument, NULL, 'c'}, {"part", required_argument, NULL, 'a'},
    {"mla", required_argument, NULL, 'x'}, {"as", required_argument, NULL, 'f'},
    {"weights", required_argument, NULL, 'w'},
    {"threads", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};
/* clang-format on */

static int take(layer_run *r, int code, const char *value)
{
    switch (code) {
    case 'l': return cli_parse_integer("layer", value, 0, INT32_MAX, &r->layer_number);
    case 'i': r->in = value; return CLI_DONE;
    case 'o': r->output = value; return CLI_DONE;
    case 'm': r->memory_path = value; return CLI_DONE;
    case 'p': r->positions_path = value; return CLI_DONE;
    case 'k': r->kv_lens_text = value; return CLI_DONE;
    case 's': r->kv_starts_text = value; return CLI_DONE;
    case 'd': return cli_parse_integer("prefill-then-decode", value, 1, INT32_MAX, &r->decode);
    case 'c': r->cache_format = value; return format_of(value, &r->format);
    case 'a': return layer_run_part(r, value);
    case 'x': return word_of("mla", value, executions, &r->mla);
    case 'w': return weights_of(value, &r->weights);
    case 'f': r->family = value; return CLI_DONE;
    default: return cli_parse_integer("threads", value, 1, 1024, &r->threads);
    }
}

/* CLI_DONE, CLI_WRONG, or -1 after the help page. */
static int parse(layer_run *r, int argc, char **argv)
{
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":ho:", known, NULL)) != -1;) {
        if (code == 'h') {
            fputs(cli_help_page("layer"), stdout);
            return -1;
        }
        if (code == ':')
            return cli_complain("%s needs a value", argv[optind - 1]);
        if (code == '?')
            return cli_complain("%s is not an option of qkv layer run; see qkv help layer",
                                argv[optind - 1]);
        if (take(r, code, optarg) != CLI_DONE)
            return CLI_WRONG;
    }
    if (optind + 1 != argc)
        return cli_complain("run takes one MODEL_DIR; %d were given", argc - optind);
    r->directory = argv[optind];
    if (r->in == NULL || r->output == NULL || r->layer_number < 0)
        return cli_complain("%s is not given; --layer N, --in FILE and -o FILE are needed",
                            r->layer_number < 0 ? "--layer" : r->in == NULL ? "--in" : "-o");
    if (cli_format_of(r->output) != CLI_NPY)
        return cli_complain("-o is %s; accepted is a file ending in .npy", r->output);
    return CLI_DONE;
}

/* ---- the command -------------------------------------------------------------------------- */

static int write_output(const layer_run *r)
{
    char text[CLI_TEXT];
    qkv_tensor t = {0};
    const int64_t shape[3] = {r->B, r->T, r->d};

    if (qkv_tensor_alloc(&t, (qkv_type)r->type, r->rank, shape + (3 - r->rank)) != QKV_OK)
        return cli_complain_memory("the output", (size_t)(r->B * r->T * r->d) * 4);
    qkv_convert(t.data, (qkv_type)r->type, r->out, QKV_F32, (size_t)(r->B * r->T * r->d));
    const qkv_status status = qkv_npy_write(r->output, &t, text, sizeof text);
    qkv_tensor_free(&t);
    return status == QKV_OK ? CLI_DONE : cli_complain("-o: %s", text);
}

int layer_run_compute(layer_run *r)
{
    const int32_t threads = r->threads ? (int32_t)r->threads : qkv_cpu_count();

    if (r->out == NULL)
        r->out = calloc((size_t)(r->B * r->T * r->d), sizeof *r->out);
    if (r->out == NULL)
        return cli_complain_memory("the output", (size_t)(r->B * r->T * r->d) * sizeof *r->out);
    if (r->pool == NULL && qkv_pool_create(threads, NULL, &r->pool) != QKV_OK)
        return cli_complain("%d threads could not be started", threads);
    qkv_layers_blas_threads(1); /* the pool is what is parallel */
    return r->decode < 0 && !r->cache_format ? layer_run_whole(r) : layer_run_cached(r);
}

void layer_run_free(layer_run *r)
{
    qkv_layer_destroy(r->layer);
    qkv_pool_destroy(r->pool);
    free(r->x);
    free(r->memory);
    free(r->out);
    free(r->kv_lens);
    free(r->kv_starts);
    free(r->positions);
}

int cli_layer_run(int argc, char **argv)
{
    layer_run r = {.layer_number = -1, .decode = -1, .format = QKV_FORMAT_F32, .rope_len = 1};
    int code = parse(&r, argc, argv);

    if (code != CLI_DONE)
        return code < 0 ? CLI_DONE : code;
    code = layer_run_load(&r);
    if (code == CLI_DONE)
        code = layer_run_inputs(&r);
    if (code == CLI_DONE)
        code = layer_run_compute(&r);
    if (code == CLI_DONE)
        code = write_output(&r);
    layer_run_free(&r);
    return code;
}
