/*
 * rope_binding.h - what the files of the type Rope share.
 *
 *     rope.c         the type, frequencies and tables
 *     rope_apply.c   arrays turned
 *     rope_append.c  keys turned on their way into a cache
 */
#ifndef QKV_PY_ROPE_BINDING_H
#define QKV_PY_ROPE_BINDING_H

#include "cache_binding.h"
#include "qkv/rope.h"

enum { MAX_FACTORS = 512 };

typedef struct rope_object {
    PyObject_HEAD
    qkv_rope rope;
    double factors[2][MAX_FACTORS]; /* what rope points to */
} rope_object;

extern PyTypeObject qkvpy_rope_type;

/* apply(x, out or None, positions or None, cos or None, sin or None, (seq_len, inverse, n_heads,
 * threads)) */
PyObject *qkvpy_rope_apply(PyObject *self, PyObject *args);

/* Angles of an append; rope NULL: keys are stored as they are. */
typedef struct rotation {
    const rope_object *rope; /* a reference */
    qkv_rope_args args;
    tensor positions, cos, sin;
} rotation;

/* From (rope, positions or None, cos or None, sin or None, seq_len), or None.  One row of angles for
 * each of n_tokens of n_seqs sequences, or of all n_tokens packed ones. */
int qkvpy_rotation_open(rotation *r, PyObject *turn, int64_t n_seqs, int64_t n_tokens, int packed);
void qkvpy_rotation_close(rotation *r);

#endif
