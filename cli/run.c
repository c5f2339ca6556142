/* run.c - one run of a described problem, measured. */
#include "problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t round_up(size_t bytes) { return (bytes / 64 + 1) * 64; }

static int run_plan(const qkv_plan *plan, const qkv_args *args, const qkv_parallel *parallel,
                    cli_report *report)
{
    char text[CLI_TEXT];
    qkv_args mine = *args;
    const int32_t n_workers = parallel != NULL ? parallel->n_workers : 1;
    mine.workspace_bytes = qkv_workspace_size(plan, n_workers);
    mine.workspace = aligned_alloc(64, round_up(mine.workspace_bytes));
    if (mine.workspace == NULL)
        return cli_complain_memory("the workspace", mine.workspace_bytes);
    int code = CLI_DONE;
    if (qkv_args_check(plan, &mine, n_workers, text, sizeof text) != QKV_OK)
        code = cli_complain("%s", text);
    const double start = now();
    if (code == CLI_DONE && parallel != NULL)
        qkv_run_parallel(plan, &mine, parallel);
    else if (code == CLI_DONE)
        qkv_run(plan, &mine);
    if (report != NULL) {
        report->seconds = now() - start;
        snprintf(report->kernel, sizeof report->kernel, "%s", qkv_plan_kernel(plan));
        report->workspace_bytes = mine.workspace_bytes;
        report->visible_pairs = qkv_plan_visible_pairs(plan);
        report->n_workers = n_workers;
    }
    free(mine.workspace);
    return code;
}

int cli_run(const qkv_desc *desc, const qkv_args *args, const qkv_parallel *parallel,
            cli_report *report)
{
    char text[CLI_TEXT];
    if (report != NULL)
        memset(report, 0, sizeof *report);
    if (qkv_explain(desc, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const size_t bytes = qkv_plan_size(desc);
    void *memory = aligned_alloc(64, round_up(bytes));
    if (memory == NULL)
        return cli_complain_memory("the plan", bytes);
    const qkv_plan *plan;
    const qkv_status status = qkv_plan_init(memory, bytes, desc, &plan);
    const int code = status == QKV_OK ? run_plan(plan, args, parallel, report)
                                      : cli_complain("%s", qkv_status_text(status));
    if (report != NULL)
        report->plan_bytes = bytes;
    free(memory);
    return code;
}
