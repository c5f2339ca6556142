/*
 * rope/internal.h - what the files of rope/ share.
 *
 *     rope.c         the description: defaults, checks
 *     frequencies.c  the formula of each type
 *     table.c        cosines and sines of positions
 *     turn.c         rows turned, see turn.h
 *     args.c         tensors and angles: defaults, checks
 *     tensors.c      of these, where tensors lie
 *     apply.c        tensors turned
 */
#ifndef QKV_ROPE_INTERNAL_H
#define QKV_ROPE_INTERNAL_H

#include "core/say.h"
#include "rope/turn.h"

/* A full-size copy of the caller's rope (which may be older and shorter), checked, with rotary_dim
 * and original_max_positions resolved. */
qkv_status qkv_rope_load(const qkv_rope *in, qkv_rope *full, qkv_say say);

/* The same of arguments; layouts and strides are resolved.  rope is full. */
qkv_status qkv_rope_args_load(const qkv_rope *rope, const qkv_rope_args *in, qkv_rope_args *full,
                              qkv_say say);
/* Without checks. */
void qkv_rope_args_resolve(const qkv_rope *rope, const qkv_rope_args *in, qkv_rope_args *full);

/* tensors.c.  Bytes from .. end-1 that a tensor takes. */
typedef struct qkv_rope_region {
    uintptr_t from, end;
} qkv_rope_region;
/* Not NULL, aligned, not too far; r may be NULL. */
qkv_status qkv_rope_check_memory(const char *name, const void *base, int32_t type,
                                 const int64_t *n, const int64_t *stride, int rank,
                                 qkv_rope_region *r, qkv_say say);
qkv_status qkv_rope_check_types(const qkv_rope_args *a, int32_t dim, qkv_say say);
/* x and y, of which none is empty. */
qkv_status qkv_rope_check_tensors(const qkv_rope_args *a, int32_t dim, qkv_say say);

/* Channels that pairs are over: all of them turn, but with PROPORTIONAL. */
static inline int32_t qkv_rope_width(const qkv_rope *full)
{
    return full->type == QKV_ROPE_PROPORTIONAL ? full->head_dim - full->rotary_offset
                                               : full->rotary_dim;
}

/* Positions, and so lengths, that a double holds exactly. */
#define QKV_ROPE_MAX_POSITION ((int64_t)1 << 53)

/* frequencies.c.  rope is full. */
void qkv_rope_find(const qkv_rope *rope, int64_t seq_len, qkv_rope_numbers *n);
/* Do the frequencies depend on seq_len? */
static inline int qkv_rope_has_length(const qkv_rope *full)
{
    return full->type == QKV_ROPE_DYNAMIC || full->type == QKV_ROPE_LONGROPE;
}

/* table.c: a cos and a sin of the angle of pair i at one position, before rounding to a type. */
void qkv_rope_angle(const qkv_rope_numbers *n, int64_t position, int32_t i, double *cos,
                    double *sin);

#endif
