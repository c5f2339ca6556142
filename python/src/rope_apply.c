/* rope_apply.c - Rope.apply: shapes into strides, and the run. */
#include "rope_binding.h"

enum { X, Y, POSITIONS, COS, SIN, N_ARRAYS };

/* Below this many elements waking a pool costs more than it saves. */
#define SERIAL_ELEMENTS 131072

typedef struct turn {
    const qkv_rope *rope;
    qkv_rope_args args;
    tensor t[N_ARRAYS];
    int n_heads; /* of (B, T, H D); 0: heads are an axis of x */
    int threads;
} turn;

/* x and y are (B, H, T, D), (T, H, D), or (B, T, H D) with n_heads. */
static void set_layout(qkv_layout *l, const tensor *t, const turn *r)
{
    const int64_t *s = t->stride;
    const int64_t padded[4] = {s[0], s[1], s[2], s[3]}, packed[4] = {0, s[1], s[0], s[2]};
    const int64_t joined[4] = {s[0], r->rope->head_dim, s[1], 1};
    l->type = t->type;
    memcpy(l->stride, r->n_heads ? joined : t->rank == 4 ? padded : packed, sizeof l->stride);
}

static int describe_x(turn *r)
{
    const tensor *x = &r->t[X];
    const int64_t dim = r->rope->head_dim, last = r->n_heads ? r->n_heads * dim : dim;
    qkv_rope_args *a = &r->args;
    if (r->n_heads ? x->rank != 3 : x->rank != 4 && x->rank != 3)
        return qkvpy_refuse_shape(x, r->n_heads ? "with num_heads (B, T, H D) is expected"
                                                : "(B, H, T, D) or (T, H, D) is expected",
                                  NULL, 0);
    if (x->shape[x->rank - 1] != last)
        return qkvpy_refuse_shape(x, "the last axis must have ", &last, 1);
    for (int axis = 0; axis < x->rank; axis++)
        if (x->shape[axis] > INT32_MAX)
            return qkvpy_refuse_shape(x, "an axis may have at most 2147483647 elements", NULL, 0);
    const int packed = x->rank == 3 && !r->n_heads;
    a->n_seqs = packed ? 1 : (int32_t)x->shape[0];
    a->n_heads = r->n_heads ? r->n_heads : (int32_t)x->shape[1];
    a->n_tokens = x->shape[packed ? 0 : r->n_heads ? 1 : 2];
    set_layout(&a->x_layout, x, r);
    return 0;
}

static int describe_positions(turn *r)
{
    const tensor *p = &r->t[POSITIONS];
    qkv_rope_args *a = &r->args;
    if (p->type == QKV_NONE)
        return 0;
    const int64_t want[2] = {a->n_seqs, a->n_tokens};
    if (p->type != QKV_I64 || (p->rank != 1 && p->rank != 2) ||
        p->shape[p->rank - 1] != a->n_tokens ||
        (p->rank == 2 && p->shape[0] != a->n_seqs && p->shape[0] != 1))
        return qkvpy_refuse_shape(p, "one a token is expected: (T,) or ", want, 2);
    a->positions = p->data;
    a->position_stride[0] = p->rank == 2 && p->shape[0] > 1 ? p->stride[0] : 0;
    a->position_stride[1] = p->stride[p->rank - 1];
    return 0;
}

/* (rows, r/2) with positions, (B, T, r/2) without. */
static int describe_table(turn *r)
{
    const tensor *c = &r->t[COS], *s = &r->t[SIN];
    qkv_rope_args *a = &r->args;
    if (c->type == QKV_NONE)
        return 0;
    const int64_t pairs = qkv_rope_pairs(r->rope), want[3] = {a->n_seqs, a->n_tokens, pairs};
    const int given = a->positions != NULL;
    if (c->rank != (given ? 2 : 3) || c->shape[c->rank - 1] != pairs ||
        (!given && (c->shape[0] != want[0] || c->shape[1] != want[1])))
        return qkvpy_refuse_shape(
            c, given ? "with position_ids (rows, r/2) is expected, with r/2 = " : "it must be ",
            given ? &pairs : want, given ? 1 : 3);
    if (s->type != c->type || s->rank != c->rank ||
        memcmp(s->shape, c->shape, (size_t)c->rank * sizeof *c->shape) != 0)
        return qkvpy_refuse_shape(s, "it must have the dtype of cos and its shape, ", c->shape,
                                  c->rank);
    a->cos = c->data;
    a->sin = s->data;
    a->table_type = c->type;
    a->table_rows = c->shape[c->rank - 2];
    a->table_stride[0] = given ? 0 : c->stride[0];
    a->table_stride[1] = c->stride[c->rank - 2];
    return 0;
}

/* Makes the output, or opens the one that is given. */
static PyObject *open_out(turn *r, PyObject *out, PyObject *like)
{
    const tensor *x = &r->t[X];
    if (out != Py_None) {
        Py_INCREF(out);
    } else {
        PyObject *shape = PyTuple_New(x->rank);
        for (int i = 0; i < x->rank && shape != NULL; i++)
            PyTuple_SET_ITEM(shape, i, PyLong_FromLongLong(x->shape[i]));
        out = shape ? PyObject_CallMethod(qkvpy_arrays, "empty", "OiN", like, x->type, shape)
                    : NULL;
    }
    if (out == NULL || qkvpy_tensor_open(&r->t[Y], out, "out", FLOATS, WRITE) < 0) {
        Py_XDECREF(out);
        return NULL;
    }
    const tensor *y = &r->t[Y];
    if (y->rank != x->rank ||
        memcmp(y->shape, x->shape, (size_t)x->rank * sizeof *x->shape) != 0) {
        qkvpy_refuse_shape(y, "it must be that of x, ", x->shape, x->rank);
        Py_DECREF(out);
        return NULL;
    }
    set_layout(&r->args.y_layout, y, r);
    r->args.x = x->data;
    r->args.y = y->data;
    return out;
}

static int run(turn *r)
{
    char text[TEXT];
    const double work = (double)r->args.n_seqs * r->args.n_heads * (double)r->args.n_tokens *
                        r->rope->head_dim;
    int32_t n = r->threads ? r->threads : work < SERIAL_ELEMENTS ? 1 : qkv_cpu_count();
    n = n < 1024 ? n : 1024;
    qkv_pool *pool = n > 1 ? qkvpy_pool(n) : NULL;
    if (n > 1 && pool == NULL)
        return -1;
    qkv_parallel parallel;
    if (pool != NULL)
        parallel = qkv_pool_parallel(pool);
    qkv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = qkv_rope_apply(r->rope, &r->args, pool ? &parallel : NULL, text, sizeof text);
    Py_END_ALLOW_THREADS
    return status == QKV_OK ? 0 : qkvpy_raise(status, text);
}

/* Positions and tables; strides of x first, which copies it if its channels do not lie in a row. */
static int open_inputs(turn *r, PyObject *const arrays[N_ARRAYS])
{
    static const char *const names[N_ARRAYS] = {"x", "out", "positions", "cos", "sin"};
    for (int i = 0; i < N_ARRAYS; i++)
        if (i != Y && arrays[i] != Py_None &&
            qkvpy_tensor_open(&r->t[i], arrays[i], names[i], i == POSITIONS ? LENGTHS : FLOATS,
                              i == POSITIONS ? AS_IS : ROWS) < 0)
            return -1;
    return describe_x(r) < 0 || describe_positions(r) < 0 ? -1 : describe_table(r);
}

PyObject *qkvpy_rope_apply(PyObject *self, PyObject *args)
{
    turn r = {.rope = &((rope_object *)self)->rope};
    PyObject *arrays[N_ARRAYS], *out = NULL;
    long long seq_len;
    qkv_rope_args_init(&r.args);
    if (!PyArg_ParseTuple(args, "OOOOO(Liii)", &arrays[X], &arrays[Y], &arrays[POSITIONS],
                          &arrays[COS], &arrays[SIN], &seq_len, &r.args.inverse, &r.n_heads,
                          &r.threads))
        return NULL;
    r.args.seq_len = seq_len;
    if (open_inputs(&r, arrays) == 0)
        out = open_out(&r, arrays[Y], arrays[X]);
    if (out != NULL && run(&r) < 0)
        Py_CLEAR(out);
    for (int i = 0; i < N_ARRAYS; i++)
        qkvpy_tensor_close(&r.t[i]);
    return out;
}
