/* cache_file.c - caches saved to and loaded from files, as libqkv_model does it. */
#include "cache_binding.h"
#include "qkv/io.h"

/* save(seqs, path): paths are bytes. */
PyObject *qkvpy_cache_save(PyObject *self, PyObject *args)
{
    char text[TEXT];
    PyObject *list;
    const char *path;
    Py_ssize_t n = 0;
    if (!PyArg_ParseTuple(args, "Oy", &list, &path))
        return NULL;
    int32_t *seqs = qkvpy_int32s(list, "seqs", &n);
    if (seqs == NULL)
        return NULL;
    qkv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = qkv_cache_save_file(((cache_object *)self)->cache, (int32_t)n, seqs, path, text,
                                 sizeof text);
    Py_END_ALLOW_THREADS
    PyMem_Free(seqs);
    return qkvpy_none(status, text);
}

/* load(path): the ids of the new sequences. */
PyObject *qkvpy_cache_load(PyObject *self, PyObject *path)
{
    const cache_object *c = (const cache_object *)self;
    const char *name = PyBytes_AsString(path);
    int32_t n = 0, *seqs = name ? PyMem_Malloc((size_t)c->config.max_seqs * sizeof *seqs) : NULL;
    if (seqs == NULL)
        return name ? PyErr_NoMemory() : NULL;
    char text[TEXT];
    qkv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = qkv_cache_load_file(c->cache, name, c->config.max_seqs, seqs, &n, text, sizeof text);
    Py_END_ALLOW_THREADS
    PyObject *list = status == QKV_OK ? PyList_New(n) : qkvpy_none(status, text);
    for (int32_t i = 0; list != NULL && i < n; i++)
        PyList_SET_ITEM(list, i, PyLong_FromLong(seqs[i]));
    PyMem_Free(seqs);
    return list;
}

PyObject *qkvpy_cache_inspect(PyObject *self, PyObject *path)
{
    (void)self;
    const char *name = PyBytes_AsString(path);
    if (name == NULL)
        return NULL;
    char text[TEXT];
    qkv_cache_file_info i;
    const qkv_status status = qkv_cache_inspect_file(name, &i, text, sizeof text);
    if (status != QKV_OK)
        return qkvpy_none(status, text);
    return Py_BuildValue("(NiiiiLK)", qkvpy_config_tuple(&i.config), i.version, i.n_seqs, i.n_pages,
                         i.n_open_pages, (long long)i.tokens, i.bytes);
}
