/* load.h - inputs from files. */
#ifndef QKV_CLI_LOAD_H
#define QKV_CLI_LOAD_H

#include "options.h"

/* Reads every input the options name into tensors, indexed by cli_input; those that are not there
 * stay empty (type QKV_NONE).  Lengths and offsets arrive as i64.  CLI_DONE or CLI_WRONG; the
 * tensors are the caller's to free in either case. */
int cli_load_inputs(const cli_options *options, qkv_tensor tensors[CLI_N_INPUTS]);

/* Whether a path ends in .npy or .safetensors; complains about others, naming the option. */
typedef enum cli_format { CLI_NPY, CLI_SAFETENSORS, CLI_OTHER } cli_format;
cli_format cli_format_of(const char *path);

/* The words of a file, one a line, as pointers into *text; both are the caller's to free. */
int cli_load_words(const char *path, char **text, char ***words, int64_t *n);

#endif
