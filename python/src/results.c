/* results.c - the oracle and merge, on results that the package has made. */
#include <string.h>
#include <stdlib.h>

#include "binding.h"

/* The memory of a dense NumPy array of that type and that many elements. */
static void *dense(tensor *t, PyObject *array, int32_t type, int64_t elements)
{
    int64_t n = 1;
    if (PyErr_Occurred() || qkvpy_tensor_open(t, array, "array", FLOATS, DENSE) < 0)
        return NULL;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    if (t->type != type || n != elements)
        PyErr_SetString(PyExc_ValueError, "an array has another type or size than the problem");
    return t->data;
}

/* The oracle reads pages without a look at their numbers, so a plan and its arguments are made to
 * have them checked. */
static int check_pages(const problem *p)
{
    qkv_desc d = p->desc;
    qkv_args a;
    char text[512];
    void *memory;
    const size_t rows = (size_t)d.n_seqs * (size_t)d.n_q_heads * (size_t)d.q_len;
    d.lse.type = QKV_NONE;
    const qkv_plan *plan = qkvpy_plan_new(&d, &memory);
    if (plan == NULL)
        return -1;
    qkvpy_inputs(p, &a);
    a.workspace_bytes = qkv_workspace_size(plan, 1);
    a.workspace = qkvpy_alloc(a.workspace_bytes);
    a.o = qkvpy_alloc(rows * (size_t)d.head_dim_v * sizeof(double));
    a.weights = qkvpy_alloc(rows * (size_t)d.kv_len * sizeof(double));
    if (a.o && a.weights && a.workspace &&
        qkv_args_check(plan, &a, 1, text, sizeof text) != QKV_OK)
        qkvpy_raise(QKV_ERR_ARGUMENT, text);
    free(a.o);
    free(a.weights);
    free(a.workspace);
    free(memory);
    return PyErr_Occurred() ? -1 : 0;
}

static void run_reference(const problem *p, PyObject *const *results)
{
    const qkv_desc *d = &p->desc;
    char text[512];
    const qkv_status status = qkv_explain(d, text, sizeof text);
    if (status != QKV_OK) {
        qkvpy_raise(status, text);
        return;
    }
    if (d->page_tokens > 0 && check_pages(p) < 0)
        return;
    const int64_t rows = (int64_t)d->n_seqs * d->n_q_heads * d->q_len;
    const int64_t width[5] = {d->head_dim_v, 1, d->kv_len, d->head_dim_v, 1};
    tensor t[5] = {{0}};
    void *to[5] = {NULL}, *scratch = qkvpy_alloc(qkv_ref_scratch_size(d));
    for (int i = 0; i < 5; i++)
        if (results[i] != Py_None)
            to[i] = dense(&t[i], results[i], QKV_F64, rows * width[i]);
    if (!PyErr_Occurred()) {
        const qkv_ref_out out = {to[0], to[1], to[2], to[3], to[4]};
        qkv_args a;
        qkvpy_inputs(p, &a);
        Py_BEGIN_ALLOW_THREADS
        qkv_ref_attention(d, &a, &out, scratch);
        Py_END_ALLOW_THREADS
    }
    free(scratch);
    for (int i = 0; i < 5; i++)
        qkvpy_tensor_close(&t[i]);
}

/* reference(what attention takes, o, lse, weights or None, o_budget, lse_budget). */
PyObject *qkvpy_reference(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    (void)self;
    problem p;
    if (qkvpy_problem_open(&p, args, n_args - 5) == 0)
        run_reference(&p, args + n_args - 5);
    qkvpy_problem_close(&p);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* merge(((o, lse), ...), sinks or None, (o, lse), (wide, packed, B, H, T, Dv)). */
PyObject *qkvpy_merge(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *parts, *sinks, *o, *lse;
    int wide, packed;
    long long T;
    qkv_merge_args m;
    qkv_merge_init(&m);
    if (!PyArg_ParseTuple(args, "O!O(OO)(ppiiLi)", &PyTuple_Type, &parts, &sinks, &o, &lse, &wide,
                          &packed, &m.n_seqs, &m.n_heads, &T, &m.head_dim_v))
        return NULL;
    const Py_ssize_t n = PyTuple_GET_SIZE(parts);
    const int64_t H = m.n_heads, Dv = m.head_dim_v, rows = m.n_seqs * H * T;
    const int64_t stride[2][3] = {{H * T * Dv, packed ? Dv : T * Dv, packed ? H * Dv : Dv},
                                  {H * T, T, 1}};
    memcpy(m.o_stride, stride[0], sizeof m.o_stride);
    memcpy(m.o_part_stride, stride[0], sizeof m.o_stride);
    memcpy(m.lse_stride, stride[1], sizeof m.lse_stride);
    memcpy(m.lse_part_stride, stride[1], sizeof m.lse_stride);
    tensor *t = PyMem_RawCalloc((size_t)n * 2 + 3, sizeof *t);
    const void **data = PyMem_RawCalloc((size_t)n * 2 + 1, sizeof *data);
    if (t == NULL || data == NULL)
        PyErr_NoMemory();
    m.type = wide ? QKV_F64 : QKV_F32;
    for (Py_ssize_t i = 0; i < n && !PyErr_Occurred(); i++) {
        PyObject *part = PyTuple_GET_ITEM(parts, i);
        data[i] = dense(&t[i], PyTuple_GET_ITEM(part, 0), m.type, rows * Dv);
        data[n + i] = dense(&t[n + i], PyTuple_GET_ITEM(part, 1), m.type, rows);
    }
    if (!PyErr_Occurred() && sinks != Py_None)
        m.sinks = dense(&t[2 * n], sinks, m.type, H);
    if (!PyErr_Occurred()) {
        m.o = dense(&t[2 * n + 1], o, m.type, rows * Dv);
        m.lse = dense(&t[2 * n + 2], lse, m.type, rows);
    }
    m.n_parts = (int32_t)n;
    m.n_tokens = T;
    m.o_parts = data;
    m.lse_parts = data + n;
    char text[512];
    const qkv_status status = PyErr_Occurred() ? QKV_OK : qkv_merge(&m, text, sizeof text);
    if (status != QKV_OK)
        qkvpy_raise(status, text);
    for (Py_ssize_t i = 0; t != NULL && i < 2 * n + 3; i++)
        qkvpy_tensor_close(&t[i]);
    PyMem_RawFree(t);
    PyMem_RawFree(data);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}
