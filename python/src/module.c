/* module.c - what Python sees of qkv._qkv.  The package qkv gives it words, defaults and checks. */
#include <stdlib.h>

#include "cache_binding.h"
#include "rope_binding.h"

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

/* ---- facts ------------------------------------------------------------------------------- */

/* The type of keys or values that a kernel is for. */
static const char *type_text(int32_t type)
{
    return type == QKV_NONE ? "any" : qkv_type_name((qkv_type)type);
}

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
                                       k.precision == QKV_PRECISION_HIGH
                                           ? "f32high"
                                           : qkv_type_name((qkv_type)k.compute_type),
                                       type_text(k.k_type), type_text(k.v_type), k.available));
    return Py_BuildValue("(ssiNN)", qkv_version_string(), qkv_cpu_name(cpu, sizeof cpu),
                         (int)qkv_cpu_count(), tiers, kernels);
}

static PyMethodDef methods[] = {
    {"attention", (PyCFunction)(void (*)(void))attention, METH_FASTCALL, NULL},
    {"reference", (PyCFunction)(void (*)(void))qkvpy_reference, METH_FASTCALL, NULL},
    {"merge", qkvpy_merge, METH_VARARGS, NULL},
    {"cache_inspect", qkvpy_cache_inspect, METH_O, NULL},
    {"info", info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "qkv._qkv", .m_size = -1, .m_methods = methods};

static int add_type(PyObject *module, const char *name, PyTypeObject *type)
{
    return PyType_Ready(type) < 0 ? -1 : PyModule_AddObjectRef(module, name, (PyObject *)type);
}

PyMODINIT_FUNC PyInit__qkv(void);
PyMODINIT_FUNC PyInit__qkv(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (qkvpy_setup() < 0 || add_type(module, "Plan", &qkvpy_plan_type) < 0 ||
        add_type(module, "Cache", &qkvpy_cache_type) < 0 ||
        add_type(module, "View", &qkvpy_view_type) < 0 ||
        add_type(module, "Rope", &qkvpy_rope_type) < 0 ||
        PyModule_AddObject(module, "SCALE_DEFAULT", PyFloat_FromDouble(QKV_SCALE_DEFAULT)) < 0)
        Py_CLEAR(module);
    return module;
}
