/* attention/one_call.c - plan, check and run in one call, with the plan in the workspace. */
#include "attention/internal.h"

size_t qkv_attention_workspace_size(const qkv_desc *desc, int32_t n_workers)
{
    const qkv_say quiet = {NULL, 0};
    qkv_desc d;

    if (qkv_desc_check(desc, &d, quiet) != QKV_OK)
        return 0;
    return qkv_align64(qkv_plan_size(desc)) + qkv_dry_workspace_size(&d, n_workers);
}

qkv_status qkv_attention(const qkv_desc *desc, const qkv_args *args, const qkv_parallel *parallel)
{
    const int32_t n_workers = parallel ? parallel->n_workers : 1;
    const qkv_plan *plan;
    qkv_args rest;

    qkv_status status = qkv_explain(desc, NULL, 0);
    if (status != QKV_OK)
        return status;
    if (!qkv_args_load(args, &rest))
        return QKV_ERR_ARGUMENT;
    if (!args->workspace || (uintptr_t)args->workspace % 64 != 0)
        return QKV_ERR_BUFFER;
    const size_t plan_bytes = qkv_align64(qkv_plan_size(desc));
    if (args->workspace_bytes < plan_bytes)
        return QKV_ERR_BUFFER;
    status = qkv_plan_init(args->workspace, plan_bytes, desc, &plan);
    if (status != QKV_OK)
        return status;
    rest.workspace = (char *)args->workspace + plan_bytes;
    rest.workspace_bytes = args->workspace_bytes - plan_bytes;
    status = qkv_args_check(plan, &rest, n_workers, NULL, 0);
    if (status != QKV_OK)
        return status;
    if (parallel)
        qkv_run_parallel(plan, &rest, parallel);
    else
        qkv_run(plan, &rest);
    return QKV_OK;
}
