/* layer.c - qkv layer: what the attention of a model is, from its config.json. */
#include "layer.h"
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

typedef struct options {
    int json, help;
    const char *layer, *as;
} options;

static int parse(options *o, int argc, char **argv)
{
    static const struct option list[] = {{"json", no_argument, NULL, 'j'},
                                         {"layer", required_argument, NULL, 'l'},
                                         {"as", required_argument, NULL, 'a'},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":h", list, NULL)) != -1;) {
        if (code == ':')
            return cli_complain("%s needs a value; see qkv layer --help", argv[optind - 1]);
        if (code == '?')
            return cli_complain("%s is not an option of qkv layer info; accepted are --layer, "
                                "--as, --json and --help",
                                argv[optind - 1]);
        o->json |= code == 'j';
        o->help |= code == 'h';
        if (code == 'l')
            o->layer = optarg;
        if (code == 'a')
            o->as = optarg;
    }
    if (!o->help && optind + 1 != argc)
        return cli_complain("info takes one MODEL_DIR, a folder with config.json or the file; %d "
                            "were given",
                            argc - optind);
    return CLI_DONE;
}

int cli_layer_info(int argc, char **argv)
{
    options o = {0, 0, NULL, NULL};
    qkv_config_file *file;
    qkv_model m;
    char text[CLI_TEXT];
    int64_t only = -1;

    int code = parse(&o, argc, argv);
    if (code != CLI_DONE)
        return code;
    if (o.help) {
        fputs(cli_help_page("layer"), stdout);
        return CLI_DONE;
    }
    const char *path = argv[optind];
    if (qkv_config_open(path, &file, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const qkv_config config = qkv_config_of(file);
    if (qkv_model_read(&config, o.as, &m, text, sizeof text) != QKV_OK)
        code = cli_complain("%s: %s", qkv_config_path(file), text);
    if (code == CLI_DONE && o.layer != NULL) {
        const int32_t most = m.encoder_layers > m.n_layers ? m.encoder_layers : m.n_layers;
        code = cli_parse_integer("layer", o.layer, 0, most - 1, &only);
    }
    if (code == CLI_DONE)
        code = o.json ? cli_layer_json(&m, path, (int32_t)only)
                      : cli_layer_text(&m, path, (int32_t)only);
    qkv_config_close(file);
    return code;
}

int cli_layer(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {{"info", cli_layer_info}, {"run", cli_layer_run}};
    const char *verb = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verb, verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0) {
        fputs(cli_help_page("layer"), stdout);
        return CLI_DONE;
    }
    return cli_complain("%s%s; accepted are info MODEL_DIR and run MODEL_DIR",
                        *verb ? verb : "no subcommand is given",
                        *verb ? " is not a subcommand" : "");
}
