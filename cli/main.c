/* main.c - the qkv command: finds the subcommand, and what all subcommands use to speak. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *command_name = "";

void cli_set_command(const char *command) { command_name = command; }

int cli_complain(const char *format, ...)
{
    char text[2 * CLI_TEXT];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "qkv%s%s: %s\n", *command_name ? " " : "", command_name, text);
    return CLI_WRONG;
}

int cli_complain_memory(const char *what, size_t bytes)
{
    return cli_complain("not enough memory for %s: %zu bytes", what, bytes);
}

int cli_print_json(json_t *value)
{
    if (value == NULL)
        return cli_complain("not enough memory for the JSON output");
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(value);
    return CLI_DONE;
}

json_t *cli_json_number(double value)
{
    if (isnan(value))
        return json_string("nan");
    if (isinf(value))
        return json_string(value > 0 ? "inf" : "-inf");
    return json_real(value);
}

const char *cli_shape_text(const qkv_tensor *tensor, char text[CLI_SHAPE])
{
    int n = snprintf(text, CLI_SHAPE, "[");
    for (int32_t r = 0; r < tensor->rank; r++)
        n += snprintf(text + n, CLI_SHAPE - (size_t)n, r == 0 ? "%lld" : ",%lld",
                      (long long)tensor->shape[r]);
    snprintf(text + n, CLI_SHAPE - (size_t)n, "]");
    return text;
}

json_t *cli_json_tensor(const qkv_tensor *tensor)
{
    json_t *shape = json_array();
    for (int32_t r = 0; r < tensor->rank; r++)
        json_array_append_new(shape, json_integer(tensor->shape[r]));
    return json_pack("{s:s, s:o}", "type", qkv_type_name((qkv_type)tensor->type), "shape", shape);
}

static int cli_version(int argc, char **argv)
{
    if (argc > 1)
        return cli_complain("%s is not expected after --version", argv[1]);
    printf("qkv %s\n", qkv_version_string());
    return CLI_DONE;
}

static int dispatch(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"attend", cli_attend},     {"check", cli_check},  {"info", cli_info},
                    {"bench", cli_bench},       {"cache", cli_cache},  {"layer", cli_layer},
                    {"size", cli_size},         {"convert", cli_convert},
                    {"help", cli_help},
                    {"--help", cli_help},       {"-h", cli_help},      {"--version", cli_version},
                    {"-V", cli_version}};
    if (argc < 2) {
        fputs("qkv: which command? One of attend, check, info, bench, cache, layer, size, convert and help; see "
              "qkv help\n", stderr);
        return CLI_WRONG;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            if (argv[1][0] != '-')
                cli_set_command(argv[1]);
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return cli_complain(
        "%s is not a command; accepted are attend, check, info, bench, cache, layer, size, convert and help; see "
        "qkv help", argv[1]);
}

int main(int argc, char **argv)
{
    /* A file that may not grow is an error of write, which has a sentence, and not a death. */
    signal(SIGXFSZ, SIG_IGN);
    int code = dispatch(argc, argv);
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_complain("cannot write to standard output: %s", strerror(errno));
        code = CLI_WRONG;
    }
    return code;
}
