/* view_run.c - running a View: its parts on one layer, and their merging. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "view.h"

/* One run: outputs, and the room it works in. */
typedef struct running {
    view_object *v;
    problem p;
    int layer;
    tensor lse;
    char *room;
} running;

static float *scratch_o(const running *r, int part)
{
    const int64_t step = qkvpy_view_o_elements(r->v) + qkvpy_view_lse_elements(r->v);
    return (float *)(void *)(r->room + r->v->workspace_bytes) + part * step;
}

static float *scratch_lse(const running *r, int part)
{
    return scratch_o(r, part) + qkvpy_view_o_elements(r->v);
}

/* ---- parts ------------------------------------------------------------------------------- */

static int run_part(const running *r, int i)
{
    const view_object *v = r->v;
    const view_part *part = &v->part[i];
    const qkv_desc *whole = &v->made_for.desc;
    const size_t mask_bytes = part->stacked ? 0 : qkvpy_shift_bytes(v, part, &whole->mask);
    const size_t bias_bytes = part->stacked ? 0 : qkvpy_shift_bytes(v, part, &whole->bias);
    char *copies = mask_bytes + bias_bytes ? qkvpy_alloc(mask_bytes + bias_bytes + 64) : NULL;
    if (mask_bytes + bias_bytes && copies == NULL)
        return -1;
    qkv_args a;
    qkvpy_inputs(&r->p, &a);
    if (!part->stacked) {
        a.mask = qkvpy_shift(v, part, &whole->mask, a.mask, copies);
        a.bias = qkvpy_shift(v, part, &whole->bias, a.bias, copies + (mask_bytes + 63) / 64 * 64);
    }
    qkv_cache_view_args(part->view, part->number, r->layer, &a);
    int32_t *picked = v->pages > 0 ? qkvpy_pick(v, r->layer, &r->p.t[Q]) : NULL;
    if (v->pages > 0 && picked == NULL)
        return -1; /* masks and picked pages exclude each other: no copies were made */
    a.block_table = picked ? picked : a.block_table;
    a.o = is_direct(v) ? r->p.t[OUT].data : (void *)scratch_o(r, i);
    a.lse = is_direct(v) ? r->lse.data : (void *)scratch_lse(r, i);
    const int failed = qkvpy_run_args(&part->desc, v->made_for.threads, part->plan, &a, r->room,
                                      v->workspace_bytes);
    free(copies);
    free(picked);
    return failed;
}

/* ---- merging ----------------------------------------------------------------------------- */

/* Strides of a (sequence, head, token) tensor as merging sees it: packed rows are one sequence. */
static void strides_of(const qkv_layout *l, int64_t stride[3])
{
    memcpy(stride, l->stride, 3 * sizeof *stride);
}

/* Rows past a sequence's queries, which merging cannot tell from queries that saw no key. */
static void clear_rows(const running *r, float *o, const int64_t o_stride[3], float *lse,
                       const int64_t lse_stride[3])
{
    const qkv_desc *d = &r->v->made_for.desc;
    for (int32_t b = 0; r->v->cu == NULL && b < r->v->B; b++)
        for (int64_t h = 0; h < d->n_q_heads; h++)
            for (int64_t t = r->v->q_lens[b]; t < d->q_len; t++) {
                memset(o + b * o_stride[0] + h * o_stride[1] + t * o_stride[2], 0,
                       (size_t)d->head_dim_v * sizeof *o);
                if (lse != NULL)
                    lse[b * lse_stride[0] + h * lse_stride[1] + t * lse_stride[2]] = -INFINITY;
            }
}

/* Rows of f32 in scratch as rows of the output's type. */
static void convert_rows(const running *r, const float *from, const int64_t stride[3])
{
    const qkv_desc *d = &r->v->made_for.desc;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)d->o.type);
    const int64_t B = r->v->cu ? 1 : r->v->B, T = r->v->cu ? r->v->rows : d->q_len;
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < d->n_q_heads; h++)
            for (int64_t t = 0; t < T; t++)
                qkv_convert(
                    (char *)r->p.t[OUT].data +
                        (b * d->o.stride[0] + h * d->o.stride[1] + t * d->o.stride[2]) * size,
                    (qkv_type)d->o.type, from + b * stride[0] + h * stride[1] + t * stride[2],
                    QKV_F32, (size_t)d->head_dim_v);
}

static qkv_status merge_parts(const running *r, const float *sinks, char text[TEXT])
{
    const view_object *v = r->v;
    const qkv_desc *d = &v->made_for.desc, *part = &v->part[0].desc;
    const void *o[MAX_PARTS], *lse[MAX_PARTS];
    const int wide = d->o.type == QKV_F32;
    qkv_merge_args m;
    qkv_merge_init(&m);
    for (int i = 0; i < v->n_parts; i++) {
        o[i] = scratch_o(r, i);
        lse[i] = scratch_lse(r, i);
    }
    m.n_parts = v->n_parts;
    m.n_seqs = v->cu ? 1 : v->B;
    m.n_heads = d->n_q_heads;
    m.head_dim_v = d->head_dim_v;
    m.n_tokens = v->cu ? v->rows : d->q_len;
    m.o_parts = o;
    m.lse_parts = lse;
    m.sinks = sinks;
    strides_of(&part->o, m.o_part_stride);
    strides_of(&part->lse, m.lse_part_stride);
    m.o = wide ? r->p.t[OUT].data : (void *)scratch_o(r, 0);
    strides_of(wide ? &d->o : &part->o, m.o_stride);
    m.lse = r->lse.data;
    strides_of(&d->lse, m.lse_stride);
    const qkv_status status = qkv_merge(&m, text, TEXT);
    if (status == QKV_OK) {
        clear_rows(r, m.o, m.o_stride, m.lse, m.lse_stride);
        if (!wide)
            convert_rows(r, m.o, m.o_stride);
    }
    return status;
}

static int merge(const running *r)
{
    char text[TEXT];
    const tensor *t = &r->p.t[SINKS];
    const int32_t H = r->v->made_for.desc.n_q_heads;
    float *sinks = NULL;
    if (t->type != QKV_NONE) {
        if (t->rank != 1 || t->shape[0] != H) {
            const int64_t want = H;
            return qkvpy_refuse_shape(t, "keys in several parts take one logit a head: ", &want, 1);
        }
        if ((sinks = qkvpy_alloc((size_t)H * sizeof *sinks)) == NULL)
            return -1;
        const int64_t step = t->stride[0] * (int64_t)qkv_type_size((qkv_type)t->type);
        for (int64_t h = 0; h < H; h++)
            qkv_convert(&sinks[h], QKV_F32, (const char *)t->data + h * step, (qkv_type)t->type, 1);
    }
    qkv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = merge_parts(r, sinks, text);
    Py_END_ALLOW_THREADS free(sinks);
    return status == QKV_OK ? 0 : qkvpy_raise(status, text);
}

/* ---- the call ---------------------------------------------------------------------------- */

static int run_all(running *r)
{
    const view_object *v = r->v;
    int failed = 0;
    for (int i = 0; !failed && i < v->n_parts; i++)
        failed = run_part(r, i) < 0;
    if (!failed && !is_direct(v))
        failed = merge(r) < 0;
    return failed;
}

static PyObject *run(running *r, PyObject *out, PyObject *like)
{
    view_object *v = r->v;
    PyObject *made[3] = {NULL, NULL, NULL};
    tensor weights = {0};
    int failed = qkvpy_outputs(&r->p, out, like, made, &r->lse, &weights);
    const int mine = !v->busy;
    if (!failed) {
        v->busy = 1;
        r->room = mine ? v->room : qkvpy_alloc(v->room_bytes);
        failed = r->room == NULL || run_all(r);
        if (mine)
            v->busy = 0;
        else
            free(r->room);
    }
    qkvpy_tensor_close(&r->lse);
    return qkvpy_whole(made, failed);
}

PyObject *qkvpy_view_run(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    static const int which[] = {Q, OUT, MASK, BIAS, SINKS, SLOPES};
    view_object *v = (view_object *)self;
    running r = {.v = v, .p = v->made_for};
    if (n_args != 7) {
        PyErr_SetString(PyExc_TypeError, "this is the inner interface of the package qkv");
        return NULL;
    }
    r.layer = (int)PyLong_AsLong(args[0]);
    if (!PyErr_Occurred() && (r.layer < 0 || r.layer >= v->cache->config.n_layers))
        PyErr_Format(PyExc_ValueError, "layer is %d; it must be 0 .. %d", r.layer,
                     v->cache->config.n_layers - 1);
    int same = 1;
    for (int i = 0; i < 6 && same && !PyErr_Occurred(); i++) {
        if (args[1 + i] != Py_None && qkvpy_problem_tensor(&r.p, which[i], args[1 + i]) < 0)
            break;
        same = qkvpy_same_layout(&r.p.t[which[i]], &v->seen[which[i]]);
    }
    PyObject *whole = NULL;
    if (!PyErr_Occurred())
        whole = same ? run(&r, args[2], args[1]) : Py_NewRef(Py_None);
    qkvpy_problem_close(&r.p);
    return whole;
}
