/* problem.h - tensors to a descriptor, outputs, and a run. */
#ifndef QKV_CLI_PROBLEM_H
#define QKV_CLI_PROBLEM_H

#include "load.h"

/* A problem with everything it points to.  Free with cli_problem_free, also after a failure. */
typedef struct cli_problem {
    qkv_desc desc;
    qkv_args args;
    qkv_tensor in[CLI_N_INPUTS];
    qkv_tensor o, lse, weights;     /* type QKV_NONE when not asked for */
    int32_t *lengths[CLI_N_INPUTS]; /* the per-sequence arrays desc points to, by input */
    uint8_t *block_bits;
    int32_t rank; /* of q */
} cli_problem;

/* Reads the inputs and describes them.  CLI_DONE or CLI_WRONG. */
int cli_problem_load(cli_problem *problem, const cli_options *options);

/* Allocates o, and lse and weights if asked for, and describes them. */
int cli_problem_outputs(cli_problem *problem, int want_lse, int want_weights);

void cli_problem_free(cli_problem *problem);

/* What a run was. */
typedef struct cli_report {
    char kernel[64];
    double seconds;
    size_t plan_bytes, workspace_bytes;
    int64_t visible_pairs;
    int32_t n_workers;
} cli_report;

/* Plans, checks and runs.  parallel NULL: this thread.  report may be NULL. */
int cli_run(const qkv_desc *desc, const qkv_args *args, const qkv_parallel *parallel,
            cli_report *report);

#endif
