/*
 * t_problem.h - random attention problems with their tensors and the oracle's answer.
 *
 * A problem follows from a seed and limits.  Inputs lie beside guard pages, unused places hold
 * NaN, and after the oracle has said which pairs are visible, keys and values that no query sees
 * and biases of hidden pairs become NaN or infinity too.
 */
#ifndef T_PROBLEM_H
#define T_PROBLEM_H

#include "qkv/ref.h"
#include "t.h"

/* The tensors of a problem, in the order of qkv_args. */
enum { T_Q, T_K, T_V, T_O, T_MASK, T_BIAS, T_SINKS, T_SLOPES, T_LSE, T_WEIGHTS, T_N_TENSORS };

/* A tensor: where it lies and how many steps each stride has. */
typedef struct t_tensor {
    qkv_layout *layout; /* in the problem's descriptor */
    int64_t n[4];
    void *memory; /* all of it */
    size_t bytes;
    void *first; /* element (0, 0, 0, 0) */
} t_tensor;

/* What q, k and v are drawn from. */
enum {
    T_NORMAL,     /* N(0, 1) */
    T_EQUAL,      /* all keys the same: all scores tie */
    T_RISING,     /* scores rise from key to key: a new maximum each time */
    T_SPIKE_LAST, /* the last key beats all others */
    T_HUGE,       /* scores near +-80: exp at its ends */
    T_VAST,       /* scores near +-10,000 */
    T_TINY,       /* subnormal products and values */
    T_COARSE,     /* small integers: many exact ties */
    T_CONSTANT,   /* all scores tie, all values of a channel are one long fraction */
    T_N_FILLS
};
const char *t_fill_name(int fill);

/* What a random problem may contain; t_limits_all() allows everything. */
typedef struct t_limits {
    int32_t type;       /* of q, k, v, o: QKV_NONE for any mixture */
    int64_t max_len;    /* of Tq and Tk */
    int32_t max_dim;    /* of D and Dv */
    int64_t max_work;   /* B Hq Tq Tk (D + Dv) */
    int32_t max_seqs, max_heads;
    int packed, lengths, positions; /* cu_seqlens; q_lens, kv_lens, kv_starts; causal, windows */
    int masks, scores;              /* mask, bias, blocks; soft-cap, ALiBi, sinks */
    int layouts;                    /* 0: dense [B][H][T][D]; T_ANY_LAYOUT; T_OWN_LAYOUT */
    int outputs;                    /* lse and weights, at random; 0: lse always, no weights */
    int strange;                    /* visible NaN, infinity and -infinity now and then */
    int fills;                      /* other than T_NORMAL, now and then */
} t_limits;
enum {
    T_ANY_LAYOUT = 1, /* also broadcast inputs, and V in K */
    T_OWN_LAYOUT = 2  /* every element has its own place */
};
t_limits t_limits_all(void);
t_limits t_limits_plain(void); /* f32, dense, full lengths, no masks, N(0, 1) */

typedef struct t_problem {
    uint64_t seed;
    t_rng rng;
    t_limits limits;
    int fill, fill_key;
    qkv_desc desc;
    qkv_args args; /* inputs, outputs; workspace and plan are made by t_run */
    t_tensor tensor[T_N_TENSORS];
    int v_is_k;      /* V aliases K */
    int packed_qkv;  /* q, k, v are slots of one array */
    int64_t q_rows, kv_rows; /* rows of packed tensors */
    uint8_t *seen;   /* [B][Hq][Tq][Tk]: visible pairs */
    qkv_ref_out ref; /* the oracle's answer, with budgets */
    double *weights_budget;
    const double *k_error; /* of T_K, dense: what decoding may cost each element; NULL: nothing;
                            * infinity: anything may come of it */
} t_problem;

/* A descriptor only: sizes, lengths, masks, strides. */
void t_problem_describe(t_problem *p, uint64_t seed, const t_limits *limits);
/* Memory for every tensor of p->desc (which may have been edited), in the current case. */
void t_problem_allocate(t_problem *p);
/* Fills the inputs. */
void t_problem_fill(t_problem *p);
/* Asks the oracle twice: what is visible, then, after poisoning what is not, the answer. */
void t_problem_solve(t_problem *p);
/* Sets weights_budget, which the oracle's own budgets do not cover. */
void t_bound_weights(t_problem *p);
/* All of it; the inputs can no longer be written. */
void t_problem_make(t_problem *p, uint64_t seed, const t_limits *limits);

/* Sets n, layout and packing of the tensors from the descriptor. */
void t_problem_shape(t_problem *p);
/* Random strides for every tensor (dense ones if limits.layouts is 0). */
void t_problem_lay_out(t_problem *p);

/* Memory for a tensor of which layout and n are set, beside a guard page and full of `fill`. */
void t_tensor_allocate(t_tensor *t, t_rng *rng, unsigned char fill);

/* A problem with the descriptor of another, to be edited and then rebuilt: shape, strides,
 * memory. */
void t_problem_clone(t_problem *to, const t_problem *from);
void t_problem_rebuild(t_problem *p);
/* Copies the elements of one tensor, or of all inputs, that `to` has too. */
void t_copy_tensor(t_problem *to, int tensor, const t_problem *from);
void t_copy_inputs(t_problem *to, const t_problem *from);

/* One line about a problem, for failure messages.  Static storage. */
const char *t_problem_text(const t_problem *p);

/* Byte offset of an element from tensor.first; packed tensors have row numbers in i2. */
int64_t t_offset(const t_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3);
double t_get(const t_problem *p, int tensor, int64_t i0, int64_t i1, int64_t i2, int64_t i3);
void t_put(t_problem *p, int tensor, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double x);

/* The own lengths of sequence b. */
typedef struct t_span {
    int64_t q_len, kv_start, kv_len, q_offset; /* as in qkv/attention.h */
    int64_t q_row, k_row;                      /* first rows of packed tensors */
} t_span;
t_span t_span_of(const qkv_desc *desc, int32_t b);

/* o, lse and weights of row i of sequence b. */
double t_get_o(const t_problem *p, int32_t b, int32_t h, int64_t i, int64_t c);
double t_get_lse(const t_problem *p, int32_t b, int32_t h, int64_t i);

/* ---- running ---- */

/* How to run a plan. */
enum {
    T_SERIAL,       /* qkv_run */
    T_TASKS_BACK,   /* qkv_run_task from the last task of each phase to the first */
    T_THREADS = 100 /* T_THREADS + n: a pool of n workers */
};

/* Plans (in guard-paged memory of exactly qkv_plan_size), clears the outputs, runs in a
 * guard-paged workspace full of NaN.  Returns the kernel's name, or NULL after t_fail. */
const char *t_run(t_problem *p, uint32_t cpu_mask, int how);

/* Compares the outputs with the oracle; returns the largest error as a fraction of its budget.
 * Also checks that nothing but the outputs was written in their memory. */
double t_compare(t_problem *p, const char *kernel);

/* A copy of the outputs as they are, and a bitwise comparison with it. */
typedef struct t_copy {
    unsigned char *o, *lse, *weights;
} t_copy;
t_copy t_copy_outputs(const t_problem *p);
int t_same_outputs(const t_problem *p, const t_copy *copy);

/* The tiers of this machine as cpu_masks, lowest first. */
int t_tiers(uint32_t masks[8], const char *names[8]);

#endif
