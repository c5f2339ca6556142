/* cli.h - what the files of the qkv command share.  A client of the public headers only. */
#ifndef QKV_CLI_H
#define QKV_CLI_H

#include <jansson.h>
#include <stdint.h>

#include "qkv/qkv.h"

/* Exit codes. */
enum { CLI_DONE = 0, CLI_CHECK_FAILED = 1, CLI_WRONG = 2 };

/* Room for a sentence from the library. */
#define CLI_TEXT 512

/* Sets the "qkv attend" that sentences begin with. */
void cli_set_command(const char *command);

/* Prints "qkv attend: sentence" to stderr and returns CLI_WRONG. */
__attribute__((format(printf, 1, 2))) int cli_complain(const char *format, ...);

/* The same for a failure of the library, with its own sentence. */
int cli_complain_memory(const char *what, size_t bytes);

/* Subcommands; argv[0] is the subcommand's name.  Each returns an exit code. */
int cli_attend(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_cache(int argc, char **argv);
int cli_layer(int argc, char **argv);
int cli_size(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_help(int argc, char **argv);

/* The page of a topic ("", "attend", "check", "info", "bench", "cache", "layer", "size", "convert",
 * "help"), or
 * NULL.  Those of size and convert are in files of their own. */
extern const char cli_size_page[], cli_convert_page[];
const char *cli_help_page(const char *topic);

/* Prints and frees a JSON value.  CLI_WRONG if it is NULL (memory). */
int cli_print_json(json_t *value);

/* A number that JSON may not have: "inf", "-inf" and "nan" as strings. */
json_t *cli_json_number(double value);

/* "[2,8,128,64]" */
#define CLI_SHAPE 192
const char *cli_shape_text(const qkv_tensor *tensor, char text[CLI_SHAPE]);
json_t *cli_json_tensor(const qkv_tensor *tensor);

#endif
