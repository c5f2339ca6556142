/* run.c - plans, runs, and the thread pools behind them. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

/* ---- pools ------------------------------------------------------------------------------- */

/* One for each number of workers that was asked for, made on first use and kept: starting
 * threads costs more than most calls.  Touched with the GIL held only. */
enum { MAX_WORKERS = 1024 };
static qkv_pool *pools[MAX_WORKERS + 1];

PyObject *qkvpy_arrays;
PyObject *qkvpy_cache_full;
PyTypeObject *qkvpy_ndarray;
static PyObject *empty;

/* The child of a fork has none of its parent's threads; it makes pools of its own. */
static void forget_pools(void)
{
    memset(pools, 0, sizeof pools);
}

int qkvpy_setup(void)
{
    qkvpy_arrays = PyImport_ImportModule("qkv._arrays");
    if (qkvpy_arrays == NULL)
        return -1;
    qkvpy_ndarray = (PyTypeObject *)PyObject_GetAttrString(qkvpy_arrays, "ndarray");
    empty = PyObject_GetAttrString(qkvpy_arrays, "empty");
    qkvpy_cache_full = PyObject_GetAttrString(qkvpy_arrays, "CacheFull");
    if (pthread_atfork(NULL, NULL, forget_pools) != 0)
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
    return PyErr_Occurred() ? -1 : 0;
}

/* Below this many multiply-adds waking a pool costs more than it saves. */
#define SERIAL_WORK 3e5

int32_t qkvpy_workers(const qkv_desc *d, int threads, const qkv_plan *plan)
{
    int64_t tasks = 0;
    for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++)
        if (qkv_n_tasks(plan, phase) > tasks)
            tasks = qkv_n_tasks(plan, phase);
    const double work = (double)d->n_seqs * d->n_q_heads * (double)d->q_len * (double)d->kv_len *
                        (d->head_dim + d->head_dim_v);
    if (tasks <= 1 || threads == 1 || (threads == 0 && work < SERIAL_WORK))
        return 1;
    const int32_t n = threads ? threads : qkv_cpu_count();
    return n < MAX_WORKERS ? n : MAX_WORKERS;
}

qkv_pool *qkvpy_pool(int32_t n_workers)
{
    if (pools[n_workers] == NULL) {
        const qkv_status status = qkv_pool_create(n_workers, NULL, &pools[n_workers]);
        if (status != QKV_OK)
            qkvpy_raise(status, "the threads for this run could not be started");
    }
    return pools[n_workers];
}

/* ---- plans ------------------------------------------------------------------------------- */

void *qkvpy_alloc(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
    if (memory == NULL)
        PyErr_NoMemory();
    return memory;
}

const qkv_plan *qkvpy_plan_new(const qkv_desc *desc, void **memory)
{
    const qkv_plan *plan = NULL;
    const size_t bytes = qkv_plan_size(desc);
    *memory = bytes ? qkvpy_alloc(bytes) : NULL;
    if (bytes && *memory == NULL)
        return NULL;
    if (bytes == 0 || qkv_plan_init(*memory, bytes, desc, &plan) != QKV_OK) {
        char text[512];
        qkvpy_raise(qkv_explain(desc, text, sizeof text), text);
        free(*memory);
        *memory = NULL;
        return NULL;
    }
    return plan;
}

/* ---- runs -------------------------------------------------------------------------------- */

/* A new array of the kind of like, open for writing. */
static PyObject *new_array(tensor *t, PyObject *like, int32_t type, int rank, const int64_t *shape)
{
    PyObject *array = NULL, *dims = PyTuple_New(rank), *code = PyLong_FromLong(type);
    for (int i = 0; i < rank && dims != NULL; i++)
        PyTuple_SET_ITEM(dims, i, PyLong_FromLongLong(shape[i]));
    if (dims != NULL && code != NULL && !PyErr_Occurred()) {
        PyObject *args[] = {like, code, dims};
        array = PyObject_Vectorcall(empty, args, 3, NULL);
    }
    Py_XDECREF(dims);
    Py_XDECREF(code);
    if (array != NULL && qkvpy_tensor_open(t, array, "out", FLOATS, WRITE) < 0)
        Py_CLEAR(array);
    return array;
}

int qkvpy_outputs(problem *p, PyObject *out, PyObject *like, PyObject *made[3], tensor *lse,
                  tensor *weights)
{
    const qkv_desc *d = &p->desc;
    const int rank = p->t[Q].rank;
    const int64_t *q = p->t[Q].shape, rows = q[0];
    const int64_t o_shape[4] = {q[0], q[1], rank == 4 ? q[2] : d->head_dim_v, d->head_dim_v};
    const int64_t padded[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    const int64_t packed[2] = {d->n_q_heads, rows};
    made[0] = p->t[OUT].type ? Py_NewRef(out)
                             : new_array(&p->t[OUT], like, d->o.type, rank, o_shape);
    if (made[0] && p->want_lse)
        made[1] = new_array(lse, like, d->lse.type, rank - 1, rank == 4 ? padded : packed);
    if (made[0] && p->want_weights) {
        made[2] = new_array(weights, like, d->weights.type, 4, padded);
        /* Packed sequences differ in length; what lies past one's own lengths stays 0. */
        if (made[2] && rank == 3)
            memset(weights->data, 0, (size_t)(padded[0] * padded[1] * padded[2] * padded[3]) *
                                         qkv_type_size((qkv_type)d->weights.type));
    }
    return made[0] && (made[1] || !p->want_lse) && (made[2] || !p->want_weights) ? 0 : -1;
}

PyObject *qkvpy_whole(PyObject *made[3], int failed)
{
    PyObject *whole = NULL;
    if (!failed && made[1] && made[2])
        whole = PyTuple_Pack(3, made[0], made[1], made[2]);
    else if (!failed && (made[1] || made[2]))
        whole = PyTuple_Pack(2, made[0], made[1] ? made[1] : made[2]);
    else if (!failed)
        whole = Py_NewRef(made[0]);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(made[i]);
    return whole;
}

int qkvpy_run_args(const qkv_desc *desc, int threads, const qkv_plan *plan, qkv_args *a,
                   void *workspace, size_t bytes)
{
    char text[512];
    const int32_t n_workers = qkvpy_workers(desc, threads, plan);
    qkv_pool *pool = n_workers > 1 ? qkvpy_pool(n_workers) : NULL;
    if (n_workers > 1 && pool == NULL)
        return -1;
    const size_t need = qkv_workspace_size(plan, n_workers);
    void *own = workspace == NULL || bytes < need ? qkvpy_alloc(need) : NULL;
    a->workspace = own ? own : workspace;
    a->workspace_bytes = own ? need : bytes;
    if (a->workspace == NULL)
        return -1;
    const qkv_status status = qkv_args_check(plan, a, n_workers, text, sizeof text);
    if (status == QKV_OK) {
        Py_BEGIN_ALLOW_THREADS
        if (pool == NULL) {
            qkv_run(plan, a);
        } else {
            const qkv_parallel parallel = qkv_pool_parallel(pool);
            qkv_run_parallel(plan, a, &parallel);
        }
        Py_END_ALLOW_THREADS
    }
    free(own);
    return status == QKV_OK ? 0 : qkvpy_raise(status, text);
}

void qkvpy_inputs(const problem *p, qkv_args *a)
{
    qkv_args_init(a);
    a->q = p->t[Q].data;
    a->k = p->t[K].data;
    a->v = p->t[V].data;
    a->mask = p->t[MASK].data;
    a->bias = p->t[BIAS].data;
    a->sinks = p->t[SINKS].data;
    a->slopes = p->t[SLOPES].data;
    a->block_table = p->t[TABLE].data;
    a->k_scale = p->t[K_SCALE].data;
    a->k_min = p->t[K_MIN].data;
    a->v_scale = p->t[V_SCALE].data;
    a->v_min = p->t[V_MIN].data;
    a->k_rope = p->t[K_ROPE].data;
}

PyObject *qkvpy_run(problem *p, const qkv_plan *plan, PyObject *const *args, void *workspace,
                    size_t bytes)
{
    tensor lse = {0}, weights = {0};
    PyObject *made[3] = {NULL, NULL, NULL};
    int failed = qkvpy_outputs(p, args[OUT], args[Q], made, &lse, &weights);
    if (!failed) {
        qkv_args a;
        qkvpy_inputs(p, &a);
        a.o = p->t[OUT].data;
        a.lse = lse.data;
        a.weights = weights.data;
        failed = qkvpy_run_args(&p->desc, p->threads, plan, &a, workspace, bytes);
    }
    qkvpy_tensor_close(&lse);
    qkvpy_tensor_close(&weights);
    return qkvpy_whole(made, failed);
}
