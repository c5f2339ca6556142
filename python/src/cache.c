/* cache.c - the type Cache: a qkv_cache and what is done with its sequences. */
#include "cache_binding.h"

/* ---- lists ------------------------------------------------------------------------------- */

int64_t *qkvpy_int64s(PyObject *list, const char *name, Py_ssize_t *n)
{
    if (list == Py_None)
        return NULL;
    PyObject *items = PySequence_Fast(list, "a list of integers is expected");
    if (items == NULL)
        return NULL;
    *n = PySequence_Fast_GET_SIZE(items);
    int64_t *values = PyMem_Malloc((size_t)(*n + 1) * sizeof *values);
    for (Py_ssize_t i = 0; values != NULL && i < *n; i++)
        values[i] = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(items, i));
    Py_DECREF(items);
    if (values == NULL)
        PyErr_NoMemory();
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "%s holds a number that does not fit 64 bits", name);
        PyMem_Free(values);
        return NULL;
    }
    return values;
}

int32_t *qkvpy_int32s(PyObject *list, const char *name, Py_ssize_t *n)
{
    int64_t *wide = qkvpy_int64s(list, name, n);
    int32_t *values = (int32_t *)wide;
    for (Py_ssize_t i = 0; wide != NULL && i < *n; i++) {
        if (wide[i] != (int32_t)wide[i]) {
            PyErr_Format(PyExc_ValueError, "%s holds %lld, which does not fit 32 bits", name,
                         (long long)wide[i]);
            PyMem_Free(wide);
            return NULL;
        }
    }
    /* In place: the i-th 32 bits are read before anything after them is written. */
    for (Py_ssize_t i = 0; wide != NULL && i < *n; i++) {
        const int32_t value = (int32_t)wide[i];
        memcpy(&values[i], &value, sizeof value);
    }
    return values;
}

int qkvpy_same_length(const char *name, Py_ssize_t n, Py_ssize_t wanted)
{
    if (n == wanted)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s has %zd values for %zd sequences", name, n, wanted);
    return -1;
}

PyObject *qkvpy_none(qkv_status status, const char *text)
{
    if (status != QKV_OK)
        qkvpy_raise(status, text);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* ---- the type ---------------------------------------------------------------------------- */

PyObject *qkvpy_config_tuple(const qkv_cache_config *c)
{
    return Py_BuildValue("(iiiiiiiiiiiiiiiiLLi)", c->flags, c->n_layers, c->n_kv_heads, c->head_dim,
                         c->head_dim_v, c->k_format, c->v_format, c->k_group, c->v_group,
                         c->k_scale, c->v_scale, c->float_type, c->page_tokens, c->n_pages,
                         c->n_open_pages, c->max_seqs, (long long)c->max_tokens,
                         (long long)c->window_left, c->sink_tokens);
}

static int parse_config(PyObject *args, qkv_cache_config *c)
{
    long long max_tokens, window;
    qkv_cache_config_init(c);
    if (!PyArg_ParseTuple(args, "iiiiiiiiiiiiiiiiLLi", &c->flags, &c->n_layers, &c->n_kv_heads,
                          &c->head_dim, &c->head_dim_v, &c->k_format, &c->v_format, &c->k_group,
                          &c->v_group, &c->k_scale, &c->v_scale, &c->float_type, &c->page_tokens,
                          &c->n_pages, &c->n_open_pages, &c->max_seqs, &max_tokens, &window,
                          &c->sink_tokens))
        return -1;
    c->max_tokens = max_tokens;
    c->window_left = window;
    return 0;
}

static PyObject *cache_create(PyTypeObject *type, PyObject *args, PyObject *words)
{
    (void)words;
    char text[TEXT];
    qkv_cache_config config;
    if (parse_config(args, &config) < 0)
        return NULL;
    cache_object *self = (cache_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    const qkv_status status = qkv_cache_create(&config, NULL, &self->cache, text, sizeof text);
    if (status != QKV_OK) {
        qkvpy_raise(status, text);
        Py_DECREF(self);
        return NULL;
    }
    qkv_cache_config_get(self->cache, &self->config);
    return (PyObject *)self;
}

static void cache_free(PyObject *self)
{
    qkv_cache_destroy(((cache_object *)self)->cache);
    Py_TYPE(self)->tp_free(self);
}

/* ---- sequences --------------------------------------------------------------------------- */

static qkv_cache *cache_of(PyObject *self) { return ((cache_object *)self)->cache; }

static PyObject *cache_add(PyObject *self, PyObject *unused)
{
    (void)unused;
    char text[TEXT];
    int32_t seq = 0;
    const qkv_status status = qkv_cache_add(cache_of(self), &seq, text, sizeof text);
    return status == QKV_OK ? PyLong_FromLong(seq) : qkvpy_none(status, text);
}

static PyObject *cache_fork(PyObject *self, PyObject *args)
{
    char text[TEXT];
    int seq;
    int32_t child = 0;
    if (!PyArg_ParseTuple(args, "i", &seq))
        return NULL;
    const qkv_status status = qkv_cache_fork(cache_of(self), seq, &child, text, sizeof text);
    return status == QKV_OK ? PyLong_FromLong(child) : qkvpy_none(status, text);
}

/* reorder(seqs, parents) */
static PyObject *cache_reorder(PyObject *self, PyObject *args)
{
    char text[TEXT];
    PyObject *lists[2], *result = NULL;
    Py_ssize_t n = 0, m = 0;
    if (!PyArg_ParseTuple(args, "OO", &lists[0], &lists[1]))
        return NULL;
    int32_t *seqs = qkvpy_int32s(lists[0], "seqs", &n);
    int32_t *parents = seqs ? qkvpy_int32s(lists[1], "parents", &m) : NULL;
    if (parents && qkvpy_same_length("parents", m, n) == 0)
        result = qkvpy_none(
            qkv_cache_reorder(cache_of(self), (int32_t)n, seqs, parents, text, sizeof text), text);
    PyMem_Free(seqs);
    PyMem_Free(parents);
    return result;
}

/* commit(seqs, lengths or None) */
static PyObject *cache_commit(PyObject *self, PyObject *args)
{
    char text[TEXT];
    PyObject *lists[2];
    Py_ssize_t n = 0, m = 0;
    qkv_status status = QKV_OK;
    if (!PyArg_ParseTuple(args, "OO", &lists[0], &lists[1]))
        return NULL;
    int32_t *seqs = qkvpy_int32s(lists[0], "seqs", &n);
    int64_t *lengths = seqs ? qkvpy_int64s(lists[1], "lengths", &m) : NULL;
    if (!PyErr_Occurred() && (lengths == NULL || qkvpy_same_length("lengths", m, n) == 0)) {
        Py_BEGIN_ALLOW_THREADS
        status =
            qkv_cache_commit(cache_of(self), (int32_t)n, seqs, lengths, text, sizeof text);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(seqs);
    PyMem_Free(lengths);
    return qkvpy_none(status, text);
}

static PyObject *cache_truncate(PyObject *self, PyObject *args)
{
    char text[TEXT];
    int seq;
    long long length;
    if (!PyArg_ParseTuple(args, "iL", &seq, &length))
        return NULL;
    return qkvpy_none(qkv_cache_truncate(cache_of(self), seq, length, text, sizeof text), text);
}

static PyObject *cache_evict(PyObject *self, PyObject *args)
{
    char text[TEXT];
    int seq;
    long long before;
    if (!PyArg_ParseTuple(args, "iL", &seq, &before))
        return NULL;
    return qkvpy_none(qkv_cache_evict(cache_of(self), seq, before, text, sizeof text), text);
}

static PyObject *cache_release(PyObject *self, PyObject *args)
{
    int seq;
    if (!PyArg_ParseTuple(args, "i", &seq))
        return NULL;
    return qkvpy_none(qkv_cache_release(cache_of(self), seq),
                      "seq is not a sequence of this cache");
}

/* ---- facts ------------------------------------------------------------------------------- */

/* info(seq): (length, committed, kept_from, pages, shared pages) */
static PyObject *cache_info(PyObject *self, PyObject *args)
{
    int seq;
    qkv_cache_seq_info i;
    if (!PyArg_ParseTuple(args, "i", &seq))
        return NULL;
    if (qkv_cache_seq_info_get(cache_of(self), seq, &i) != QKV_OK)
        return qkvpy_none(QKV_ERR_ARGUMENT, "seq is not a sequence of this cache");
    return Py_BuildValue("(LLLii)", (long long)i.length, (long long)i.committed,
                         (long long)i.kept_from, i.n_pages, i.n_shared);
}

static PyObject *cache_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    qkv_cache_stats s;
    qkv_cache_stats_get(cache_of(self), &s);
    return Py_BuildValue("(iiiiiiLLKKKKKK)", s.n_seqs, s.pages, s.used_pages, s.shared_pages,
                         s.open_pages, s.used_open_pages, (long long)s.tokens,
                         (long long)s.stored_tokens, s.allocated, s.payload, s.copied, s.closed,
                         s.opened, s.evicted);
}

/* (config, bytes of a page, of an open page, of a token) */
static PyObject *cache_config(PyObject *self, PyObject *unused)
{
    (void)unused;
    const qkv_cache_config *c = &((cache_object *)self)->config;
    qkv_cache_bytes b;
    char text[TEXT];
    const qkv_status status = qkv_cache_config_check(c, &b, text, sizeof text);
    if (status != QKV_OK)
        return qkvpy_none(status, text);
    return Py_BuildValue("(NKKK)", qkvpy_config_tuple(c), b.page, b.open_page, b.token);
}

static PyObject *cache_shared_prefix(PyObject *self, PyObject *list)
{
    char text[TEXT];
    Py_ssize_t n = 0;
    int64_t tokens = 0;
    int32_t *seqs = qkvpy_int32s(list, "seqs", &n);
    if (seqs == NULL)
        return NULL;
    const qkv_status status =
        qkv_cache_shared_prefix(cache_of(self), (int32_t)n, seqs, &tokens, text, sizeof text);
    PyMem_Free(seqs);
    return status == QKV_OK ? PyLong_FromLongLong(tokens) : qkvpy_none(status, text);
}

static PyMethodDef methods[] = {
    {"add", cache_add, METH_NOARGS, NULL},
    {"fork", cache_fork, METH_VARARGS, NULL},
    {"reorder", cache_reorder, METH_VARARGS, NULL},
    {"append", (PyCFunction)(void (*)(void))qkvpy_cache_append, METH_FASTCALL, NULL},
    {"commit", cache_commit, METH_VARARGS, NULL},
    {"truncate", cache_truncate, METH_VARARGS, NULL},
    {"evict", cache_evict, METH_VARARGS, NULL},
    {"release", cache_release, METH_VARARGS, NULL},
    {"info", cache_info, METH_VARARGS, NULL},
    {"stats", cache_stats, METH_NOARGS, NULL},
    {"config", cache_config, METH_NOARGS, NULL},
    {"shared_prefix", cache_shared_prefix, METH_O, NULL},
    {"read", qkvpy_cache_read, METH_VARARGS, NULL},
    {"set_scales", qkvpy_cache_set_scales, METH_VARARGS, NULL},
    {"save", qkvpy_cache_save, METH_VARARGS, NULL},
    {"load", qkvpy_cache_load, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject qkvpy_cache_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._qkv.Cache",
    .tp_basicsize = sizeof(cache_object),
    .tp_dealloc = cache_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = methods,
    .tp_new = cache_create,
};
