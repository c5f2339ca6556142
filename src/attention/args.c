/* attention/args.c - what running takes on trust, checked for who wants it. */
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

qkv_status qkv_args_check(const qkv_plan *plan, const qkv_args *args, int32_t n_workers, char *text,
                          size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!plan || plan->magic != QKV_PLAN_MAGIC)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "plan is not one that qkv_plan_init made");
    if (!args || args->struct_size != sizeof(qkv_args))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "args is NULL or was not set up by qkv_args_init");

    const void *bases[QKV_N_TENSORS] = {args->q,    args->k,     args->v,      args->o,
                                        args->mask, args->bias,  args->sinks,  args->slopes,
                                        args->lse,  args->weights};
    qkv_named_layout tensors[QKV_N_TENSORS];
    region regions[QKV_N_TENSORS + 1];
    qkv_tensors(&plan->desc, &plan->rows, tensors);
    for (int i = 0; i < QKV_N_TENSORS; i++) {
        const qkv_status status = check_tensor(&tensors[i], bases[i], &regions[i], say);
        if (status != QKV_OK)
            return status;
    }
    const qkv_status status =
        check_workspace(plan, args, n_workers, &regions[QKV_N_TENSORS], say);
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
