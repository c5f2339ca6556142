/* cache_rows.c - keys and values in and out of a cache. */
#include "rope_binding.h"

/* One call of append. */
typedef struct rows {
    cache_object *self;
    int layer;
    Py_ssize_t n;
    int32_t *needs; /* tokens to reserve; NULL: none */
    int32_t *seqs, *counts, *cu; /* cu: packed rows */
    int64_t *starts;
    tensor k, v, rope;
    rotation turn;
} rows;

/* ---- arguments --------------------------------------------------------------------------- */

/* Latent rows have no axis of heads: puts one of size 1 where it would be. */
static void add_head(tensor *t, int packed)
{
    const int at = 1, rank = packed ? 2 : 3;
    if (t->type == QKV_NONE || t->rank != rank)
        return;
    for (int i = t->rank; i > at; i--) {
        t->shape[i] = t->shape[i - 1];
        t->stride[i] = t->stride[i - 1];
    }
    t->shape[at] = 1;
    t->stride[at] = 0;
    t->rank++;
}

static int refuse(const tensor *t, const rows *r, const char *padded, const char *packed,
                  int64_t heads, int64_t dim)
{
    tensor shown = *t;
    char have[256];
    if (r->self->config.flags & QKV_CACHE_LATENT && t->rank == (r->cu ? 3 : 4)) {
        memmove(&shown.shape[1], &t->shape[2], (size_t)(t->rank - 2) * sizeof *t->shape);
        shown.rank--;
    }
    PyErr_Format(PyExc_ValueError,
                 "%s has shape %s; %s is expected, with B = %zd, H = %lld, "
                 "D = %lld",
                 t->name, qkvpy_shape_text(have, shown.shape, shown.rank), r->cu ? packed : padded,
                 r->n, (long long)heads, (long long)dim);
    return -1;
}

/* Shape of keys, values or rotary channels. */
static int check_shape(const rows *r, const tensor *t, int64_t dim)
{
    const qkv_cache_config *c = &r->self->config;
    const int latent = c->flags & QKV_CACHE_LATENT;
    const char *padded = latent ? "(B, T, D)" : "(B, H, T, D)";
    const char *packed = latent ? "(T, D)" : "(T, H, D)";
    int64_t longest = 0;
    for (Py_ssize_t i = 0; i < r->n; i++)
        longest = r->counts[i] > longest ? r->counts[i] : longest;
    if (t->rank != (r->cu ? 3 : 4) || t->shape[1] != c->n_kv_heads ||
        t->shape[t->rank - 1] != dim || (!r->cu && (t->shape[0] != r->n || t->shape[2] < longest)))
        return refuse(t, r, padded, packed, c->n_kv_heads, dim);
    if (r->cu && (t->shape[0] != r->cu[r->n] || r->cu[0] != 0)) {
        PyErr_Format(PyExc_ValueError, "cu_seqlens is %d .. %d; %s has %lld rows", r->cu[0],
                     r->cu[r->n], t->name, (long long)t->shape[0]);
        return -1;
    }
    return 0;
}

static int check_shapes(const rows *r)
{
    const qkv_cache_config *c = &r->self->config;
    const int latent = c->flags & QKV_CACHE_LATENT;
    const int64_t D = r->rope.type ? c->head_dim_v : c->head_dim;
    if (check_shape(r, &r->k, D) < 0 || (!latent && check_shape(r, &r->v, c->head_dim_v) < 0) ||
        (r->rope.type && check_shape(r, &r->rope, c->head_dim - c->head_dim_v) < 0))
        return -1;
    const tensor *other = latent ? &r->rope : &r->v;
    if (other->type && other->type != r->k.type) {
        PyErr_Format(PyExc_ValueError, "%s is %s and %s %s; both must have one type", r->k.name,
                     qkv_type_name((qkv_type)r->k.type), other->name,
                     qkv_type_name((qkv_type)other->type));
        return -1;
    }
    return 0;
}

/* append(layer, seqs, needs, starts, counts, k, v, rope, cu, turn); lists are as long as seqs. */
static int open_rows(rows *r, PyObject *const *args)
{
    Py_ssize_t n[5] = {0};
    const int latent = r->self->config.flags & QKV_CACHE_LATENT;
    r->layer = (int)PyLong_AsLong(args[0]);
    if (PyErr_Occurred() || !(r->seqs = qkvpy_int32s(args[1], "seqs", &n[0])))
        return -1;
    n[1] = n[4] = n[0];
    r->n = n[0];
    r->needs = qkvpy_int32s(args[2], "needs", &n[1]);
    if (PyErr_Occurred() || !(r->starts = qkvpy_int64s(args[3], "starts", &n[2])) ||
        !(r->counts = qkvpy_int32s(args[4], "counts", &n[3])))
        return -1;
    r->cu = qkvpy_int32s(args[8], "cu_seqlens", &n[4]);
    n[4] -= r->cu != NULL;
    for (int i = 1; i < 5; i++)
        if (PyErr_Occurred() || qkvpy_same_length("a list", n[i], n[0]) < 0)
            return -1;
    if (qkvpy_tensor_open(&r->k, args[5], latent ? "latent" : "k", FLOATS, ROWS) < 0 ||
        (!latent && qkvpy_tensor_open(&r->v, args[6], "v", FLOATS, ROWS) < 0) ||
        (args[7] != Py_None && qkvpy_tensor_open(&r->rope, args[7], "rope", FLOATS, ROWS) < 0))
        return -1;
    if (latent) {
        add_head(&r->k, r->cu != NULL);
        add_head(&r->rope, r->cu != NULL);
    }
    return check_shapes(r) < 0
               ? -1
               : qkvpy_rotation_open(&r->turn, args[9], r->n, r->k.shape[r->cu ? 0 : 2],
                                     r->cu != NULL);
}

static void close_rows(rows *r)
{
    PyMem_Free(r->seqs);
    PyMem_Free(r->needs);
    PyMem_Free(r->starts);
    PyMem_Free(r->counts);
    PyMem_Free(r->cu);
    qkvpy_tensor_close(&r->k);
    qkvpy_tensor_close(&r->v);
    qkvpy_tensor_close(&r->rope);
    qkvpy_rotation_close(&r->turn);
}

/* ---- append ------------------------------------------------------------------------------ */

static void set_strides(int64_t to[3], const tensor *t, int packed)
{
    to[0] = packed ? 0 : t->stride[0];
    to[1] = t->stride[1];
    to[2] = t->stride[packed ? 0 : 2];
}

static qkv_status write_rows(const rows *r, char text[TEXT])
{
    qkv_cache_rows w;
    qkv_cache_rows_init(&w);
    w.type = r->k.type;
    w.n_seqs = (int32_t)r->n;
    w.seqs = r->seqs;
    w.starts = r->starts;
    w.counts = r->counts;
    w.first_rows = r->cu;
    w.k = r->k.data;
    w.v = r->v.type ? r->v.data : NULL;
    w.k_rope = r->rope.type ? r->rope.data : NULL;
    set_strides(w.k_stride, &r->k, r->cu != NULL);
    set_strides(w.v_stride, &r->v, r->cu != NULL);
    set_strides(w.k_rope_stride, &r->rope, r->cu != NULL);
    if (r->turn.rope == NULL)
        return qkv_cache_write(r->self->cache, r->layer, &w, text, TEXT);
    return qkv_cache_write_rotated(r->self->cache, r->layer, &w, &r->turn.rope->rope,
                                   &r->turn.args, text, TEXT);
}

/* What was reserved for rows that could not be written is given back. */
static qkv_status reserve_and_write(const rows *r, char text[TEXT])
{
    qkv_cache *cache = r->self->cache;
    qkv_status status = QKV_OK;
    if (r->needs)
        status = qkv_cache_reserve(cache, (int32_t)r->n, r->seqs, r->needs, text, TEXT);
    if (status != QKV_OK)
        return status;
    status = write_rows(r, text);
    for (Py_ssize_t i = 0; status != QKV_OK && r->needs && i < r->n; i++) {
        const int64_t length = qkv_cache_length(cache, r->seqs[i]) - r->needs[i];
        qkv_cache_truncate(cache, r->seqs[i], length, NULL, 0);
    }
    return status;
}

PyObject *qkvpy_cache_append(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    rows r = {.self = (cache_object *)self};
    char text[TEXT];
    qkv_status status = QKV_OK;
    if (n_args != 10) {
        PyErr_SetString(PyExc_TypeError, "this is the inner interface of the package qkv");
        return NULL;
    }
    if (open_rows(&r, args) == 0) {
        Py_BEGIN_ALLOW_THREADS
        status = reserve_and_write(&r, text);
        Py_END_ALLOW_THREADS
    }
    close_rows(&r);
    return qkvpy_none(status, text);
}

/* ---- read -------------------------------------------------------------------------------- */

/* read(layer, seq, start, k, v or None): k and v are (H, T, D) for what is read. */
PyObject *qkvpy_cache_read(PyObject *self, PyObject *args)
{
    const cache_object *c = (const cache_object *)self;
    char text[TEXT];
    int layer, seq;
    long long start;
    PyObject *arrays[2];
    tensor t[2] = {{0}, {0}};
    qkv_status status = QKV_OK;
    if (!PyArg_ParseTuple(args, "iiLOO", &layer, &seq, &start, &arrays[0], &arrays[1]))
        return NULL;
    int good = qkvpy_tensor_open(&t[0], arrays[0], "k", FLOATS, WRITE | DENSE) == 0;
    if (good && arrays[1] != Py_None)
        good = qkvpy_tensor_open(&t[1], arrays[1], "v", FLOATS, WRITE | DENSE) == 0;
    for (int i = 0; good && i < 2; i++) {
        const int64_t dim = i == 0 ? c->config.head_dim : c->config.head_dim_v;
        good = t[i].type == QKV_NONE ||
               (t[i].rank == 3 && t[i].shape[0] == c->config.n_kv_heads && t[i].shape[2] == dim &&
                t[i].shape[1] == t[0].shape[1] && t[i].type == t[0].type);
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        status =
            qkv_cache_read(c->cache, layer, seq, start, t[0].shape[1], (qkv_type)t[0].type,
                           t[0].data, t[0].stride, t[1].data, t[1].stride, text, sizeof text);
        Py_END_ALLOW_THREADS
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "k or v is not an array for what is read");
    }
    qkvpy_tensor_close(&t[0]);
    qkvpy_tensor_close(&t[1]);
    return qkvpy_none(status, text);
}

/* ---- scales of heads --------------------------------------------------------------------- */

/* set_scales(layer, k, v): f32 arrays (Hkv,) or None. */
PyObject *qkvpy_cache_set_scales(PyObject *self, PyObject *args)
{
    const cache_object *c = (const cache_object *)self;
    char text[TEXT];
    int layer;
    PyObject *arrays[2];
    tensor t[2] = {{0}, {0}};
    if (!PyArg_ParseTuple(args, "iOO", &layer, &arrays[0], &arrays[1]))
        return NULL;
    const char *names[] = {"k_scales", "v_scales"};
    const int64_t want = c->config.n_kv_heads;
    qkv_status status = QKV_OK;
    for (int i = 0; i < 2 && !PyErr_Occurred(); i++) {
        if (arrays[i] == Py_None ||
            qkvpy_tensor_open(&t[i], arrays[i], names[i], FLOATS, DENSE) < 0)
            continue;
        if (t[i].type != QKV_F32 || t[i].rank != 1 || t[i].shape[0] != want)
            qkvpy_refuse_shape(&t[i], "float32 of this shape is expected: ", &want, 1);
    }
    if (!PyErr_Occurred())
        status = qkv_cache_set_scales(c->cache, layer, t[0].data, t[1].data, text, sizeof text);
    qkvpy_tensor_close(&t[0]);
    qkvpy_tensor_close(&t[1]);
    return qkvpy_none(status, text);
}
