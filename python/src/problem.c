/* problem.c - Python's tensors and options as a qkv_desc.
 *
 * A descriptor knows no shapes, only sizes and strides, so this is where the shapes of all
 * tensors are held against one another. */
#include <string.h>

#include "binding.h"

int qkvpy_raise(qkv_status status, const char *text)
{
    PyObject *kind = status == QKV_ERR_MEMORY   ? PyExc_MemoryError
                     : status == QKV_ERR_SYSTEM ? PyExc_OSError
                                                : PyExc_ValueError;
    PyErr_SetString(kind, text);
    return -1;
}

static const char *const names[N_TENSORS] = {
    "q", "k", "v", "out", "mask", "bias", "sinks", "alibi_slopes", "q_lens", "kv_lens",
    "kv_starts", "q_offset", "cu_seqlens_q", "cu_seqlens_k", "block_mask"};

int qkvpy_problem_tensors(problem *p, PyObject *const *args, int n)
{
    for (int i = 0; i < n; i++) {
        const int kind = i == MASK ? BOOLS : i >= Q_LENS ? LENGTHS : FLOATS;
        const int how = i <= V ? ROWS : i == OUT ? WRITE : i >= Q_LENS ? DENSE : AS_IS;
        if (args[i] == Py_None && i > V)
            continue;
        if (i == BLOCKS ? PyObject_GetBuffer(args[i], &p->t[i].buffer, PyBUF_SIMPLE)
                        : qkvpy_tensor_open(&p->t[i], args[i], names[i], kind, how))
            return -1;
    }
    return 0;
}

/* ---- shapes ------------------------------------------------------------------------------ */

static int refuse_shape(const tensor *t, const char *wanted, const int64_t *shape, int32_t rank)
{
    char have[256], want[256];
    PyErr_Format(PyExc_ValueError, "%s has shape %s; %s%s", t->name,
                 qkvpy_shape_text(have, t->shape, t->rank), wanted,
                 shape ? qkvpy_shape_text(want, shape, rank) : "");
    return -1;
}

static void set_layout(qkv_layout *l, const tensor *t, int packed)
{
    l->type = t->type;
    l->stride[0] = packed ? 0 : t->stride[0];
    l->stride[1] = t->stride[1];
    l->stride[2] = t->stride[packed ? 0 : 2];
    l->stride[3] = t->stride[t->rank - 1];
}

/* q, k, v, o: [B][H][T][D] padded, [T][H][D] packed. */
static int set_main(problem *p)
{
    qkv_desc *d = &p->desc;
    const tensor *q = &p->t[Q], *k = &p->t[K], *v = &p->t[V], *o = &p->t[OUT];
    const int packed = d->cu_seqlens_q != NULL, rank = packed ? 3 : 4;
    for (int i = Q; i <= V; i++) {
        const tensor *t = &p->t[i];
        if (t->rank != rank)
            return refuse_shape(t, packed ? "(T, H, D) is expected" : "(B, H, T, D) is expected",
                                NULL, 0);
        for (int axis = 0; axis < rank; axis++)
            if (t->shape[axis] > INT32_MAX)
                return refuse_shape(t, "an axis may have at most 2147483647 elements", NULL, 0);
    }
    int64_t want[4] = {q->shape[0], k->shape[1], k->shape[2], q->shape[3]};
    if (packed)
        want[0] = k->shape[0], want[2] = q->shape[2];
    if (memcmp(want, k->shape, (size_t)rank * sizeof *want) != 0)
        return refuse_shape(k, "with this q it must be ", want, rank);
    want[rank - 1] = v->shape[rank - 1];
    if (memcmp(want, v->shape, (size_t)rank * sizeof *want) != 0)
        return refuse_shape(v, "with this k it must be ", want, rank);
    memcpy(want, q->shape, sizeof want);
    want[rank - 1] = v->shape[rank - 1];
    if (o->type && (o->rank != rank || memcmp(want, o->shape, (size_t)rank * sizeof *want) != 0))
        return refuse_shape(o, "it must be ", want, rank);
    d->n_q_heads = (int32_t)q->shape[1];
    d->n_kv_heads = (int32_t)k->shape[1];
    d->head_dim = (int32_t)q->shape[rank - 1];
    d->head_dim_v = (int32_t)v->shape[rank - 1];
    if (!packed) {
        d->n_seqs = (int32_t)q->shape[0];
        d->q_len = q->shape[2];
        d->kv_len = k->shape[2];
    }
    tensor dense = {.type = q->type, .rank = rank};
    dense.stride[rank - 1] = 1;
    for (int i = rank - 2; i >= 0; i--)
        dense.stride[i] = dense.stride[i + 1] * (want[i + 1] ? want[i + 1] : 1);
    set_layout(&d->q, q, packed);
    set_layout(&d->k, k, packed);
    set_layout(&d->v, v, packed);
    set_layout(&d->o, o->type ? o : &dense, packed);
    return 0;
}

/* NumPy's rule: axes are matched from the last one, and an axis of size 1 is repeated. */
static int set_broadcast(qkv_layout *l, const tensor *t, const int64_t *shape, int32_t rank)
{
    if (t->type == QKV_NONE)
        return 0;
    l->type = t->type;
    int fits = t->rank <= rank;
    for (int i = 0; i < rank && fits; i++) {
        const int axis = i - (rank - t->rank);
        l->stride[i] = axis < 0 || t->shape[axis] == 1 ? 0 : t->stride[axis];
        fits = axis < 0 || t->shape[axis] == 1 || t->shape[axis] == shape[i];
    }
    return fits ? 0
                : refuse_shape(t, rank == 4 ? "it must broadcast to (B, Hq, Tq, Tk) = "
                                            : "it must broadcast to (B, Hq) = ", shape, rank);
}

int qkvpy_problem_describe(problem *p)
{
    if (set_main(p) < 0)
        return -1;
    qkv_desc *d = &p->desc;
    const int64_t shape[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    if (set_broadcast(&d->mask, &p->t[MASK], shape, 4) < 0 ||
        set_broadcast(&d->bias, &p->t[BIAS], shape, 4) < 0 ||
        set_broadcast(&d->sinks, &p->t[SINKS], shape, 2) < 0 ||
        set_broadcast(&d->slopes, &p->t[SLOPES], shape, 2) < 0)
        return -1;
    const int32_t wide = d->q.type == QKV_F64 ? QKV_F64 : QKV_F32;
    const int packed = d->cu_seqlens_q != NULL;
    if (p->want_lse) {
        d->lse.type = wide;
        d->lse.stride[0] = packed ? 0 : d->n_q_heads * d->q_len;
        d->lse.stride[1] = packed ? p->t[Q].shape[0] : d->q_len;
        d->lse.stride[2] = 1;
    }
    if (p->want_weights) {
        d->weights.type = wide;
        d->weights.stride[3] = 1;
        d->weights.stride[2] = d->kv_len;
        d->weights.stride[1] = d->kv_len * d->q_len;
        d->weights.stride[0] = d->kv_len * d->q_len * d->n_q_heads;
    }
    return 0;
}

/* ---- lengths and options ----------------------------------------------------------------- */

static int set_lengths(problem *p)
{
    qkv_desc *d = &p->desc;
    const int32_t **field[] = {&d->q_lens, &d->kv_lens, &d->kv_starts, &d->q_offsets};
    const tensor *cu_q = &p->t[CU_Q], *cu_k = &p->t[CU_K], *q = &p->t[Q];
    if (cu_q->type) {
        d->cu_seqlens_q = cu_q->data;
        d->cu_seqlens_k = cu_k->data;
        d->cu_seqlens_type = cu_q->type;
        d->n_seqs = (int32_t)cu_q->shape[0] - 1;
    }
    const int64_t want = cu_q->type ? d->n_seqs : q->rank == 4 ? q->shape[0] : -1;
    for (int i = 0; i < 4; i++) {
        const tensor *t = &p->t[Q_LENS + i];
        if (t->type == QKV_NONE)
            continue;
        if (want >= 0 && (t->rank != 1 || t->shape[0] != want))
            return refuse_shape(t, "one value for each sequence is expected: ", &want, 1);
        *field[i] = t->data;
    }
    return 0;
}

int qkvpy_problem_open(problem *p, PyObject *const *args, Py_ssize_t n_args)
{
    memset(p, 0, sizeof *p);
    if (n_args != N_TENSORS + 1 || !PyTuple_Check(args[N_TENSORS])) {
        PyErr_SetString(PyExc_TypeError, "this is the inner interface of the package qkv");
        return -1;
    }
    qkv_desc *d = &p->desc;
    qkv_desc_init(d);
    int stage; /* negative: no weights wanted */
    long long left, right, b0, b1, b2, q_len, kv_len;
    if (!PyArg_ParseTuple(args[N_TENSORS], "iiipiIiLLddiiLLLLL", &d->causal, &d->align, &stage,
                          &p->want_lse, &d->precision, &d->cpu_mask, &p->threads, &left, &right,
                          &d->scale, &d->softcap, &d->block_q, &d->block_k, &b0, &b1, &b2, &q_len,
                          &kv_len))
        return -1;
    p->want_weights = stage >= 0;
    d->stage = p->want_weights ? stage : QKV_STAGE_WEIGHTS;
    d->window_left = left;
    d->window_right = right;
    d->q_len = q_len;
    d->kv_len = kv_len;
    if (qkvpy_problem_tensors(p, args, N_TENSORS) < 0 || set_lengths(p) < 0)
        return -1;
    if (p->t[BLOCKS].buffer.obj != NULL) {
        d->block_bits = p->t[BLOCKS].buffer.buf;
        d->block_stride[0] = b0;
        d->block_stride[1] = b1;
        d->block_stride[2] = b2;
    }
    return qkvpy_problem_describe(p);
}

void qkvpy_problem_close(problem *p)
{
    for (int i = 0; i < N_TENSORS; i++)
        qkvpy_tensor_close(&p->t[i]);
}
