/*
 * qkv/model.h - what the attention of a model is, read from its configuration.
 *
 * A model is a stack of layers of few kinds.  qkv_model_read asks a configuration (the config.json
 * of a checkpoint, through a callback, so that no JSON parser is needed here) and fills a
 * qkv_model; qkv_model_layer says what one layer's attention is.  Sizing (qkv/sizing.h) and layers
 * (qkv/layers.h) start from these.
 *
 * Families are rows of one table (src/model/families.inc): names of configuration fields and of
 * tensors, fusions, quirks.  A model_type that is not in the table is refused by name.
 */
#ifndef QKV_MODEL_H
#define QKV_MODEL_H

#include "qkv/rope.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- configurations ------------------------------------------------------------------------ */

enum {
    QKV_CONFIG_MISSING = 0, /* no such key */
    QKV_CONFIG_NULL = 1,
    QKV_CONFIG_BOOL = 2,    /* integer is 0 or 1 */
    QKV_CONFIG_INTEGER = 3, /* integer; real has the same value */
    QKV_CONFIG_REAL = 4,    /* real */
    QKV_CONFIG_TEXT = 5,    /* text */
    QKV_CONFIG_LIST = 6,    /* count elements */
    QKV_CONFIG_TABLE = 7    /* count keys */
};

typedef struct qkv_config_value {
    int32_t kind;     /* QKV_CONFIG_ */
    int32_t reserved; /* 0 */
    int64_t integer;
    double real;
    int64_t count;
    const char *text; /* lives as long as the configuration */
} qkv_config_value;

/*
 * A configuration, as a source of answers.  A path is keys joined by '/', and positions in lists
 * as decimal numbers: "rope_parameters/full_attention/rope_theta", "layer_types/3"; "" is the
 * whole.  get fills value (kind MISSING if there is none).  key returns the name of entry index of
 * the table at path, or NULL; it is how unknown fields are found.
 */
typedef struct qkv_config {
    void (*get)(void *ctx, const char *path, qkv_config_value *value);
    const char *(*key)(void *ctx, const char *path, int64_t index);
    void *ctx;
} qkv_config;

/* ---- one layer ------------------------------------------------------------------------------ */

/* What kind of attention a layer has. */
enum {
    QKV_LAYER_ATTENTION = 1, /* MHA, MQA, GQA: keys and values of n_kv_heads heads */
    QKV_LAYER_MLA = 2,       /* keys and values from a latent and a shared rotary key */
    QKV_LAYER_STATE = 3      /* linear attention or state space: a state of constant size */
};

/* Which attention of a layer: an encoder-decoder has three kinds of them. */
enum {
    QKV_PART_DECODER = 0, /* self-attention of a decoder, or of a model that is only an encoder */
    QKV_PART_ENCODER = 1, /* self-attention of the encoder of an encoder-decoder */
    QKV_PART_CROSS = 2    /* the decoder's attention to the encoder's output */
};

/* How a layer keeps its matrices; see qkv_layer_create. */
enum {
    QKV_WEIGHTS_F32 = 0,
    QKV_WEIGHTS_BF16 = 1,
    QKV_WEIGHTS_INT8 = 2,
    QKV_WEIGHTS_F32_PACKED = 3
};

enum { QKV_NORM_NONE = 0, QKV_NORM_RMS = 1, QKV_NORM_RMS_PLUS_ONE = 2, QKV_NORM_LAYER = 3 };

enum {
    QKV_ALIBI_NONE = 0,
    QKV_ALIBI_PLAIN = 1, /* slope x distance is added to the scaled score (MPT, BLOOM) */
    QKV_ALIBI_SCALED = 2 /* it is scaled with the score (Falcon) */
};

/*
 * The attention of one layer, without weights.  Widths are channels, d_model the width of the
 * hidden states.  Call qkv_layer_desc_init first, which sets the defaults: causal self-attention
 * without biases, norms, rotation, window or cap, of no size.
 */
typedef struct qkv_layer_desc {
    uint32_t struct_size;  /* set by qkv_layer_desc_init */
    int32_t kind;          /* QKV_LAYER_; default QKV_LAYER_ATTENTION */
    int32_t d_model;       /* 1 .. 2^20 */
    int32_t d_memory;      /* cross: width of what keys and values come from; default 0: d_model */
    int32_t n_q_heads;     /* Hq, 1 .. 65536 */
    int32_t n_kv_heads;    /* Hkv, divides Hq.  MLA: Hq */
    int32_t head_dim;      /* D, 1 .. 1024.  MLA: n + r */
    int32_t head_dim_v;    /* Dv, 1 .. 1024 */
    int32_t q_lora_rank;   /* MLA: width of the latent of queries; 0: none */
    int32_t kv_lora_rank;  /* MLA: c, 1 .. 1024 */
    int32_t rope_dim;      /* MLA: r, last channels of a head that turn; n = head_dim - r */
    int32_t q_bias, k_bias, v_bias, o_bias; /* 0 or 1; default 0.  MLA: q_bias of the projections
                                             * that give latents, o_bias; others 0 */
    int32_t qk_norm;       /* QKV_NORM_ of queries and keys, a head, before RoPE; default NONE */
    int32_t latent_norm;   /* MLA: of the latents; default RMS */
    int32_t o_gate;        /* 1: the projection of queries gives Hq D channels more, the sigmoid of
                            * which multiplies what W_O gets; default 0 */
    double norm_eps;       /* of these norms; default 1e-6 */
    double scale;          /* of scores; default NaN: 1/sqrt(head_dim), times mscale^2 if MLA with
                            * YaRN has mscale_all_dim; see qkv_layer_scale */
    double softcap;        /* default 0: none */
    int32_t sinks;         /* 1: a learned sink logit a query head; default 0 */
    int32_t causal;        /* default 1 */
    int32_t cross;         /* 1: keys and values from another sequence; default 0 */
    int32_t v_from_k;      /* 1: no projection of values: they are the keys before norm and RoPE;
                            * default 0 */
    int64_t window_left;   /* keys before a query that it sees; default QKV_UNBOUNDED */
    int64_t window_right;  /* default QKV_UNBOUNDED; looked at if not causal */
    int64_t chunk_tokens;  /* a query sees its own chunk only; default 0: no chunks */
    double alibi_max_bias; /* slopes are 2^(-m h/n), with m this; default 8 */
    int32_t alibi;         /* QKV_ALIBI_; default NONE */
    int32_t relative_buckets;      /* T5: buckets of distance, a learned bias a head; 0: none */
    int32_t relative_max_distance; /* T5: from here all distances share a bucket */
    int32_t relative_bidirectional;
    qkv_rope rope;         /* type QKV_ROPE_NONE: none.  rope.head_dim is head_dim; MLA: rope_dim */
    /* QKV_LAYER_STATE: elements kept a sequence, whatever its length, and parameters. */
    int64_t state_elements;
    int64_t state_parameters;
    int32_t state_type;    /* qkv_type of them; default QKV_NONE: as the cache */
    int32_t weights;       /* QKV_WEIGHTS_; default F32.  Of layers that run; sizing does not look */
    int32_t reserved[4];   /* 0 */
} qkv_layer_desc;

QKV_API void qkv_layer_desc_init_sized(qkv_layer_desc *layer, size_t struct_size);
static inline void qkv_layer_desc_init(qkv_layer_desc *layer)
{
    qkv_layer_desc_init_sized(layer, sizeof *layer);
}

/* QKV_OK, or QKV_ERR_ARGUMENT and a sentence that names the field.  Thread-safe. */
QKV_API qkv_status qkv_layer_desc_check(const qkv_layer_desc *layer, char *text, size_t bytes);

/* The factor of scores: layer->scale, or what its default stands for.  NaN without attention. */
QKV_API double qkv_layer_scale(const qkv_layer_desc *layer);

/* "MHA", "GQA-8", "MQA", "MLA", "state": the field's word for it, into text.  The number is that of
 * key/value heads.  Returns text. */
QKV_API char *qkv_layer_variant(const qkv_layer_desc *layer, char *text, size_t bytes);

/* Elements a token adds to the cache of this layer, at first: Hkv (D + Dv), MLA c + r, state 0; 0
 * for cross-attention, which keeps as many for every token of the memory. */
QKV_API int64_t qkv_layer_cache_elements(const qkv_layer_desc *layer);

/* ---- a model -------------------------------------------------------------------------------- */

#define QKV_MODEL_MAX_LAYERS 1024
#define QKV_MODEL_MAX_KINDS 16
#define QKV_MODEL_MAX_FACTORS 512

/* Layers of one kind have equal attention; kinds are numbered in order of appearance. */
typedef struct qkv_model {
    uint32_t struct_size;    /* set by qkv_model_read */
    int32_t n_layers;        /* decoder layers, or those of a model that is only an encoder */
    int32_t encoder_layers;  /* of an encoder-decoder, else 0 */
    int32_t d_model;
    char model_type[64];     /* as the configuration has it */
    char family[32];         /* the row of the table that was used */
    int64_t vocab_size;      /* 0: the configuration does not say */
    int64_t max_positions;   /* 0: not limited, or the configuration does not say */
    int64_t position_embeddings; /* learned positions, rows; 0: none */
    int32_t tied_embeddings; /* the output projection is the embedding */
    int32_t weight_type;     /* qkv_type of dtype or torch_dtype; QKV_NONE: it does not say */
    int32_t sizing_only;     /* 1: the family has parts besides what qkv_layer_desc says: numbers of
                              * elements are right, weights cannot be loaded */
    int32_t scale_by_layer;  /* scores are divided by the number of the layer, from 1; done by
                              * qkv_model_layer */
    int32_t nested;          /* 1: the configuration was in text_config */
    int32_t token_types;     /* rows of an embedding of token types (BERT); 0: none */

    /* Feed-forward blocks, as context for parameters and work. */
    int32_t d_ff;            /* width of a dense block; 0: the configuration does not say */
    int32_t ffn_gated;       /* three matrices instead of two */
    int32_t ffn_bias;
    int32_t n_experts;       /* 0: dense everywhere */
    int32_t n_experts_used;  /* a token */
    int32_t n_experts_shared;
    int32_t d_ff_expert;
    int32_t d_ff_shared;     /* width of all shared experts together */
    int32_t first_dense_layers; /* layers without experts at the beginning */
    int32_t expert_every;    /* layers i with experts: i >= first_dense_layers and
                              * (i - first_dense_layers + 1) % expert_every == 0 */

    /* Norms, for parameters: vectors of d_model. */
    int32_t norms_a_layer;   /* in a decoder layer or the layer of an encoder; weights and biases
                              * count each */
    int32_t norms_an_encoder_layer;
    int32_t norms_besides;   /* after the last layer and on embeddings */

    int32_t n_kinds;
    qkv_layer_desc kinds[QKV_MODEL_MAX_KINDS]; /* use qkv_model_layer: it completes them */
    uint8_t kind_of[3][QKV_MODEL_MAX_LAYERS];  /* by part and layer */
    int16_t cache_of[QKV_MODEL_MAX_LAYERS];    /* layer whose keys and values it uses: its own
                                                * number, unless layers share a cache */
    double rope_factors[2][QKV_MODEL_MAX_FACTORS]; /* longrope: short, long */
    char unpriced[256]; /* fields that were seen and not understood, "a, b"; "" if none */
} qkv_model;

/*
 * qkv_model_read - fill a model from a configuration.
 *
 *   config   v4 and v5 forms of Transformers' config.json: rope_theta and rope_scaling, or
 *            rope_parameters; nested text_config of multimodal models.
 *   as       A family's name to use whatever model_type says, or NULL.
 *
 * Nothing is guessed: a field without which a size is not known is demanded by name, unless
 * Transformers has a default for it that published files rely on (docs/families.md); one that
 * contradicts another is refused.  Returns QKV_OK; QKV_ERR_UNSUPPORTED for a model_type that is not
 * in the table (the sentence lists those that are) or a feature that would change results and is
 * not known; QKV_ERR_FORMAT for a field that is missing or wrong; QKV_ERR_ARGUMENT.  Thread-safe.
 */
QKV_API qkv_status qkv_model_read_sized(const qkv_config *config, const char *as, qkv_model *model,
                                        size_t struct_size, char *text, size_t bytes);
static inline qkv_status qkv_model_read(const qkv_config *config, const char *as, qkv_model *model,
                                        char *text, size_t bytes)
{
    return qkv_model_read_sized(config, as, model, sizeof *model, text, bytes);
}

/* The attention of one layer, layer in [0, n_layers or encoder_layers).  Pointers in rope point
 * into model.  QKV_ERR_ARGUMENT for a layer or part that is not there.  Thread-safe. */
QKV_API qkv_status qkv_model_layer_sized(const qkv_model *model, int32_t part, int32_t layer,
                                         qkv_layer_desc *desc, size_t struct_size, char *text,
                                         size_t bytes);
static inline qkv_status qkv_model_layer(const qkv_model *model, int32_t part, int32_t layer,
                                         qkv_layer_desc *desc, char *text, size_t bytes)
{
    return qkv_model_layer_sized(model, part, layer, desc, sizeof *desc, text, bytes);
}

/* Families of the table, in order; NULL for an index outside [0, qkv_family_count()). */
QKV_API int32_t qkv_family_count(void);
QKV_API const char *qkv_family_name(int32_t index);

/* ---- where weights lie ---------------------------------------------------------------------- */

/* Weights of a layer's attention.  Values are permanent. */
typedef enum qkv_role {
    QKV_ROLE_Q = 0, /* matrices: rows are outputs, columns inputs */
    QKV_ROLE_K = 1,
    QKV_ROLE_V = 2,
    QKV_ROLE_O = 3,
    QKV_ROLE_Q_NORM = 4, /* vectors of head_dim */
    QKV_ROLE_K_NORM = 5,
    QKV_ROLE_SINKS = 6,     /* a logit a query head */
    QKV_ROLE_Q_A = 7,       /* MLA: queries' latent from the hidden state */
    QKV_ROLE_Q_A_NORM = 8,  /* a vector of q_lora_rank */
    QKV_ROLE_Q_B = 9,       /* heads of queries from their latent: n + r rows each */
    QKV_ROLE_KV_A = 10,     /* kv_lora_rank rows of the latent, then rope_dim of the shared key */
    QKV_ROLE_KV_A_NORM = 11, /* a vector of kv_lora_rank */
    QKV_ROLE_KV_B = 12,     /* from the latent, a head: n rows of keys, head_dim_v of values */
    QKV_ROLE_RELATIVE_BIAS = 13, /* relative_buckets rows of Hq columns */
    QKV_ROLE_COUNT = 14
} qkv_role;

/* "q", "kv_a_norm" ...; "?" for a value that is no role.  Static. */
QKV_API const char *qkv_role_name(int32_t role);

#define QKV_WEIGHT_NAMES 6
#define QKV_WEIGHT_NAME 96

/*
 * Where a checkpoint has one weight.  Names differ in what stands in front of them ("model.",
 * "model.language_model." ...): the first one that is there is meant, and its bias has the same
 * number.
 *
 * The tensor has `rows` rows of `columns` (for vectors 0), or, if transposed, `columns` rows of
 * `rows`.  Fused projections have rows of several roles; row d of head h of this one, and element d
 * of its bias likewise, is
 *
 *     first + (h / group_heads) group_stride + (h % group_heads) head_stride + d
 *
 * for h in [0, heads), d in [0, width).  A weight without heads has one, of all its rows.
 */
typedef struct qkv_weight {
    uint32_t struct_size; /* set by qkv_model_weight */
    int32_t role;
    int32_t n_names;      /* 0: this layer has no such weight */
    int32_t has_bias;
    int32_t transposed;   /* 1: stored as [in][out] (GPT-2's Conv1D) */
    int32_t heads, width;
    int32_t group_heads;
    int64_t rows, columns;
    int64_t first, group_stride, head_stride;
    char names[QKV_WEIGHT_NAMES][QKV_WEIGHT_NAME];
    char biases[QKV_WEIGHT_NAMES][QKV_WEIGHT_NAME];
} qkv_weight;

/*
 * The place of one weight.  T5's relative bias is that of layer 0 for every layer.
 *
 * Returns QKV_OK, also if the layer has no such weight; QKV_ERR_ARGUMENT for a part, layer or role
 * that is not there; QKV_ERR_UNSUPPORTED for a model that is sizing_only or a layer that is no
 * attention.  Thread-safe.
 */
QKV_API qkv_status qkv_model_weight_sized(const qkv_model *model, int32_t part, int32_t layer,
                                          int32_t role, qkv_weight *weight, size_t struct_size,
                                          char *text, size_t bytes);
static inline qkv_status qkv_model_weight(const qkv_model *model, int32_t part, int32_t layer,
                                          int32_t role, qkv_weight *weight, char *text,
                                          size_t bytes)
{
    return qkv_model_weight_sized(model, part, layer, role, weight, sizeof *weight, text, bytes);
}

/* The row of the tensor that row d of head h is: the formula above. */
static inline int64_t qkv_weight_row(const qkv_weight *weight, int32_t h, int32_t d)
{
    return weight->first + h / weight->group_heads * weight->group_stride +
           h % weight->group_heads * weight->head_stride + d;
}

#ifdef __cplusplus
}
#endif
#endif /* QKV_MODEL_H */
