/* attention/args.c - what running takes on trust, checked for who wants it. */
#include <stddef.h>
#include <string.h>

#include "attention/internal.h"

/* A tensor in memory, or the workspace: bytes from .. end-1, and how it repeats. */
typedef struct region {
    const char *name;
    uintptr_t from, end;
    const qkv_named_layout *tensor; /* NULL for the workspace */
    uintptr_t base;
    int output;
} region;

/*
 * Do two tensors interleave without touching?  If both step from token to token by the same
 * number of bytes, and sequences lie whole steps apart, then what one token occupies decides: the
 * heads and channels of the two must lie in different parts of a step.
 */
static int interleaved(const region *x, const region *y)
{
    const region *both[] = {x, y};
    uint64_t from[2], length[2], step[2];

    for (int i = 0; i < 2; i++) {
        if (!both[i]->tensor)
            return 0;
        const qkv_extent *e = &both[i]->tensor->extent;
        if (e->stride[2] <= 0 || e->stride[1] < 0 || e->stride[3] < 0)
            return 0;
        step[i] = (uint64_t)(e->stride[2] * e->element);
        if (e->n[0] > 1 && (e->stride[0] * e->element) % (int64_t)step[i] != 0)
            return 0;
        length[i] = (uint64_t)(((e->n[1] - 1) * e->stride[1] + (e->n[3] - 1) * e->stride[3] + 1) *
                               e->element);
        from[i] = both[i]->base % step[i];
    }
    if (step[0] != step[1] || length[0] > step[0] || length[1] > step[0])
        return 0;
    const uint64_t ahead = (from[1] + step[0] - from[0]) % step[0];
    return ahead >= length[0] && ahead + length[1] <= step[0];
}

static int touch(const region *x, const region *y)
{
    if (x->from >= x->end || y->from >= y->end)
        return 0;
    return x->from < y->end && y->from < x->end && !interleaved(x, y);
}

static qkv_status check_tensor(const qkv_named_layout *t, const void *base, region *r, qkv_say say)
{
    int64_t first, end;

    memset(r, 0, sizeof *r);
    r->name = t->name;
    r->tensor = t;
    r->output = t->output;
    if (t->layout->type == QKV_NONE)
        return QKV_OK;
    qkv_extent_bytes(&t->extent, &first, &end);
    if (end == 0)
        return QKV_OK;
    if (!base)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s is NULL; the plan needs it", t->name);
    r->base = (uintptr_t)base;
    if (r->base % (uintptr_t)t->extent.element != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "%s is at %p; it must be aligned to %d bytes, the size of %s", t->name,
                          base, (int)t->extent.element, qkv_type_name((qkv_type)t->layout->type));
    r->from = r->base + (uintptr_t)first; /* first is 0 or negative: wraps as intended */
    r->end = r->base + (uintptr_t)end;
    return QKV_OK;
}

static qkv_status check_workspace(const qkv_plan *plan, const qkv_args *args, int32_t n_workers,
                                  region *r, qkv_say say)
{
    const size_t need = qkv_workspace_size(plan, n_workers);

    memset(r, 0, sizeof *r);
    r->name = "workspace";
    r->output = 1;
    if (args->workspace_bytes < need)
        return qkv_refuse(say, QKV_ERR_BUFFER,
                          "workspace_bytes is %zu; this plan needs %zu for %d workers",
                          args->workspace_bytes, need, n_workers < 1 ? 1 : n_workers);
    if (!args->workspace || (uintptr_t)args->workspace % 64 != 0)
        return qkv_refuse(say, QKV_ERR_BUFFER, "workspace is at %p; it must be aligned to 64 bytes",
                          args->workspace);
    r->from = r->base = (uintptr_t)args->workspace;
    r->end = r->from + args->workspace_bytes;
    return QKV_OK;
}

/* Page numbers of the keys that may be looked at: from the first that the first query's range shows
 * to the last that the last query's does, or all if hidden scores are wanted too. */
static qkv_status check_pages(const qkv_plan *plan, const int32_t *row, int64_t b, int32_t head,
                              qkv_say say)
{
    const qkv_span *span = &plan->seqs[b].span;
    if (span->q_len == 0)
        return QKV_OK;
    int64_t lo = qkv_visible_range(&plan->rules, span, 0).lo;
    int64_t hi = qkv_visible_range(&plan->rules, span, span->q_len - 1).hi;

    if (plan->shape.stage == QKV_STAGE_SCORES || plan->shape.stage == QKV_STAGE_CAPPED) {
        lo = span->kv_start;
        hi = span->kv_len - 1;
    }
    for (int64_t n = lo / plan->desc.page_tokens; lo <= hi && n <= hi / plan->desc.page_tokens; n++)
        if (row[n] < 0 || row[n] >= plan->desc.n_pages)
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "block_table has page %d as entry %lld of sequence %lld, head %d; "
                              "pages are 0 .. %d",
                              row[n], (long long)n, (long long)b, head, plan->desc.n_pages - 1);
    return QKV_OK;
}

static qkv_status check_block_table(const qkv_plan *plan, const qkv_args *args, qkv_say say)
{
    const qkv_desc *d = &plan->desc;

    if (d->page_tokens == 0)
        return QKV_OK;
    if (!args->block_table || (uintptr_t)args->block_table % sizeof(int32_t) != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "block_table is at %p; a plan with pages needs one, aligned to 4 bytes",
                          (const void *)args->block_table);
    for (int64_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < (d->block_table_stride[1] ? d->n_kv_heads : 1); h++) {
            const int32_t *row = args->block_table + b * d->block_table_stride[0] +
                                 h * d->block_table_stride[1];
            const qkv_status status = check_pages(plan, row, b, h, say);
            if (status != QKV_OK)
                return status;
        }
    return QKV_OK;
}

int qkv_args_load(const qkv_args *in, qkv_args *full)
{
    if (!in || in->struct_size < offsetof(qkv_args, block_table) ||
        in->struct_size > sizeof(qkv_args))
        return 0;
    qkv_args_init(full);
    memcpy(full, in, in->struct_size);
    full->struct_size = sizeof *full;
    return 1;
}

qkv_status qkv_args_check(const qkv_plan *plan, const qkv_args *in, int32_t n_workers, char *text,
                          size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_args full, *args = &full;

    if (!plan || plan->magic != QKV_PLAN_MAGIC)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "plan is not one that qkv_plan_init made");
    if (!qkv_args_load(in, &full))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "args is NULL or was not set up by qkv_args_init");

    const void *bases[QKV_N_TENSORS] = {args->q,    args->k,     args->v,      args->o,
                                        args->mask, args->bias,  args->sinks,  args->slopes,
                                        args->k_scale, args->k_min, args->v_scale, args->v_min,
                                        args->k_rope, args->lse,  args->weights};
    qkv_named_layout tensors[QKV_N_TENSORS];
    region regions[QKV_N_TENSORS + 1];
    qkv_tensors(&plan->desc, &plan->rows, tensors);
    for (int i = 0; i < QKV_N_TENSORS; i++) {
        const qkv_status status = check_tensor(&tensors[i], bases[i], &regions[i], say);
        if (status != QKV_OK)
            return status;
    }
    qkv_status status = check_workspace(plan, args, n_workers, &regions[QKV_N_TENSORS], say);
    if (status == QKV_OK)
        status = check_block_table(plan, args, say);
    if (status != QKV_OK)
        return status;
    for (int i = 0; i <= QKV_N_TENSORS; i++)
        for (int j = 0; j < i; j++)
            if ((regions[i].output || regions[j].output) && touch(&regions[i], &regions[j]))
                return qkv_refuse(say, QKV_ERR_ARGUMENT,
                                  "%s overlaps %s; outputs must not overlap anything else",
                                  regions[i].output ? regions[i].name : regions[j].name,
                                  regions[i].output ? regions[j].name : regions[i].name);
    return qkv_accept(say);
}
