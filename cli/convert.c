/* convert.c - qkv convert: the command and single layers; whole models: convert_model.c. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "load.h"

const char cli_convert_page[] =
    "qkv convert - a model or one of its layers with another kind of attention\n"
    "\n"
    "Usage\n"
    "  qkv convert MODEL_DIR --to KIND -o NEW_DIR [--in FILE] [options]\n"
    "  qkv convert MODEL_DIR --to KIND --layer N --in FILE [-o FILE] [options]\n"
    "\n"
    "Without --layer all layers are converted and NEW_DIR becomes a complete model: config.json\n"
    "with what changed, all tensors in files as before and of the types they had, those that did\n"
    "not change bit for bit, and the tokenizer's files.  NEW_DIR appears when it is complete and\n"
    "was read back; nothing may be there before, and nothing is left after a failure.  With\n"
    "--layer one layer is.  Either way old and new run on the hidden states of --in, and how much\n"
    "a layer's output changes is printed, with the elements that a cache keeps a token and the\n"
    "parameters of attention.\n"
    "\n"
    "  --layer N, --part decoder|encoder|cross, --as FAMILY, --in FILE\n"
    "        As in qkv layer run.  0 is the first layer; FILE is .npy, [B,T,d_model] or [T,d_model],\n"
    "        and goes into every layer.\n"
    "  --to gqa:HEADS, --to mqa\n"
    "        Fewer key and value heads, each the mean of those it stands for: where training of GQA\n"
    "        from MHA begins.  For models whose config.json can say so.\n"
    "  --to mla:RANK\n"
    "        Keys and values from a latent of RANK channels, the best there is for the weights;\n"
    "        the change is rounding where RANK is d_model.  For layers without RoPE, one by one: no\n"
    "        family has such latents without a norm.\n"
    "  --to half-split, --to interleaved\n"
    "        The other pairing of RoPE's channels: the same scores, other rows.  Whole models: those\n"
    "        whose config.json has rope_interleave (deepseek_v3).\n"
    "  -o NEW_DIR, -o FILE, --output FILE\n"
    "        The new model; with --layer the new weights as .safetensors, f32, by role: q, k, v, o,\n"
    "        q.bias ...\n"
    "  --json\n"
    "        The report as JSON.\n"
    "\n"
    "Exit status: 0 done, 2 the call was wrong or the model cannot be converted so.\n";

typedef struct conversion {
    layer_run r; /* of the old layer, then of the new */
    const char *to;
    convert_kind kind;
    int json;
    qkv_layer *old;
    float *before;
    convert_change change;
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
    if (c->to == NULL)
        return cli_complain("--to is not given; --to KIND is needed, see qkv help convert");
    if (c->r.layer_number < 0 && (c->r.output == NULL || c->r.part_given))
        return cli_complain(c->r.output ? "--part is given without --layer; a whole model has all "
                                          "its parts"
                                        : "-o is not given; without --layer a whole model is "
                                          "converted, to -o NEW_DIR");
    if (c->r.layer_number >= 0 && c->r.in == NULL)
        return cli_complain("--in is not given; with --layer, --in FILE is needed");
    if (c->r.layer_number >= 0 && c->r.output && cli_format_of(c->r.output) != CLI_SAFETENSORS)
        return cli_complain("-o is %s; accepted is a file ending in .safetensors", c->r.output);
    return convert_kind_parse(c->to, &c->kind);
}

/* ---- the new layer ------------------------------------------------------------------------ */

int convert_kind_parse(const char *word, convert_kind *kind)
{
    const int gqa = strncmp(word, "gqa:", 4) == 0, mla = strncmp(word, "mla:", 4) == 0;
    int64_t n = 1;

    if ((gqa || mla) &&
        cli_parse_integer(gqa ? "to gqa" : "to mla", word + 4, 1, INT32_MAX, &n) != CLI_DONE)
        return CLI_WRONG;
    *kind = (convert_kind){.word = word, .heads = (int32_t)n, .rank = (int32_t)n};
    if (gqa || strcmp(word, "mqa") == 0)
        kind->what = CONVERT_HEADS;
    else if (mla)
        kind->what = CONVERT_LATENT;
    else if (strcmp(word, "half-split") == 0 || strcmp(word, "interleaved") == 0)
        kind->what = CONVERT_PAIRING;
    else
        return cli_complain("--to is %s; accepted are gqa:HEADS, mqa, mla:RANK, half-split and "
                            "interleaved",
                            word);
    kind->pairing = *word == 'h' ? QKV_ROPE_HALF_SPLIT : QKV_ROPE_INTERLEAVED;
    return CLI_DONE;
}

int convert_layer(const convert_kind *kind, const qkv_layer *old, qkv_layer **made)
{
    char text[CLI_TEXT];
    qkv_status status;

    if (kind->what == CONVERT_HEADS)
        status = qkv_layer_pool_heads(old, kind->heads, NULL, made, text, sizeof text);
    else if (kind->what == CONVERT_LATENT)
        status = qkv_layer_factorise(old, kind->rank, NULL, made, text, sizeof text);
    else
        status = qkv_layer_pair(old, kind->pairing, NULL, made, text, sizeof text);
    return status == QKV_OK ? CLI_DONE : cli_complain("--to %s: %s", kind->word, text);
}

convert_change convert_compare(const float *before, const float *after, int64_t n)
{
    double most = 0, off = 0, squares = 0, off_squares = 0;

    for (int64_t i = 0; i < n; i++) {
        const double a = before[i], e = after[i] - a;
        most = fabs(a) > most ? fabs(a) : most;
        off = fabs(e) > off ? fabs(e) : off;
        squares += a * a;
        off_squares += e * e;
    }
    return (convert_change){most > 0 ? off / most : 0,
                            squares > 0 ? sqrt(off_squares / squares) : 0};
}

int64_t convert_kept(const qkv_layer *layer)
{
    qkv_cache_config f;
    qkv_cache_config_init(&f);
    qkv_layer_cache_config(layer, &f);
    return (int64_t)f.n_kv_heads *
           (f.flags & QKV_CACHE_LATENT ? f.head_dim : f.head_dim + f.head_dim_v);
}

int64_t convert_parameters(const qkv_layer *layer)
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
            cli_json_number(c->change.largest), "rms_change", cli_json_number(c->change.rms),
            "cache_elements", (json_int_t)convert_kept(made), "cache_elements_before", (json_int_t)convert_kept(old),
            "parameters", (json_int_t)convert_parameters(made), "parameters_before",
            (json_int_t)convert_parameters(old)));
    printf("%s to %s (%s)\n", was, is, c->to);
    printf("  largest change  %.3g of the largest number of the output\n", c->change.largest);
    printf("  rms change      %.3g of the output's\n", c->change.rms);
    printf("  cache           %lld elements a token, before %lld\n", (long long)convert_kept(made),
           (long long)convert_kept(old));
    printf("  parameters      %lld, before %lld\n", (long long)convert_parameters(made),
           (long long)convert_parameters(old));
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

static int convert_one(conversion *c)
{
    int code = layer_run_load(&c->r);

    if (code == CLI_DONE)
        code = layer_run_inputs(&c->r);
    if (code == CLI_DONE)
        code = layer_run_compute(&c->r);
    if (code == CLI_DONE) {
        c->old = c->r.layer;
        c->r.layer = NULL;
        c->before = c->r.out;
        c->r.out = NULL;
        code = convert_layer(&c->kind, c->old, &c->r.layer);
    }
    if (code == CLI_DONE)
        code = layer_run_compute(&c->r);
    if (code == CLI_DONE) {
        c->change = convert_compare(c->before, c->r.out, c->r.B * c->r.T * c->r.d);
        code = c->r.output ? write_weights(c) : CLI_DONE;
    }
    return code == CLI_DONE ? print(c) : code;
}

int cli_convert(int argc, char **argv)
{
    conversion c = {.r = {.layer_number = -1, .decode = -1, .rope_len = 1}};
    int code = parse(&c, argc, argv);

    if (code != CLI_DONE)
        return code < 0 ? CLI_DONE : code;
    if (c.r.layer_number < 0) {
        convert_model m = {.r = &c.r, .target = c.r.output, .kind = c.kind, .json = c.json};
        code = convert_checkpoint(&m);
    } else {
        code = convert_one(&c);
    }
    qkv_layer_destroy(c.old);
    free(c.before);
    layer_run_free(&c.r);
    return code;
}
