/* cache_file.c - caches saved to and loaded from file descriptors; qkv/_cache_file.py opens them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cache_binding.h"

static int write_file(void *ctx, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, ctx) == bytes ? 0 : -1;
}

static int read_file(void *ctx, void *data, size_t bytes)
{
    return fread(data, 1, bytes, ctx) == bytes ? 0 : -1;
}

/* A stream on a copy of a descriptor, so that closing it leaves the caller's open. */
static FILE *stream(int fd, const char *mode)
{
    const int copy = dup(fd);
    FILE *file = copy < 0 ? NULL : fdopen(copy, mode);
    if (file == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (copy >= 0)
            close(copy);
    }
    return file;
}

/* save(seqs, fd) */
PyObject *qkvpy_cache_save(PyObject *self, PyObject *args)
{
    char text[TEXT];
    PyObject *list;
    int fd, error = 0;
    Py_ssize_t n = 0;
    if (!PyArg_ParseTuple(args, "Oi", &list, &fd))
        return NULL;
    FILE *file = stream(fd, "wb");
    int32_t *seqs = file ? qkvpy_int32s(list, "seqs", &n) : NULL;
    qkv_status status = QKV_OK;
    if (seqs != NULL) {
        const qkv_cache_writer writer = {write_file, file};
        Py_BEGIN_ALLOW_THREADS
        errno = 0;
        status = qkv_cache_save(((cache_object *)self)->cache, (int32_t)n, seqs, &writer, text,
                                sizeof text);
        if (status == QKV_OK && fflush(file) != 0)
            status = QKV_ERR_SYSTEM;
        error = errno;
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(seqs);
    if (file != NULL)
        fclose(file);
    if (status == QKV_ERR_SYSTEM && error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return qkvpy_none(status, text);
}

/* load(fd): the ids of the new sequences. */
PyObject *qkvpy_cache_load(PyObject *self, PyObject *fd)
{
    const cache_object *c = (const cache_object *)self;
    const int number = (int)PyLong_AsLong(fd);
    FILE *file = PyErr_Occurred() ? NULL : stream(number, "rb");
    if (file == NULL)
        return NULL;
    char text[TEXT];
    int32_t n = 0, *seqs = PyMem_Malloc((size_t)c->config.max_seqs * sizeof *seqs);
    qkv_status status = QKV_ERR_MEMORY;
    snprintf(text, sizeof text, "no memory for %d sequences", c->config.max_seqs);
    if (seqs != NULL) {
        const qkv_cache_reader reader = {read_file, file};
        Py_BEGIN_ALLOW_THREADS
        status = qkv_cache_load(c->cache, &reader, c->config.max_seqs, seqs, &n, text, sizeof text);
        Py_END_ALLOW_THREADS
    }
    fclose(file);
    PyObject *list = status == QKV_OK ? PyList_New(n) : qkvpy_none(status, text);
    for (int32_t i = 0; list != NULL && i < n; i++)
        PyList_SET_ITEM(list, i, PyLong_FromLong(seqs[i]));
    PyMem_Free(seqs);
    return list;
}

PyObject *qkvpy_cache_inspect(PyObject *self, PyObject *fd)
{
    (void)self;
    const int number = (int)PyLong_AsLong(fd);
    FILE *file = PyErr_Occurred() ? NULL : stream(number, "rb");
    if (file == NULL)
        return NULL;
    char text[TEXT];
    qkv_cache_file_info i;
    const qkv_cache_reader reader = {read_file, file};
    const qkv_status status = qkv_cache_inspect(&reader, &i, text, sizeof text);
    fclose(file);
    if (status != QKV_OK)
        return qkvpy_none(status, text);
    return Py_BuildValue("(NiiiiLK)", qkvpy_config_tuple(&i.config), i.version, i.n_seqs,
                         i.n_pages, i.n_open_pages, (long long)i.tokens, i.bytes);
}
