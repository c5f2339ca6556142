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
                     : status == QKV_ERR_FULL   ? qkvpy_cache_full
                                                : PyExc_ValueError;
    PyErr_SetString(kind, text);
    return -1;
}

static const char *const names[N_TENSORS] = {
    "q", "k", "v", "out", "mask", "bias", "sinks", "alibi_slopes", "block_table", "k_scale",
    "k_min", "v_scale", "v_min", "k_rope", "q_lens", "kv_lens", "kv_starts", "q_offset",
    "cu_seqlens_q", "cu_seqlens_k", "block_mask"};

void qkvpy_swap_axes(tensor *t)
{
    if (t->rank < 3)
        return;
    const int a = t->rank - 3, b = t->rank - 2;
    const int64_t shape = t->shape[a], stride = t->stride[a];
    t->shape[a] = t->shape[b];
    t->stride[a] = t->stride[b];
    t->shape[b] = shape;
    t->stride[b] = stride;
    t->swapped = !t->swapped;
}

int qkvpy_problem_tensor(problem *p, int i, PyObject *array)
{
    const int lengths = i >= Q_LENS || i == TABLE, keys = i == K || i == V;
    const int of_keys = keys || (i >= K_SCALE && i <= K_ROPE);
    const int kind = i == MASK ? BOOLS : lengths ? LENGTHS : keys ? KEYS : FLOATS;
    const int how = lengths ? DENSE : i == Q || of_keys ? ROWS : i == OUT ? WRITE : AS_IS;
    if (i == BLOCKS)
        return PyObject_GetBuffer(array, &p->t[i].buffer, PyBUF_SIMPLE);
    if (qkvpy_tensor_open(&p->t[i], array, names[i], kind, how) < 0)
        return -1;
    if (p->tokens_first && of_keys)
        qkvpy_swap_axes(&p->t[i]);
    return 0;
}

int qkvpy_problem_tensors(problem *p, PyObject *const *args, int n)
{
    for (int i = 0; i < n; i++)
        if ((args[i] != Py_None || i <= V) && qkvpy_problem_tensor(p, i, args[i]) < 0)
            return -1;
    return 0;
}

/* ---- shapes ------------------------------------------------------------------------------ */

int qkvpy_refuse_shape(const tensor *t, const char *wanted, const int64_t *shape, int32_t rank)
{
    char have[256], want[256];
    tensor mine = *t, theirs = {.rank = rank};
    if (shape != NULL)
        memcpy(theirs.shape, shape, (size_t)rank * sizeof *shape);
    if (t->swapped) {
        qkvpy_swap_axes(&mine);
        qkvpy_swap_axes(&theirs);
    }
    PyErr_Format(PyExc_ValueError, "%s has shape %s; %s%s", t->name,
                 qkvpy_shape_text(have, mine.shape, t->rank), wanted,
                 shape ? qkvpy_shape_text(want, theirs.shape, rank) : "");
    return -1;
}

int qkvpy_check_queries(problem *p)
{
    const tensor *q = &p->t[Q];
    const int packed = p->desc.cu_seqlens_q != NULL, rank = packed ? 3 : 4;
    if (q->rank != rank)
        return qkvpy_refuse_shape(q, packed ? "(T, H, D) is expected" : "(B, H, T, D) is expected",
                                  NULL, 0);
    for (int axis = 0; axis < rank; axis++)
        if (q->shape[axis] > INT32_MAX)
            return qkvpy_refuse_shape(q, "an axis may have at most 2147483647 elements", NULL, 0);
    p->desc.n_q_heads = (int32_t)q->shape[1];
    p->desc.head_dim = (int32_t)q->shape[rank - 1];
    if (!packed) {
        p->desc.n_seqs = (int32_t)q->shape[0];
        p->desc.q_len = q->shape[2];
    }
    return 0;
}

static void set_layout(qkv_layout *l, const tensor *t, int packed)
{
    l->type = t->type;
    l->stride[0] = packed ? 0 : t->stride[0];
    l->stride[1] = t->stride[1];
    l->stride[2] = t->stride[packed ? 0 : 2];
    l->stride[3] = t->stride[t->rank - 1];
}

/* q and o: [B][H][T][D] padded, [T][H][D] packed. */
int qkvpy_describe_queries(problem *p)
{
    qkv_desc *d = &p->desc;
    const tensor *q = &p->t[Q], *o = &p->t[OUT];
    const int packed = d->cu_seqlens_q != NULL, rank = q->rank;
    int64_t want[4];
    memcpy(want, q->shape, sizeof want);
    want[rank - 1] = d->head_dim_v;
    if (o->type && (o->rank != rank || memcmp(want, o->shape, (size_t)rank * sizeof *want) != 0))
        return qkvpy_refuse_shape(o, "it must be ", want, rank);
    tensor dense = {.type = q->type, .rank = rank};
    dense.stride[rank - 1] = 1;
    for (int i = rank - 2; i >= 0; i--)
        dense.stride[i] = dense.stride[i + 1] * (want[i + 1] ? want[i + 1] : 1);
    set_layout(&d->q, q, packed);
    set_layout(&d->o, o->type ? o : &dense, packed);
    return 0;
}

int qkvpy_broadcast(qkv_layout *l, const tensor *t, const int64_t *shape, int32_t rank,
                    const char *wanted)
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
    return fits ? 0 : qkvpy_refuse_shape(t, wanted, shape, rank);
}

static void describe_outputs(problem *p)
{
    qkv_desc *d = &p->desc;
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
}

int qkvpy_describe_rest(problem *p)
{
    qkv_desc *d = &p->desc;
    const int64_t shape[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    const char *four = "it must broadcast to (B, Hq, Tq, Tk) = ";
    const char *two = "it must broadcast to (B, Hq) = ";
    if (qkvpy_broadcast(&d->mask, &p->t[MASK], shape, 4, four) < 0 ||
        qkvpy_broadcast(&d->bias, &p->t[BIAS], shape, 4, four) < 0 ||
        qkvpy_broadcast(&d->sinks, &p->t[SINKS], shape, 2, two) < 0 ||
        qkvpy_broadcast(&d->slopes, &p->t[SLOPES], shape, 2, two) < 0)
        return -1;
    describe_outputs(p);
    return 0;
}

int qkvpy_problem_describe(problem *p)
{
    if (qkvpy_check_queries(p) < 0 || qkvpy_describe_keys(p) < 0 || qkvpy_describe_queries(p) < 0)
        return -1;
    return qkvpy_describe_rest(p);
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
            return qkvpy_refuse_shape(t, "one value for each sequence is expected: ", &want, 1);
        *field[i] = t->data;
    }
    return 0;
}

static int parse_options(problem *p, PyObject *options, int64_t block_stride[3])
{
    qkv_desc *d = &p->desc;
    int stage; /* negative: no weights wanted */
    long long left, right, stride[3], q_len, kv_len;
    if (!PyArg_ParseTuple(options, "iiipiIiLLddiiLLLLLpiiii", &d->causal, &d->align, &stage,
                          &p->want_lse, &d->precision, &d->cpu_mask, &p->threads, &left, &right,
                          &d->scale, &d->softcap, &d->block_q, &d->block_k, &stride[0], &stride[1],
                          &stride[2], &q_len, &kv_len, &p->tokens_first, &p->format[0],
                          &p->format[1], &p->group[0], &p->group[1]))
        return -1;
    p->want_weights = stage >= 0;
    d->stage = p->want_weights ? stage : QKV_STAGE_WEIGHTS;
    d->window_left = left;
    d->window_right = right;
    d->q_len = q_len;
    d->kv_len = kv_len;
    for (int i = 0; i < 3; i++)
        block_stride[i] = stride[i];
    return 0;
}

int qkvpy_problem_open(problem *p, PyObject *const *args, Py_ssize_t n_args)
{
    int64_t block_stride[3];
    memset(p, 0, sizeof *p);
    if (n_args != N_TENSORS + 1 || !PyTuple_Check(args[N_TENSORS])) {
        PyErr_SetString(PyExc_TypeError, "this is the inner interface of the package qkv");
        return -1;
    }
    qkv_desc_init(&p->desc);
    if (parse_options(p, args[N_TENSORS], block_stride) < 0 ||
        qkvpy_problem_tensors(p, args, N_TENSORS) < 0 || set_lengths(p) < 0)
        return -1;
    if (p->t[BLOCKS].buffer.obj != NULL) {
        p->desc.block_bits = p->t[BLOCKS].buffer.buf;
        memcpy(p->desc.block_stride, block_stride, sizeof block_stride);
    }
    return qkvpy_problem_describe(p);
}

void qkvpy_problem_close(problem *p)
{
    for (int i = 0; i < N_TENSORS; i++)
        qkvpy_tensor_close(&p->t[i]);
}
