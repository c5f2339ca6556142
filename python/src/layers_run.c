/* layers_run.c - a step of a Layer: arrays and numbers to a qkv_layer_step, and its run. */
#include <stdlib.h>
#include <string.h>

#include "layers_binding.h"

enum { X, MEMORY_IN, Q_LENS_IN, CU, KV_LENS_IN, KV_STARTS_IN, POSITIONS, SEQS, NEEDS, N_ARRAYS };
static const char *const names[N_ARRAYS] = {"x",         "memory",    "q_lens", "cu_seqlens", "kv_lens",
                                            "kv_starts", "positions", "seqs",   "reserve"};

typedef struct call {
    tensor t[N_ARRAYS];
    float *x, *memory; /* as f32; own memory where the array has another type */
    void *own[2];
    qkv_layer_step step;
    qkv_layer_args args;
    qkv_cache *cache;
    int threads;
} call;

static int open_arrays(call *c, PyObject *const *arrays)
{
    for (int i = 0; i < N_ARRAYS; i++) {
        const int kind = i <= MEMORY_IN ? FLOATS : LENGTHS;
        if (arrays[i] == Py_None)
            continue;
        if (qkvpy_tensor_open(&c->t[i], arrays[i], names[i], kind, DENSE) < 0)
            return -1;
        if (kind == LENGTHS && c->t[i].type != (i == POSITIONS ? QKV_I64 : QKV_I32)) {
            PyErr_Format(PyExc_TypeError, "%s has the wrong type of integers", names[i]);
            return -1;
        }
    }
    return 0;
}

/* The array's numbers as f32. */
static int as_floats(const tensor *t, float **numbers, void **own)
{
    size_t n = 1;

    *numbers = t->data;
    if (t->type == QKV_F32 || t->type == QKV_NONE)
        return 0;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    *numbers = *own = qkvpy_alloc(n * sizeof(float));
    if (*own == NULL)
        return -1;
    qkv_convert(*numbers, QKV_F32, t->data, (qkv_type)t->type, n);
    return 0;
}

static int64_t count_of(const tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return t->type == QKV_NONE ? 0 : n;
}

/* A list that is there must have so many numbers. */
static int check_count(const call *c, int i, int64_t n)
{
    if (c->t[i].type == QKV_NONE || count_of(&c->t[i]) == n)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s has %lld values; %lld are expected", names[i],
                 (long long)count_of(&c->t[i]), (long long)n);
    return -1;
}

static int check_shapes(const call *c, const qkv_layer_desc *d)
{
    const tensor *x = &c->t[X], *m = &c->t[MEMORY_IN];
    const int64_t wide = d->d_memory ? d->d_memory : d->d_model, b = c->step.n_seqs;
    char text[256];

    if (x->type && (x->rank != (c->t[CU].type ? 2 : 3) || x->shape[x->rank - 1] != d->d_model)) {
        PyErr_Format(PyExc_ValueError, "x has shape %s; (%s%d) is expected",
                     qkvpy_shape_text(text, x->shape, x->rank), c->t[CU].type ? "rows, " : "B, T, ",
                     d->d_model);
        return -1;
    }
    if (m->type && (m->rank != 3 || m->shape[0] != b || m->shape[2] != wide)) {
        PyErr_Format(PyExc_ValueError, "memory has shape %s; (%lld, Tm, %lld) is expected",
                     qkvpy_shape_text(text, m->shape, m->rank), (long long)b, (long long)wide);
        return -1;
    }
    if (c->t[CU].type && x->type &&
        ((const int32_t *)c->t[CU].data)[count_of(&c->t[CU]) - 1] != x->shape[0]) {
        PyErr_Format(PyExc_ValueError, "cu_seqlens ends with %d; x has %lld rows",
                     ((const int32_t *)c->t[CU].data)[count_of(&c->t[CU]) - 1],
                     (long long)x->shape[0]);
        return -1;
    }
    if (check_count(c, Q_LENS_IN, b) < 0 || check_count(c, KV_LENS_IN, b) < 0 ||
        check_count(c, KV_STARTS_IN, b) < 0 || check_count(c, SEQS, b) < 0 ||
        check_count(c, NEEDS, b) < 0)
        return -1;
    return check_count(c, POSITIONS, x->type ? count_of(x) / d->d_model : 0);
}

static void describe(call *c)
{
    qkv_layer_step *s = &c->step;
    const tensor *x = &c->t[X], *m = &c->t[MEMORY_IN];

    if (c->t[CU].type)
        s->n_seqs = (int32_t)(count_of(&c->t[CU]) - 1);
    else
        s->n_seqs = (int32_t)(x->type ? x->shape[0] : m->rank ? m->shape[0] : 0);
    s->q_len = x->rank == 3 ? x->shape[1] : 0;
    s->memory_len = m->rank == 3 ? m->shape[1] : 0;
    s->q_lens = c->t[Q_LENS_IN].data;
    s->cu_seqlens = c->t[CU].data;
    s->kv_lens = c->t[KV_LENS_IN].data;
    s->kv_starts = c->t[KV_STARTS_IN].data;
    s->positions = c->t[POSITIONS].data;
    s->cache = c->cache;
    s->seqs = c->t[SEQS].data;
}

/* Plans and runs without the GIL. */
static qkv_status compute(call *c, const qkv_layer *layer, qkv_pool *pool, char text[TEXT])
{
    qkv_layer_plan *plan = NULL;
    qkv_parallel parallel;
    qkv_status status = QKV_OK;

    if (pool)
        parallel = qkv_pool_parallel(pool);
    if (c->t[NEEDS].type)
        status = qkv_cache_reserve(c->cache, c->step.n_seqs, c->step.seqs, c->t[NEEDS].data, text,
                                   TEXT);
    if (status == QKV_OK)
        status = qkv_layer_plan_create(layer, &c->step, NULL, &plan, text, TEXT);
    if (status != QKV_OK)
        return status;
    c->args.workspace_bytes = qkv_layer_workspace_size(plan, pool ? parallel.n_workers : 1);
    c->args.workspace = aligned_alloc(64, (c->args.workspace_bytes + 127) & ~(size_t)63);
    snprintf(text, TEXT, "no memory for a workspace of %zu bytes", c->args.workspace_bytes);
    status = QKV_ERR_MEMORY;
    if (c->args.workspace)
        status = qkv_layer_run(plan, layer, &c->args, pool ? &parallel : NULL, text, TEXT);
    free(c->args.workspace);
    qkv_layer_plan_destroy(plan);
    return status;
}

/* The result as an array of x's kind and type; NULL with an exception. */
static PyObject *run(call *c, const qkv_layer *layer, PyObject *like)
{
    const tensor *x = &c->t[X];
    char text[TEXT];
    void *own = NULL;
    tensor out = {0};
    PyObject *result = NULL;
    qkv_pool *pool = c->threads == 1 ? NULL : qkvpy_layer_pool(c->threads);

    if (c->threads != 1 && pool == NULL)
        return NULL;
    if (x->type) {
        PyObject *dims = PyTuple_New(x->rank);
        for (int i = 0; dims && i < x->rank; i++)
            PyTuple_SET_ITEM(dims, i, PyLong_FromLongLong(x->shape[i]));
        result = dims ? PyObject_CallFunction(qkvpy_empty, "OiN", like, (int)x->type, dims) : NULL;
        if (result == NULL || qkvpy_tensor_open(&out, result, "out", FLOATS, DENSE | WRITE) < 0)
            goto done;
        c->args.out = out.type == QKV_F32
                          ? out.data
                          : (own = qkvpy_alloc((size_t)count_of(x) * sizeof(float)));
        if (c->args.out == NULL)
            goto done;
    }
    qkv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = compute(c, layer, pool, text);
    if (status == QKV_OK && own)
        qkv_convert(out.data, (qkv_type)out.type, own, QKV_F32, (size_t)count_of(x));
    Py_END_ALLOW_THREADS
    if (status != QKV_OK)
        qkvpy_raise(status, text);
    else if (result == NULL)
        result = Py_NewRef(Py_None);
done:
    free(own);
    qkvpy_tensor_close(&out);
    if (PyErr_Occurred())
        Py_CLEAR(result);
    return result;
}

/* run(form, mla, rope_len, cache or None, cache_layer, threads, x, memory, q_lens, cu_seqlens,
 *     kv_lens, kv_starts, positions, seqs, reserve) */
PyObject *qkvpy_layer_run(PyObject *self, PyObject *args)
{
    const qkv_layer *layer = ((layer_object *)self)->layer;
    PyObject *a[N_ARRAYS], *cache, *result = NULL;
    long long rope_len;
    call c;

    memset(&c, 0, sizeof c);
    qkv_layer_step_init(&c.step);
    qkv_layer_args_init(&c.args);
    if (!PyArg_ParseTuple(args, "iiLOiiOOOOOOOOO", &c.step.form, &c.step.mla, &rope_len, &cache,
                          &c.args.cache_layer, &c.threads, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5],
                          &a[6], &a[7], &a[8]))
        return NULL;
    c.step.rope_len = rope_len;
    if (cache != Py_None && !PyObject_TypeCheck(cache, qkvpy_cache_class)) {
        PyErr_SetString(PyExc_TypeError, "cache is no KVCache or LatentCache");
        return NULL;
    }
    c.cache = cache == Py_None ? NULL : ((cache_object *)cache)->cache;
    if (open_arrays(&c, a) == 0) {
        describe(&c);
        if (check_shapes(&c, qkv_layer_desc_of(layer)) == 0 &&
            as_floats(&c.t[X], &c.x, &c.own[0]) == 0 &&
            as_floats(&c.t[MEMORY_IN], &c.memory, &c.own[1]) == 0) {
            c.args.x = c.x;
            c.args.memory = c.memory;
            result = run(&c, layer, a[X]);
        }
    }
    for (int i = 0; i < N_ARRAYS; i++)
        qkvpy_tensor_close(&c.t[i]);
    free(c.own[0]);
    free(c.own[1]);
    return result;
}
