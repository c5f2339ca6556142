/*
 * qkv/sizing.h - what the attention of a model costs: bytes, parameters, work, time.
 *
 * Everything starts from a qkv_model (qkv/model.h) and a qkv_size_setup, which says how the model
 * is to be used.  Counts are exact integers: bytes, parameters, multiply-adds (two FLOPs each) and
 * exponentials.  A count of 2^63 or more is refused, never wrapped.  Seconds are doubles, and come
 * in pairs: at best, at worst.
 *
 *     qkv_size_cache_find     keys and values: what is stored, and what a qkv_cache allocates
 *     qkv_size_parameters_find    of the attention, of all
 *     qkv_size_work_find      one step of the model, stage by stage
 *     qkv_size_time_find      that step on a machine, and what bounds it
 *     qkv_size_solve          the longest context, the most sequences ... that fit
 *     qkv_size_variant        the same model as MHA, GQA, MQA or MLA
 *
 * All functions are thread-safe, allocate nothing and touch no file; this part also works where
 * there is no operating system (WebAssembly), with the same results.  Those that return a
 * qkv_status write "ok" or a sentence with the field, its value and what is accepted to text, which
 * may be NULL if bytes is 0: QKV_ERR_ARGUMENT, or QKV_ERR_UNSUPPORTED for what a qkv_cache does not
 * offer.  Structs of this header that have no struct_size will not grow.
 */
#ifndef QKV_SIZING_H
#define QKV_SIZING_H

#include "qkv/cache.h"
#include "qkv/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Formats of keys and values that are priced besides those of a cache (QKV_FORMAT_): blocks of
 * ggml, 34 and 18 bytes for 32 numbers of a row.  A qkv_cache does not store them: allocated is 0.
 */
enum { QKV_SIZE_Q8_0 = 101, QKV_SIZE_Q4_0 = 102 };

/* "bf16", "int8" ..., "q8_0"; "?" for a value that is no format.  Static. */
QKV_API const char *qkv_size_format_name(int32_t format);

/* How ranks share the work. */
enum {
    QKV_SPLIT_HEADS = 1,  /* each has some of the heads, or the one it shares with others */
    QKV_SPLIT_CONTEXT = 2 /* each has some of the tokens, and all heads */
};

/* Visible pairs of query and key are counted, or all of the rectangle. */
enum { QKV_COUNT_VISIBLE = 0, QKV_COUNT_SQUARE = 1 };

#define QKV_SIZE_AUTO (-1)

/* How a model is used.  Call qkv_size_setup_init first, which sets the defaults. */
typedef struct qkv_size_setup {
    uint32_t struct_size;     /* set by qkv_size_setup_init */
    int32_t k_format;         /* QKV_FORMAT_ or QKV_SIZE_; default BF16.  MLA: of the latent */
    int32_t v_format;         /* default BF16 */
    int32_t k_group, v_group; /* as in qkv_cache_config; default 0 */
    int32_t k_scale, v_scale; /* default QKV_SCALE_TOKEN */
    int32_t float_type;       /* as in qkv_cache_config; default QKV_BF16 */
    int32_t page_tokens;      /* 16 .. 256, a multiple of 16; default 64 */
    int32_t weight_bits;   /* of a parameter, 0 .. 64; 0: weights take no memory and are not read;
                            * default 16 */
    int32_t compute;       /* QKV_F32, QKV_F16 or QKV_BF16: whose rate of a machine counts, and the
                            * type of hidden states; default QKV_BF16 */
    int32_t pairs;         /* QKV_COUNT_; default VISIBLE */
    int32_t absorbed;      /* MLA: 1: attention on the latents; 0: keys and values of heads are made
                            * from them; default QKV_SIZE_AUTO: whichever is fewer multiply-adds */
    int32_t ranks;         /* machines, 1 .. 65536; default 1 */
    int32_t split;         /* QKV_SPLIT_; default HEADS */
    int32_t cache_only;    /* 1: only the cache counts against memory; default 0 */
    int64_t context;       /* tokens of a sequence, 1 .. 2^31-1; no default */
    int64_t batch;         /* sequences at once, 1 .. 65535; default 1 */
    int64_t chunk;         /* tokens of one sequence in one step of prefill, 1 .. 2^31-1, which a
                            * window must hold besides its own; default QKV_SIZE_AUTO: 2048.
                            * What is more than context does not count */
    int64_t memory_tokens; /* cross-attention: tokens of the other sequence; default QKV_SIZE_AUTO:
                            * as context */
    uint64_t reserve;      /* bytes of memory that something else needs; default 0 */
} qkv_size_setup;

QKV_API void qkv_size_setup_init_sized(qkv_size_setup *setup, size_t struct_size);
static inline void qkv_size_setup_init(qkv_size_setup *setup)
{
    qkv_size_setup_init_sized(setup, sizeof *setup);
}

/* A model of n_layers equal layers and nothing else: no blocks, no embeddings.  The other fields
 * (d_ff, vocab_size ...) may be set afterwards.  Refuses what qkv_layer_desc_check refuses. */
QKV_API qkv_status qkv_size_model_of(const qkv_layer_desc *layer, int32_t n_layers,
                                     qkv_model *model, char *text, size_t bytes);

/* ---- the cache ------------------------------------------------------------------------------ */

/* Layers that one qkv_cache holds: equal heads and channels, equal windows. */
typedef struct qkv_size_group {
    int32_t kind;      /* QKV_LAYER_ATTENTION, QKV_LAYER_MLA; QKV_LAYER_STATE: no qkv_cache */
    int32_t cross;     /* 1: of the other sequence's tokens */
    int32_t n_layers;  /* with keys and values of their own */
    int32_t n_sharing; /* more layers, which use those of another */
    int32_t n_kv_heads, head_dim, head_dim_v; /* MLA: 1, c + r, c */
    int32_t reserved;
    int64_t window;       /* tokens that a query sees, itself included; 0: all */
    uint64_t elements;    /* a token and layer; state: a sequence and layer */
    uint64_t tokens;      /* of a sequence that its last query sees: context, or window if less */
    uint64_t pages;       /* n_pages of the cache */
    uint64_t page_bytes;  /* in all layers */
    uint64_t token_bytes; /* in all layers, without what a page has once */
    uint64_t payload;     /* elements and their scales, of all sequences */
    uint64_t allocated;   /* asked of the allocator by qkv_cache_create, with its tables */
} qkv_size_group;

#define QKV_SIZE_MAX_GROUPS 32

typedef struct qkv_size_cache {
    int32_t n_groups;
    int32_t not_cached; /* 1: formats that a qkv_cache does not store; allocated is 0 */
    int64_t context, batch;
    qkv_size_group group[QKV_SIZE_MAX_GROUPS];
    uint64_t elements;    /* a token adds at first, in all layers */
    uint64_t token_bytes; /* the same in bytes */
    uint64_t state;       /* of payload: states of constant size */
    uint64_t payload;     /* all groups */
    uint64_t allocated; /* all groups.  On machines with 64-bit pointers; states 64-byte aligned */
} qkv_size_cache;

/*
 * qkv_size_cache_find - bytes of keys and values of batch sequences with context tokens each.
 *
 * payload is what the tokens that the last query of each sequence sees take, with scales; it equals
 * the payload of qkv_cache_stats where no window evicts.  allocated is that of a qkv_cache for each
 * group, with as many pages as the sequences need at any time: a windowed group holds, for each
 * sequence, the window and the page it has begun, and for one of them the chunk that is being
 * written. qkv_size_cache_config gives that very configuration.
 */
QKV_API qkv_status qkv_size_cache_find(const qkv_model *model, const qkv_size_setup *setup,
                                       qkv_size_cache *cache, char *text, size_t bytes);

/* The configuration of group index's cache, for qkv_cache_create.  QKV_ERR_ARGUMENT for a state or
 * an index that is not there. */
QKV_API qkv_status qkv_size_cache_config(const qkv_model *model, const qkv_size_setup *setup,
                                         int32_t index, qkv_cache_config *config, char *text,
                                         size_t bytes);

/* ---- parameters ----------------------------------------------------------------------------- */

/* What the model does not say, so that totals are without it. */
enum {
    QKV_SIZE_NO_MLP = 1,   /* d_ff is 0; with experts, d_ff_expert */
    QKV_SIZE_NO_VOCAB = 2, /* vocab_size is 0 */
    QKV_SIZE_PARTS = 4     /* the family has parts besides, in some or all of its models */
};

typedef struct qkv_size_parameters {
    uint64_t attention;  /* all layers: matrices, biases, norms, sinks, distances; states' layers */
    uint64_t matrices;   /* of these, what is multiplied by hidden states */
    uint64_t states;     /* of attention: layers of kind QKV_LAYER_STATE */
    uint64_t mlp;        /* blocks of all layers, with experts and routers */
    uint64_t experts;    /* of these, experts that are chosen by a router */
    uint64_t norms;      /* of layers and after them */
    uint64_t embeddings; /* of tokens and positions */
    uint64_t head;       /* output projection; 0 if tied */
    uint64_t total;
    uint64_t active;   /* that a token is multiplied by: without embeddings and idle experts,
                        * with the output projection */
    uint64_t layer[3]; /* attention of the first layer of each part (QKV_PART_) */
    int32_t missing;   /* QKV_SIZE_NO_ */
    int32_t reserved;
} qkv_size_parameters;

QKV_API qkv_status qkv_size_parameters_find(const qkv_model *model, qkv_size_parameters *found,
                                            char *text, size_t bytes);

/* Parameters of the attention of one layer, and those of them in matrices (may be NULL). */
QKV_API uint64_t qkv_size_layer_parameters(const qkv_layer_desc *layer, uint64_t *matrices);

/* ---- work ----------------------------------------------------------------------------------- */

enum {
    QKV_SIZE_PROJECT = 0, /* hidden states to queries, keys, values; MLA: and latents */
    QKV_SIZE_EXPAND = 1,  /* MLA: latents to heads; or absorbed: queries to latents and back */
    QKV_SIZE_SCORES = 2,  /* Q K^T */
    QKV_SIZE_SOFTMAX = 3, /* exponentials */
    QKV_SIZE_VALUES = 4,  /* P V */
    QKV_SIZE_OUTPUT = 5,  /* W_O */
    QKV_SIZE_STATE = 6,   /* layers with a state: their parameters once a token, a lower bound */
    QKV_SIZE_MLP = 7,     /* blocks behind the attention, as context */
    QKV_SIZE_HEAD = 8,    /* output projection, of the last token of each sequence */
    QKV_SIZE_STAGES = 9
};

/* "project", "scores" ...; "?" outside.  Static. */
QKV_API const char *qkv_size_stage_name(int32_t stage);

/* A step: n_new tokens of each of n_seqs sequences, which have past tokens in their caches. */
typedef struct qkv_size_step {
    int64_t n_seqs; /* 1 or more */
    int64_t n_new;  /* 1 or more */
    int64_t past;   /* 0 or more; past + n_new at most 2^31-1 */
    int64_t chunk;  /* n_new is cut into pieces of so many tokens, each a step of its own; 0: all
                     * at once */
} qkv_size_step;

/*
 * The steps that people ask about, with the sizes of setup:
 *     PREFILL   context tokens of one sequence at once
 *     CHUNKED   the same in chunks
 *     DECODE    one token of each of batch sequences; with it they have context tokens
 *     RECOMPUTE the same without a cache: all context tokens of batch sequences again
 */
enum { QKV_STEP_PREFILL = 0, QKV_STEP_CHUNKED = 1, QKV_STEP_DECODE = 2, QKV_STEP_RECOMPUTE = 3 };
QKV_API qkv_status qkv_size_step_of(const qkv_size_setup *setup, int32_t which, qkv_size_step *step,
                                    char *text, size_t bytes);

/*
 * Bytes of a stage are those it cannot do without: each weight, key and value once a step (once a
 * chunk), hidden states that come and go between stages.  Scores stay in registers and caches.
 */
typedef struct qkv_size_stage {
    uint64_t multiply_adds;
    uint64_t exponentials;
    uint64_t bytes;       /* moved, at most: as many experts as tokens can choose */
    uint64_t bytes_least; /* all tokens choose the same experts */
} qkv_size_stage;

typedef struct qkv_size_work {
    qkv_size_stage stage[QKV_SIZE_STAGES];
    qkv_size_stage all;  /* their sum */
    uint64_t pairs;      /* of query and key, a head, all layers and sequences */
    uint64_t cache_read; /* of bytes: keys and values */
    uint64_t cache_written;
    uint64_t weights_read; /* at most */
    int32_t absorbed;      /* MLA: what was counted */
    int32_t reserved;
} qkv_size_work;

QKV_API qkv_status qkv_size_work_find(const qkv_model *model, const qkv_size_setup *setup,
                                      const qkv_size_step *step, qkv_size_work *work, char *text,
                                      size_t bytes);

/* Contexts where the products of attention (Q K^T and P V) of one layer are as many multiply-adds
 * as its projections (Q, K, V and W_O), in prefill: a lower one means projections dominate. */
typedef struct qkv_size_crossover {
    double square;  /* all pairs counted; 2 d for MHA with Hq D = d */
    double visible; /* causal pairs counted, twice that less one; windows not looked at */
    double rule;    /* 2 d_model */
    double mla_new; /* MLA: new tokens of a step above which expanding is fewer multiply-adds than
                     * absorbing, for a cache of context tokens; 0: not MLA; infinity: never */
} qkv_size_crossover;
QKV_API qkv_status qkv_size_crossover_find(const qkv_layer_desc *layer, int64_t context,
                                           qkv_size_crossover *found, char *text, size_t bytes);

/* ---- machines ------------------------------------------------------------------------------- */

/* What a machine does a second.  [0] is what is reached for certain (medians of measurements, base
 * clocks), [1] what is never passed (best measurements, highest clocks). */
typedef struct qkv_machine {
    char name[64];
    char source[192]; /* where the numbers are from */
    int32_t measured; /* 1: by qkv bench --calibrate; 0: data sheets, which no program reaches */
    int32_t reserved;
    double flops_f32[2]; /* FLOP/s: two a multiply-add */
    double flops_16[2];  /* with operands of 16 bits */
    double bytes[2];     /* bytes/s read from memory */
    uint64_t memory;     /* bytes; 0: not known */
} qkv_machine;

/* Machines that come with the library; NULL outside [0, qkv_machine_count()).  Static. */
QKV_API int32_t qkv_machine_count(void);
QKV_API const qkv_machine *qkv_machine_at(int32_t index);

enum { QKV_BOUND_COMPUTE = 1, QKV_BOUND_BANDWIDTH = 2 };

/*
 * Seconds of a stage: at best the longer of its products and its bytes at the highest rates; at
 * worst twice the longer at the certain rates, which is half of the roof: where nothing overlaps,
 * or a kernel is weak.  The step at best and at worst is the sum of its stages.  Exponentials,
 * norms and rotations are not in it.
 */
typedef struct qkv_size_seconds {
    double best, worst;
    double intensity; /* FLOPs a byte */
    int32_t
        bound; /* QKV_BOUND_: which of the two is longer at the certain rates; 0: nothing to do */
    int32_t reserved;
} qkv_size_seconds;

typedef struct qkv_size_time {
    qkv_size_seconds stage[QKV_SIZE_STAGES];
    qkv_size_seconds attention; /* scores and values */
    qkv_size_seconds all;
    double ridge; /* FLOPs a byte where the certain rates meet */
} qkv_size_time;

/* QKV_ERR_ARGUMENT for a machine with a rate that is not finite and above 0 (0: not known). */
QKV_API qkv_status qkv_size_time_find(const qkv_size_work *work, const qkv_size_setup *setup,
                                      const qkv_machine *machine, qkv_size_time *time, char *text,
                                      size_t bytes);

/* ---- ranks ---------------------------------------------------------------------------------- */

/* What each of setup->ranks machines holds and sends. */
typedef struct qkv_size_rank {
    uint64_t payload, allocated; /* of the cache of the rank that has most */
    uint64_t sent_step;    /* bytes each rank sends in a step of DECODE, for attention alone */
    uint64_t sent_prefill; /* and in a PREFILL */
    int32_t copies;        /* ranks that hold the same keys and values; 1: no two do */
    int32_t kv_heads;      /* of a rank, first kind of layer */
} qkv_size_rank;

/*
 * Heads: W_O's partial sums are added over ranks, d_model elements of the compute type a token and
 * layer.  Context: partial outputs and their log-sum-exps are merged, Hq (Dv + 1) f32 a token and
 * layer (MLA: absorbed, c channels).  Both as a ring does it: each rank sends 2 (ranks - 1) / ranks
 * of that.  Refused: ranks that neither divide the key/value heads nor are a multiple of them.
 */
QKV_API qkv_status qkv_size_rank_find(const qkv_model *model, const qkv_size_setup *setup,
                                      qkv_size_rank *rank, char *text, size_t bytes);

/* ---- the other way round -------------------------------------------------------------------- */

/* Budgets; 0: none. */
typedef struct qkv_size_budget {
    uint64_t memory;            /* bytes for weights, cache and reserve, of each rank */
    double latency;             /* seconds of a step of DECODE, at worst; needs machine */
    const qkv_machine *machine; /* NULL: none */
} qkv_size_budget;

typedef struct qkv_size_fit {
    int32_t fits, fits_memory, fits_latency; /* 1: yes, or not asked */
    int32_t reserved;
    uint64_t weights; /* bytes */
    uint64_t cache;   /* allocated, or payload in formats that a qkv_cache does not store */
    uint64_t needed;  /* with the reserve */
    double latency;   /* at worst; 0 without machine */
} qkv_size_fit;

QKV_API qkv_status qkv_size_fit_find(const qkv_model *model, const qkv_size_setup *setup,
                                     const qkv_size_budget *budget, qkv_size_fit *fit, char *text,
                                     size_t bytes);

enum {
    QKV_SOLVE_CONTEXT = 1, /* the longest context */
    QKV_SOLVE_USERS = 2,   /* the largest batch */
    QKV_SOLVE_GROUPS = 3,  /* the largest number of key/value heads, of the divisors of Hq */
    QKV_SOLVE_FORMAT = 4   /* the format with the most bits: bf16, int8, int8_channel, e4m3, int4 */
};

typedef struct qkv_size_answer {
    int32_t found;    /* 0: nothing fits */
    int32_t limited;  /* 1: the limit of a qkv_cache or of the question, not the budget */
    int64_t value;    /* context, batch, heads or QKV_FORMAT_ */
    qkv_size_fit fit; /* of that value, or of the smallest if nothing fits */
} qkv_size_answer;

/* With everything else as in setup.  A budget without memory and latency is refused. */
QKV_API qkv_status qkv_size_solve(const qkv_model *model, const qkv_size_setup *setup,
                                  const qkv_size_budget *budget, int32_t what,
                                  qkv_size_answer *answer, char *text, size_t bytes);

/* ---- variants ------------------------------------------------------------------------------- */

enum { QKV_VARIANT_HEADS = 1, QKV_VARIANT_MLA = 2 };

/* Hkv key/value heads (Hq: MHA, 1: MQA), or a latent.  Of MLA 0 stands for what DeepSeek-V2 has
 * (arXiv:2405.04434, section 3.1.2) at D = 128, and no more than that: c = 4 D up to 512, r = D / 2
 * up to 64, queries' latent 12 D up to 1536, and none if it were as wide as the hidden states. */
typedef struct qkv_size_variant_of {
    int32_t variant;                             /* QKV_VARIANT_ */
    int32_t n_kv_heads;                          /* HEADS: a divisor of Hq; 0: Hq */
    int32_t kv_lora_rank, rope_dim, q_lora_rank; /* MLA */
    int32_t reserved;
} qkv_size_variant_of;

/*
 * qkv_size_variant - the same model with another attention in all layers that have one.
 *
 * Width, query heads, channels of a head, windows, blocks and embeddings stay.  MLA of a model with
 * heads keeps D channels without rotation and r more with it; a model with MLA becomes one with
 * keys of n + r channels.  Layers with a state, cross-attention and shared caches stay as they are.
 */
QKV_API qkv_status qkv_size_variant(const qkv_model *model, const qkv_size_variant_of *variant,
                                    qkv_model *other, char *text, size_t bytes);

/* ---- in words ------------------------------------------------------------------------------- */

/* Formulas with numbers in them, line by line: QKV_OK, or QKV_ERR_ARGUMENT past the last one.
 * text has room for QKV_SIZE_LINE. */
#define QKV_SIZE_LINE 320
QKV_API qkv_status qkv_size_explain(const qkv_model *model, const qkv_size_setup *setup,
                                    int32_t line, char *text, size_t bytes);

/* What the numbers say about this use of this model, with the numbers; likewise.  budget may be
 * NULL, or have no machine. */
QKV_API qkv_status qkv_size_advice(const qkv_model *model, const qkv_size_setup *setup,
                                   const qkv_size_budget *budget, int32_t line, char *text,
                                   size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* QKV_SIZING_H */
