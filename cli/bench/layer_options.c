/* layer_options.c - the options of qkv bench layer. */
#include <getopt.h>
#include <stddef.h>
#include <string.h>

#include "../options.h"
#include "layer_bench.h"

enum { NUMBER = 1, LENGTH, THREADS, REPEAT, MEMORY, TIER, SHAPE, CACHE, JSON, AGAIN, HELP };

/* `at` is the place of a NUMBER or LENGTH in layer_options. */
// clang-format off
static const struct known {
    const char *name;
    int argument, code;
    size_t at;
    int64_t low, high;
} known[] = {
    {"d-model", required_argument, NUMBER, offsetof(layer_options, d_model), 1, 1 << 20},
    {"heads", required_argument, NUMBER, offsetof(layer_options, n_heads), 1, 65536},
    {"kv-heads", required_argument, NUMBER, offsetof(layer_options, n_kv_heads), 1, 65536},
    {"head-dim", required_argument, NUMBER, offsetof(layer_options, head_dim), 1, 1024},
    {"latent-dim", required_argument, NUMBER, offsetof(layer_options, latent_dim), 1, 1024},
    {"rope-dim", required_argument, NUMBER, offsetof(layer_options, rope_dim), 0, 1024},
    {"nope-dim", required_argument, NUMBER, offsetof(layer_options, nope_dim), 0, 1024},
    {"value-dim", required_argument, NUMBER, offsetof(layer_options, value_dim), 1, 1024},
    {"prefill", required_argument, LENGTH, offsetof(layer_options, prefill), 1, 1 << 24},
    {"decode", required_argument, LENGTH, offsetof(layer_options, decode), 1, 1 << 24},
    {"cache", required_argument, CACHE, 0, 0, 0},
    {"no-cache", no_argument, AGAIN, 0, 0, 0},
    {"shape", required_argument, SHAPE, 0, 0, 0},
    {"tier", required_argument, TIER, 0, 0, 0},
    {"threads", required_argument, THREADS, 0, 1, 1024},
    {"repeat", required_argument, REPEAT, 0, 1, 1000},
    {"memory", required_argument, MEMORY, 0, 16, 1 << 20},
    {"json", required_argument, JSON, 0, 0, 0},
    {"help", no_argument, HELP, 0, 0, 0}};
// clang-format on

#define N_KNOWN (sizeof known / sizeof known[0])

/* INT8_CHANNEL makes views of two parts, which attention alone (cached.c) does not do. */
static int set_format(layer_options *o, const char *text)
{
    for (int32_t f = QKV_FORMAT_F32; f <= QKV_FORMAT_E5M2; f++)
        if (f != QKV_FORMAT_INT8_CHANNEL && strcmp(text, qkv_format_name(f)) == 0) {
            o->format = f;
            return CLI_DONE;
        }
    return cli_complain("--cache is %s; f32, f16, bf16, int8, int4, e4m3 and e5m2 are accepted",
                        text);
}

static int set_number(layer_options *o, const struct known *k, const char *text)
{
    bench_options *c = &o->common;
    int64_t n = 0;

    if (cli_parse_integer(k->name, text, k->low, k->high, &n) != CLI_DONE)
        return CLI_WRONG;
    switch (k->code) {
    case THREADS: c->threads = (int32_t)n; break;
    case REPEAT: c->repeat = (int32_t)n; break;
    case MEMORY: c->memory = (size_t)n << 20; break;
    case LENGTH: memcpy((char *)o + k->at, &n, sizeof n); break;
    default: memcpy((char *)o + k->at, &(int32_t){(int32_t)n}, sizeof(int32_t));
    }
    return CLI_DONE;
}

static int set_option(layer_options *o, const struct known *k, const char *text)
{
    int32_t tier;

    switch (k->code) {
    case CACHE: return set_format(o, text);
    case AGAIN: o->no_cache = 1; return CLI_DONE;
    case SHAPE: o->common.shape = text; return CLI_DONE;
    case JSON: o->common.json = text; return CLI_DONE;
    case HELP: o->common.help = 1; return CLI_DONE;
    case TIER:
        o->common.tier = text;
        return cli_parse_tier("tier", text, &o->common.cpu_mask, &tier);
    default: return set_number(o, k, text);
    }
}

static int read_words(layer_options *o, int argc, char **argv)
{
    struct option list[N_KNOWN + 1] = {{NULL, 0, NULL, 0}};
    for (size_t i = 0; i < N_KNOWN; i++)
        list[i] = (struct option){known[i].name, known[i].argument, NULL, known[i].code};

    opterr = 0;
    optind = 1;
    for (;;) {
        int which = 0;
        const int before = optind;
        const int code = getopt_long(argc, argv, ":h", list, &which);
        if (code == -1)
            break;
        const char *word = argv[optind > before ? optind - 1 : before];
        if (code == ':')
            return cli_complain("%s needs a value; see qkv bench layer --help", word);
        if (code == '?')
            return cli_complain("%s is not an option of qkv bench layer; see qkv bench layer "
                                "--help", word);
        if (code == 'h')
            o->common.help = 1;
        else if (set_option(o, &known[which], optarg) != CLI_DONE)
            return CLI_WRONG;
    }
    if (optind < argc && !o->common.help)
        return cli_complain("%s is not expected; see qkv bench layer --help", argv[optind]);
    return CLI_DONE;
}

/* What the library would refuse too, but only after minutes, or with the word of another field. */
static int check(const layer_options *o)
{
    if (o->n_heads % o->n_kv_heads)
        return cli_complain("--kv-heads is %d; it must divide --heads, %d", (int)o->n_kv_heads,
                            (int)o->n_heads);
    if (o->head_dim % 2 || o->rope_dim % 2)
        return cli_complain("--head-dim is %d and --rope-dim %d; both must be even, as channels "
                            "turn in pairs", (int)o->head_dim, (int)o->rope_dim);
    if (o->nope_dim + o->rope_dim < 1 || o->nope_dim + o->rope_dim > 1024 ||
        o->latent_dim + o->rope_dim > 1024)
        return cli_complain("--nope-dim is %d, --rope-dim %d and --latent-dim %d; a head has 1 to "
                            "1024 channels and a latent row at most 1024", (int)o->nope_dim,
                            (int)o->rope_dim, (int)o->latent_dim);
    if (o->no_cache && o->common.shape != NULL)
        return cli_complain("--shape has no use with --no-cache");
    return bench_check_folder("json", o->common.json);
}

int layer_options_parse(layer_options *o, int argc, char **argv)
{
    *o = (layer_options){.common = {.repeat = 9, .cpu_mask = QKV_CPU_ALL, .threads = 1,
                                    .memory = (size_t)1 << 30},
                         .d_model = 4096, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128,
                         .latent_dim = 512, .rope_dim = 64, .nope_dim = 128, .value_dim = 128,
                         .prefill = 2048, .decode = 8192, .format = QKV_FORMAT_F32};
    bench_keep_command(&o->common, argc + 1, argv - 1);
    if (read_words(o, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    return o->common.help ? CLI_DONE : check(o);
}
