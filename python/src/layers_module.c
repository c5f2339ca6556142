/* layers_module.c - what Python sees of qkv._layers, and the thread pools behind it. */
#include <pthread.h>
#include <string.h>

#include "layers_binding.h"

PyObject *qkvpy_arrays, *qkvpy_cache_full, *qkvpy_empty;
PyTypeObject *qkvpy_ndarray, *qkvpy_cache_class;

int qkvpy_raise(qkv_status status, const char *text)
{
    PyErr_SetString(status == QKV_ERR_MEMORY   ? PyExc_MemoryError
                    : status == QKV_ERR_SYSTEM ? PyExc_OSError
                    : status == QKV_ERR_FULL   ? qkvpy_cache_full
                                               : PyExc_ValueError,
                    text);
    return -1;
}

void *qkvpy_alloc(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
    if (memory == NULL)
        PyErr_NoMemory();
    return memory;
}

/* ---- pools: one for each number of workers that was asked for ------------------------------ */

enum { MAX_WORKERS = 1024 };
static qkv_pool *pools[MAX_WORKERS + 1];

static void forget_pools(void)
{
    memset(pools, 0, sizeof pools); /* the child of a fork has none of its parent's threads */
}

qkv_pool *qkvpy_layer_pool(int n)
{
    n = n > 0 ? n : qkv_cpu_count();
    n = n < MAX_WORKERS ? n : MAX_WORKERS;
    if (pools[n] == NULL) {
        const qkv_status status = qkv_pool_create(n, NULL, &pools[n]);
        if (status != QKV_OK)
            qkvpy_raise(status, "the threads for this run could not be started");
    }
    return pools[n];
}

/* ---- the module --------------------------------------------------------------------------- */

static PyObject *attribute(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *value = m ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return value;
}

static int setup(void)
{
    qkvpy_arrays = PyImport_ImportModule("qkv._arrays");
    qkvpy_ndarray = (PyTypeObject *)attribute("qkv._arrays", "ndarray");
    qkvpy_empty = attribute("qkv._arrays", "empty");
    qkvpy_cache_full = attribute("qkv._arrays", "CacheFull");
    qkvpy_cache_class = (PyTypeObject *)attribute("qkv._qkv", "Cache");
    if (pthread_atfork(NULL, NULL, forget_pools) != 0)
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
    qkv_layers_blas_threads(1); /* the loops of our pools are what is parallel */
    return PyErr_Occurred() ? -1 : 0;
}

static PyMethodDef methods[] = {
    {"load", qkvpy_layer_load, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "qkv._layers", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__layers(void);
PyMODINIT_FUNC PyInit__layers(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (setup() < 0 || PyType_Ready(&qkvpy_layer_type) < 0 ||
        PyModule_AddObjectRef(module, "Layer", (PyObject *)&qkvpy_layer_type) < 0)
        Py_CLEAR(module);
    return module;
}
