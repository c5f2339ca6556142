/* view.c - the type View: what it is made from. */
#include <stdlib.h>
#include <string.h>

#include "view.h"

/* ---- arguments --------------------------------------------------------------------------- */

static int open_lists(view_object *v, PyObject *const *args)
{
    Py_ssize_t n = 0, m;
    v->seqs = qkvpy_int32s(args[0], "seqs", &n);
    v->B = (int32_t)n;
    const char *names[] = {"q_lens", "q_offset", "cu_seqlens_q"};
    int32_t **lists[] = {&v->q_lens, &v->offsets, &v->cu};
    for (int i = 0; i < 3 && !PyErr_Occurred(); i++) {
        m = n + (i == 2);
        *lists[i] = qkvpy_int32s(args[1 + i], names[i], &m);
        if (!PyErr_Occurred() && qkvpy_same_length(names[i], m, n + (i == 2)) < 0)
            break;
    }
    v->offsets_given = v->offsets != NULL;
    return PyErr_Occurred() ? -1 : 0;
}

static int parse_options(view_object *v, PyObject *options)
{
    problem *p = &v->made_for;
    return PyArg_ParseTuple(options, "ppiIiLddLi", &v->causal, &p->want_lse, &p->desc.precision,
                            &p->desc.cpu_mask, &p->threads, &v->window, &p->desc.scale,
                            &p->desc.softcap, &v->shared, &v->pages) - 1;
}

/* q against the cache and the lists; fills q_lens and rows. */
static int check_queries(view_object *v)
{
    problem *p = &v->made_for;
    const qkv_cache_config *c = &v->cache->config;
    const tensor *q = &p->t[Q];
    p->desc.cu_seqlens_q = v->cu;
    p->desc.cu_seqlens_type = QKV_I32;
    if (qkvpy_check_queries(p) < 0)
        return -1;
    if (q->shape[q->rank - 1] != c->head_dim || (!v->cu && q->shape[0] != v->B)) {
        char have[256];
        PyErr_Format(PyExc_ValueError, "q has shape %s; %s is expected, with B = %d, D = %d",
                     qkvpy_shape_text(have, q->shape, q->rank),
                     v->cu ? "(T, H, D)" : "(B, H, T, D)", v->B, c->head_dim);
        return -1;
    }
    if (v->cu && (v->cu[0] != 0 || v->cu[v->B] != q->shape[0])) {
        PyErr_Format(PyExc_ValueError, "cu_seqlens_q is %d .. %d; q has %lld rows", v->cu[0],
                     v->cu[v->B], (long long)q->shape[0]);
        return -1;
    }
    const int given = v->q_lens != NULL;
    if (!given && (v->q_lens = PyMem_Malloc((size_t)(v->B + 1) * sizeof *v->q_lens)) == NULL)
        return -1;
    for (int32_t b = 0; b < v->B; b++) {
        if (!given)
            v->q_lens[b] = v->cu ? v->cu[b + 1] - v->cu[b] : (int32_t)p->desc.q_len;
        if (v->q_lens[b] < 0 || (!v->cu && v->q_lens[b] > p->desc.q_len)) {
            PyErr_Format(PyExc_ValueError, "q_lens[%d] is %d; it must be 0 .. %lld", b,
                         v->q_lens[b], (long long)p->desc.q_len);
            return -1;
        }
        if (v->cu && v->q_lens[b] > p->desc.q_len)
            p->desc.q_len = v->q_lens[b];
    }
    p->desc.n_seqs = v->B;
    v->rows = v->cu ? q->shape[0] : v->B * p->desc.q_len;
    return 0;
}

static int open_tensors(view_object *v, PyObject *const *args)
{
    static const int which[] = {Q, OUT, MASK, BIAS, SINKS, SLOPES};
    problem *p = &v->made_for;
    for (int i = 0; i < 6; i++)
        if ((i == 0 || args[i] != Py_None) && qkvpy_problem_tensor(p, which[i], args[i]) < 0)
            return -1;
    if (check_queries(v) < 0)
        return -1;
    v->lengths = PyMem_Malloc((size_t)(v->B + 1) * sizeof *v->lengths);
    for (int32_t b = 0; v->lengths && b < v->B; b++) {
        v->lengths[b] = qkv_cache_length(v->cache->cache, v->seqs[b]);
        p->desc.kv_len = v->lengths[b] > p->desc.kv_len ? v->lengths[b] : p->desc.kv_len;
    }
    p->desc.head_dim_v = v->cache->config.head_dim_v;
    if (v->lengths == NULL || qkvpy_describe_queries(p) < 0 || qkvpy_describe_rest(p) < 0)
        return -1;
    memcpy(v->seen, p->t, sizeof v->seen);
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------ */

int64_t qkvpy_view_o_elements(const view_object *v)
{
    const qkv_desc *d = &v->made_for.desc;
    return (v->rows * d->n_q_heads * d->head_dim_v + 15) / 16 * 16;
}

int64_t qkvpy_view_lse_elements(const view_object *v)
{
    return (v->rows * v->made_for.desc.n_q_heads + 15) / 16 * 16;
}

static int make_room(view_object *v)
{
    size_t bytes = 0;
    for (int i = 0; i < v->n_parts; i++) {
        const view_part *part = &v->part[i];
        const int32_t n = qkvpy_workers(&part->desc, v->made_for.threads, part->plan);
        const size_t need = qkv_workspace_size(part->plan, n);
        v->workspace_bytes = need > v->workspace_bytes ? need : v->workspace_bytes;
    }
    v->workspace_bytes = (v->workspace_bytes + 63) / 64 * 64;
    if (!is_direct(v))
        bytes = (size_t)(qkvpy_view_o_elements(v) + qkvpy_view_lse_elements(v)) * sizeof(float) *
                (size_t)v->n_parts;
    v->room_bytes = v->workspace_bytes + bytes;
    v->room = qkvpy_alloc(v->room_bytes);
    return v->room ? 0 : -1;
}

/* ---- the type ---------------------------------------------------------------------------- */

static int make(view_object *v, PyObject *const *args)
{
    qkv_desc_init(&v->made_for.desc);
    if (open_lists(v, args + 1) < 0 || parse_options(v, args[11]) < 0 ||
        open_tensors(v, args + 5) < 0 || qkvpy_view_add(v) < 0)
        return -1;
    for (int i = 0; i < v->n_parts; i++)
        if (qkvpy_view_plan(v, &v->part[i]) < 0)
            return -1;
    return make_room(v);
}

/* View(cache, seqs, q_lens, q_offset, cu_seqlens_q, q, out, mask, bias, sinks, slopes, options) */
static PyObject *view_create(PyTypeObject *type, PyObject *args, PyObject *words)
{
    (void)words;
    if (PyTuple_GET_SIZE(args) != 12 ||
        !PyObject_TypeCheck(PyTuple_GET_ITEM(args, 0), &qkvpy_cache_type)) {
        PyErr_SetString(PyExc_TypeError, "this is the inner interface of the package qkv");
        return NULL;
    }
    view_object *self = (view_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->cache = (cache_object *)Py_NewRef(PyTuple_GET_ITEM(args, 0));
    const int failed = make(self, PySequence_Fast_ITEMS(args)) < 0;
    qkvpy_problem_close(&self->made_for);
    if (failed) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void view_free(PyObject *object)
{
    view_object *v = (view_object *)object;
    for (int i = 0; i < v->n_parts; i++) {
        free(v->part[i].memory);
        PyMem_Free(v->part[i].bases);
    }
    free(v->memory[0]);
    free(v->memory[1]);
    free(v->room);
    void *lists[] = {v->seqs, v->q_lens, v->cu, v->offsets, v->lengths};
    for (int i = 0; i < 5; i++)
        PyMem_Free(lists[i]);
    Py_XDECREF(v->cache);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))qkvpy_view_run, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject qkvpy_view_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._qkv.View",
    .tp_basicsize = sizeof(view_object),
    .tp_dealloc = view_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = methods,
    .tp_new = view_create,
};
