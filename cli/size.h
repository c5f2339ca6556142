/* size.h - what the files of qkv size share. */
#ifndef QKV_CLI_SIZE_H
#define QKV_CLI_SIZE_H

#include "cli.h"

/* Where the context is from. */
enum { SIZE_GIVEN, SIZE_FROM_MODEL, SIZE_SOLVED };

enum { SIZE_MAX_OTHERS = 12, SIZE_STEPS = 4, SIZE_NAME = 160 };

/* A model in words: no configuration, but flags. */
typedef struct size_flags {
    int64_t layers, heads, kv_heads, head_dim, head_dim_v, d_model, d_ff, vocab;
    int64_t window, full_every, latent, rope_dim, q_latent;
    int tied, given; /* given: any of them */
} size_flags;

typedef struct size_options {
    int help, json, csv, explain, machines, cache_only;
    const char *config, *as;
    qkv_size_setup setup;
    int weights_given, context_given, compute_given;
    size_flags flags;
    uint64_t memory;
    double latency;
    const char *machine;
    int32_t solve[4];
    int n_solve;
    const char *compare; /* the words as given */
} size_options;

/* One model with everything that is said about it. */
typedef struct size_subject {
    char name[SIZE_NAME];
    qkv_model model;
    qkv_size_cache cache;
    qkv_size_parameters parameters;
    qkv_size_fit fit;
    qkv_size_rank rank;
    struct {
        int known; /* 0: not a step of this model, or too large to count */
        qkv_size_step step;
        qkv_size_work work;
        qkv_size_time time;
    } steps[SIZE_STEPS];
} size_subject;

typedef struct size_report {
    const size_options *options;
    qkv_size_setup setup; /* with context and weights resolved */
    int weights_assumed;  /* the configuration does not say of which type they are */
    int context_from;     /* SIZE_GIVEN .. */
    qkv_size_budget budget;
    qkv_machine machine;
    int has_machine;
    int n_subjects;
    size_subject *subjects; /* the model, then what it is compared with */
    qkv_size_answer answers[4];
} size_report;

/* size_options.c: parses the arguments of "size" (argv[0]).  CLI_DONE or CLI_WRONG. */
int size_parse(size_options *options, int argc, char **argv);

/* size_values.c: values of options.  "64k" is 65,536; bytes have a unit. */
int size_parse_count(const char *option, const char *text, int64_t low, int64_t high,
                     int64_t *value);
int size_parse_bytes(const char *option, const char *text, uint64_t *value);
int size_parse_seconds(const char *option, const char *text, double *value);
int size_parse_formats(const char *text, qkv_size_setup *setup);
int size_parse_weights(const char *text, qkv_size_setup *setup);
int size_parse_solve(const char *text, size_options *options);
/* The word's index; CLI_WRONG with the list otherwise. */
int size_one_of(const char *option, const char *text, const char *const *words, int n, int *index);

/* size_model.c */
int size_model_of_config(const char *path, const char *as, qkv_model *model);
int size_model_of_flags(const size_flags *flags, qkv_model *model);
/* "32 layers of d_model 4096: GQA-8 of 32 x 128 + 128" */
const char *size_model_words(const qkv_model *model, char *text, size_t bytes);

/* size_machine.c: a built-in name, a file of qkv bench --calibrate, or "this". */
int size_machine_of(const char *name, qkv_machine *machine);
void size_list_machines(void);

/* size_compare.c: the subjects of --compare, after subject 0. */
int size_add_others(size_report *report);
/* Everything that is said about one subject; its model is there. */
int size_fill_subject(const size_report *report, size_subject *subject);
/* Answers to --solve. */
int size_answer(size_report *report);

/* size_text.c, size_table.c, size_json.c */
int size_print_text(const size_report *report);
void size_print_compared(const size_report *report);
void size_print_answers(const size_report *report);
int size_print_csv(const size_report *report);
int size_print_json(const size_report *report);

const char *size_solve_word(int32_t what);
const char *size_step_word(int step);

#define SIZE_GIB (1024.0 * 1024 * 1024)

#endif
