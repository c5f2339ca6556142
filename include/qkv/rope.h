/*
 * qkv/rope.h - rotary position embedding: frequencies, tables, rotation and its gradient.
 *
 * RoPE (Su et al., 2021, arXiv:2104.09864) turns pairs of channels (x1, x2) of queries and keys at
 * position p by the angle p f_i:
 *
 *     y1 = a (cos(p f_i) x1 - sin(p f_i) x2)        i = 0 .. r/2 - 1
 *     y2 = a (sin(p f_i) x1 + cos(p f_i) x2)
 *
 * so that a product of a query and a key depends on the distance of their positions.  Types differ
 * in the frequencies f_i and in the factor a; docs/semantics.md has the formula of each.
 *
 * Positions are explicit, int64, and one a token: padding, gaps and several sequences need no
 * special case.  Angles are computed and reduced in double.
 */
#ifndef QKV_ROPE_H
#define QKV_ROPE_H

#include "qkv/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Values are permanent.  The words are those of config.json's rope_type. */
enum {
    QKV_ROPE_NONE = 0,        /* no rotation */
    QKV_ROPE_DEFAULT = 1,     /* f_i = theta^(-2i/r) */
    QKV_ROPE_LINEAR = 2,      /* f_i / factor */
    QKV_ROPE_NTK = 3,         /* theta grown once by factor^(r/(r-2)) */
    QKV_ROPE_DYNAMIC = 4,     /* theta grown with the length of the sequence */
    QKV_ROPE_YARN = 5,        /* arXiv:2309.00071 */
    QKV_ROPE_LONGROPE = 6,    /* arXiv:2402.13753 */
    QKV_ROPE_LLAMA3 = 7,
    QKV_ROPE_PROPORTIONAL = 8 /* exponents over the whole head, the last pairs do not turn */
};

/* "default", "yarn" ...; "none" for QKV_ROPE_NONE, "?" for a value that is no type.  Static. */
QKV_API const char *qkv_rope_type_name(int32_t type);

/* Which channels are a pair. */
enum {
    QKV_ROPE_HALF_SPLIT = 0, /* i and i + r/2   (NeoX, Llama as published by Hugging Face) */
    QKV_ROPE_INTERLEAVED = 1 /* 2i and 2i + 1   (GPT-J, Llama as published by Meta) */
};

/* How an angle is made. */
enum {
    QKV_ROPE_EXACT = 0, /* in double, rounded once as cosine and sine */
    QKV_ROPE_F32 = 1    /* frequencies and their product with the position rounded to f32, as
                         * PyTorch models do: at position 100,000 that is off by up to 8e-3 rad */
};

#define QKV_ROPE_AUTO (-1)

/* A rotation.  Call qkv_rope_init first, which sets the defaults. */
typedef struct qkv_rope {
    uint32_t struct_size;     /* set by qkv_rope_init */
    int32_t type;             /* QKV_ROPE_; default QKV_ROPE_DEFAULT */
    int32_t pairing;          /* default QKV_ROPE_HALF_SPLIT */
    int32_t precision;        /* default QKV_ROPE_EXACT */
    int32_t head_dim;         /* channels of a head, 1 .. 1024; no default */
    int32_t rotary_offset;    /* first channel that turns, default 0 */
    int32_t rotary_dim;       /* r, channels that turn, even; default QKV_ROPE_AUTO: all from
                               * rotary_offset.  PROPORTIONAL: pairs are over all of these and the
                               * first rotary_dim / 2 of them turn */
    int32_t truncate;         /* YARN; default 1 */
    double theta;             /* > 0; default 10000 */
    double factor;            /* >= 1; default NaN: not given.  LINEAR, NTK, DYNAMIC and LLAMA3
                               * need it; YARN, LONGROPE: max_positions / original_max_positions;
                               * PROPORTIONAL: 1 */
    int64_t max_positions;    /* max_position_embeddings; default 0: not known */
    int64_t original_max_positions; /* before scaling; default 0: max_positions */
    double attention_factor;  /* a, > 0; default NaN: as the type says */
    double beta_fast, beta_slow;           /* YARN; default 32, 1 */
    double mscale, mscale_all_dim;         /* YARN; default 0: not given */
    double low_freq_factor, high_freq_factor; /* LLAMA3; default 1, 4 */
    const double *short_factor, *long_factor; /* LONGROPE: n_factors = r/2 each; borrowed */
    int32_t n_factors;
    int32_t reserved;
} qkv_rope;

QKV_API void qkv_rope_init_sized(qkv_rope *rope, size_t struct_size);
static inline void qkv_rope_init(qkv_rope *rope) { qkv_rope_init_sized(rope, sizeof *rope); }

/* QKV_OK, or QKV_ERR_ARGUMENT (QKV_ERR_UNSUPPORTED for a longer struct of a newer header) and a
 * sentence with the field, its value and what is accepted.  text may be NULL if bytes is 0.  Every
 * function below refuses what this one refuses, with the same sentence.  Thread-safe. */
QKV_API qkv_status qkv_rope_check(const qkv_rope *rope, char *text, size_t bytes);

/* Pairs that turn: r/2; 0 for QKV_ROPE_NONE and for a rope that qkv_rope_check refuses. */
QKV_API int32_t qkv_rope_pairs(const qkv_rope *rope);

/*
 * qkv_rope_frequencies - the angles of a step of one position, in radians.
 *
 *   seq_len           Tokens of the sequence, its longest position + 1: DYNAMIC and LONGROPE depend
 *                     on it, other types do not look.  0 or more.
 *   frequencies       Receives qkv_rope_pairs(rope) numbers; with QKV_ROPE_F32 those of f32.
 *   attention_factor  Receives a.  NULL: not wanted.
 *
 * Returns QKV_OK or QKV_ERR_ARGUMENT.  Thread-safe.
 */
QKV_API qkv_status qkv_rope_frequencies(const qkv_rope *rope, int64_t seq_len, double *frequencies,
                                        double *attention_factor, char *text, size_t bytes);

/* ---- tables ------------------------------------------------------------------------------- */

/*
 * A table holds a cos(p f_i) and a sin(p f_i) of n positions, half width: two arrays
 * [n][qkv_rope_pairs(rope)].  It is what saves time: a cosine and a sine cost as much as turning 35
 * pairs, and one table serves all layers of a step, queries and keys.
 */

/* Bytes of one of the two arrays, of type f64, f32, f16 or bf16; 0 for another type, for n < 0 and
 * for a rope that qkv_rope_check refuses. */
QKV_API size_t qkv_rope_table_bytes(const qkv_rope *rope, int64_t n, qkv_type type);

/*
 * qkv_rope_table - cosines and sines of n positions.
 *
 *   seq_len    As above; QKV_ROPE_AUTO: the longest of these positions + 1.
 *   positions  n numbers of magnitude at most 2^53, in any order.
 *   cos, sin   Receive qkv_rope_table_bytes each.  QKV_ROPE_EXACT: rounded once from double,
 *              whatever the type.  QKV_ROPE_F32: f32 numbers, rounded to 16 bits if that is the
 *              type.
 *
 * Returns QKV_OK or QKV_ERR_ARGUMENT.  Thread-safe, no allocation.
 */
QKV_API qkv_status qkv_rope_table(const qkv_rope *rope, int64_t seq_len, const int64_t *positions,
                                  int64_t n, qkv_type type, void *cos, void *sin, char *text,
                                  size_t bytes);

/* ---- rotation ----------------------------------------------------------------------------- */

#define QKV_ROPE_DENSE INT64_MIN /* a stride that no table has */

/*
 * Tensors [B][H][T][D] and the positions of their tokens.  Set fields by name after
 * qkv_rope_args_init.
 *
 * x and y are of any two of the types f32, f16, bf16, or both f64.  Arithmetic is in f32 (f64 for
 * f64), rounded once at the end.  y may be x itself, in the same layout: in place; then channels
 * that do not turn are not touched.  Otherwise they are copied (bits as they are if the types are
 * equal), and y may not overlap x.
 *
 * Angles come from the rope and positions, or from a table if cos and sin are given.  A table with
 * positions is indexed by them: row p, which must be 0 .. table_rows-1.  Without positions, token t
 * of sequence b has row t.  Of the rope a table leaves type, pairing, head_dim, rotary_offset and
 * rotary_dim to say which channels turn; its type may be any but NONE.
 */
typedef struct qkv_rope_args {
    uint32_t struct_size; /* set by qkv_rope_args_init */
    int32_t inverse;      /* 1: by the opposite angle, which is the gradient: x is dL/dy and y
                           * receives dL/dx (a is not inverted).  Default 0 */
    int32_t n_seqs;       /* B, 0 or more; default 1 */
    int32_t n_heads;      /* H, 0 or more; default 1 */
    int64_t n_tokens;     /* T, 0 or more; default 0 */
    qkv_layout x_layout;  /* default f32; the stride of channels must be 1 */
    qkv_layout y_layout;  /* default type QKV_NONE: as x_layout */
    const void *x;
    void *y;
    const int64_t *positions;   /* magnitude at most 2^53; NULL only with a table */
    int64_t position_stride[2]; /* over sequence, token; default 0, 1: one row for all sequences */
    int64_t seq_len;            /* as above; default QKV_ROPE_AUTO: each sequence's own longest
                                 * position + 1, so that neighbours do not matter */
    const void *cos, *sin;      /* both or neither; default NULL */
    int32_t table_type;         /* f64, f32, f16 or bf16; default f32 */
    int32_t reserved;
    int64_t table_stride[2];    /* over sequence, row, in elements; pairs are contiguous.  Default 0
                                 * and QKV_ROPE_DENSE: r/2 */
    int64_t table_rows;         /* of a sequence */
} qkv_rope_args;

QKV_API void qkv_rope_args_init_sized(qkv_rope_args *args, size_t struct_size);
static inline void qkv_rope_args_init(qkv_rope_args *args)
{
    qkv_rope_args_init_sized(args, sizeof *args);
}

/* x_layout for a dense tensor; order is QKV_BHTD or QKV_BTHD.  n_heads and n_tokens are set. */
QKV_API void qkv_rope_args_dense(qkv_rope_args *args, const qkv_rope *rope, qkv_type type,
                                 int32_t order);

/* QKV_OK, or QKV_ERR_ARGUMENT and a sentence.  Looks at every position.  Thread-safe. */
QKV_API qkv_status qkv_rope_args_check(const qkv_rope *rope, const qkv_rope_args *args, char *text,
                                       size_t bytes);

/*
 * qkv_rope_apply - check, then turn x into y.
 *
 *   parallel  Over tokens; NULL: the calling thread.  Does not change a bit of the result.
 *
 * Returns what qkv_rope_args_check does; what is refused has not been begun.  Does not allocate or
 * lock.  Needs less than 32 KiB of stack.  Thread-safe for different y.
 */
QKV_API qkv_status qkv_rope_apply(const qkv_rope *rope, const qkv_rope_args *args,
                                  const qkv_parallel *parallel, char *text, size_t bytes);

/* The same without checks: rope and args must satisfy qkv_rope_args_check.  Cannot fail. */
QKV_API void qkv_rope_run(const qkv_rope *rope, const qkv_rope_args *args,
                          const qkv_parallel *parallel);

#ifdef __cplusplus
}
#endif
#endif /* QKV_ROPE_H */
