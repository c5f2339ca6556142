/* layers_type.c - the type Layer. */
#include <string.h>

#include "layers_binding.h"

/* ---- from arrays ------------------------------------------------------------------------- */

typedef struct weight_arrays {
    tensor data, bias;
} weight_arrays;

/* One weight: None, or (matrix or vector, bias or None).  The library knows what shapes must be; so
 * that it reads nothing else, they are checked here against the rows and columns it will read. */
static int open_weight(PyObject *item, const char *name, int64_t rows, int64_t cols,
                       weight_arrays *a, qkv_layer_weight *w)
{
    PyObject *data, *bias;
    char text[256];

    if (item == Py_None)
        return 0;
    if (!PyArg_ParseTuple(item, "OO", &data, &bias))
        return -1;
    if (qkvpy_tensor_open(&a->data, data, name, FLOATS, AS_IS) < 0 ||
        (bias != Py_None && qkvpy_tensor_open(&a->bias, bias, name, FLOATS, DENSE) < 0))
        return -1;
    const tensor *t = &a->data;
    const int vector = cols == 1 && t->rank == 1;
    if (rows > 0 && (t->shape[0] != rows || (!vector && (t->rank != 2 || t->shape[1] != cols)))) {
        PyErr_Format(PyExc_ValueError, "%s has shape %s; (%lld, %lld) is expected", name,
                     qkvpy_shape_text(text, t->shape, t->rank), (long long)rows, (long long)cols);
        return -1;
    }
    if (rows > 0 && a->bias.type && (a->bias.rank != 1 || a->bias.shape[0] != rows)) {
        PyErr_Format(PyExc_ValueError, "the bias of %s has shape %s; (%lld,) is expected", name,
                     qkvpy_shape_text(text, a->bias.shape, a->bias.rank), (long long)rows);
        return -1;
    }
    *w = qkv_layer_weight_dense(t->data, a->bias.data, QKV_F32, 1);
    w->type = t->type;
    w->bias_type = a->bias.type ? a->bias.type : QKV_F32;
    w->row_stride = t->rank ? t->stride[0] : 0;
    w->col_stride = vector || t->rank < 2 ? 1 : t->stride[1];
    return 0;
}

/* Rows and columns of a role's weight, as qkv/layers.h says; 0 rows where there is none. */
static void shape_of(const qkv_layer_desc *d, int role, int64_t *rows, int64_t *cols)
{
    const int64_t hq = d->n_q_heads, hkv = d->n_kv_heads, D = d->head_dim, v = d->head_dim_v;
    const int64_t in = d->cross && d->d_memory ? d->d_memory : d->d_model;
    const int64_t c = d->kv_lora_rank, r = d->rope_dim, q_a = d->q_lora_rank;
    const int64_t shapes[QKV_ROLE_COUNT][2] = {
        [QKV_ROLE_Q] = {hq * D, d->d_model}, [QKV_ROLE_K] = {hkv * D, in},
        [QKV_ROLE_V] = {hkv * v, in},        [QKV_ROLE_O] = {d->d_model, hq * v},
        [QKV_ROLE_Q_NORM] = {D, 1},          [QKV_ROLE_K_NORM] = {D, 1},
        [QKV_ROLE_SINKS] = {hq, 1},          [QKV_ROLE_Q_A] = {q_a, d->d_model},
        [QKV_ROLE_Q_A_NORM] = {q_a, 1},      [QKV_ROLE_Q_B] = {hq * D, q_a},
        [QKV_ROLE_KV_A] = {c + r, d->d_model}, [QKV_ROLE_KV_A_NORM] = {c, 1},
        [QKV_ROLE_KV_B] = {hq * (D - r + v), c},
        [QKV_ROLE_RELATIVE_BIAS] = {d->relative_buckets, hq},
    };
    *rows = shapes[role][0];
    *cols = shapes[role][1];
}

static int create(layer_object *self, const qkv_layer_desc *desc, PyObject *weights)
{
    weight_arrays arrays[QKV_ROLE_COUNT];
    qkv_layer_weight w[QKV_ROLE_COUNT];
    char text[TEXT];
    qkv_status status = qkv_layer_desc_check(desc, text, sizeof text);

    memset(arrays, 0, sizeof arrays);
    memset(w, 0, sizeof w);
    if (status != QKV_OK)
        return qkvpy_raise(status, text);
    if (PyTuple_GET_SIZE(weights) != QKV_ROLE_COUNT) {
        PyErr_Format(PyExc_TypeError, "%d weights are expected", QKV_ROLE_COUNT);
        return -1;
    }
    for (int role = 0; role < QKV_ROLE_COUNT && !PyErr_Occurred(); role++) {
        int64_t rows, cols;
        shape_of(desc, role, &rows, &cols);
        open_weight(PyTuple_GET_ITEM(weights, role), qkv_role_name(role), rows, cols, &arrays[role],
                    &w[role]);
    }
    if (!PyErr_Occurred()) {
        status = qkv_layer_create(desc, w, NULL, &self->layer, text, sizeof text);
        if (status != QKV_OK)
            qkvpy_raise(status, text);
    }
    for (int role = 0; role < QKV_ROLE_COUNT; role++) {
        qkvpy_tensor_close(&arrays[role].data);
        qkvpy_tensor_close(&arrays[role].bias);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Layer(fields, weights) */
static PyObject *layer_new(PyTypeObject *type, PyObject *args, PyObject *words)
{
    PyObject *fields, *weights;
    double *factors = NULL;
    qkv_layer_desc desc;

    (void)words;
    if (!PyArg_ParseTuple(args, "O!O!", &PyDict_Type, &fields, &PyTuple_Type, &weights))
        return NULL;
    layer_object *self = (layer_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    qkv_layer_desc_init(&desc);
    int status = qkvpy_desc_from(fields, &desc, &factors);
    if (status == 0)
        status = create(self, &desc, weights);
    PyMem_Free(factors);
    if (status < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* A Layer that owns this one; NULL with an exception. */
static PyObject *wrap(qkv_layer *layer)
{
    layer_object *self = (layer_object *)qkvpy_layer_type.tp_alloc(&qkvpy_layer_type, 0);

    if (self == NULL)
        qkv_layer_destroy(layer);
    else
        self->layer = layer;
    return (PyObject *)self;
}

/* layer_load(directory, part, layer, family or None, weights) */
PyObject *qkvpy_layer_load(PyObject *module, PyObject *args)
{
    const char *family;
    char text[TEXT];
    int part, number, weights;
    PyObject *path;
    qkv_checkpoint *checkpoint = NULL;
    qkv_layer *layer = NULL;
    qkv_status status;

    (void)module;
    if (!PyArg_ParseTuple(args, "Siizi", &path, &part, &number, &family, &weights))
        return NULL;
    qkv_model *model = PyMem_Malloc(sizeof *model);
    if (model == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    status = qkv_checkpoint_open(PyBytes_AS_STRING(path), &checkpoint, text, sizeof text);
    if (status == QKV_OK) {
        const qkv_config config = qkv_checkpoint_config(checkpoint);
        status = qkv_model_read(&config, family, model, text, sizeof text);
    }
    if (status == QKV_OK)
        status = qkv_layer_load_as(checkpoint, model, part, number, weights, NULL, &layer, text,
                                   sizeof text);
    qkv_checkpoint_close(checkpoint);
    Py_END_ALLOW_THREADS
    PyMem_Free(model);
    if (status != QKV_OK) {
        qkvpy_raise(status, text);
        return NULL;
    }
    return wrap(layer);
}

static void layer_free(PyObject *self)
{
    qkv_layer_destroy(((layer_object *)self)->layer);
    Py_TYPE(self)->tp_free(self);
}

/* ---- facts ------------------------------------------------------------------------------- */

/* (fields, variant, bytes) */
static PyObject *layer_facts(PyObject *self, PyObject *unused)
{
    const qkv_layer *layer = ((layer_object *)self)->layer;
    char text[64];

    (void)unused;
    return Py_BuildValue("(Nsn)", qkvpy_desc_dict(qkv_layer_desc_of(layer)),
                         qkv_layer_variant(qkv_layer_desc_of(layer), text, sizeof text),
                         (Py_ssize_t)qkv_layer_bytes(layer));
}

/* convert(kind, n): 0 pools heads, 1 factorises, 2 pairs */
static PyObject *layer_convert(PyObject *self, PyObject *args)
{
    const qkv_layer *layer = ((layer_object *)self)->layer;
    int kind, n;
    char text[TEXT];
    qkv_layer *new = NULL;
    qkv_status status;

    if (!PyArg_ParseTuple(args, "ii", &kind, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = kind == 0   ? qkv_layer_pool_heads(layer, n, NULL, &new, text, sizeof text)
             : kind == 1 ? qkv_layer_factorise(layer, n, NULL, &new, text, sizeof text)
                         : qkv_layer_pair(layer, n, NULL, &new, text, sizeof text);
    Py_END_ALLOW_THREADS
    if (status != QKV_OK) {
        qkvpy_raise(status, text);
        return NULL;
    }
    return wrap(new);
}

static PyObject *copy_of(const void *data, int rank, const int64_t *shape)
{
    tensor t = {0};
    PyObject *dims = PyTuple_New(rank), *array = NULL;

    for (int i = 0; dims && i < rank; i++)
        PyTuple_SET_ITEM(dims, i, PyLong_FromLongLong(shape[i]));
    if (dims)
        array = PyObject_CallFunction(qkvpy_empty, "OiN", Py_None, QKV_F32, dims);
    if (array && qkvpy_tensor_open(&t, array, "weight", FLOATS, DENSE | WRITE) < 0)
        Py_CLEAR(array);
    if (array)
        memcpy(t.data, data, (size_t)(shape[0] * (rank > 1 ? shape[1] : 1)) * sizeof(float));
    qkvpy_tensor_close(&t);
    return array;
}

/* weight(role): None, or (array, bias or None) */
static PyObject *layer_weight(PyObject *self, PyObject *args)
{
    qkv_layer_weight w;
    int64_t shape[2];
    int role;

    if (!PyArg_ParseTuple(args, "i", &role))
        return NULL;
    const qkv_status status = qkv_layer_weight_of(((layer_object *)self)->layer, role, &w,
                                                  &shape[0], &shape[1]);
    if (status == QKV_ERR_UNSUPPORTED) {
        PyErr_SetString(PyExc_ValueError, "the layer keeps its matrices in another order or as codes; "
                                          "those of layers that keep f32 can be copied");
        return NULL;
    }
    if (status != QKV_OK || shape[0] == 0)
        return Py_NewRef(Py_None);
    PyObject *array = copy_of(w.data, shape[1] > 1 ? 2 : 1, shape);
    PyObject *bias = w.bias ? copy_of(w.bias, 1, shape) : Py_NewRef(Py_None);
    if (array && bias)
        return Py_BuildValue("(NN)", array, bias);
    Py_XDECREF(array);
    Py_XDECREF(bias);
    return NULL;
}

static PyMethodDef methods[] = {
    {"convert", layer_convert, METH_VARARGS, NULL},
    {"weight", layer_weight, METH_VARARGS, NULL},
    {"run", qkvpy_layer_run, METH_VARARGS, NULL},
    {"facts", layer_facts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject qkvpy_layer_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._layers.Layer",
    .tp_basicsize = sizeof(layer_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = layer_new,
    .tp_dealloc = layer_free,
    .tp_methods = methods,
};
