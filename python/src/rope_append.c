/* rope_append.c - keys turned on their way into a cache: whose angles they get. */
#include "rope_binding.h"

/* (T, ...) for all sequences or (B, T, ...), packed (T, ...), with `behind` axes after the tokens.
 * Sets strides over sequence and token. */
static int one_a_token(const tensor *t, const int64_t want[3], int behind, int packed,
                       int64_t stride[2])
{
    const int lead = t->rank - behind;
    const int good = (lead == 1 || (lead == 2 && !packed)) && t->shape[lead - 1] == want[1] &&
                     (lead == 1 || t->shape[0] == want[0] || t->shape[0] == 1) &&
                     (behind == 0 || t->shape[lead] == want[2]);
    if (!good)
        return packed ? qkvpy_refuse_shape(t, "a row a token is expected: ", want + 1, 1 + behind)
                      : qkvpy_refuse_shape(t, "a row a token is expected, for all sequences or ",
                                           want, 2 + behind);
    stride[0] = lead == 2 && t->shape[0] > 1 ? t->stride[0] : 0;
    stride[1] = t->stride[lead - 1];
    return 0;
}

static int open_table(rotation *r, PyObject *cos, PyObject *sin, const int64_t want[3], int packed)
{
    int64_t other[2];
    if (qkvpy_tensor_open(&r->cos, cos, "cos", FLOATS, ROWS) < 0 ||
        qkvpy_tensor_open(&r->sin, sin, "sin", FLOATS, ROWS) < 0 ||
        one_a_token(&r->cos, want, 1, packed, r->args.table_stride) < 0 ||
        one_a_token(&r->sin, want, 1, packed, other) < 0)
        return -1;
    if (r->sin.type != r->cos.type || memcmp(other, r->args.table_stride, sizeof other) != 0) {
        PyErr_SetString(PyExc_ValueError,
                        "cos and sin of the table must have one dtype, shape and strides");
        return -1;
    }
    r->args.cos = r->cos.data;
    r->args.sin = r->sin.data;
    r->args.table_type = r->cos.type;
    r->args.table_rows = want[1];
    return 0;
}

int qkvpy_rotation_open(rotation *r, PyObject *turn, int64_t n_seqs, int64_t n_tokens, int packed)
{
    PyObject *rope, *positions, *cos, *sin;
    long long seq_len;
    if (turn == Py_None)
        return 0;
    if (!PyArg_ParseTuple(turn, "O!OOOL", &qkvpy_rope_type, &rope, &positions, &cos, &sin,
                          &seq_len))
        return -1;
    Py_INCREF(rope);
    r->rope = (const rope_object *)rope;
    qkv_rope_args_init(&r->args);
    r->args.seq_len = seq_len;
    const int64_t want[3] = {n_seqs, n_tokens, qkv_rope_pairs(&r->rope->rope)};
    if (cos != Py_None)
        return open_table(r, cos, sin, want, packed);
    if (qkvpy_tensor_open(&r->positions, positions, "positions", LENGTHS, AS_IS) < 0 ||
        one_a_token(&r->positions, want, 0, packed, r->args.position_stride) < 0)
        return -1;
    r->args.positions = r->positions.data;
    return 0;
}

void qkvpy_rotation_close(rotation *r)
{
    Py_XDECREF((PyObject *)(uintptr_t)r->rope);
    qkvpy_tensor_close(&r->positions);
    qkvpy_tensor_close(&r->cos);
    qkvpy_tensor_close(&r->sin);
}
