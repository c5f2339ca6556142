/*
 * convert.h - what the files of qkv convert share.
 *
 *     convert.c           the command, and single layers
 *     convert_model.c     whole checkpoints: the new config.json, which tensors change, the report
 *     convert_weights.c   tensors of the new checkpoint, and whether they read back as they should
 *     convert_shards.c    its files of weights
 *     convert_files.c     the new folder, and what else is in it
 */
#ifndef QKV_CLI_CONVERT_H
#define QKV_CLI_CONVERT_H

#include <stdio.h>

#include "layer_run.h"

/* What --to says.  heads: of gqa (mqa 1); rank: of mla; pairing: QKV_ROPE_. */
typedef struct convert_kind {
    const char *word;
    enum { CONVERT_HEADS, CONVERT_LATENT, CONVERT_PAIRING } what;
    int32_t heads, rank, pairing;
} convert_kind;

int convert_kind_parse(const char *word, convert_kind *kind);
/* Another layer from one.  CLI_DONE or CLI_WRONG. */
int convert_layer(const convert_kind *kind, const qkv_layer *old, qkv_layer **made);
/* Elements that a cache keeps a token, and parameters. */
int64_t convert_kept(const qkv_layer *layer);
int64_t convert_parameters(const qkv_layer *layer);

typedef struct convert_change {
    double largest, rms; /* shares of the output's largest number and rms */
} convert_change;
convert_change convert_compare(const float *before, const float *after, int64_t n);

/* ---- whole checkpoints -------------------------------------------------------------------- */

/* A tensor that changes. */
typedef struct convert_tensor {
    char name[QKV_WEIGHT_NAME];
    int32_t layer, is_bias, type, rank;
    int64_t shape[2], bytes;
} convert_tensor;

typedef struct convert_model {
    layer_run *r; /* directory, family, and the hidden states of --in */
    const char *target;
    convert_kind kind;
    int json;
    qkv_checkpoint *old;
    qkv_model model, made; /* as they were, and as the new config.json says */
    json_t *config;        /* the new one */
    convert_tensor *tensors;
    int32_t n_tensors;
    qkv_layer *layer; /* the last one that was converted, and its number */
    int32_t layer_number;
    char *temporary;  /* the folder on its way; NULL: none */
    int32_t n_weight_files, n_other_files;
    json_t *left_out; /* names of files that were not copied */
    json_t *rows;     /* a report a layer */
    int64_t kept[2], parameters[2]; /* before, after */
} convert_model;

int convert_checkpoint(convert_model *c);

/* Which tensors change, and what they become. */
int convert_list_tensors(convert_model *c);
const convert_tensor *convert_find_tensor(const convert_model *c, const char *name);
/* Its numbers, for free(); NULL with a sentence said. */
void *convert_tensor_data(convert_model *c, const convert_tensor *t);
/* Whether a layer of the new folder is what was made, rounded to the type it is stored in. */
int convert_check_layer(const convert_model *c, const qkv_checkpoint *written, int32_t layer,
                        const qkv_layer *made, const qkv_layer *read);

/* Files of weights, as many as there were. */
int convert_write_weights(convert_model *c);

/* A file on its way, and its path.  CLI_DONE or CLI_WRONG; close ends it whatever code was. */
enum { CONVERT_PATH = 4096 };
int convert_join(char path[CONVERT_PATH], const char *folder, const char *name);
int convert_put(FILE *f, const char *path, const void *data, size_t bytes);
int convert_close(FILE *f, const char *path, int code);
int convert_write_json(const convert_model *c, const char *name, const json_t *value);

/* Refuses a target that is there; makes a folder beside it and fills it; renames it to the target,
 * or removes it. */
int convert_folder_begin(convert_model *c);
int convert_folder_fill(convert_model *c);
int convert_folder_finish(convert_model *c);
void convert_folder_remove(convert_model *c);

#endif
