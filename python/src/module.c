/* module.c - what Python sees of qkv._qkv.  The package qkv gives it words, defaults and checks. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

static PyObject *attention(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    (void)self;
    problem p;
    void *memory = NULL;
    PyObject *whole = NULL;
    if (qkvpy_problem_open(&p, args, n_args) == 0) {
        const qkv_plan *plan = qkvpy_plan_new(&p.desc, &memory);
        if (plan != NULL)
            whole = qkvpy_run(&p, plan, args, NULL, 0);
        free(memory);
    }
    qkvpy_problem_close(&p);
    return whole;
}

/* ---- Plan: a problem planned once, run many times ---------------------------------------- */

typedef struct {
    PyObject_HEAD
    problem made_for; /* closed, but for the shapes and strides to compare with */
    tensor seen[N_RUN_TENSORS];
    void *memory, *workspace;
    const qkv_plan *plan;
    size_t workspace_bytes;
    int busy; /* a run has the workspace; one from another thread makes itself another */
} plan_object;

static PyObject *plan_create(PyTypeObject *type, PyObject *args, PyObject *words)
{
    (void)words;
    plan_object *self = (plan_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    problem *p = &self->made_for;
    int ok = qkvpy_problem_open(p, PySequence_Fast_ITEMS(args), PyTuple_GET_SIZE(args)) == 0;
    if (ok)
        self->plan = qkvpy_plan_new(&p->desc, &self->memory);
    if (self->plan != NULL) {
        memcpy(self->seen, p->t, sizeof self->seen);
        self->workspace_bytes = qkv_workspace_size(self->plan, qkvpy_workers(p, self->plan));
        self->workspace = qkvpy_alloc(self->workspace_bytes);
    }
    qkvpy_problem_close(p);
    if (self->workspace == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void plan_free(PyObject *object)
{
    free(((plan_object *)object)->memory);
    free(((plan_object *)object)->workspace);
    Py_TYPE(object)->tp_free(object);
}

/* The plan knows sizes and strides by heart, so arrays that differ would be read wrongly. */
static int check_same(const plan_object *self, const problem *p)
{
    for (int i = 0; i < N_RUN_TENSORS; i++) {
        const tensor *was = &self->seen[i], *is = &p->t[i];
        const qkv_layout *o = &self->made_for.desc.o, *o_is = &p->desc.o;
        const size_t bytes = (size_t)is->rank * sizeof is->shape[0];
        if (i == OUT ? o->type == o_is->type && !memcmp(o->stride, o_is->stride, sizeof o->stride)
                     : is->type == was->type && is->rank == was->rank &&
                           !memcmp(is->shape, was->shape, bytes) &&
                           !memcmp(is->stride, was->stride, bytes))
            continue;
        char shape[256], stride[256];
        PyErr_Format(PyExc_ValueError,
                     "%s is %s of shape %s with strides %s; the plan was made for another type, "
                     "shape or strides", is->name ? is->name : was->name,
                     qkv_type_name((qkv_type)is->type),
                     qkvpy_shape_text(shape, is->shape, is->rank),
                     qkvpy_shape_text(stride, is->stride, is->rank));
        return -1;
    }
    return 0;
}

static PyObject *plan_run(PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
    plan_object *self = (plan_object *)object;
    if (n_args != N_RUN_TENSORS) {
        PyErr_Format(PyExc_TypeError, "Plan.run takes %d arrays", N_RUN_TENSORS);
        return NULL;
    }
    problem p = self->made_for;
    const qkv_layout absent = {0};
    p.desc.mask = p.desc.bias = p.desc.sinks = p.desc.slopes = absent;
    PyObject *whole = NULL;
    if (qkvpy_problem_tensors(&p, args, N_RUN_TENSORS) == 0 && qkvpy_problem_describe(&p) == 0 &&
        check_same(self, &p) == 0) {
        const int mine = !self->busy;
        self->busy = 1;
        whole = qkvpy_run(&p, self->plan, args, mine ? self->workspace : NULL,
                          self->workspace_bytes);
        if (mine)
            self->busy = 0;
    }
    qkvpy_problem_close(&p);
    return whole;
}

/* (kernel, visible pairs, workspace bytes, threads) */
static PyObject *plan_facts(PyObject *object, PyObject *unused)
{
    (void)unused;
    const plan_object *self = (const plan_object *)object;
    return Py_BuildValue("(sLni)", qkv_plan_kernel(self->plan),
                         (long long)qkv_plan_visible_pairs(self->plan),
                         (Py_ssize_t)self->workspace_bytes,
                         (int)qkvpy_workers(&self->made_for, self->plan));
}

static PyMethodDef plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))plan_run, METH_FASTCALL, NULL},
    {"facts", plan_facts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject plan_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._qkv.Plan",
    .tp_basicsize = sizeof(plan_object),
    .tp_dealloc = plan_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = plan_methods,
    .tp_new = plan_create,
};

/* ---- the oracle and merge, on results that the package has made --------------------------- */

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

static void run_reference(const problem *p, PyObject *const *results)
{
    const qkv_desc *d = &p->desc;
    char text[512];
    const qkv_status status = qkv_explain(d, text, sizeof text);
    if (status != QKV_OK) {
        qkvpy_raise(status, text);
        return;
    }
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
static PyObject *reference(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    (void)self;
    problem p;
    if (qkvpy_problem_open(&p, args, n_args - 5) == 0)
        run_reference(&p, args + n_args - 5);
    qkvpy_problem_close(&p);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* merge(((o, lse), ...), sinks or None, (o, lse), (wide, packed, B, H, T, Dv)). */
static PyObject *merge(PyObject *self, PyObject *args)
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

/* ---- facts ------------------------------------------------------------------------------- */

/* (version, cpu, processors, ((tier, flag, available, reason), ...), ((kernel, tier, compute, k, v,
 * available), ...)) */
static PyObject *info(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    char cpu[128];
    PyObject *tiers = PyTuple_New(qkv_tier_count()), *kernels = PyTuple_New(qkv_kernel_count());
    if (tiers == NULL || kernels == NULL)
        return NULL;
    qkv_tier t;
    for (int32_t i = 0; qkv_tier_info(i, &t) == QKV_OK; i++)
        PyTuple_SET_ITEM(tiers, i, Py_BuildValue("(sIis)", t.name, t.flag, t.available, t.reason));
    qkv_kernel_info k;
    for (int32_t i = 0; qkv_kernel_info_get(i, &k) == QKV_OK; i++)
        PyTuple_SET_ITEM(kernels, i,
                         Py_BuildValue("(ssssssi)", k.name, k.op, k.tier,
                                       qkv_type_name((qkv_type)k.compute_type),
                                       qkv_type_name((qkv_type)k.k_type),
                                       qkv_type_name((qkv_type)k.v_type), k.available));
    return Py_BuildValue("(ssiNN)", qkv_version_string(), qkv_cpu_name(cpu, sizeof cpu),
                         (int)qkv_cpu_count(), tiers, kernels);
}

static PyMethodDef methods[] = {
    {"attention", (PyCFunction)(void (*)(void))attention, METH_FASTCALL, NULL},
    {"reference", (PyCFunction)(void (*)(void))reference, METH_FASTCALL, NULL},
    {"merge", merge, METH_VARARGS, NULL},
    {"info", info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "qkv._qkv", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__qkv(void);
PyMODINIT_FUNC PyInit__qkv(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (qkvpy_setup() < 0 || PyType_Ready(&plan_type) < 0 ||
        PyModule_AddObjectRef(module, "Plan", (PyObject *)&plan_type) < 0 ||
        PyModule_AddObject(module, "SCALE_DEFAULT", PyFloat_FromDouble(QKV_SCALE_DEFAULT)) < 0)
        Py_CLEAR(module);
    return module;
}
