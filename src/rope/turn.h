/*
 * rope/turn.h - rows turned one at a time: what tensors and the cache have in common.
 *
 * qkv_rope_turner_init once, then qkv_rope_turner_row for each row.  A turner keeps the angles of
 * the token it saw last, so heads of a token cost one computation of them.
 */
#ifndef QKV_ROPE_TURN_H
#define QKV_ROPE_TURN_H

#include "core/say.h"
#include "qkv/rope.h"

enum { QKV_ROPE_MAX_PAIRS = 512 };

/* Frequencies and a for one length of a sequence. */
typedef struct qkv_rope_numbers {
    int32_t pairs, f32; /* f32: as QKV_ROPE_F32 says */
    double a;
    double frequency[QKV_ROPE_MAX_PAIRS];
} qkv_rope_numbers;

/* Where pairs lie in a row: pair i is channels first + i step and first + i step + apart. */
typedef struct qkv_rope_places {
    int32_t pairs, first, step, apart;
    int32_t dim; /* channels of the row */
} qkv_rope_places;

/* About 13 KiB, for a stack. */
typedef struct qkv_rope_turner {
    const qkv_rope *rope;      /* full */
    const qkv_rope_args *args; /* resolved */
    qkv_rope_places places;
    int64_t seq, token; /* whose angles are below; -1: nobody's */
    int64_t length;     /* whose frequencies are in numbers; -1: none's */
    qkv_rope_numbers numbers;
    const void *cos, *sin; /* pairs numbers of type `compute`, in the table or below */
    int32_t compute;       /* QKV_F32 or QKV_F64 */
    union {
        float f32[2][QKV_ROPE_MAX_PAIRS];
        double f64[2][QKV_ROPE_MAX_PAIRS];
    } angles;
} qkv_rope_turner;

/* compute: what rows are turned in.  rope and args must outlive the turner. */
void qkv_rope_turner_init(qkv_rope_turner *t, const qkv_rope *rope, const qkv_rope_args *args,
                          int32_t compute);

/* One row of token `token` of sequence `seq`.  y may be x if the types are equal. */
void qkv_rope_turner_row(qkv_rope_turner *t, int64_t seq, int64_t token, void *y, int32_t y_type,
                         const void *x, int32_t x_type);

/* A row at places with the angles given, numbers of type compute (f64 for f64 rows, else f32). */
void qkv_rope_turn_row(const qkv_rope_places *p, const void *cos, const void *sin, void *y,
                       int32_t y_type, const void *x, int32_t x_type);

/* For the cache, which knows its rows itself: rope and the part of args that says angles, checked
 * and resolved; then the angles of each sequence's rows from .. from+count-1. */
qkv_status qkv_rope_angles_load(const qkv_rope *in, const qkv_rope_args *in_args, qkv_rope *rope,
                                qkv_rope_args *args, qkv_say say);
qkv_status qkv_rope_angles_check(const qkv_rope_args *args, int64_t seq, int64_t from,
                                 int64_t count, qkv_say say);
/* The longest position of these rows, + 1; at least 0. */
int64_t qkv_rope_longest(const qkv_rope_args *args, int64_t seq, int64_t from, int64_t count);
/* Where the pairs of a rope are. */
qkv_rope_places qkv_rope_places_of(const qkv_rope *full);

#endif
