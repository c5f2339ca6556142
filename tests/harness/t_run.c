/* t_run.c - plans run in exact memory, and their outputs compared. */
#include <math.h>
#include <string.h>

#include "t_problem.h"

enum { UNWRITTEN = 0xa5 };
static const int outputs[] = {T_O, T_LSE, T_WEIGHTS};

int t_tiers(uint32_t masks[8], const char *names[8])
{
    int n = 0;
    uint32_t mask = 0;
    for (int32_t i = 0; i < qkv_tier_count() && n < 8; i++) {
        qkv_tier tier;
        if (qkv_tier_info(i, &tier) != QKV_OK || !tier.available)
            continue;
        mask |= tier.flag;
        masks[n] = mask;
        names[n++] = tier.name;
    }
    return n;
}

typedef struct run_job {
    const qkv_plan *plan;
    const qkv_args *args;
    const qkv_parallel *parallel;
    int how;
} run_job;

static void run_tasks_back(const run_job *job)
{
    for (int32_t phase = 0; phase < qkv_n_phases(job->plan); phase++)
        for (int64_t task = qkv_n_tasks(job->plan, phase); task-- > 0;)
            qkv_run_task(job->plan, job->args, phase, task, 0);
}

typedef struct phase_job {
    const run_job *run;
    int32_t phase;
} phase_job;

static void one_task(void *arg, int64_t task, int32_t worker)
{
    const phase_job *job = arg;
    qkv_run_task(job->run->plan, job->run->args, job->phase, task, worker);
}

/* As qkv_run_parallel, which keeps problems as small as most of these to one thread. */
static void spread_tasks(const run_job *job)
{
    for (int32_t phase = 0; phase < qkv_n_phases(job->plan); phase++) {
        phase_job one = {job, phase};
        job->parallel->parallel_for(job->parallel->ctx, qkv_n_tasks(job->plan, phase), one_task,
                                    &one);
    }
}

static void run_plan(void *arg)
{
    const run_job *job = arg;
    if (job->parallel)
        spread_tasks(job);
    else if (job->how == T_TASKS_BACK)
        run_tasks_back(job);
    else
        qkv_run(job->plan, job->args);
}

static const qkv_plan *make_plan(t_problem *p)
{
    const size_t bytes = qkv_plan_size(&p->desc);
    void *memory = t_alloc(bytes, 8, T_END, 0xff);
    const qkv_plan *plan = NULL;

    if (bytes == 0 || qkv_plan_init(memory, bytes, &p->desc, &plan) != QKV_OK) {
        char text[256];
        qkv_explain(&p->desc, text, sizeof text);
        t_fail("no plan: %s; %s", text, t_problem_text(p));
        return NULL;
    }
    t_protect(memory);
    return plan;
}

static void run_on(t_problem *p, const qkv_plan *plan, const qkv_parallel *parallel, int how)
{
    const int32_t workers = parallel ? parallel->n_workers : 1;
    qkv_args args = p->args;
    run_job job = {plan, &args, parallel, how};
    char text[256];

    args.workspace_bytes = qkv_workspace_size(plan, workers);
    args.workspace = t_alloc(args.workspace_bytes, 64, T_END, 0xff);
    for (int i = 0; i < 3; i++)
        if (p->tensor[outputs[i]].memory)
            memset(p->tensor[outputs[i]].memory, UNWRITTEN, p->tensor[outputs[i]].bytes);
    if (qkv_args_check(plan, &args, workers, text, sizeof text) != QKV_OK)
        t_fail("args refused: %s; %s", text, t_problem_text(p));
    if (t_call(run_plan, &job) != 0)
        t_fail("the signal was raised by %s; %s", qkv_plan_kernel(plan), t_problem_text(p));
}

const char *t_run(t_problem *p, uint32_t cpu_mask, int how)
{
    qkv_pool *pool = NULL;
    qkv_parallel parallel;

#if defined(__wasi__) /* no threads: the same tasks, from the last to the first */
    how = how >= T_THREADS ? T_TASKS_BACK : how;
#endif
    p->desc.cpu_mask = cpu_mask;
    const qkv_plan *plan = make_plan(p);
    if (!plan)
        return NULL;
    if (how >= T_THREADS) {
        if (qkv_pool_create(how - T_THREADS, NULL, &pool) != QKV_OK) {
            t_fail("no pool of %d workers", how - T_THREADS);
            return NULL;
        }
        parallel = qkv_pool_parallel(pool);
    }
    run_on(p, plan, pool ? &parallel : NULL, how);
    qkv_pool_destroy(pool);
    return qkv_plan_kernel(plan);
}

/* ---- comparison ---- */

/* What has been looked at: the largest ratio, and marks on the bytes that outputs may occupy. */
typedef struct comparison {
    t_problem *p;
    const char *kernel;
    double worst;
    uint8_t *marks[3];
    int complaints;
} comparison;

static void compare_one(comparison *c, int which, int64_t i0, int64_t i1, int64_t i2, int64_t i3,
                        double want, double budget)
{
    const t_tensor *t = &c->p->tensor[outputs[which]];
    const char *const names[] = {"o", "lse", "weights"};
    const size_t at = (size_t)((const char *)t->first - (const char *)t->memory +
                               t_offset(t, i0, i1, i2, i3));
    const double got = t_get(c->p, outputs[which], i0, i1, i2, i3);
    double ratio = 0;

    memset(c->marks[which] + at, 1, qkv_type_size((qkv_type)t->layout->type));
    if (budget == (double)INFINITY)
        return;
    if (isnan(want) || isinf(want))
        ratio = (isnan(want) && isnan(got)) || got == want ? 0 : (double)INFINITY;
    else if (got != want)
        ratio = isfinite(got) && budget > 0 ? fabs(got - want) / budget : (double)INFINITY;
    /* Half a unit of a 16-bit output is nearly reached by design and says nothing. */
    if (ratio > c->worst && (ratio > 1 || t->layout->type == QKV_F32 || t->layout->type == QKV_F64))
        c->worst = ratio;
    if (!(ratio <= 1) && c->complaints++ < 2)
        t_fail("%s: %s[%lld,%lld,%lld,%lld] is %.9g, the oracle says %.9g, the budget is %.3g "
               "(%.3g times); %s",
               c->kernel, names[which], (long long)i0, (long long)i1, (long long)i2, (long long)i3,
               got, want, budget, ratio, t_problem_text(c->p));
}

static void compare_row(comparison *c, int32_t b, int32_t h, int64_t i)
{
    const t_problem *p = c->p;
    const qkv_desc *d = &p->desc;
    const t_span s = t_span_of(d, b);
    const int64_t row = ((int64_t)b * d->n_q_heads + h) * d->q_len + i;
    const int64_t i0 = d->cu_seqlens_q ? 0 : b, i2 = d->cu_seqlens_q ? s.q_row + i : i;

    if (!d->cu_seqlens_q || i < s.q_len) {
        for (int32_t k = 0; k < d->head_dim_v; k++)
            compare_one(c, 0, i0, h, i2, k, p->ref.o[row * d->head_dim_v + k],
                        p->ref.o_budget[row * d->head_dim_v + k]);
        if (d->lse.type != QKV_NONE)
            compare_one(c, 1, i0, h, i2, 0, p->ref.lse[row], p->ref.lse_budget[row]);
    }
    for (int64_t j = 0; d->weights.type != QKV_NONE && j < d->kv_len; j++)
        compare_one(c, 2, b, h, i, j, p->ref.weights[row * d->kv_len + j],
                    p->weights_budget[row * d->kv_len + j]);
}

static void check_gaps(const comparison *c)
{
    for (int which = 0; which < 3; which++) {
        const t_tensor *t = &c->p->tensor[outputs[which]];
        const unsigned char *memory = t->memory;
        for (size_t i = 0; t->memory && i < t->bytes; i++)
            if (!c->marks[which][i] && memory[i] != UNWRITTEN) {
                t_fail("%s wrote byte %zu of output %d, which belongs to no element; %s", c->kernel,
                       i, which, t_problem_text(c->p));
                break;
            }
    }
}

double t_compare(t_problem *p, const char *kernel)
{
    comparison c = {.p = p, .kernel = kernel};
    const qkv_desc *d = &p->desc;

    for (int i = 0; i < 3; i++) {
        const size_t bytes = p->tensor[outputs[i]].memory ? p->tensor[outputs[i]].bytes : 0;
        c.marks[i] = t_scratch(bytes);
        memset(c.marks[i], 0, bytes);
    }
    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_q_heads; h++)
            for (int64_t i = 0; i < d->q_len; i++)
                compare_row(&c, b, h, i);
    check_gaps(&c);
    return c.worst;
}

static unsigned char *copy_of(const t_tensor *t)
{
    unsigned char *copy = NULL;
    if (t->memory) {
        copy = t_scratch(t->bytes);
        memcpy(copy, t->memory, t->bytes);
    }
    return copy;
}

t_copy t_copy_outputs(const t_problem *p)
{
    return (t_copy){copy_of(&p->tensor[T_O]), copy_of(&p->tensor[T_LSE]),
                    copy_of(&p->tensor[T_WEIGHTS])};
}

int t_same_outputs(const t_problem *p, const t_copy *copy)
{
    const unsigned char *const copies[] = {copy->o, copy->lse, copy->weights};
    for (int i = 0; i < 3; i++) {
        const t_tensor *t = &p->tensor[outputs[i]];
        if (t->memory && memcmp(copies[i], t->memory, t->bytes) != 0)
            return 0;
    }
    return 1;
}
