/*
 * rope.c - the type Rope: a qkv_rope, its frequencies and tables.
 *
 * The class of qkv/_rope.py gives it words and defaults; here shapes are held against one another,
 * everything else is checked by the library.
 */
#include "rope_binding.h"

/* ---- the description ---------------------------------------------------------------------- */

/* A tuple of floats; returns how many, or -1. */
static int read_factors(PyObject *list, const char *name, double *to)
{
    if (list == Py_None)
        return 0;
    const Py_ssize_t n = PyTuple_Check(list) ? PyTuple_GET_SIZE(list) : -1;
    if (n < 0 || n > MAX_FACTORS) {
        PyErr_Format(PyExc_ValueError, "%s has %zd numbers; at most %d are accepted", name, n,
                     MAX_FACTORS);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        to[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(list, i));
    return PyErr_Occurred() ? -1 : (int)n;
}

static int parse_rope(rope_object *self, PyObject *args)
{
    qkv_rope *r = &self->rope;
    long long most, original;
    PyObject *lists[2];
    qkv_rope_init(r);
    if (!PyArg_ParseTuple(args, "iiiiiiiddLLdddddddOO", &r->type, &r->pairing, &r->precision,
                          &r->head_dim, &r->rotary_offset, &r->rotary_dim, &r->truncate, &r->theta,
                          &r->factor, &most, &original, &r->attention_factor, &r->beta_fast,
                          &r->beta_slow, &r->mscale, &r->mscale_all_dim, &r->low_freq_factor,
                          &r->high_freq_factor, &lists[0], &lists[1]))
        return -1;
    r->max_positions = most;
    r->original_max_positions = original;
    const int n[2] = {read_factors(lists[0], "short_factor", self->factors[0]),
                      PyErr_Occurred() ? -1
                                       : read_factors(lists[1], "long_factor", self->factors[1])};
    if (PyErr_Occurred())
        return -1;
    if (n[0] != n[1]) {
        PyErr_Format(PyExc_ValueError, "short_factor has %d numbers and long_factor %d", n[0],
                     n[1]);
        return -1;
    }
    r->n_factors = n[0];
    r->short_factor = lists[0] == Py_None ? NULL : self->factors[0];
    r->long_factor = lists[1] == Py_None ? NULL : self->factors[1];
    return 0;
}

static PyObject *rope_create(PyTypeObject *type, PyObject *args, PyObject *words)
{
    (void)words;
    char text[TEXT];
    rope_object *self = (rope_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    qkv_status status = QKV_OK;
    if (parse_rope(self, args) < 0 ||
        (status = qkv_rope_check(&self->rope, text, sizeof text)) != QKV_OK) {
        if (status != QKV_OK)
            qkvpy_raise(status, text);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void rope_free(PyObject *self) { Py_TYPE(self)->tp_free(self); }

static PyObject *rope_pairs(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(qkv_rope_pairs(&((rope_object *)self)->rope));
}

/* frequencies(seq_len): (tuple of them, a) */
static PyObject *rope_frequencies(PyObject *object, PyObject *args)
{
    const rope_object *self = (const rope_object *)object;
    double f[MAX_FACTORS], a;
    char text[TEXT];
    long long seq_len;
    if (!PyArg_ParseTuple(args, "L", &seq_len))
        return NULL;
    const qkv_status status =
        qkv_rope_frequencies(&self->rope, seq_len, f, &a, text, sizeof text);
    if (status != QKV_OK)
        return qkvpy_none(status, text);
    const int n = qkv_rope_pairs(&self->rope);
    PyObject *all = PyTuple_New(n);
    for (int i = 0; i < n && all != NULL; i++)
        PyTuple_SET_ITEM(all, i, PyFloat_FromDouble(f[i]));
    return all ? Py_BuildValue("(Nd)", all, a) : NULL;
}

static int64_t count_of(const tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

/* table(seq_len, positions, cos, sin): dense arrays, positions int64. */
static PyObject *rope_table(PyObject *object, PyObject *args)
{
    const rope_object *self = (const rope_object *)object;
    char text[TEXT];
    long long seq_len;
    PyObject *arrays[3];
    tensor t[3] = {{0}, {0}, {0}};
    qkv_status status = QKV_OK;
    if (!PyArg_ParseTuple(args, "LOOO", &seq_len, &arrays[0], &arrays[1], &arrays[2]))
        return NULL;
    const int good = qkvpy_tensor_open(&t[0], arrays[0], "positions", LENGTHS, DENSE) == 0 &&
                     qkvpy_tensor_open(&t[1], arrays[1], "cos", FLOATS, DENSE | WRITE) == 0 &&
                     qkvpy_tensor_open(&t[2], arrays[2], "sin", FLOATS, DENSE | WRITE) == 0;
    const int64_t n = good ? count_of(&t[0]) : 0, pairs = qkv_rope_pairs(&self->rope);
    if (good && (t[0].type != QKV_I64 || t[1].type != t[2].type || count_of(&t[1]) != n * pairs ||
                 count_of(&t[2]) != n * pairs)) {
        PyErr_SetString(PyExc_ValueError, "positions, cos or sin is not an array for a table");
    } else if (good) {
        Py_BEGIN_ALLOW_THREADS
        status = qkv_rope_table(&self->rope, seq_len, t[0].data, n, (qkv_type)t[1].type, t[1].data,
                                t[2].data, text, sizeof text);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < 3; i++)
        qkvpy_tensor_close(&t[i]);
    return qkvpy_none(status, text);
}

/* ---- the type ----------------------------------------------------------------------------- */

static PyMethodDef rope_methods[] = {
    {"pairs", rope_pairs, METH_NOARGS, NULL},
    {"frequencies", rope_frequencies, METH_VARARGS, NULL},
    {"table", rope_table, METH_VARARGS, NULL},
    {"apply", qkvpy_rope_apply, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject qkvpy_rope_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._qkv.Rope",
    .tp_basicsize = sizeof(rope_object),
    .tp_dealloc = rope_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = rope_methods,
    .tp_new = rope_create,
};
