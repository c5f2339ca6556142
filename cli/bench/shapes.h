/* shapes.h - what is measured: a case is a row of shapes.inc. */
#ifndef QKV_CLI_BENCH_SHAPES_H
#define QKV_CLI_BENCH_SHAPES_H

#include "qkv/attention.h"
#include "qkv/cache.h"

/* What a case has beside q, k and v. */
enum {
    BENCH_MASK = 1 << 0,    /* random booleans, half of them true; one matrix for all heads */
    BENCH_BIAS = 1 << 1,    /* f32, one matrix for all heads */
    BENCH_ALIBI = 1 << 2,   /* slopes 2^(-8 (h + 1) / Hq) */
    BENCH_SOFTCAP = 1 << 3, /* 30 */
    BENCH_SINKS = 1 << 4,
    BENCH_BLOCKS = 1 << 5, /* blocks of 64 x 64, one in ten visible, and always the diagonal */
    BENCH_N_EXTRAS = 6
};

/* What is done with a cache. */
enum {
    BENCH_ATTEND = 0, /* one query each of B sequences, whose keys are their own */
    BENCH_RAGGED,     /* the same with B lengths from 100 to Tk, in steps of one factor */
    BENCH_SHARED,     /* the same, but all tokens except the last BENCH_OWN are the same pages */
    BENCH_CASCADE,    /* that, with the shared pages read once for all sequences */
    BENCH_APPEND,     /* one token of one layer is appended: reserve, write, commit */
    BENCH_N_USES
};
enum { BENCH_OWN = 256, BENCH_SHORTEST = 100 };

/* "attend", "ragged" ... */
const char *bench_use_name(int use);

/* "mask", "bias" ... of bit i. */
const char *bench_extra_name(int i);

typedef struct bench_shape {
    const char *name, *family;
    qkv_type type;      /* of q, k, v and o */
    int32_t B, Hq, Hkv; /* 0: 1; 1; as Hq */
    int64_t Tq, Tk;     /* Tk 0: as Tq */
    int32_t D, Dv;      /* Dv 0: as D.  Dv < D with latent: V is the first channels of K */
    int32_t causal;     /* QKV_CAUSAL_ */
    int32_t precision;  /* QKV_PRECISION_ */
    int64_t window;     /* keys a query sees, itself among them; 0: all */
    unsigned extras;    /* BENCH_ bits */
    int latent;         /* V lies in K */
    int cold; /* every call takes other keys and values, from more memory than caches hold */
    int32_t format;      /* QKV_FORMAT_ of a cache that has the keys and values; 0: no cache */
    int32_t page_tokens; /* of the cache; 0: a page holds a sequence */
    int32_t use;         /* BENCH_ATTEND ...; without a cache ATTEND */
    const char *against; /* the case that is measured in turns with this one, for the ratio of their
                          * times; or NULL */
    const char *versus; /* the case whose fraction of the roof this one should keep, or NULL */
} bench_shape;

/* The length of sequence b. */
int64_t bench_shape_length(const bench_shape *shape, int32_t b);

/* Case i with its defaults filled in; 0 past the last. */
int bench_shape_at(int i, bench_shape *shape);

#endif
