/* layers_fields.c - a qkv_layer_desc and its rope as dictionaries with the names of the fields. */
#include <stddef.h>
#include <string.h>

#include "layers_binding.h"

enum { I32, I64, F64, FACTORS };

typedef struct field {
    const char *name;
    int kind;
    size_t at;
} field;

#define LAYER(kind, name) {#name, kind, offsetof(qkv_layer_desc, name)}
#define ROPE(kind, name) {#name, kind, offsetof(qkv_rope, name)}

static const field layer_fields[] = {
    LAYER(I32, kind),          LAYER(I32, d_model),
    LAYER(I32, d_memory),      LAYER(I32, n_q_heads),
    LAYER(I32, n_kv_heads),    LAYER(I32, head_dim),
    LAYER(I32, head_dim_v),    LAYER(I32, q_lora_rank),
    LAYER(I32, kv_lora_rank),  LAYER(I32, rope_dim),
    LAYER(I32, q_bias),        LAYER(I32, k_bias),
    LAYER(I32, v_bias),        LAYER(I32, o_bias),
    LAYER(I32, qk_norm),       LAYER(I32, latent_norm),
    LAYER(I32, o_gate),        LAYER(I32, v_from_k),
    LAYER(F64, norm_eps),      LAYER(F64, scale),
    LAYER(F64, softcap),       LAYER(I32, sinks),
    LAYER(I32, causal),        LAYER(I32, cross),
    LAYER(I64, window_left),   LAYER(I64, window_right),
    LAYER(I64, chunk_tokens),  LAYER(I32, alibi),
    LAYER(F64, alibi_max_bias), LAYER(I32, relative_buckets),
    LAYER(I32, relative_max_distance), LAYER(I32, relative_bidirectional),
    LAYER(I32, weights),
    {NULL, 0, 0},
};

static const field rope_fields[] = {
    ROPE(I32, type),          ROPE(I32, pairing),
    ROPE(I32, precision),     ROPE(I32, head_dim),
    ROPE(I32, rotary_offset), ROPE(I32, rotary_dim),
    ROPE(F64, theta),         ROPE(F64, factor),
    ROPE(I64, max_positions), ROPE(I64, original_max_positions),
    ROPE(F64, attention_factor), ROPE(F64, beta_fast),
    ROPE(F64, beta_slow),     ROPE(F64, mscale),
    ROPE(F64, mscale_all_dim), ROPE(I32, truncate),
    ROPE(F64, low_freq_factor), ROPE(F64, high_freq_factor),
    ROPE(FACTORS, short_factor), ROPE(FACTORS, long_factor),
    {NULL, 0, 0},
};

/* ---- from Python ------------------------------------------------------------------------- */

static int set_integer(const field *f, char *base, PyObject *value)
{
    const long long n = PyLong_AsLongLong(value);

    if (n == -1 && PyErr_Occurred())
        return -1;
    if (f->kind == I32 && n != (int32_t)n) {
        PyErr_Format(PyExc_ValueError, "%s is %lld; it does not fit 32 bits", f->name, n);
        return -1;
    }
    const int32_t narrow = (int32_t)n;
    const int64_t wide = n;
    memcpy(base + f->at, f->kind == I32 ? (const void *)&narrow : (const void *)&wide,
           f->kind == I32 ? sizeof narrow : sizeof wide);
    return 0;
}

/* Appends a list of numbers to memory that is large enough, and points the field to it. */
static int set_factors(const field *f, qkv_rope *rope, PyObject *value, double **next)
{
    const Py_ssize_t n = PySequence_Size(value);
    const double *first = *next;

    if (n < 0)
        return -1;
    if (n > 512 || (rope->n_factors && n != rope->n_factors)) {
        PyErr_Format(PyExc_ValueError, "%s has %zd factors; at most 512, and as many short as long "
                                       "ones are accepted", f->name, n);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(value, i);
        *(*next)++ = item ? PyFloat_AsDouble(item) : 0;
        Py_XDECREF(item);
    }
    rope->n_factors = (int32_t)n;
    memcpy((char *)rope + f->at, &first, sizeof first);
    return PyErr_Occurred() ? -1 : 0;
}

static int set_field(const field *f, char *base, PyObject *value, double **next)
{
    if (f->kind == FACTORS)
        return set_factors(f, (qkv_rope *)(void *)base, value, next);
    if (f->kind != F64)
        return set_integer(f, base, value);
    const double x = PyFloat_AsDouble(value);
    memcpy(base + f->at, &x, sizeof x);
    return PyErr_Occurred() ? -1 : 0;
}

static int set_fields(const field *fields, char *base, PyObject *dict, double **next)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(dict, &at, &key, &value)) {
        const char *name = PyUnicode_AsUTF8(key);
        const field *f = fields;
        if (name == NULL)
            return -1;
        while (f->name && strcmp(f->name, name) != 0)
            f++;
        if (f->name == NULL) {
            if (fields == layer_fields && strcmp(name, "rope") == 0)
                continue;
            PyErr_Format(PyExc_TypeError, "%s is no field of a layer", name);
            return -1;
        }
        if (set_field(f, base, value, next) < 0)
            return -1;
    }
    return 0;
}

int qkvpy_desc_from(PyObject *fields, qkv_layer_desc *desc, double **factors)
{
    PyObject *rope = PyDict_GetItemString(fields, "rope");
    double *next;

    *factors = next = PyMem_Calloc(1024, sizeof *next);
    if (next == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (set_fields(layer_fields, (char *)desc, fields, &next) < 0)
        return -1;
    if (rope == NULL || rope == Py_None)
        return 0;
    qkv_rope_init(&desc->rope);
    desc->rope.head_dim = desc->kind == QKV_LAYER_MLA ? desc->rope_dim : desc->head_dim;
    return set_fields(rope_fields, (char *)&desc->rope, rope, &next);
}

/* ---- to Python --------------------------------------------------------------------------- */

static PyObject *get_field(const field *f, const char *base, int32_t n_factors)
{
    int32_t narrow;
    int64_t wide;
    double x;
    const double *list;

    switch (f->kind) {
    case I32: memcpy(&narrow, base + f->at, sizeof narrow); return PyLong_FromLong(narrow);
    case I64: memcpy(&wide, base + f->at, sizeof wide); return PyLong_FromLongLong(wide);
    case F64: memcpy(&x, base + f->at, sizeof x); return PyFloat_FromDouble(x);
    default: memcpy(&list, base + f->at, sizeof list); break;
    }
    if (list == NULL)
        return Py_NewRef(Py_None);
    PyObject *values = PyList_New(n_factors);
    for (int32_t i = 0; values && i < n_factors; i++)
        PyList_SET_ITEM(values, i, PyFloat_FromDouble(list[i]));
    return values;
}

static PyObject *get_fields(const field *fields, const char *base, int32_t n_factors)
{
    PyObject *dict = PyDict_New();

    for (const field *f = fields; dict && f->name; f++) {
        PyObject *value = get_field(f, base, n_factors);
        if (value == NULL || PyDict_SetItemString(dict, f->name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

PyObject *qkvpy_desc_dict(const qkv_layer_desc *desc)
{
    PyObject *dict = get_fields(layer_fields, (const char *)desc, 0);
    PyObject *rope = desc->rope.type == QKV_ROPE_NONE
                         ? Py_NewRef(Py_None)
                         : get_fields(rope_fields, (const char *)&desc->rope, desc->rope.n_factors);

    if (dict && (rope == NULL || PyDict_SetItemString(dict, "rope", rope) < 0))
        Py_CLEAR(dict);
    Py_XDECREF(rope);
    return dict;
}
