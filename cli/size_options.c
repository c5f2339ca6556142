/* size_options.c - the options of qkv size. */
#include <getopt.h>
#include <math.h>
#include <string.h>

#include "options.h"
#include "size.h"

/* Codes of options that are counts of flags begin here, in the order of `counts`. */
enum { FIRST_COUNT = 512 };

// clang-format off
static const struct known {
    const char *name;
    int argument, code;
} known[] = {
    {"context", required_argument, 'c'},
    {"batch", required_argument, 'b'},
    {"chunk", required_argument, 'u'},
    {"encoder-tokens", required_argument, 'E'},
    {"kv", required_argument, 'k'},
    {"float", required_argument, 'f'},
    {"page-tokens", required_argument, 'P'},
    {"weights", required_argument, 'w'},
    {"compute", required_argument, 'C'},
    {"square", no_argument, 'q'},
    {"absorbed", required_argument, 'a'},
    {"memory", required_argument, 'm'},
    {"reserve", required_argument, 'R'},
    {"cache-only", no_argument, 'o'},
    {"latency", required_argument, 'l'},
    {"machine", required_argument, 'M'},
    {"machines", no_argument, 'L'},
    {"solve", required_argument, 's'},
    {"compare", required_argument, 'd'},
    {"ranks", required_argument, 'n'},
    {"split", required_argument, 'S'},
    {"as", required_argument, 'A'},
    {"layers", required_argument, FIRST_COUNT + 0},
    {"heads", required_argument, FIRST_COUNT + 1},
    {"kv-heads", required_argument, FIRST_COUNT + 2},
    {"head-dim", required_argument, FIRST_COUNT + 3},
    {"head-dim-v", required_argument, FIRST_COUNT + 4},
    {"d-model", required_argument, FIRST_COUNT + 5},
    {"d-ff", required_argument, FIRST_COUNT + 6},
    {"vocab", required_argument, FIRST_COUNT + 7},
    {"window", required_argument, FIRST_COUNT + 8},
    {"full-every", required_argument, FIRST_COUNT + 9},
    {"latent", required_argument, FIRST_COUNT + 10},
    {"rope-dim", required_argument, FIRST_COUNT + 11},
    {"q-latent", required_argument, FIRST_COUNT + 12},
    {"tied", no_argument, 't'},
    {"explain", no_argument, 'x'},
    {"json", no_argument, 'j'},
    {"csv", no_argument, 'v'},
    {"help", no_argument, 'h'}};
// clang-format on

#define N_KNOWN (sizeof known / sizeof known[0])

/* ---- values ------------------------------------------------------------------------------- */

static int set_count(size_options *o, int code, const char *text)
{
    size_flags *f = &o->flags;
    const struct {
        int64_t *value, high;
    } counts[] = {{&f->layers, QKV_MODEL_MAX_LAYERS},
                  {&f->heads, 65536},
                  {&f->kv_heads, 65536},
                  {&f->head_dim, 1024},
                  {&f->head_dim_v, 1024},
                  {&f->d_model, 1 << 20},
                  {&f->d_ff, 1 << 26},
                  {&f->vocab, (int64_t)1 << 32},
                  {&f->window, INT32_MAX},
                  {&f->full_every, QKV_MODEL_MAX_LAYERS},
                  {&f->latent, 1024},
                  {&f->rope_dim, 1024},
                  {&f->q_latent, 1 << 20}};
    const int i = code - FIRST_COUNT;
    const char *name = "?";

    for (size_t k = 0; k < N_KNOWN; k++)
        name = known[k].code == code ? known[k].name : name;
    f->given = 1;
    return size_parse_count(name, text, 1, counts[i].high, counts[i].value);
}

static int set_small(const char *option, const char *text, int64_t low, int64_t high,
                     int32_t *value)
{
    int64_t n = 0;
    const int code = size_parse_count(option, text, low, high, &n);
    *value = (int32_t)n;
    return code;
}

static int set_type(const char *option, const char *text, int32_t *type)
{
    static const char *const words[] = {"f32", "f16", "bf16"};
    static const int32_t types[] = {QKV_F32, QKV_F16, QKV_BF16};
    int i = 0;
    const int code = size_one_of(option, text, words, 3, &i);
    *type = types[i];
    return code;
}

/* Options that change the setup; -1 for another. */
static int set_setup(size_options *o, int code, const char *text)
{
    static const char *const splits[] = {"heads", "context"}, *const answers[] = {"no", "yes"};
    qkv_size_setup *s = &o->setup;
    int i = 0, status;
    switch (code) {
    case 'c':
        o->context_given = 1;
        return size_parse_count("context", text, 1, INT32_MAX, &s->context);
    case 'b':
        return size_parse_count("batch", text, 1, 65535, &s->batch);
    case 'u':
        return size_parse_count("chunk", text, 1, INT32_MAX, &s->chunk);
    case 'E':
        return size_parse_count("encoder-tokens", text, 1, INT32_MAX, &s->memory_tokens);
    case 'k':
        return size_parse_formats(text, s);
    case 'f':
        return set_type("float", text, &s->float_type);
    case 'P':
        return set_small("page-tokens", text, 16, 256, &s->page_tokens);
    case 'w':
        o->weights_given = 1;
        return size_parse_weights(text, s);
    case 'C':
        o->compute_given = 1;
        return set_type("compute", text, &s->compute);
    case 'q':
        s->pairs = QKV_COUNT_SQUARE;
        return CLI_DONE;
    case 'a':
        status = size_one_of("absorbed", text, answers, 2, &i);
        s->absorbed = i;
        return status;
    case 'R':
        return size_parse_bytes("reserve", text, &s->reserve);
    case 'o':
        s->cache_only = 1;
        return CLI_DONE;
    case 'n':
        return set_small("ranks", text, 1, 65536, &s->ranks);
    case 'S':
        status = size_one_of("split", text, splits, 2, &i);
        s->split = i == 0 ? QKV_SPLIT_HEADS : QKV_SPLIT_CONTEXT;
        return status;
    default:
        return -1;
    }
}

static int set_option(size_options *o, int code, const char *text)
{
    const int status = code >= FIRST_COUNT ? set_count(o, code, text) : set_setup(o, code, text);
    if (status >= 0)
        return status;
    switch (code) {
    case 'm':
        return size_parse_bytes("memory", text, &o->memory);
    case 'l':
        return size_parse_seconds("latency", text, &o->latency);
    case 'M':
        o->machine = text;
        return CLI_DONE;
    case 's':
        return size_parse_solve(text, o);
    case 'd':
        o->compare = text;
        return CLI_DONE;
    case 'A':
        o->as = text;
        return CLI_DONE;
    default:
        break;
    }
    o->machines |= code == 'L';
    o->flags.tied |= code == 't';
    o->flags.given |= code == 't';
    o->explain |= code == 'x';
    o->json |= code == 'j';
    o->csv |= code == 'v';
    o->help |= code == 'h';
    return CLI_DONE;
}

/* ---- the line ----------------------------------------------------------------------------- */

static int check(const size_options *o)
{
    if (o->config == NULL && !o->flags.given)
        return cli_complain("no model is given: a config.json or a folder with one, or --layers, "
                            "--heads, --d-model and so on");
    if (o->config != NULL && o->flags.given)
        return cli_complain("%s is given and flags that describe a model; one of them, please",
                            o->config);
    if (o->as != NULL && o->config == NULL)
        return cli_complain("--as is %s; it needs a configuration", o->as);
    if (o->json + o->csv + o->explain > 1)
        return cli_complain("--json, --csv and --explain exclude each other");
    if (o->n_solve > 0 && o->memory == 0 && !(o->latency > 0))
        return cli_complain("--solve needs --memory or --latency, or both");
    if (o->latency > 0 && o->machine == NULL)
        return cli_complain("--latency needs --machine, whose rates make seconds of bytes");
    return CLI_DONE;
}

int size_parse(size_options *o, int argc, char **argv)
{
    struct option list[N_KNOWN + 1];

    memset(o, 0, sizeof *o);
    memset(list, 0, sizeof list);
    qkv_size_setup_init(&o->setup);
    for (size_t i = 0; i < N_KNOWN; i++) {
        list[i].name = known[i].name;
        list[i].has_arg = known[i].argument;
        list[i].val = known[i].code;
    }
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":h", list, NULL)) != -1;) {
        if (code == '?')
            return cli_complain("%s is not an option of qkv size; see qkv help size",
                                argv[optind - 1]);
        if (code == ':')
            return cli_complain("%s needs a value; see qkv help size", argv[optind - 1]);
        if (set_option(o, code, optarg) != CLI_DONE)
            return CLI_WRONG;
    }
    if (o->help || o->machines)
        return CLI_DONE;
    if (optind + 1 < argc)
        return cli_complain("%s is not expected after %s; one model at a time, others with "
                            "--compare",
                            argv[optind + 1], argv[optind]);
    o->config = optind < argc ? argv[optind] : NULL;
    return check(o);
}
