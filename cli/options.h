/* options.h - the options of attend and check, parsed. */
#ifndef QKV_CLI_OPTIONS_H
#define QKV_CLI_OPTIONS_H

#include "cli.h"

/* Inputs that come from files, by the name of their option. */
typedef enum cli_input {
    CLI_Q,
    CLI_K,
    CLI_V,
    CLI_MASK,
    CLI_BIAS,
    CLI_SINKS,
    CLI_ALIBI,
    CLI_BLOCK_MASK,
    CLI_Q_LENS,
    CLI_KV_LENS,
    CLI_KV_STARTS,
    CLI_Q_OFFSET,
    CLI_CU_SEQLENS_Q,
    CLI_CU_SEQLENS_K,
    CLI_N_INPUTS
} cli_input;

/* "kv-lens" for the option, "kv_lens" for the tensor in a .safetensors file. */
const char *cli_input_option(cli_input input);
const char *cli_input_tensor(cli_input input);

typedef struct cli_options {
    int help, json, verbose;
    const char *in;
    const char *input[CLI_N_INPUTS]; /* as given; NULL if not */
    const char *output, *lse, *weights, *heatmap, *labels, *labels_q, *heatmap_heads;
    int64_t heatmap_seq;
    int32_t stage, causal, align, precision, block_q, block_k, threads;
    int64_t window_left, window_right;
    double scale, softcap;
    uint32_t cpu_mask;
    int32_t tier; /* index of --cpu, or -1 */
    uint64_t seed;
    int seed_given;
    int64_t cases;
} cli_options;

/* Parses the arguments of "attend" or "check" (argv[0]).  CLI_DONE or CLI_WRONG. */
int cli_options_parse(cli_options *options, int argc, char **argv);

/* Values of any command's --option.  CLI_DONE, or CLI_WRONG with a sentence said. */
int cli_parse_integer(const char *option, const char *text, int64_t low, int64_t high,
                      int64_t *value);

/* The name of a tier: the mask that hides those above it, and its index. */
int cli_parse_tier(const char *option, const char *text, uint32_t *cpu_mask, int32_t *index);

#endif
