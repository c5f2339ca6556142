/* layer.h - what the files of qkv layer share. */
#ifndef QKV_CLI_LAYER_H
#define QKV_CLI_LAYER_H

#include "cli.h"

/* qkv layer info and run; argv[0] is "info" or "run". */
int cli_layer_info(int argc, char **argv);
int cli_layer_run(int argc, char **argv);

/* ---- layer_groups.c ---- */

/* The layers of one part that are alike. */
typedef struct cli_layers {
    int32_t part;
    int32_t first;       /* the first of them */
    int32_t kind;
    qkv_layer_desc desc; /* of the first */
} cli_layers;

#define CLI_LAYER_GROUPS (3 * QKV_MODEL_MAX_KINDS)

/* A model's layers in groups; only those of `only` if that is not -1.  Returns how many groups. */
int32_t cli_group_layers(const qkv_model *model, int32_t only,
                         cli_layers groups[CLI_LAYER_GROUPS]);

/* Layers there are in a part. */
int32_t cli_layers_of(const qkv_model *model, int32_t part);

/* Does layer i belong to the group? */
int cli_in_group(const qkv_model *model, const cli_layers *group, int32_t i);

/* What a decoder keeps, in elements: for each token at first, for each token when windows and
 * chunks are full, for each token of an encoder's output, and once a sequence. */
typedef struct cli_kept {
    int64_t token, far_token, memory_token, state;
} cli_kept;

cli_kept cli_what_is_kept(const qkv_model *model);

/* ---- layer_text.c, layer_json.c ---- */

/* What is known of a model, or of layer `only` if that is not -1. */
int cli_layer_text(const qkv_model *model, const char *path, int32_t only);
int cli_layer_json(const qkv_model *model, const char *path, int32_t only);

#endif
