/* convert.c - qkv convert: another kind of layer from a checkpoint's, and what it changes. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer_run.h"
#include "load.h"

const char cli_convert_page[] =
    "qkv convert - a layer of a model as another kind, and what that changes\n"
    "\n"
    "Usage\n"
    "  qkv convert MODEL_DIR --layer N --to KIND --in FILE [-o FILE] [options]\n"
    "\n"
    "Reads a layer as qkv layer run does, makes another one from it, runs both on the hidden states\n"
    "of --in, and prints how much the output changes, the elements that a cache keeps a token and\n"
    "the parameters.\n"
    "\n"
    "  --layer N, --part decoder|encoder|cross, --as FAMILY, --in FILE\n"
    "        As in qkv layer run.  0 is the first layer; FILE is .npy, [B,T,d_model] or [T,d_model].\n"
    "  --to gqa:HEADS, --to mqa\n"
    "        Fewer key and value heads, each the mean of those it stands for: where training of GQA\n"
    "        from MHA begins.\n"
    "  --to mla:RANK\n"
    "        Keys and values from a latent of RANK channels, the best there is for the weights;\n"
    "        the change is rounding where RANK is d_model.  For layers without RoPE.\n"
    "  --to half-split, --to interleaved\n"
    "        The other pairing of RoPE's channels: the same scores, other rows.\n"
    "  -o FILE, --output FILE\n"
    "        The new weights as .safetensors, f32, by role: q, k, v, o, q.bias ...\n"
    "  --json\n"
    "        The report as JSON.\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong or the layer cannot be converted so.\n";

typedef struct conversion {
    layer_run r; /* of the old layer, then of the new */
    const char *to;
    int json;
    qkv_layer *old;
    float *before;
    double largest, rms; /* of the change, as shares of the output's largest number and rms */
} conversion;

/* ---- options ------------------------------------------------------------------------------ */

/* clang-format off */
static const struct option known[] = {
    {"layer", required_argument, NULL, 'l'}, {"to", required_argument, NULL, 't'},
    {"in", required_argument, NULL, 'i'}, {"output", required_argument, NULL, 'o'},
    {"part", required_argument, NULL, 'a'}, {"as", required_argument, NULL, 'f'},
    {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};
/* clang-format on */

static int take(conversion *c, int code, const char *value)
{
    switch (code) {
    case 'l': return cli_parse_integer("layer", value, 0, INT32_MAX, &c->r.layer_number);
    case 't': c->to = value; return CLI_DONE;
    case 'i': c->r.in = value; return CLI_DONE;
    case 'o': c->r.output = value; return CLI_DONE;
    case 'a': return layer_run_part(&c->r, value);
    case 'f': c->r.family = value; return CLI_DONE;
    default: c->json = 1; return CLI_DONE;
    }
}

/* CLI_DONE, CLI_WRONG, or -1 after the help page. */
static int parse(conversion *c, int argc, char **argv)
{
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":ho:", known, NULL)) != -1;) {
        if (code == 'h') {
            fputs(cli_help_page("convert"), stdout);
            return -1;
        }
        if (code == ':')
            return cli_complain("%s needs a value", argv[optind - 1]);
        if (code == '?')
            return cli_complain("%s is not an option of qkv convert; see qkv help convert",
                                argv[optind - 1]);
        if (take(c, code, optarg) != CLI_DONE)
            return CLI_WRONG;
    }
    if (optind + 1 != argc)
        return cli_complain("convert takes one MODEL_DIR; %d were given", argc - optind);
    c->r.directory = argv[optind];
    if (c->to == NULL || c->r.in == NULL || c->r.layer_number < 0)
        return cli_complain("%s is not given; --layer N, --to KIND and --in FILE are needed",
                            c->r.layer_number < 0 ? "--layer" : c->to == NULL ? "--to" : "--in");
    if (c->r.output && cli_format_of(c->r.output) != CLI_SAFETENSORS)
        return cli_complain("-o is %s; accepted is a file ending in .safetensors", c->r.output);
    return CLI_DONE;
}

/* ---- the new layer ------------------------------------------------------------------------ */

static int convert(conversion *c)
{
    char text[CLI_TEXT];
    int64_t n = 1;
    qkv_layer *made = NULL;
    qkv_status status;
    const int gqa = strncmp(c->to, "gqa:", 4) == 0, mla = strncmp(c->to, "mla:", 4) == 0;

    if ((gqa || mla) &&
        cli_parse_integer(gqa ? "to gqa" : "to mla", c->to + 4, 1, INT32_MAX, &n) != CLI_DONE)
        return CLI_WRONG;
    if (gqa || strcmp(c->to, "mqa") == 0)
        status = qkv_layer_pool_heads(c->old, (int32_t)n, NULL, &made, text, sizeof text);
    else if (mla)
        status = qkv_layer_factorise(c->old, (int32_t)n, NULL, &made, text, sizeof text);
    else if (strcmp(c->to, "half-split") == 0)
        status = qkv_layer_pair(c->old, QKV_ROPE_HALF_SPLIT, NULL, &made, text, sizeof text);
    else if (strcmp(c->to, "interleaved") == 0)
        status = qkv_layer_pair(c->old, QKV_ROPE_INTERLEAVED, NULL, &made, text, sizeof text);
    else
        return cli_complain("--to is %s; accepted are gqa:HEADS, mqa, mla:RANK, half-split and "
                            "interleaved",
                            c->to);
    if (status != QKV_OK)
        return cli_complain("--to %s: %s", c->to, text);
    c->r.layer = made;
    return CLI_DONE;
}

static void compare(conversion *c)
{
    double most = 0, off = 0, squares = 0, off_squares = 0;

    for (int64_t i = 0; i < c->r.B * c->r.T * c->r.d; i++) {
        const double a = c->before[i], e = c->r.out[i] - a;
        most = fabs(a) > most ? fabs(a) : most;
        off = fabs(e) > off ? fabs(e) : off;
        squares += a * a;
        off_squares += e * e;
    }
    c->largest = most > 0 ? off / most : 0;
    c->rms = squares > 0 ? sqrt(off_squares / squares) : 0;
}

/* Elements that a cache keeps a token, and parameters. */
static int64_t kept_of(const qkv_layer *layer)
{
    qkv_cache_config f;
    qkv_cache_config_init(&f);
    qkv_layer_cache_config(layer, &f);
    return (int64_t)f.n_kv_heads *
           (f.flags & QKV_CACHE_LATENT ? f.head_dim : f.head_dim + f.head_dim_v);
}

static int64_t parameters_of(const qkv_layer *layer)
{
    int64_t n = 0;
    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        qkv_layer_weight w;
        int64_t rows, cols;
        qkv_layer_weight_of(layer, role, &w, &rows, &cols);
        n += rows * (cols + (w.bias != NULL));
    }
    return n;
}

/* ---- outputs ------------------------------------------------------------------------------ */

static int print(const conversion *c)
{
    char was[32], is[32];
    const qkv_layer *old = c->old, *made = c->r.layer;

    qkv_layer_variant(qkv_layer_desc_of(old), was, sizeof was);
    qkv_layer_variant(qkv_layer_desc_of(made), is, sizeof is);
    if (c->json)
        return cli_print_json(json_pack(
            "{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I}", "from", was, "to", is, "largest_change",
            cli_json_number(c->largest), "rms_change", cli_json_number(c->rms), "cache_elements",
            (json_int_t)kept_of(made), "cache_elements_before", (json_int_t)kept_of(old),
            "parameters", (json_int_t)parameters_of(made), "parameters_before",
            (json_int_t)parameters_of(old)));
    printf("%s to %s (%s)\n", was, is, c->to);
    printf("  largest change  %.3g of the largest number of the output\n", c->largest);
    printf("  rms change      %.3g of the output's\n", c->rms);
    printf("  cache           %lld elements a token, before %lld\n", (long long)kept_of(made),
           (long long)kept_of(old));
    printf("  parameters      %lld, before %lld\n", (long long)parameters_of(made),
           (long long)parameters_of(old));
    return CLI_DONE;
}

/* Weights under the names of their roles, biases with ".bias" behind. */
static int write_weights(const conversion *c)
{
    char text[CLI_TEXT], biases[QKV_ROLE_COUNT][32];
    const char *names[2 * QKV_ROLE_COUNT];
    qkv_tensor tensors[2 * QKV_ROLE_COUNT];
    int32_t n = 0;

    for (int32_t role = 0; role < QKV_ROLE_COUNT; role++) {
        qkv_layer_weight w;
        int64_t rows, cols;
        qkv_layer_weight_of(c->r.layer, role, &w, &rows, &cols);
        if (rows == 0)
            continue;
        /* The library only reads what it writes to a file. */
        tensors[n] = (qkv_tensor){QKV_F32, 2, {rows, cols}, (void *)(uintptr_t)w.data};
        names[n++] = qkv_role_name(role);
        if (w.bias == NULL)
            continue;
        snprintf(biases[role], sizeof biases[role], "%s.bias", qkv_role_name(role));
        tensors[n] = (qkv_tensor){QKV_F32, 1, {rows}, (void *)(uintptr_t)w.bias};
        names[n++] = biases[role];
    }
    if (qkv_safetensors_write(c->r.output, n, names, tensors, text, sizeof text) != QKV_OK)
        return cli_complain("-o: %s", text);
    return CLI_DONE;
}

int cli_convert(int argc, char **argv)
{
    conversion c = {.r = {.layer_number = -1, .decode = -1, .rope_len = 1}};
    int code = parse(&c, argc, argv);

    if (code != CLI_DONE)
        return code < 0 ? CLI_DONE : code;
    code = layer_run_load(&c.r);
    if (code == CLI_DONE)
        code = layer_run_inputs(&c.r);
    if (code == CLI_DONE)
        code = layer_run_compute(&c.r);
    if (code == CLI_DONE) {
        c.old = c.r.layer;
        c.r.layer = NULL;
        c.before = c.r.out;
        c.r.out = NULL;
        code = convert(&c);
    }
    if (code == CLI_DONE)
        code = layer_run_compute(&c.r);
    if (code == CLI_DONE) {
        compare(&c);
        code = c.r.output ? write_weights(&c) : CLI_DONE;
    }
    if (code == CLI_DONE)
        code = print(&c);
    qkv_layer_destroy(c.old);
    free(c.before);
    layer_run_free(&c.r);
    return code;
}
