/*
 * model/family.h - what a row of the table of families says.
 *
 * A row is data: what the fields of a configuration are called, what they are worth where
 * Transformers has a default, which rules a family follows, and where its weights lie.  Rows are
 * in families.inc; read*.c and weight.c are the only code that looks at them.
 */
#ifndef QKV_MODEL_FAMILY_H
#define QKV_MODEL_FAMILY_H

#include "qkv/model.h"

/* Fields of a configuration, by what they mean. */
typedef enum field {
    F_LAYERS,
    F_HEADS,
    F_KV_HEADS, /* null: F_HEADS */
    F_D_MODEL,
    F_HEAD_DIM, /* without it: d_model / heads, which must have no rest */
    F_D_FF,
    F_POSITIONS,
    F_VOCAB,
    F_TIED,
    F_EPS,
    F_TOKEN_TYPES,
    F_DECODER_LAYERS, /* encoder-decoders: the fields above are the encoder's */
    F_DECODER_HEADS,
    F_DECODER_D_FF,
    F_BIAS,
    F_MLP_BIAS,
    F_FFN_KIND, /* a text; gated if it begins so */
    F_SCALAR,   /* the scale is 1/sqrt of it */
    F_SCALE,    /* the scale itself; null: default */
    F_SCALED,   /* false: the scale is 1 */
    F_SCALE_BY_LAYER,
    F_SOFTCAP,
    F_MULTI_QUERY,
    F_NEW_DECODER, /* Falcon's: groups, else one key head or all */
    F_WINDOW,
    F_WINDOW_USED,
    F_WINDOW_FROM,
    F_PATTERN, /* every such layer is a full one */
    F_CHUNK,
    F_NO_ROPE,       /* a list; 0: no rotation in this layer */
    F_NO_ROPE_EVERY, /* without the list */
    F_THETA,
    F_LOCAL_THETA, /* of layers with a window */
    F_PARTIAL,
    F_ROTARY_DIM,
    F_ORIGINAL_POSITIONS,
    F_INTERLEAVE,
    F_ALIBI,
    F_ALIBI_MAX,
    F_BUCKETS,
    F_MAX_DISTANCE,
    F_Q_LORA,
    F_KV_LORA,
    F_NOPE_DIM,
    F_ROPE_DIM,
    F_V_DIM,
    F_GLOBAL_HEAD_DIM,
    F_GLOBAL_KV_HEADS,
    F_K_EQ_V,
    F_SHARED_LAYERS,
    F_STATE_K_HEADS,
    F_STATE_V_HEADS,
    F_STATE_K_DIM,
    F_STATE_V_DIM,
    F_STATE_CONV,
    F_EXPERTS,
    F_EXPERTS_USED,
    F_EXPERTS_SHARED,
    F_D_FF_EXPERT,
    F_D_FF_SHARED,
    F_FIRST_DENSE,
    F_EXPERT_EVERY,
    F_DENSE_LAYERS, /* a list of layers without experts; read if empty */
    F_MOE_LAYERS,   /* a list of layers with them; read if it says what F_EXPERT_EVERY says */
    F_COUNT
} field;

/* Rules, as bits. */
enum {
    Q_SINKS = 1 << 0,
    Q_ENCODER = 1 << 1,      /* sees both ways, only an encoder */
    Q_ENC_DEC = 1 << 2,
    Q_MLA = 1 << 3,
    Q_SIZING_ONLY = 1 << 4,
    Q_GATE = 1 << 5,
    Q_LAYER_TYPES = 1 << 6,  /* layer_types decides; otherwise it may only agree */
    Q_WINDOW_ALL = 1 << 7,   /* every layer has the window */
    Q_SCALE_ONE = 1 << 8,
    Q_ROPE_DEMANDED = 1 << 9, /* Transformers has a default for the scaling, which is a guess */
    Q_YARN_IS_LONGROPE = 1 << 10,
    Q_ALIBI_SCALED = 1 << 11,
    Q_CONV1D = 1 << 12,
    Q_GATED = 1 << 13,       /* three matrices in a feed-forward block */
    Q_FFN_BIAS = 1 << 14,
    Q_D_FF_IS_FACTOR = 1 << 15, /* F_D_FF counts d_model */
    Q_D_FF_FOUR = 1 << 16,   /* without F_D_FF: 4 d_model */
    Q_PROPORTIONAL = 1 << 17, /* what a full layer's rotation is if nothing is said */
    Q_FALCON_NORMS = 1 << 18,
    Q_LEARNED = 1 << 19,     /* learned positions */

    Q_LAST_FULL = 1 << 20    /* the last layer is a full one whatever is said */
};

/* Which projections have a bias, if F_BIAS is true or there is no such field. */
enum { B_Q = 1, B_K = 2, B_V = 4, B_O = 8, B_QKV = 7, B_ALL = 15 };

/* How rows of a fused projection are ordered. */
enum {
    FUSED_NOT = 0,
    FUSED_BLOCKS = 1, /* all queries, all keys, all values */
    FUSED_GROUPS = 2  /* a key head's queries, its key, its value, and then the next one's */
};

/* What layers are that are no full ones. */
enum { OTHER_NONE = 0, OTHER_SLIDING = 1, OTHER_CHUNKED = 2, OTHER_STATE = 3 };

#define FAMILY_PREFIXES 3

typedef struct family {
    const char *name;
    const char *types;           /* model_types, blanks between */
    const char *fields[F_COUNT]; /* alternatives, blanks between; NULL: there is no such field */
    double defaults[F_COUNT];    /* where there is none, 0: demanded, false, none (read.c) */
    const char *zero;            /* fields that must be missing, null, false or 0, or "name=text" */
    const char *one;             /* fields that must be missing or true */
    const char *known;           /* fields that say nothing new */
    int32_t quirks;              /* Q_ */
    int32_t biases;              /* B_ */
    int32_t pairing;             /* QKV_ROPE_HALF_SPLIT ...; -1: no rotation */
    int32_t alibi;               /* 1: if F_ALIBI is true or there is no such field */
    int32_t qk_norm;             /* QKV_NORM_ */
    int32_t other;               /* OTHER_ */
    int32_t fused;               /* FUSED_ */
    int32_t norms[3];            /* a layer, an encoder's layer, besides */
    const char *prefixes[FAMILY_PREFIXES]; /* of names; an entry may be "" */
    const char *weights[3][QKV_ROLE_COUNT]; /* by part; * is the layer; ".weight" follows */
} family;

/* NULL for an index that is none; n is the number of rows. */
const family *qkv_family_at(int32_t index);

/* The row with this name, or NULL. */
const family *qkv_family_named(const char *name);

/* The row that has this model_type, or NULL. */
const family *qkv_family_of_type(const char *model_type);

/* Does a list of words with blanks between have this word? */
int qkv_words_have(const char *words, const char *word);

#endif
