/* bench_options.c - the options of qkv bench. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../options.h"
#include "bench.h"

enum { SHAPES = 1, CALIBRATE = 2, SCALING = 4, LIST = 8, RUNS = SHAPES | SCALING, ANY = 15 };

/* `used` says which of the things the command does an option is for. */
// clang-format off
static const struct known {
    const char *name;
    int argument, code, used;
} known[] = {
    {"threads", required_argument, 't', SHAPES | CALIBRATE | SCALING},
    {"memory", required_argument, 'm', SHAPES | CALIBRATE},
    {"shape", required_argument, 's', RUNS},
    {"tier", required_argument, 'c', RUNS},
    {"repeat", required_argument, 'r', RUNS},
    {"json", required_argument, 'j', RUNS},
    {"calibrate", optional_argument, 'p', CALIBRATE},
    {"scaling", no_argument, 'g', SCALING},
    {"list", no_argument, 'l', LIST},
    {"help", no_argument, 'h', ANY}};
// clang-format on

#define N_KNOWN (sizeof known / sizeof known[0])

/* The words as they were typed, before getopt_long puts them into another order. */
void bench_keep_command(bench_options *options, int argc, char **argv)
{
    size_t used = (size_t)snprintf(options->command, sizeof options->command, "qkv");
    for (int i = 0; i < argc && used < sizeof options->command; i++)
        used += (size_t)snprintf(options->command + used, sizeof options->command - used, " %s",
                                 argv[i]);
}

static int set_number(bench_options *options, int code, const char *text)
{
    int64_t n = 0;
    int status;
    if (code == 'm') {
        status = cli_parse_integer("memory", text, 16, 1 << 20, &n);
        options->memory = (size_t)n << 20;
    } else if (code == 't') {
        status = cli_parse_integer("threads", text, 1, 1024, &n);
        options->threads = (int32_t)n;
    } else {
        status = cli_parse_integer("repeat", text, 1, 1000, &n);
        options->repeat = (int32_t)n;
    }
    return status;
}

static int set_option(bench_options *options, int code, const char *text)
{
    int32_t tier;
    switch (code) {
    case 's':
        options->shape = text;
        return CLI_DONE;
    case 'j':
        options->json = text;
        return CLI_DONE;
    case 'p':
        options->calibrate = 1;
        options->profile = text;
        return CLI_DONE;
    case 'g':
        options->scaling = 1;
        return CLI_DONE;
    case 'l':
        options->list = 1;
        return CLI_DONE;
    case 'h':
        options->help = 1;
        return CLI_DONE;
    case 'c':
        options->tier = text;
        return cli_parse_tier("tier", text, &options->cpu_mask, &tier);
    default:
        return set_number(options, code, text);
    }
}

/* given[i]: option i was on the command line. */
static int check_uses(const bench_options *options, const int *given)
{
    static const struct {
        int use;
        const char *name;
    } uses[] = {{CALIBRATE, "--calibrate"}, {SCALING, "--scaling"}, {LIST, "--list"}};
    const int use = (options->calibrate ? CALIBRATE : 0) | (options->scaling ? SCALING : 0) |
                    (options->list ? LIST : 0);
    if (use & (use - 1))
        return cli_complain("--calibrate, --scaling and --list exclude each other");
    for (size_t u = 0; u < sizeof uses / sizeof uses[0]; u++)
        for (size_t i = 0; i < N_KNOWN; i++)
            if (use == uses[u].use && given[i] && !(known[i].used & use))
                return cli_complain("--%s has no use with %s", known[i].name, uses[u].name);
    return CLI_DONE;
}

/* A folder that cannot be written into is found out now and not after minutes. */
int bench_check_folder(const char *option, const char *path)
{
    struct stat now;
    if (path == NULL)
        return CLI_DONE;
    if (stat(path, &now) == 0 && S_ISDIR(now.st_mode))
        return cli_complain("--%s is %s, which is a folder", option, path);
    if (stat(path, &now) == 0 && !S_ISREG(now.st_mode))
        return CLI_DONE; /* a pipe or a device is written in place */
    const char *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    char *folder = malloc(n + 2);
    if (folder == NULL)
        return cli_complain_memory("a path", n);
    memcpy(folder, path, n);
    memcpy(folder + n, n == 0 ? "." : "", n == 0 ? 2 : 1);
    const int refused = access(folder, W_OK | X_OK) != 0 ? errno : 0;
    free(folder);
    if (refused)
        return cli_complain("--%s is %s, whose folder cannot be written into: %s", option, path,
                            strerror(refused));
    return CLI_DONE;
}

static int read_words(bench_options *options, int *given, int argc, char **argv)
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
            return cli_complain("%s needs a value; see qkv bench --help", word);
        if (code == '?')
            return cli_complain("%s is not an option of qkv bench; see qkv bench --help", word);
        /* getopt_long takes an optional value only after "=". */
        if (code == 'p' && optarg == NULL && optind < argc && argv[optind][0] != '-')
            optarg = argv[optind++];
        given[which] = 1;
        const int status = set_option(options, code, optarg);
        if (status != CLI_DONE)
            return status;
    }
    if (optind < argc && !options->help)
        return cli_complain("%s is not expected; see qkv bench --help", argv[optind]);
    return CLI_DONE;
}

int bench_options_parse(bench_options *options, int argc, char **argv)
{
    int given[N_KNOWN] = {0};

    memset(options, 0, sizeof *options);
    options->repeat = 9;
    options->cpu_mask = QKV_CPU_ALL;
    options->memory = (size_t)1 << 30;
    bench_keep_command(options, argc, argv);
    if (read_words(options, given, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (options->help)
        return CLI_DONE;
    if (options->threads == 0)
        options->threads = options->calibrate || options->scaling ? qkv_cpu_count() : 1;
    if (check_uses(options, given) != CLI_DONE)
        return CLI_WRONG;
    return options->calibrate ? bench_check_folder("calibrate", options->profile)
                              : bench_check_folder("json", options->json);
}
