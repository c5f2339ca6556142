/* options.c - see options.h.  getopt_long does the splitting; this file names and checks. */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ATTEND = 1, CHECK = 2, BOTH = 3 };

/* Codes of options after those of the inputs, which are FIRST_INPUT + cli_input. */
enum {
    FIRST_INPUT = 256,
    OPT_IN = FIRST_INPUT + CLI_N_INPUTS,
    OPT_LSE,
    OPT_WEIGHTS,
    OPT_STAGE,
    OPT_BLOCK_SIZE,
    OPT_CAUSAL,
    OPT_CAUSAL_STRICT,
    OPT_ALIGN,
    OPT_WINDOW,
    OPT_SCALE,
    OPT_SOFTCAP,
    OPT_PRECISION,
    OPT_THREADS,
    OPT_CPU,
    OPT_HEATMAP,
    OPT_HEATMAP_HEAD,
    OPT_HEATMAP_SEQ,
    OPT_LABELS,
    OPT_LABELS_Q,
    OPT_JSON,
    OPT_SEED,
    OPT_CASES,
    OPT_VERBOSE
};

// clang-format off
static const struct known {
    const char *name;
    int argument, code, commands;
} known[] = {
    {"q", 1, FIRST_INPUT + CLI_Q, BOTH},
    {"k", 1, FIRST_INPUT + CLI_K, BOTH},
    {"v", 1, FIRST_INPUT + CLI_V, BOTH},
    {"mask", 1, FIRST_INPUT + CLI_MASK, BOTH},
    {"bias", 1, FIRST_INPUT + CLI_BIAS, BOTH},
    {"sinks", 1, FIRST_INPUT + CLI_SINKS, BOTH},
    {"alibi", 1, FIRST_INPUT + CLI_ALIBI, BOTH},
    {"block-mask", 1, FIRST_INPUT + CLI_BLOCK_MASK, BOTH},
    {"q-lens", 1, FIRST_INPUT + CLI_Q_LENS, BOTH},
    {"kv-lens", 1, FIRST_INPUT + CLI_KV_LENS, BOTH},
    {"kv-starts", 1, FIRST_INPUT + CLI_KV_STARTS, BOTH},
    {"q-offset", 1, FIRST_INPUT + CLI_Q_OFFSET, BOTH},
    {"cu-seqlens-q", 1, FIRST_INPUT + CLI_CU_SEQLENS_Q, BOTH},
    {"cu-seqlens-k", 1, FIRST_INPUT + CLI_CU_SEQLENS_K, BOTH},
    {"in", 1, OPT_IN, BOTH},
    {"output", 1, 'o', ATTEND},
    {"lse", 1, OPT_LSE, ATTEND},
    {"weights", 1, OPT_WEIGHTS, ATTEND},
    {"stage", 1, OPT_STAGE, ATTEND},
    {"block-size", 1, OPT_BLOCK_SIZE, BOTH},
    {"causal", 0, OPT_CAUSAL, BOTH},
    {"causal-strict", 0, OPT_CAUSAL_STRICT, BOTH},
    {"align", 1, OPT_ALIGN, BOTH},
    {"window", 1, OPT_WINDOW, BOTH},
    {"scale", 1, OPT_SCALE, BOTH},
    {"softcap", 1, OPT_SOFTCAP, BOTH},
    {"precision", 1, OPT_PRECISION, BOTH},
    {"threads", 1, OPT_THREADS, BOTH},
    {"cpu", 1, OPT_CPU, BOTH},
    {"heatmap", 1, OPT_HEATMAP, ATTEND},
    {"heatmap-head", 1, OPT_HEATMAP_HEAD, ATTEND},
    {"heatmap-seq", 1, OPT_HEATMAP_SEQ, ATTEND},
    {"labels", 1, OPT_LABELS, ATTEND},
    {"labels-q", 1, OPT_LABELS_Q, ATTEND},
    {"seed", 1, OPT_SEED, CHECK},
    {"cases", 1, OPT_CASES, CHECK},
    {"verbose", 0, OPT_VERBOSE, CHECK},
    {"json", 0, OPT_JSON, BOTH},
    {"help", 0, 'h', BOTH}};
// clang-format on

#define N_KNOWN (sizeof known / sizeof known[0])

const char *cli_input_option(cli_input input)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (known[i].code == FIRST_INPUT + (int)input)
            return known[i].name;
    return "?";
}

const char *cli_input_tensor(cli_input input)
{
    static const char *const names[CLI_N_INPUTS] = {
        "q",          "k",      "v",       "mask",      "bias",     "sinks",        "alibi",
        "block_mask", "q_lens", "kv_lens", "kv_starts", "q_offset", "cu_seqlens_q", "cu_seqlens_k"};
    return names[input];
}

/* ---- values ------------------------------------------------------------------------------- */

static int parse_integer(const char *text, const char **end, int64_t *value)
{
    char *stop;
    errno = 0;
    const long long v = strtoll(text, &stop, 10);
    if (stop == text || errno != 0 || isspace((unsigned char)*text))
        return 0;
    *value = v;
    *end = stop;
    return 1;
}

int cli_parse_integer(const char *option, const char *text, int64_t low, int64_t high,
                      int64_t *value)
{
    const char *end;
    if (parse_integer(text, &end, value) && *end == '\0' && *value >= low && *value <= high)
        return CLI_DONE;
    return cli_complain("--%s is %s; accepted are whole numbers from %lld to %lld", option, text,
                        (long long)low, (long long)high);
}

static int two_integers(const char *option, const char *text, int64_t low, int64_t high,
                        int64_t *first, int64_t *second)
{
    const char *end;
    if (parse_integer(text, &end, first) && *end == ',' && parse_integer(end + 1, &end, second) &&
        *end == '\0' && *first >= low && *second >= low && *first <= high && *second <= high)
        return CLI_DONE;
    return cli_complain(
        "--%s is %s; accepted are two whole numbers with a comma between, each from "
        "%lld to %lld",
        option, text, (long long)low, (long long)high);
}

static int real_number(const char *option, const char *text, double low, double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (end != text && *end == '\0' && !isspace((unsigned char)*text) && isfinite(*value) &&
        *value >= low)
        return CLI_DONE;
    return cli_complain("--%s is %s; accepted are %s", option, text,
                        low < 0 ? "finite numbers" : "finite numbers from 0 up");
}

/* One of the words; n of them, whose index is the value. */
static int one_of(const char *option, const char *text, const char *const *words, int n,
                  int32_t *value)
{
    char list[128] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return CLI_DONE;
        }
        strcat(strcat(list, i == 0 ? "" : i == n - 1 ? " and " : ", "), words[i]);
    }
    return cli_complain("--%s is %s; accepted are %s", option, text, list);
}

int cli_parse_tier(const char *option, const char *text, uint32_t *cpu_mask, int32_t *index)
{
    char list[128] = "";
    uint32_t flags = 0;
    const int32_t n = qkv_tier_count();
    for (int32_t i = 0; i < n; i++) {
        qkv_tier tier;
        if (qkv_tier_info(i, &tier) != QKV_OK)
            continue;
        flags |= tier.flag;
        if (strcmp(text, tier.name) == 0) {
            if (!tier.available)
                return cli_complain("--%s is %s, which this machine does not offer: %s", option,
                                    text, tier.reason);
            *cpu_mask = flags;
            *index = i;
            return CLI_DONE;
        }
        if (strlen(list) + strlen(tier.name) + 6 < sizeof list)
            strcat(strcat(list, i == 0 ? "" : i == n - 1 ? " and " : ", "), tier.name);
    }
    return cli_complain("--%s is %s; accepted are %s", option, text, list);
}

/* ---- options ------------------------------------------------------------------------------ */

static int set_causal(cli_options *options, int32_t causal)
{
    if (options->causal != QKV_CAUSAL_NONE && options->causal != causal)
        return cli_complain("--causal and --causal-strict exclude each other");
    options->causal = causal;
    return CLI_DONE;
}

static int set_numeric(cli_options *options, int code, const char *text)
{
    static const char *const stages[] = {"scores", "capped", "biased", "weights"};
    static const char *const aligns[] = {"bottom-right", "top-left"};
    static const char *const precisions[] = {"highest", "high", "medium"};
    int64_t a = 0, b = 0;
    int status;
    switch (code) {
    case OPT_STAGE:
        return one_of("stage", text, stages, 4, &options->stage);
    case OPT_ALIGN:
        return one_of("align", text, aligns, 2, &options->align);
    case OPT_PRECISION:
        return one_of("precision", text, precisions, 3, &options->precision);
    case OPT_BLOCK_SIZE:
        status = two_integers("block-size", text, 1, INT32_MAX, &a, &b);
        options->block_q = (int32_t)a;
        options->block_k = (int32_t)b;
        return status;
    case OPT_WINDOW:
        return two_integers("window", text, -1, INT32_MAX, &options->window_left,
                            &options->window_right);
    case OPT_SCALE:
        return real_number("scale", text, -HUGE_VAL, &options->scale);
    case OPT_SOFTCAP:
        return real_number("softcap", text, 0, &options->softcap);
    case OPT_THREADS:
        status = cli_parse_integer("threads", text, 1, 1024, &a);
        options->threads = (int32_t)a;
        return status;
    case OPT_HEATMAP_SEQ:
        return cli_parse_integer("heatmap-seq", text, 0, INT32_MAX, &options->heatmap_seq);
    case OPT_SEED:
        status = cli_parse_integer("seed", text, 0, INT64_MAX, &a);
        options->seed = (uint64_t)a;
        options->seed_given = 1;
        return status;
    case OPT_CASES:
        return cli_parse_integer("cases", text, 1, 1000000000, &options->cases);
    default:
        return cli_parse_tier("cpu", text, &options->cpu_mask, &options->tier);
    }
}

// clang-format off
static int set_option(cli_options *options, int code, const char *text)
{
    if (code >= FIRST_INPUT && code < FIRST_INPUT + CLI_N_INPUTS) {
        options->input[code - FIRST_INPUT] = text;
        return CLI_DONE;
    }
    switch (code) {
    case OPT_CAUSAL: return set_causal(options, QKV_CAUSAL_INCLUSIVE);
    case OPT_CAUSAL_STRICT: return set_causal(options, QKV_CAUSAL_STRICT);
    case 'h': options->help = 1; return CLI_DONE;
    case 'o': options->output = text; return CLI_DONE;
    case OPT_IN: options->in = text; return CLI_DONE;
    case OPT_LSE: options->lse = text; return CLI_DONE;
    case OPT_WEIGHTS: options->weights = text; return CLI_DONE;
    case OPT_HEATMAP: options->heatmap = text; return CLI_DONE;
    case OPT_HEATMAP_HEAD: options->heatmap_heads = text; return CLI_DONE;
    case OPT_LABELS: options->labels = text; return CLI_DONE;
    case OPT_LABELS_Q: options->labels_q = text; return CLI_DONE;
    case OPT_JSON: options->json = 1; return CLI_DONE;
    case OPT_VERBOSE: options->verbose = 1; return CLI_DONE;
    default: return set_numeric(options, code, text);
    }
}
// clang-format on

static void set_defaults(cli_options *options)
{
    memset(options, 0, sizeof *options);
    options->stage = QKV_STAGE_WEIGHTS;
    options->align = QKV_ALIGN_BOTTOM_RIGHT;
    options->precision = QKV_PRECISION_HIGHEST;
    options->block_q = options->block_k = 64;
    options->threads = 0;
    options->window_left = options->window_right = QKV_UNBOUNDED;
    options->scale = QKV_SCALE_DEFAULT;
    options->cpu_mask = QKV_CPU_ALL;
    options->tier = -1;
    options->cases = 200;
}

int cli_options_parse(cli_options *options, int argc, char **argv)
{
    const int command = strcmp(argv[0], "check") == 0 ? CHECK : ATTEND;
    struct option list[N_KNOWN + 1];
    size_t n = 0;
    for (size_t i = 0; i < N_KNOWN; i++)
        if (known[i].commands & command)
            list[n++] = (struct option){known[i].name, known[i].argument, NULL, known[i].code};
    list[n] = (struct option){NULL, 0, NULL, 0};

    set_defaults(options);
    opterr = 0;
    optind = 1;
    for (;;) {
        const int before = optind;
        const int code = getopt_long(argc, argv, command == ATTEND ? ":ho:" : ":h", list, NULL);
        if (code == -1)
            break;
        const char *word = argv[optind > before ? optind - 1 : before];
        if (code == ':')
            return cli_complain("%s needs a value; see qkv %s --help", word, argv[0]);
        if (code == '?')
            return cli_complain("%s is not an option of qkv %s; see qkv %s --help", word, argv[0],
                                argv[0]);
        const int status = set_option(options, code, optarg);
        if (status != CLI_DONE)
            return status;
    }
    if (optind < argc && !options->help)
        return cli_complain("%s is not expected: everything is given by options; see qkv %s --help",
                            argv[optind], argv[0]);
    if (options->threads == 0)
        options->threads = qkv_cpu_count();
    return CLI_DONE;
}
