/* pages_describe.c - what a paged problem is: types, page sizes, groups, memory. */
#include <stdio.h>
#include <string.h>

#include "pages.h"

static int32_t any_type(t_rng *rng)
{
    static const int32_t types[] = {QKV_F32, QKV_F16,  QKV_BF16, QKV_I8,
                                    QKV_U4,  QKV_E4M3, QKV_E5M2};
    return types[t_below(rng, 7)];
}

static int32_t any_page(t_rng *rng, int64_t kv_len)
{
    static const int32_t usual[] = {1, 2, 16, 32, 64, 128, 256};
    const int64_t most = 2 * kv_len + 10 < 300 ? 2 * kv_len + 10 : 300;
    const int32_t page = usual[t_below(rng, 7)];
    return t_chance(rng, 40) && page <= most ? page : (int32_t)t_between(rng, 1, most);
}

/* 0 is one scale for all; 1 a scale a channel. */
static int32_t any_group(t_rng *rng, int32_t type, int32_t dim)
{
    const int32_t even = type == QKV_U4 && dim > 1;
    int32_t group = (int32_t)t_between(rng, 1, dim);

    if (t_chance(rng, 35))
        return 0;
    if (t_chance(rng, 40))
        group = t_chance(rng, 60) ? 32 : 1;
    group = group > dim ? dim : group;
    return even && group % 2 && group != dim ? group + 1 : group;
}

static void choose_sides(paged *x)
{
    qkv_desc *d = &x->p.desc;
    t_rng *rng = &x->p.rng;

    if (d->q.type == QKV_F64)
        return;
    d->k.type = any_type(rng);
    d->v.type = t_chance(rng, 40) ? d->k.type : any_type(rng);
    if (t_chance(rng, 25)) /* what products of bf16 can take */
        d->q.type = QKV_BF16;
    if (t_chance(rng, 15))
        d->precision = (int32_t)t_between(rng, QKV_PRECISION_HIGH, QKV_PRECISION_MEDIUM);
    if (d->head_dim > 1 && t_chance(rng, 20)) {
        d->rope_dim = (int32_t)t_between(rng, 1, d->head_dim - 1);
        d->k_rope.type = t_chance(rng, 50) ? QKV_F32 : t_chance(rng, 50) ? QKV_F16 : QKV_BF16;
    }
    d->k_group = any_group(rng, d->k.type, d->head_dim - d->rope_dim);
    d->v_group = any_group(rng, d->v.type, d->head_dim_v);
    if (d->head_dim_v <= d->head_dim - d->rope_dim && t_chance(rng, 25)) {
        x->latent = 1;
        d->v.type = d->k.type;
        d->v_group = d->k_group <= d->head_dim_v ? d->k_group : 0;
    }
}

void pages_describe(paged *x, uint64_t seed, const t_limits *limits)
{
    qkv_desc *d = &x->p.desc;

    memset(x, 0, sizeof *x);
    t_problem_describe(&x->p, seed, limits);
    choose_sides(x);
    if (t_chance(&x->p.rng, 85) || !(pages_coded(d->k.type) || pages_coded(d->v.type))) {
        d->page_tokens = any_page(&x->p.rng, d->kv_len);
        d->cu_seqlens_k = NULL;
    }
}

const char *pages_text(const paged *x)
{
    static char text[768];
    const qkv_desc *d = &x->p.desc;

    snprintf(text, sizeof text,
             "page %d of %d table %lld,%lld groups %d,%d scales %s,%s rope %d %s precision %d%s %s",
             d->page_tokens, d->n_pages, (long long)d->block_table_stride[0],
             (long long)d->block_table_stride[1], d->k_group, d->v_group,
             qkv_type_name((qkv_type)d->k_scale.type), qkv_type_name((qkv_type)d->v_scale.type),
             d->rope_dim, qkv_type_name((qkv_type)d->k_rope.type), d->precision,
             x->latent ? " latent" : "", t_problem_text(&x->p));
    return text;
}

/* ---- memory ---- */

t_tensor *pages_tensor(paged *x, int i)
{
    t_tensor *const all[PAGES_TENSORS] = {&x->k.data,  &x->v.data, &x->k.scale, &x->k.min,
                                          &x->v.scale, &x->v.min,  &x->rope};
    return all[i];
}

int pages_has(const paged *x, const t_tensor *t)
{
    const int of_values = t == &x->v.data || t == &x->v.scale || t == &x->v.min;
    return t->layout->type != QKV_NONE && !(x->latent && of_values);
}

void pages_lay_out(t_rng *rng, qkv_layout *l, const int64_t n[4], int whole_rows, int share)
{
    const int dense = t_chance(rng, 30), from = whole_rows ? 1 : 0;
    int order[4] = {3, 2, 1, 0}; /* smallest stride first */
    int64_t stride = 1;

    for (int i = 3; !dense && i > from; i--) { /* Fisher and Yates 1938 */
        const int other = (int)t_between(rng, from, i), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (int i = 0; i < 4; i++) {
        int64_t *s = &l->stride[order[i]];
        *s = !dense && i >= from && t_chance(rng, 15) ? -stride : stride;
        if (i >= from && t_chance(rng, share)) {
            *s = 0;
            continue;
        }
        stride *= n[order[i]] > 0 ? n[order[i]] : 1;
        if (!dense && t_chance(rng, 20))
            stride += t_below(rng, 9);
    }
}

static void set_tensor(t_tensor *t, qkv_layout *layout, const paged *x, int64_t channels)
{
    const qkv_desc *d = &x->p.desc;
    const int paged_ = d->page_tokens > 0;

    memset(t, 0, sizeof *t);
    t->layout = layout;
    t->n[0] = paged_ ? d->n_pages : d->cu_seqlens_k ? 1 : d->n_seqs;
    t->n[1] = d->n_kv_heads;
    t->n[2] = paged_ ? d->page_tokens : x->p.kv_rows;
    t->n[3] = channels;
}

static void set_side(paged *x, pages_side *s, int32_t dim, int32_t group, qkv_layout *data,
                     qkv_layout *scale, qkv_layout *min)
{
    const int32_t type = data->type, each = group > 0 ? group : dim;

    s->dim = dim;
    scale->type = !pages_coded(type) ? QKV_NONE : t_chance(&x->p.rng, 50) ? QKV_F32 : QKV_F16;
    min->type = type == QKV_U4 ? scale->type : QKV_NONE;
    set_tensor(&s->data, data, x, type == QKV_U4 ? (dim + 1) / 2 : dim);
    set_tensor(&s->scale, scale, x, (dim + each - 1) / each);
    set_tensor(&s->min, min, x, s->scale.n[3]);
    pages_lay_out(&x->p.rng, data, s->data.n, 1, 4);
    pages_lay_out(&x->p.rng, scale, s->scale.n, 0, 15);
    memcpy(min->stride, scale->stride, sizeof min->stride);
}

static void share_values(paged *x)
{
    qkv_desc *d = &x->p.desc;
    t_tensor *from[] = {&x->k.data, &x->k.scale, &x->k.min};
    t_tensor *to[] = {&x->v.data, &x->v.scale, &x->v.min};

    for (int i = 0; i < 3; i++) {
        *to[i]->layout = *from[i]->layout;
        to[i]->memory = from[i]->memory;
        to[i]->first = from[i]->first;
    }
    x->v.dim = d->head_dim_v;
}

/* Rows of the table for sequences and heads in either order, with gaps; some entries twice. */
static void make_table(paged *x)
{
    qkv_desc *d = &x->p.desc;
    t_rng *rng = &x->p.rng;
    const int64_t entries = (d->kv_len + d->page_tokens - 1) / d->page_tokens;
    const int64_t per_row = entries + (t_chance(rng, 30) ? t_below(rng, 4) : 0);
    const int share_seqs = t_chance(rng, 10), share_heads = t_chance(rng, 70);
    const int64_t seqs = share_seqs ? 1 : d->n_seqs, heads = share_heads ? 1 : d->n_kv_heads;
    const int heads_first = t_chance(rng, 30);

    d->block_table_stride[0] = share_seqs ? 0 : heads_first ? per_row : per_row * heads;
    d->block_table_stride[1] = share_heads ? 0 : heads_first ? per_row * seqs : per_row;
    x->n_entries = seqs > 0 ? (seqs * heads - 1) * per_row + entries : 0;
    x->table = t_alloc((size_t)x->n_entries * sizeof *x->table, sizeof *x->table, T_END, 0xff);
    x->true_table = t_scratch((size_t)x->n_entries * sizeof *x->table);
    d->n_pages = (int32_t)(x->n_entries + t_between(rng, 1, 3));

    int32_t *ids = t_scratch((size_t)d->n_pages * sizeof *ids);
    for (int32_t i = 0; i < d->n_pages; i++)
        ids[i] = i;
    for (int32_t i = d->n_pages - 1; i > 0; i--) { /* Fisher and Yates 1938 */
        const int64_t other = t_below(rng, i + 1);
        const int32_t kept = ids[i];
        ids[i] = ids[other];
        ids[other] = kept;
    }
    for (int64_t i = 0; i < x->n_entries; i++)
        x->table[i] = ids[t_chance(rng, 5) ? t_below(rng, i + 1) : i];
    memcpy(x->true_table, x->table, (size_t)x->n_entries * sizeof *x->table);
    x->p.args.block_table = x->table;
}

pages_place pages_find(const paged *x, int32_t b, int32_t h, int64_t j)
{
    const qkv_desc *d = &x->p.desc;
    const int64_t at = b * d->block_table_stride[0] + h * d->block_table_stride[1];

    if (d->page_tokens > 0)
        return (pages_place){x->true_table[at + j / d->page_tokens], j % d->page_tokens};
    return (pages_place){d->cu_seqlens_k ? 0 : b, t_span_of(d, b).k_row + j};
}

static void set_args(paged *x)
{
    qkv_args *a = &x->p.args;

    a->k = x->k.data.first;
    a->v = x->v.data.first;
    a->k_scale = x->k.scale.first;
    a->k_min = x->k.min.first;
    a->v_scale = x->v.scale.first;
    a->v_min = x->v.min.first;
    a->k_rope = x->rope.first;
}

void pages_allocate(paged *x)
{
    qkv_desc *d = &x->p.desc;

    if (d->page_tokens > 0)
        make_table(x);
    set_side(x, &x->k, d->head_dim - d->rope_dim, d->k_group, &d->k, &d->k_scale, &d->k_min);
    set_side(x, &x->v, d->head_dim_v, d->v_group, &d->v, &d->v_scale, &d->v_min);
    set_tensor(&x->rope, &d->k_rope, x, d->rope_dim);
    pages_lay_out(&x->p.rng, &d->k_rope, x->rope.n, 1, 4);
    for (int i = 0; i < PAGES_TENSORS; i++)
        if (pages_has(x, pages_tensor(x, i)))
            t_tensor_allocate(pages_tensor(x, i), &x->p.rng, 0xff);
    if (x->latent)
        share_values(x);
    set_args(x);
}

/* ---- the same without pages ---- */

/* Strides are those of `like`, or random ones. */
static void unpage_tensor(paged *x, t_tensor *t, const qkv_layout *like)
{
    const qkv_desc *d = &x->p.desc;
    const t_tensor from = *t;
    qkv_layout layout = *t->layout;
    t_tensor to = from;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)layout.type);

    to.layout = &layout;
    to.n[0] = d->n_seqs;
    to.n[2] = d->kv_len;
    if (like)
        memcpy(layout.stride, like->stride, sizeof layout.stride);
    else
        pages_lay_out(&x->p.rng, &layout, to.n, 1, 0);
    t_tensor_allocate(&to, &x->p.rng, 0xff);
    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_kv_heads; h++)
            for (int64_t j = 0; j < t_span_of(d, b).kv_len; j++)
                for (int64_t c = 0; c < to.n[3]; c++) {
                    const pages_place at = pages_find(x, b, h, j);
                    memcpy((char *)to.first + t_offset(&to, b, h, j, c),
                           (const char *)from.first + t_offset(&from, at.outer, h, at.row, c),
                           (size_t)size);
                }
    *from.layout = layout;
    to.layout = from.layout;
    *t = to;
}

void pages_unpage(paged *x)
{
    qkv_desc *d = &x->p.desc;

    for (int i = 0; i < PAGES_TENSORS; i++) {
        t_tensor *t = pages_tensor(x, i);
        const int is_min = t == &x->k.min || t == &x->v.min; /* its scale is the one before */
        if (t->layout->type != QKV_NONE)
            unpage_tensor(x, t, is_min ? pages_tensor(x, i - 1)->layout : NULL);
    }
    d->page_tokens = d->n_pages = 0;
    d->block_table_stride[0] = d->block_table_stride[1] = 0;
    x->p.args.block_table = NULL;
    set_args(x);
}
