/*
 * rope_binding.h - what the files of the type Rope share.
 *
 *     rope.c         the type, frequencies and tables
 *     rope_apply.c   arrays turned
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

#endif
