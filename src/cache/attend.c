/*
 * cache/attend.c - attention over a view: its parts planned, run and joined.
 *
 * With several parts each writes o and lse in f32 into the workspace, rows of queries one after
 * another, [row][head][Dv] and [row][head]; the merge replaces the first part's, which is then
 * rounded into the caller's o.
 */
#include <math.h>
#include <string.h>

#include "core/convert_rows.h"
#include "cache/view.h"

struct qkv_cache_plan {
    const qkv_cache_view *view;
    qkv_desc desc; /* the caller's, completed by part 0; its arrays are not used */
    int64_t rows;  /* of queries */
    int packed;
    int32_t n_parts;
    const qkv_plan *part[QKV_VIEW_PARTS];
};

static size_t up64(size_t n) { return (n + 63) / 64 * 64; }

/* ---- planning --------------------------------------------------------------------------- */

static int64_t rows_of(const qkv_desc *d)
{
    if (!d->cu_seqlens_q)
        return d->n_seqs * d->q_len;
    return d->cu_seqlens_type == QKV_I64 ? ((const int64_t *)d->cu_seqlens_q)[d->n_seqs]
                                         : ((const int32_t *)d->cu_seqlens_q)[d->n_seqs];
}

/* The problem of one part. */
static qkv_desc desc_of(const qkv_cache_view *view, int32_t part, const qkv_desc *desc)
{
    qkv_desc d = *desc;

    qkv_cache_view_desc(view, part, &d);
    if (view->n_parts == 1)
        return d;
    const int64_t heads = d.n_q_heads, row = heads * d.head_dim_v;
    memset(&d.o, 0, sizeof d.o);
    memset(&d.lse, 0, sizeof d.lse);
    memset(&d.sinks, 0, sizeof d.sinks); /* they enter once, at the merge */
    d.o.type = d.lse.type = QKV_F32;
    d.o.stride[0] = d.q_len * row;
    d.o.stride[1] = d.head_dim_v;
    d.o.stride[2] = row;
    d.o.stride[3] = 1;
    d.lse.stride[0] = d.q_len * heads;
    d.lse.stride[1] = 1;
    d.lse.stride[2] = heads;
    return d;
}

static qkv_status check(const qkv_cache_view *view, const qkv_desc *d, qkv_say say)
{
    if (!view || !d || d->struct_size != sizeof *d)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "view or desc is NULL, or desc was not set up by qkv_desc_init");
    if (view->n_parts == 1)
        return QKV_OK;
    if (d->mask.type != QKV_NONE || d->bias.type != QKV_NONE || d->weights.type != QKV_NONE ||
        d->block_bits)
        return qkv_refuse(
            say, QKV_ERR_UNSUPPORTED,
            "a mask, bias, block mask or weights with a view of %d parts; their keys would "
            "have to be cut alike",
            view->n_parts);
    if (d->sinks.type != QKV_NONE && view->n_seqs > 1 && d->sinks.stride[0] != 0)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "sinks.stride[0] is %lld with a view of %d parts; it must be 0",
                          (long long)d->sinks.stride[0], view->n_parts);
    return QKV_OK;
}

/* The bytes of all plans, or 0 and a sentence about the first that is refused. */
static qkv_status measure(const qkv_cache_view *view, const qkv_desc *desc, size_t *bytes,
                          qkv_say say)
{
    qkv_status status = check(view, desc, say);

    *bytes = up64(sizeof(qkv_cache_plan));
    for (int32_t p = 0; status == QKV_OK && p < view->n_parts; p++) {
        const qkv_desc d = desc_of(view, p, desc);
        status = qkv_explain(&d, say.text, say.bytes);
        *bytes += up64(qkv_plan_size(&d));
    }
    return status;
}

size_t qkv_cache_plan_size(const qkv_cache_view *view, const qkv_desc *desc)
{
    const qkv_say nobody = {NULL, 0};
    size_t bytes;
    return measure(view, desc, &bytes, nobody) == QKV_OK ? bytes : 0;
}

qkv_status qkv_cache_plan_init(void *mem, size_t bytes, const qkv_cache_view *view,
                               const qkv_desc *desc, const qkv_cache_plan **plan, char *text,
                               size_t text_bytes)
{
    const qkv_say say = {text, text_bytes};
    size_t need;
    qkv_status status = measure(view, desc, &need, say);

    if (status != QKV_OK)
        return status;
    if (!plan || !mem || bytes < need || (uintptr_t)mem % 8 != 0)
        return qkv_refuse(say, QKV_ERR_BUFFER,
                          "mem is %p with %zu bytes; the plans need %zu, aligned to 8", mem, bytes,
                          need);
    qkv_cache_plan *made = mem;
    unsigned char *at = (unsigned char *)mem + up64(sizeof *made);
    memset(made, 0, sizeof *made);
    made->view = view;
    made->n_parts = view->n_parts;
    made->desc = *desc;
    status = qkv_cache_view_desc(view, 0, &made->desc);
    made->rows = rows_of(&made->desc);
    made->packed = desc->cu_seqlens_q != NULL;
    for (int32_t p = 0; status == QKV_OK && p < view->n_parts; p++) {
        const qkv_desc d = desc_of(view, p, desc);
        const size_t size = qkv_plan_size(&d);
        status = qkv_plan_init(at, size, &d, &made->part[p]);
        at += up64(size);
    }
    if (status != QKV_OK)
        return status;
    *plan = made;
    return qkv_accept(say);
}

/* ---- running ---------------------------------------------------------------------------- */

/* Where things are in the workspace of a plan of several parts. */
typedef struct workspace {
    size_t run;           /* of the parts' own runs */
    size_t o, lse, sinks; /* bytes of one part's o and lse; of the sinks */
} workspace;

static workspace workspace_of(const qkv_cache_plan *plan, int32_t n_workers)
{
    const size_t rows = (size_t)plan->rows * (size_t)plan->desc.n_q_heads;
    workspace w = {0, up64(rows * (size_t)plan->desc.head_dim_v * 4), up64(rows * 4),
                   up64((size_t)plan->desc.n_q_heads * 4)};

    for (int32_t p = 0; p < plan->n_parts; p++) {
        const size_t bytes = up64(qkv_workspace_size(plan->part[p], n_workers));
        w.run = bytes > w.run ? bytes : w.run;
    }
    return w;
}

size_t qkv_cache_workspace_size(const qkv_cache_plan *plan, int32_t n_workers)
{
    const workspace w = workspace_of(plan, n_workers);
    return plan->n_parts == 1 ? w.run : w.run + (size_t)plan->n_parts * (w.o + w.lse) + w.sinks;
}

static qkv_status run_part(const qkv_cache_plan *plan, int32_t p, int32_t layer, qkv_args *args,
                           const qkv_parallel *parallel, qkv_say say)
{
    qkv_cache_view_args(plan->view, p, layer, args);
    const qkv_status status = qkv_args_check(
        plan->part[p], args, parallel ? parallel->n_workers : 1, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    if (parallel)
        qkv_run_parallel(plan->part[p], args, parallel);
    else
        qkv_run(plan->part[p], args);
    return QKV_OK;
}

/* Rows past a sequence's queries show nothing, also not the sink. */
static void hide_rest(const qkv_cache_plan *plan, float *lse)
{
    const int32_t heads = plan->desc.n_q_heads;

    for (int64_t b = 0; !plan->packed && b < plan->view->n_seqs; b++)
        for (int64_t t = plan->view->q_lens[b]; t < plan->desc.q_len; t++)
            for (int32_t h = 0; h < heads; h++)
                lse[(b * plan->desc.q_len + t) * heads + h] = -INFINITY;
}

/* One row of all heads from the workspace to the caller. */
static void put_row(const qkv_cache_plan *plan, const qkv_args *args, int64_t row, const float *o,
                    const float *lse)
{
    const qkv_desc *d = &plan->desc;
    const int64_t b = plan->packed ? 0 : row / d->q_len, t = plan->packed ? row : row % d->q_len;
    const int64_t size = (int64_t)qkv_type_size((qkv_type)d->o.type);

    for (int64_t h = 0; h < d->n_q_heads; h++) {
        const int64_t at = b * d->o.stride[0] + h * d->o.stride[1] + t * d->o.stride[2];
        qkv_row_convert((unsigned char *)args->o + at * size, d->o.type,
                        o + (row * d->n_q_heads + h) * d->head_dim_v, QKV_F32, d->head_dim_v);
        if (d->lse.type != QKV_NONE)
            ((float *)
                 args->lse)[b * d->lse.stride[0] + h * d->lse.stride[1] + t * d->lse.stride[2]] =
                lse[row * d->n_q_heads + h];
    }
}

/* The caller's sinks as f32, one a head. */
static void load_sinks(const qkv_desc *d, const qkv_args *args, float *sinks)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)d->sinks.type);

    for (int64_t h = 0; h < d->n_q_heads; h++)
        qkv_row_convert(sinks + h, QKV_F32,
                        (const unsigned char *)args->sinks + h * d->sinks.stride[1] * size,
                        d->sinks.type, 1);
}

static qkv_status join(const qkv_cache_plan *plan, const qkv_args *args, float **o, float **lse,
                       float *sinks, qkv_say say)
{
    const qkv_desc *d = &plan->desc;
    const void *o_parts[QKV_VIEW_PARTS], *lse_parts[QKV_VIEW_PARTS];
    qkv_merge_args m;

    for (int32_t p = 0; p < plan->n_parts; p++) {
        o_parts[p] = o[p];
        lse_parts[p] = lse[p];
    }
    qkv_merge_init(&m);
    m.n_parts = plan->n_parts;
    m.n_heads = d->n_q_heads;
    m.head_dim_v = d->head_dim_v;
    m.n_tokens = plan->rows;
    m.o_parts = o_parts;
    m.lse_parts = lse_parts;
    m.o = o[0];
    m.lse = lse[0];
    m.o_part_stride[1] = m.o_stride[1] = d->head_dim_v;
    m.o_part_stride[2] = m.o_stride[2] = (int64_t)d->n_q_heads * d->head_dim_v;
    m.lse_part_stride[1] = m.lse_stride[1] = 1;
    m.lse_part_stride[2] = m.lse_stride[2] = d->n_q_heads;
    if (d->sinks.type != QKV_NONE) {
        load_sinks(d, args, sinks);
        m.sinks = sinks;
    }
    const qkv_status status = qkv_merge(&m, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    hide_rest(plan, lse[0]);
    for (int64_t row = 0; row < plan->rows; row++)
        put_row(plan, args, row, o[0], lse[0]);
    return qkv_accept(say);
}

static qkv_status run_parts(const qkv_cache_plan *plan, int32_t layer, const qkv_args *args,
                            const qkv_parallel *parallel, qkv_say say)
{
    const workspace w = workspace_of(plan, parallel ? parallel->n_workers : 1);
    unsigned char *at = (unsigned char *)args->workspace + w.run;
    float *o[QKV_VIEW_PARTS], *lse[QKV_VIEW_PARTS];

    for (int32_t p = 0; p < plan->n_parts; p++, at += w.o + w.lse) {
        qkv_args part = *args;
        part.o = o[p] = (void *)at;
        part.lse = lse[p] = (void *)(at + w.o);
        part.workspace_bytes = w.run;
        const qkv_status status = run_part(plan, p, layer, &part, parallel, say);
        if (status != QKV_OK)
            return status;
    }
    return join(plan, args, o, lse, (void *)at, say);
}

qkv_status qkv_cache_run(const qkv_cache_plan *plan, int32_t layer, const qkv_args *args,
                         const qkv_parallel *parallel, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!plan || !args || args->struct_size != sizeof *args)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "plan or args is NULL, or args was not set up by qkv_args_init");
    if (layer < 0 || layer >= plan->view->cache->config.n_layers)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is %d; it must be 0 .. %d", layer,
                          plan->view->cache->config.n_layers - 1);
    if (plan->n_parts == 1) {
        qkv_args part = *args;
        return run_part(plan, 0, layer, &part, parallel, say);
    }
    const size_t need = qkv_cache_workspace_size(plan, parallel ? parallel->n_workers : 1);
    if (!args->workspace || (uintptr_t)args->workspace % 64 != 0 || args->workspace_bytes < need)
        return qkv_refuse(say, QKV_ERR_BUFFER,
                          "workspace is %p with %zu bytes; this plan needs %zu, aligned to 64",
                          args->workspace, args->workspace_bytes, need);
    if (plan->rows > 0 && (!args->o || (plan->desc.lse.type != QKV_NONE && !args->lse) ||
                           (plan->desc.sinks.type != QKV_NONE && !args->sinks)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "o, lse or sinks is NULL; the plan needs it");
    return run_parts(plan, layer, args, parallel, say);
}
