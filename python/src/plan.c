/* plan.c - the type Plan: a problem planned once, run many times. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

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
        self->workspace_bytes =
            qkv_workspace_size(self->plan, qkvpy_workers(&p->desc, p->threads, self->plan));
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

int qkvpy_same_layout(const tensor *a, const tensor *b)
{
    const size_t bytes = (size_t)a->rank * sizeof a->shape[0];
    return a->type == b->type && a->rank == b->rank && !memcmp(a->shape, b->shape, bytes) &&
           !memcmp(a->stride, b->stride, bytes);
}

/* The plan knows sizes and strides by heart, so arrays that differ would be read wrongly. */
static int check_same(const plan_object *self, const problem *p)
{
    for (int i = 0; i < N_RUN_TENSORS; i++) {
        const tensor *was = &self->seen[i], *is = &p->t[i];
        const qkv_layout *o = &self->made_for.desc.o, *o_is = &p->desc.o;
        if (i == OUT ? o->type == o_is->type && !memcmp(o->stride, o_is->stride, sizeof o->stride)
                     : qkvpy_same_layout(is, was))
            continue;
        char shape[256], stride[256];
        tensor shown = *is;
        if (shown.swapped)
            qkvpy_swap_axes(&shown);
        PyErr_Format(PyExc_ValueError,
                     "%s is %s of shape %s with strides %s; the plan was made for another type, "
                     "shape or strides", is->name ? is->name : was->name,
                     qkv_type_name((qkv_type)is->type),
                     qkvpy_shape_text(shape, shown.shape, is->rank),
                     qkvpy_shape_text(stride, shown.stride, is->rank));
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
                         (int)qkvpy_workers(&self->made_for.desc, self->made_for.threads,
                                            self->plan));
}

static PyMethodDef plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))plan_run, METH_FASTCALL, NULL},
    {"facts", plan_facts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject qkvpy_plan_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "qkv._qkv.Plan",
    .tp_basicsize = sizeof(plan_object),
    .tp_dealloc = plan_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = plan_methods,
    .tp_new = plan_create,
};
