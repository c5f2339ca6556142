/* check.h - the parts of qkv check: random problems, and comparing with the oracle. */
#ifndef QKV_CLI_CHECK_H
#define QKV_CLI_CHECK_H

#include "cli.h"

#define CLI_CASE_BUFFERS 24

/* A problem with random sizes, layouts, options and numbers, all from one seed. */
typedef struct cli_case {
    qkv_desc desc;
    qkv_args args;
    void *buffers[CLI_CASE_BUFFERS]; /* everything desc and args point to */
    int n_buffers;
    char text[320]; /* what it is, in words */
} cli_case;

/* False if memory runs out. */
int cli_case_make(cli_case *c, uint64_t seed);
void cli_case_free(cli_case *c);

/* What the oracle says about a problem. */
typedef struct cli_truth {
    qkv_ref_out out;
    void *memory;
} cli_truth;

/* CLI_DONE or CLI_WRONG.  weights: also those. */
int cli_truth_make(cli_truth *truth, const qkv_desc *desc, const qkv_args *args, int weights);
void cli_truth_free(cli_truth *truth);

/* The element that comes closest to its budget, or is furthest beyond. */
typedef struct cli_worst {
    double ratio; /* error / budget; infinite for what has no budget, such as a NaN too many */
    double error, budget; /* of that element */
    const char *tensor;   /* "o", "lse", "weights" */
    int64_t at[4];        /* sequence, head, query, channel or key */
} cli_worst;

/* Fills what a run has to write with NaN, so that an element it leaves out shows. */
void cli_poison_outputs(const qkv_desc *desc, const qkv_args *args);

/* Compares the outputs args points to.  Weights are compared for what is hidden, which must be
 * exact. */
void cli_compare(const qkv_desc *desc, const qkv_args *args, const cli_truth *truth,
                 cli_worst *worst);

#endif
