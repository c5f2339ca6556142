/* t_layout.c - shapes, strides and memory of a problem's tensors. */
#include <string.h>

#include "t_problem.h"

static int64_t cumulative(const qkv_desc *d, const void *cu, int64_t i)
{
    return d->cu_seqlens_type == QKV_I64 ? ((const int64_t *)cu)[i] : ((const int32_t *)cu)[i];
}

t_span t_span_of(const qkv_desc *d, int32_t b)
{
    t_span s = {d->q_len, 0, d->kv_len, 0, 0, 0};

    if (d->cu_seqlens_q) {
        s.q_row = cumulative(d, d->cu_seqlens_q, b);
        s.q_len = cumulative(d, d->cu_seqlens_q, b + 1) - s.q_row;
    }
    if (d->cu_seqlens_k) {
        s.k_row = cumulative(d, d->cu_seqlens_k, b);
        s.kv_len = cumulative(d, d->cu_seqlens_k, b + 1) - s.k_row;
    }
    if (d->q_lens)
        s.q_len = d->q_lens[b];
    if (d->kv_lens)
        s.kv_len = d->kv_lens[b];
    if (d->kv_starts)
        s.kv_start = d->kv_starts[b];
    s.q_offset = d->q_offsets                          ? d->q_offsets[b]
                 : d->align == QKV_ALIGN_BOTTOM_RIGHT ? s.kv_len - s.q_len
                                                       : 0;
    return s;
}

static void set_tensor(t_tensor *t, qkv_layout *layout, int64_t n0, int64_t n1, int64_t n2,
                       int64_t n3)
{
    t->layout = layout;
    t->n[0] = n0;
    t->n[1] = n1;
    t->n[2] = n2;
    t->n[3] = n3;
}

void t_problem_shape(t_problem *p)
{
    qkv_desc *d = &p->desc;
    const int64_t b = d->n_seqs, hq = d->n_q_heads, hkv = d->n_kv_heads;
    const int64_t qb = d->cu_seqlens_q ? 1 : b, kb = d->cu_seqlens_k ? 1 : b;

    p->q_rows = d->cu_seqlens_q ? cumulative(d, d->cu_seqlens_q, b) : d->q_len;
    p->kv_rows = d->cu_seqlens_k ? cumulative(d, d->cu_seqlens_k, b) : d->kv_len;
    set_tensor(&p->tensor[T_Q], &d->q, qb, hq, p->q_rows, d->head_dim);
    set_tensor(&p->tensor[T_K], &d->k, kb, hkv, p->kv_rows, d->head_dim);
    set_tensor(&p->tensor[T_V], &d->v, kb, hkv, p->kv_rows, d->head_dim_v);
    set_tensor(&p->tensor[T_O], &d->o, qb, hq, p->q_rows, d->head_dim_v);
    set_tensor(&p->tensor[T_MASK], &d->mask, b, hq, d->q_len, d->kv_len);
    set_tensor(&p->tensor[T_BIAS], &d->bias, b, hq, d->q_len, d->kv_len);
    set_tensor(&p->tensor[T_SINKS], &d->sinks, b, hq, 1, 1);
    set_tensor(&p->tensor[T_SLOPES], &d->slopes, b, hq, 1, 1);
    set_tensor(&p->tensor[T_LSE], &d->lse, qb, hq, p->q_rows, 1);
    set_tensor(&p->tensor[T_WEIGHTS], &d->weights, b, hq, d->q_len, d->kv_len);
}

static int is_input(int tensor)
{
    return tensor != T_O && tensor != T_LSE && tensor != T_WEIGHTS;
}

/* Scores have a key stride; the others have contiguous channels. */
static int has_keys(int tensor)
{
    return tensor == T_MASK || tensor == T_BIAS || tensor == T_WEIGHTS;
}

/* Strides that nest in a random order, with gaps, signs, and for inputs broadcasts. */
static void random_strides(t_problem *p, int tensor)
{
    t_tensor *t = &p->tensor[tensor];
    const int last = has_keys(tensor) ? 4 : 3;
    int order[4] = {3, 2, 1, 0};
    int64_t stride = has_keys(tensor) ? 1 : t->n[3];

    t->layout->stride[3] = 1;
    if (!has_keys(tensor))
        for (int i = 0; i < 3; i++)
            order[i] = 2 - i;
    const int dense = !p->limits.layouts || t_chance(&p->rng, 25);
    for (int i = last - 1; !dense && i > 0; i--) { /* Fisher and Yates 1938 */
        const int other = (int)t_below(&p->rng, i + 1), x = order[i];
        order[i] = order[other];
        order[other] = x;
    }
    if (!dense && t_chance(&p->rng, 40))
        stride += t_below(&p->rng, 9);
    for (int i = 0; i < last; i++) {
        int64_t *s = &t->layout->stride[order[i]];
        if (!dense && p->limits.layouts == T_ANY_LAYOUT && is_input(tensor) &&
            t_chance(&p->rng, tensor <= T_V ? 8 : 30)) {
            *s = 0;
            continue;
        }
        *s = !dense && t_chance(&p->rng, 15) ? -stride : stride;
        stride *= t->n[order[i]] > 0 ? t->n[order[i]] : 1;
        if (!dense && t_chance(&p->rng, 20))
            stride += t_below(&p->rng, 9);
    }
    if (t->n[0] == 1 && p->desc.n_seqs != 1)
        t->layout->stride[0] = 1234567; /* packed: not used */
}

/* [B][T][q heads, k heads, v heads][D] */
static void interleave_qkv(t_problem *p)
{
    qkv_desc *d = &p->desc;
    qkv_layout *three[] = {&d->q, &d->k, &d->v};
    const int64_t token = (int64_t)(d->n_q_heads + 2 * d->n_kv_heads) * d->head_dim;

    for (int i = 0; i < 3; i++) {
        three[i]->stride[0] = d->q_len * token;
        three[i]->stride[1] = d->head_dim;
        three[i]->stride[2] = token;
        three[i]->stride[3] = 1;
    }
}

void t_problem_lay_out(t_problem *p)
{
    qkv_desc *d = &p->desc;

    p->packed_qkv = p->v_is_k = 0;
    for (int i = 0; i < T_N_TENSORS; i++)
        if (p->tensor[i].layout->type != QKV_NONE)
            random_strides(p, i);
    if (!p->limits.layouts)
        return;
    if (!d->cu_seqlens_q == !d->cu_seqlens_k && p->q_rows == p->kv_rows &&
        d->q.type == d->k.type && d->k.type == d->v.type && d->head_dim == d->head_dim_v &&
        t_chance(&p->rng, 60)) {
        p->packed_qkv = 1;
        interleave_qkv(p);
    } else if (p->limits.layouts == T_ANY_LAYOUT && d->k.type == d->v.type &&
               d->head_dim_v <= d->head_dim && t_chance(&p->rng, 15)) {
        p->v_is_k = 1;
        d->v = d->k;
    }
}

/* Elements from the lowest to past the highest, and how far the lowest lies below the first. */
static int64_t extent(const t_tensor *t, int64_t *below)
{
    int64_t low = 0, high = 0;
    for (int i = 0; i < 4; i++) {
        if (t->n[i] == 0) {
            *below = 0;
            return 0;
        }
        const int64_t reach = (t->n[i] - 1) * t->layout->stride[i];
        low += reach < 0 ? reach : 0;
        high += reach > 0 ? reach : 0;
    }
    *below = -low;
    return high - low + 1;
}

/* The members of qkv_args in the order of the tensors. */
static void set_args(t_problem *p)
{
    qkv_args *a = &p->args;
    const void **inputs[] = {&a->q,    &a->k,     &a->v,      NULL, &a->mask,
                             &a->bias, &a->sinks, &a->slopes, NULL, NULL};
    qkv_args_init(a);
    for (int i = 0; i < T_N_TENSORS; i++)
        if (inputs[i])
            *inputs[i] = p->tensor[i].first;
    a->o = p->tensor[T_O].first;
    a->lse = p->tensor[T_LSE].first;
    a->weights = p->tensor[T_WEIGHTS].first;
}

void t_tensor_allocate(t_tensor *t, t_rng *rng, unsigned char fill)
{
    const size_t size = qkv_type_size((qkv_type)t->layout->type);
    int64_t below;

    t->bytes = (size_t)extent(t, &below) * size;
    t->memory = t_alloc(t->bytes, size, t_chance(rng, 80) ? T_END : T_START, fill);
    t->first = (char *)t->memory + (size_t)below * size;
}

void t_problem_clone(t_problem *to, const t_problem *from)
{
    memset(to, 0, sizeof *to);
    to->seed = from->seed;
    to->rng = t_rng_of(from->seed + 99);
    to->limits = from->limits;
    to->limits.layouts = from->limits.layouts ? T_OWN_LAYOUT : 0;
    to->fill = from->fill;
    to->desc = from->desc;
}

void t_problem_rebuild(t_problem *p)
{
    t_problem_shape(p);
    t_problem_lay_out(p);
    t_problem_allocate(p);
}

void t_copy_tensor(t_problem *to, int tensor, const t_problem *from)
{
    const int64_t *n = to->tensor[tensor].n;
    for (int64_t i0 = 0; i0 < n[0]; i0++)
        for (int64_t i1 = 0; i1 < n[1]; i1++)
            for (int64_t i2 = 0; i2 < n[2]; i2++)
                for (int64_t i3 = 0; i3 < n[3]; i3++)
                    t_put(to, tensor, i0, i1, i2, i3, t_get(from, tensor, i0, i1, i2, i3));
}

void t_copy_inputs(t_problem *to, const t_problem *from)
{
    for (int i = 0; i < T_N_TENSORS; i++)
        if (is_input(i) && to->tensor[i].layout->type != QKV_NONE)
            t_copy_tensor(to, i, from);
}

void t_problem_allocate(t_problem *p)
{
    const size_t size = qkv_type_size((qkv_type)p->desc.q.type);

    for (int i = 0; i < T_N_TENSORS; i++) {
        p->tensor[i].memory = p->tensor[i].first = NULL;
        if (p->tensor[i].layout->type != QKV_NONE && !(p->packed_qkv && i <= T_V) &&
            !(p->v_is_k && i == T_V))
            t_tensor_allocate(&p->tensor[i], &p->rng, is_input(i) ? 0xff : 0xa5);
    }
    if (p->v_is_k) {
        p->tensor[T_V].memory = p->tensor[T_K].memory;
        p->tensor[T_V].bytes = p->tensor[T_K].bytes;
        p->tensor[T_V].first = p->tensor[T_K].first;
    }
    if (p->packed_qkv) {
        const int64_t heads[] = {0, p->desc.n_q_heads, p->desc.n_q_heads + p->desc.n_kv_heads};
        const size_t bytes =
            (size_t)(p->tensor[T_Q].n[0] * p->q_rows * p->desc.q.stride[2]) * size;
        void *memory = t_alloc(bytes, size, T_END, 0xff);
        for (int i = 0; i < 3; i++) {
            p->tensor[i].memory = memory;
            p->tensor[i].bytes = bytes;
            p->tensor[i].first = (char *)memory + (size_t)(heads[i] * p->desc.head_dim) * size;
        }
    }
    set_args(p);
}

int64_t t_offset(const t_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    const int64_t *s = t->layout->stride;
    return (i0 * s[0] + i1 * s[1] + i2 * s[2] + i3 * s[3]) *
           (int64_t)qkv_type_size((qkv_type)t->layout->type);
}

double t_get(const t_problem *p, int tensor, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    const t_tensor *t = &p->tensor[tensor];
    const char *at = (const char *)t->first + t_offset(t, i0, i1, i2, i3);
    double x;

    if (t->layout->type == QKV_BOOL)
        return *(const unsigned char *)at;
    qkv_convert(&x, QKV_F64, at, (qkv_type)t->layout->type, 1);
    return x;
}

void t_put(t_problem *p, int tensor, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double x)
{
    const t_tensor *t = &p->tensor[tensor];
    char *at = (char *)t->first + t_offset(t, i0, i1, i2, i3);

    if (t->layout->type == QKV_BOOL)
        *(unsigned char *)at = (unsigned char)x;
    else
        qkv_convert(at, (qkv_type)t->layout->type, &x, QKV_F64, 1);
}

double t_get_o(const t_problem *p, int32_t b, int32_t h, int64_t i, int64_t c)
{
    if (p->desc.cu_seqlens_q)
        return t_get(p, T_O, 0, h, t_span_of(&p->desc, b).q_row + i, c);
    return t_get(p, T_O, b, h, i, c);
}

double t_get_lse(const t_problem *p, int32_t b, int32_t h, int64_t i)
{
    if (p->desc.cu_seqlens_q)
        return t_get(p, T_LSE, 0, h, t_span_of(&p->desc, b).q_row + i, 0);
    return t_get(p, T_LSE, b, h, i, 0);
}
