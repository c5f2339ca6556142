/* pages_make.c - paged problems put together, and what the oracle says about them. */
#include <math.h>
#include <string.h>

#include "pages.h"

/* Rows are as long as the problem's, or as the contiguous copy's: [Hkv][rows][channels] in f64. */
static void make_dense(paged *x, int tensor, qkv_layout *layout)
{
    t_tensor *t = &x->p.tensor[tensor];
    const int64_t *n = t->n;

    layout->type = QKV_F64;
    layout->stride[3] = 1;
    layout->stride[2] = n[3];
    layout->stride[1] = n[2] * n[3];
    layout->stride[0] = n[1] * n[2] * n[3];
    t->layout = layout;
    t->bytes = (size_t)(n[0] * layout->stride[0]) * sizeof(double);
    t->memory = t->first = t_scratch(t->bytes);
    memset(t->memory, 0xff, t->bytes);
}

/* Everything but keys and values, for which pages_allocate cares. */
static void make_others(paged *x)
{
    t_problem *p = &x->p;
    const int32_t k_type = p->desc.k.type, v_type = p->desc.v.type;

    p->desc.k.type = p->desc.v.type = QKV_NONE;
    t_problem_rebuild(p);
    p->v_is_k = p->packed_qkv = 0;
    p->desc.k.type = k_type;
    p->desc.v.type = v_type;
    make_dense(x, T_K, &x->flat[0]);
    make_dense(x, T_V, &x->flat[1]);
    const size_t error_bytes = p->tensor[T_K].bytes;
    x->k_error = t_scratch(error_bytes);
    memset(x->k_error, 0, error_bytes);
    p->k_error = x->k_error;
}

/* ---- the oracle ---- */

static double *queries(const t_problem *p, qkv_layout *layout)
{
    const int64_t *n = p->tensor[T_Q].n;
    double *q = t_scratch((size_t)(n[0] * n[1] * n[2] * n[3]) * sizeof *q), *to = q;

    *layout = (qkv_layout){QKV_F64, 0, {n[1] * n[2] * n[3], n[2] * n[3], n[3], 1}};
    for (int64_t i0 = 0; i0 < n[0]; i0++)
        for (int64_t i1 = 0; i1 < n[1]; i1++)
            for (int64_t i2 = 0; i2 < n[2]; i2++)
                for (int64_t i3 = 0; i3 < n[3]; i3++)
                    *to++ = t_get(p, T_Q, i0, i1, i2, i3);
    return q;
}

static void ask(const qkv_desc *d, const qkv_args *args, const qkv_ref_out *out, const char *which)
{
    char text[256];

    if (qkv_ref_attention(d, args, out, t_scratch(qkv_ref_scratch_size(d))) != QKV_OK) {
        qkv_explain(d, text, sizeof text);
        t_fail("the oracle refuses the %s: %s", which, text);
    }
}

/* The problem in f64, without pages and codes. */
static void ask_dense(const paged *x, int32_t stage, const qkv_ref_out *out)
{
    qkv_desc d = x->p.desc;
    qkv_args a = x->p.args;

    a.q = queries(&x->p, &d.q);
    a.k = x->p.tensor[T_K].first;
    a.v = x->p.tensor[T_V].first;
    d.k = x->flat[0];
    d.v = x->flat[1];
    d.o.type = QKV_F64;
    d.lse.type = d.weights.type = QKV_NONE;
    d.k_scale.type = d.k_min.type = d.v_scale.type = d.v_min.type = d.k_rope.type = QKV_NONE;
    d.page_tokens = d.rope_dim = 0;
    d.stage = stage;
    ask(&d, &a, out, "dense copy");
}

/* What must be looked at: visible pairs, or all that exist if hidden scores are shown. */
static void find_seen(paged *x)
{
    const qkv_desc *d = &x->p.desc;
    const size_t n = (size_t)((int64_t)d->n_seqs * d->n_q_heads * d->q_len * d->kv_len);
    const int raw = d->weights.type != QKV_NONE && d->stage <= QKV_STAGE_CAPPED;
    double *biased = t_scratch((n + 1) * sizeof *biased);

    x->seen = t_scratch(n);
    ask_dense(x, raw ? QKV_STAGE_SCORES : QKV_STAGE_BIASED, &(qkv_ref_out){.weights = biased});
    for (size_t i = 0; i < n; i++)
        x->seen[i] = biased[i] != -(double)INFINITY;
}

static qkv_ref_out room_for(const qkv_desc *d)
{
    const size_t rows = (size_t)((int64_t)d->n_seqs * d->n_q_heads * d->q_len);
    const size_t each = rows * sizeof(double);
    return (qkv_ref_out){
        .o = t_scratch(each * (size_t)d->head_dim_v),
        .o_budget = t_scratch(each * (size_t)d->head_dim_v),
        .lse = t_scratch(each),
        .lse_budget = t_scratch(each),
        .weights = d->weights.type ? t_scratch(each * (size_t)d->kv_len) : NULL,
    };
}

static void compare(const paged *x, const char *name, const double *pages, const double *dense,
                    size_t n)
{
    for (size_t i = 0; pages && i < n; i++)
        if (!(pages[i] == dense[i] || (isnan(pages[i]) && isnan(dense[i])))) {
            t_fail("%s[%zu] of the oracle is %.17g in pages and %.17g in the dense copy; %s", name,
                   i, pages[i], dense[i], pages_text(x));
            return;
        }
}

static void solve(paged *x)
{
    const qkv_desc *d = &x->p.desc;
    const size_t rows = (size_t)((int64_t)d->n_seqs * d->n_q_heads * d->q_len);
    const qkv_ref_out dense = room_for(d);

    x->p.ref = room_for(d);
    ask(d, &x->p.args, &x->p.ref, "pages");
    ask_dense(x, d->stage, &dense);
    compare(x, "o", x->p.ref.o, dense.o, rows * (size_t)d->head_dim_v);
    compare(x, "lse", x->p.ref.lse, dense.lse, rows);
    compare(x, "weights", x->p.ref.weights, dense.weights, rows * (size_t)d->kv_len);
    if (d->weights.type != QKV_NONE) {
        x->p.weights_budget = t_scratch(rows * (size_t)d->kv_len * sizeof(double));
        t_bound_weights(&x->p);
    }
}

void pages_contents(paged *x)
{
    make_others(x);
    pages_allocate(x);
    t_problem_fill(&x->p);
    pages_encode(x);
    pages_gather(x); /* types round, and what is shared was written twice */
    find_seen(x);
}

void pages_make(paged *x)
{
    pages_contents(x);
    pages_spoil(x, x->seen);
    pages_gather(x);
    for (int i = 0; i < PAGES_TENSORS; i++)
        if (pages_has(x, pages_tensor(x, i)))
            t_protect(pages_tensor(x, i)->memory);
    if (x->p.desc.page_tokens > 0)
        t_protect(x->table);
    solve(x);
}

void pages_each_key(paged *x, pages_key_fn *fn, void *arg)
{
    for (int32_t b = 0; b < x->p.desc.n_seqs; b++) {
        const t_span s = t_span_of(&x->p.desc, b);
        for (int32_t h = 0; h < x->p.desc.n_kv_heads; h++)
            for (int64_t j = s.kv_start; j < s.kv_len; j++)
                fn(x, b, h, j, arg);
    }
}
