/*
 * layers_binding.h - what the files of the extension module qkv._layers share.
 *
 *     layers_module.c  what Python sees, and the thread pools
 *     layers_type.c    the type Layer: making one from arrays
 *     layers_run.c     its steps
 *     layers_fields.c  descriptions as dictionaries, and back
 *
 * A module of its own, because it links BLAS: importing qkv loads neither.
 */
#ifndef QKV_PY_LAYERS_BINDING_H
#define QKV_PY_LAYERS_BINDING_H

#include "cache_binding.h"
#include "qkv/io.h"
#include "qkv/layers.h"

typedef struct layer_object {
    PyObject_HEAD
    qkv_layer *layer;
} layer_object;

extern PyTypeObject qkvpy_layer_type;
extern PyTypeObject *qkvpy_cache_class; /* qkv._qkv.Cache */
extern PyObject *qkvpy_empty;           /* qkv._arrays.empty */

/* Fills a description, on which defaults are set, from a dictionary; rope factors are borrowed from
 * memory that *factors receives, for PyMem_Free.  -1 with an exception for a key that is no field. */
int qkvpy_desc_from(PyObject *fields, qkv_layer_desc *desc, double **factors);
/* All fields of a description as a dictionary. */
PyObject *qkvpy_desc_dict(const qkv_layer_desc *desc);

/* n workers; 0: as many as processors.  NULL with an exception. */
qkv_pool *qkvpy_layer_pool(int n);

PyObject *qkvpy_layer_run(PyObject *self, PyObject *args);
PyObject *qkvpy_layer_load(PyObject *module, PyObject *args);

#endif
