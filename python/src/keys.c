/* keys.c - keys and values: dense, packed, in pages, as codes.
 *
 *     dense   [B][Hkv][T][D]
 *     packed  [T][Hkv][D]
 *     pages   [P][Hkv][t][D], or [P][t][Hkv][D], whose axes were exchanged when it was opened
 *
 * Two codes of int4 are one byte, so the last axis is then half of D. */
#include "binding.h"

static int is_paged(const problem *p) { return p->t[TABLE].type != QKV_NONE; }

static int is_packed(const problem *p) { return p->desc.cu_seqlens_q != NULL && !is_paged(p); }

/* What uint8 stands for; also refuses a format that the dtype contradicts. */
static int settle_format(problem *p, int side)
{
    tensor *t = &p->t[side == 0 ? K : V];
    const int32_t format = p->format[side];
    if (t->type == QKV_U4 && (format == QKV_U4 || format == QKV_E4M3 || format == QKV_E5M2))
        t->type = format;
    else if (t->type == QKV_U4)
        PyErr_Format(PyExc_ValueError,
                     "%s is uint8; with %s_format it is said what its codes are: "
                     "'int4', 'e4m3' or 'e5m2'",
                     t->name, t->name);
    else if (format != QKV_NONE && format != t->type)
        PyErr_Format(PyExc_ValueError, "%s_format is %s, but %s is an array of %s", t->name,
                     qkv_type_name((qkv_type)format), t->name, qkv_type_name((qkv_type)t->type));
    return PyErr_Occurred() ? -1 : 0;
}

/* Elements of a row of that many channels. */
static int64_t row_of(const tensor *t, int64_t channels)
{
    return t->type == QKV_U4 ? (channels + 1) / 2 : channels;
}

static int check_rank(const tensor *t, int packed, int paged)
{
    const char *wanted = packed       ? "(T, H, D) is expected"
                         : !paged     ? "(B, H, T, D) is expected"
                         : t->swapped ? "(pages, tokens, H, D) is expected"
                                      : "(pages, H, tokens, D) is expected";
    if (t->rank != (packed ? 3 : 4))
        return qkvpy_refuse_shape(t, wanted, NULL, 0);
    for (int axis = 0; axis < t->rank; axis++)
        if (t->shape[axis] > INT32_MAX)
            return qkvpy_refuse_shape(t, "an axis may have at most 2147483647 elements", NULL, 0);
    return 0;
}

/* t must have the first axes of k, and a last one of that many elements. */
static int check_like(const problem *p, const tensor *t, const char *wanted, int64_t last)
{
    const tensor *k = &p->t[K];
    int64_t want[4] = {k->shape[0], k->shape[1], k->shape[2], k->shape[3]};
    want[k->rank - 1] = last;
    for (int i = 0; i < k->rank; i++)
        if (t->rank != k->rank || t->shape[i] != want[i])
            return qkvpy_refuse_shape(t, wanted, want, k->rank);
    return 0;
}

static void set_layout(qkv_layout *l, const tensor *t)
{
    const int packed = t->rank == 3;
    l->type = t->type;
    l->stride[0] = packed ? 0 : t->stride[0];
    l->stride[1] = t->stride[1];
    l->stride[2] = t->stride[packed ? 0 : 2];
    l->stride[3] = t->stride[t->rank - 1];
}

/* The table: one row a sequence, or one a sequence and head. */
static int set_table(problem *p)
{
    qkv_desc *d = &p->desc;
    const tensor *t = &p->t[TABLE], *k = &p->t[K];
    const int64_t B = d->cu_seqlens_q ? d->n_seqs : p->t[Q].shape[0];
    const int64_t n = t->rank > 0 ? t->shape[t->rank - 1] : 0, want[3] = {B, k->shape[1], n};
    if (t->rank == 3 ? t->shape[0] != B || t->shape[1] != k->shape[1]
                     : t->rank != 2 || t->shape[0] != B)
        return qkvpy_refuse_shape(t, "(B, pages) or (B, Hkv, pages) is expected, the latter here ",
                                  want, 3);
    if (k->shape[0] == 0 || k->shape[2] == 0)
        return qkvpy_refuse_shape(k, "a pool needs pages, and pages tokens", NULL, 0);
    if (n > INT32_MAX / k->shape[2])
        return qkvpy_refuse_shape(t, "that many pages are more than 2147483647 tokens", NULL, 0);
    d->page_tokens = (int32_t)k->shape[2];
    d->n_pages = (int32_t)k->shape[0];
    d->block_table_stride[0] = t->stride[0];
    d->block_table_stride[1] = t->rank == 3 ? t->stride[1] : 0;
    d->kv_len = n * k->shape[2];
    return 0;
}

/* From strides over token, head, group to those of a descriptor. */
static void packed_layout(qkv_layout *l)
{
    const int64_t token = l->stride[0], group = l->stride[2];
    l->stride[0] = 0;
    l->stride[2] = token;
    l->stride[3] = group;
}

/* Scales, and mins if there are any, of one side with that many channels. */
static int set_scales(problem *p, int side, int32_t channels)
{
    qkv_desc *d = &p->desc;
    const tensor *scale = &p->t[side == 0 ? K_SCALE : V_SCALE], *min = scale + 1, *k = &p->t[K];
    qkv_layout *layout = side == 0 ? &d->k_scale : &d->v_scale;
    qkv_layout *min_layout = side == 0 ? &d->k_min : &d->v_min;
    const int64_t n = scale->rank > 0 ? scale->shape[scale->rank - 1] : 1;
    int32_t group = p->group[side];
    if (group < 0 && n > 1) {
        if (channels % n != 0) {
            PyErr_Format(PyExc_ValueError, "%s has %lld scales for %d channels; give %c_group",
                         scale->name, (long long)n, (int)channels, side == 0 ? 'k' : 'v');
            return -1;
        }
        group = (int32_t)(channels / n);
    }
    group = group < 0 ? 0 : group;
    *(side == 0 ? &d->k_group : &d->v_group) = group;
    const int64_t groups = group ? (channels + group - 1) / group : 1;
    const int64_t want[4] = {k->shape[0], k->shape[1], k->rank == 4 ? k->shape[2] : groups, groups};
    const char *words = "it must broadcast to the shape of the keys with groups for channels, ";
    if (qkvpy_broadcast(layout, scale, want, k->rank, words) < 0 ||
        qkvpy_broadcast(min_layout, min, want, k->rank, words) < 0)
        return -1;
    if (k->rank == 3) {
        packed_layout(layout);
        packed_layout(min_layout);
    }
    return 0;
}

static int set_widths(problem *p)
{
    qkv_desc *d = &p->desc;
    const tensor *k = &p->t[K], *v = &p->t[V], *rope = &p->t[K_ROPE];
    const int rank = k->rank;
    const int64_t r = rope->type ? rope->shape[rope->rank - 1] : 0;
    if (rope->type && check_like(p, rope, "with this k it must be ", r) < 0)
        return -1;
    if (rope->type && (r < 1 || r >= d->head_dim))
        return qkvpy_refuse_shape(rope, "its channels are the last ones of the D of q", NULL, 0);
    d->rope_dim = (int32_t)r;
    if (check_like(p, k, "with this q it must be ", row_of(k, d->head_dim - r)) < 0 ||
        check_like(p, v, "with this k it must be ", v->rank ? v->shape[v->rank - 1] : 0) < 0)
        return -1;
    const int64_t Dv = v->shape[rank - 1] * (v->type == QKV_U4 ? 2 : 1);
    d->head_dim_v = (int32_t)(Dv < INT32_MAX ? Dv : INT32_MAX);
    d->n_kv_heads = (int32_t)k->shape[1];
    return 0;
}

int qkvpy_describe_keys(problem *p)
{
    qkv_desc *d = &p->desc;
    const int paged = is_paged(p), packed = is_packed(p);
    tensor *k = &p->t[K];
    if (settle_format(p, 0) < 0 || settle_format(p, 1) < 0 || check_rank(k, packed, paged) < 0 ||
        check_rank(&p->t[V], packed, paged) < 0)
        return -1;
    if (!paged && !packed && k->shape[0] != p->t[Q].shape[0]) {
        const int64_t want[4] = {p->t[Q].shape[0], k->shape[1], k->shape[2],
                                 row_of(k, d->head_dim)};
        return qkvpy_refuse_shape(k, "with this q it must be ", want, 4);
    }
    if (set_widths(p) < 0 || (paged && set_table(p) < 0))
        return -1;
    if (!paged && !packed)
        d->kv_len = k->shape[2];
    set_layout(&d->k, k);
    set_layout(&d->v, &p->t[V]);
    if (p->t[K_ROPE].type)
        set_layout(&d->k_rope, &p->t[K_ROPE]);
    return set_scales(p, 0, d->head_dim - d->rope_dim) < 0 ? -1 : set_scales(p, 1, d->head_dim_v);
}
