/*
 * cache_binding.h - what the files of the type Cache share.
 *
 *     cache.c        the type, and everything about sequences
 *     cache_rows.c   keys and values in and out
 *     cache_file.c   saving and loading
 *     view.c         the type View: attention over some sequences, planned once a step
 *     view_parts.c   its parts and their plans
 *     view_run.c     its runs
 *     view_pick.c    pages that are picked in each run
 *     view_shift.c   masks over positions as masks over what a part of a view shows
 *
 * The classes of qkv/_cache.py know which tokens are written and call these; arguments are checked
 * as far as memory depends on them, everything else by the library.
 */
#ifndef QKV_PY_CACHE_BINDING_H
#define QKV_PY_CACHE_BINDING_H

#include "binding.h"
#include "qkv/cache_view.h"

enum { TEXT = 512 }; /* room for a sentence */

typedef struct cache_object {
    PyObject_HEAD
    qkv_cache *cache;
    qkv_cache_config config; /* without defaults */
} cache_object;

extern PyTypeObject qkvpy_cache_type, qkvpy_view_type;

/* A sequence of Python integers as an array for PyMem_Free; n receives how many.  None gives NULL
 * and leaves n.  An exception, and NULL, if one does not fit. */
int32_t *qkvpy_int32s(PyObject *list, const char *name, Py_ssize_t *n);
int64_t *qkvpy_int64s(PyObject *list, const char *name, Py_ssize_t *n);
/* None, or the exception of a status that is not QKV_OK. */
PyObject *qkvpy_none(qkv_status status, const char *text);
/* 0 if two lists are equally long. */
int qkvpy_same_length(const char *name, Py_ssize_t n, Py_ssize_t wanted);

/* Methods of Cache. */
PyObject *qkvpy_cache_append(PyObject *self, PyObject *const *args, Py_ssize_t n_args);
PyObject *qkvpy_cache_read(PyObject *self, PyObject *args);
PyObject *qkvpy_cache_set_scales(PyObject *self, PyObject *args);
PyObject *qkvpy_cache_save(PyObject *self, PyObject *args);
PyObject *qkvpy_cache_load(PyObject *self, PyObject *path);
/* cache_inspect(path): (config, version, sequences, pages, open pages, tokens, bytes). */
PyObject *qkvpy_cache_inspect(PyObject *self, PyObject *path);
/* A config as the tuple that Cache() takes, and back. */
PyObject *qkvpy_config_tuple(const qkv_cache_config *config);

#endif
