/* attention.c - attention and the oracle for JavaScript: a web_problem as qkv_desc and qkv_args. */
#include <math.h>
#include <string.h>

#include "qkv/qkv.h"
#include "web.h"

static const char *const names[] = {
#define FIELD(name) #name,
#include "problem.inc"
#undef FIELD
};

const char *web_problem_field(int index)
{
    const int n = (int)(sizeof names / sizeof *names);
    return index >= 0 && index < n ? names[index] : NULL;
}

/* The nearest number of 32 bits: what is out of a field's range is refused by name later. */
static int32_t i32_of(double x)
{
    if (!(x > INT32_MIN))
        return INT32_MIN;
    return x < INT32_MAX ? (int32_t)x : INT32_MAX;
}

static int64_t i64_of(double x)
{
    const double limit = 9007199254740992.0; /* JavaScript's integers */
    return x > -limit && x < limit ? (int64_t)x : INT64_MIN;
}

static void *address_of(double x) { return (void *)(uintptr_t)i64_of(x); }

static qkv_layout layout_of(double type, double seq, double head, double token)
{
    const qkv_layout layout = {i32_of(type), 0, {i64_of(seq), i64_of(head), i64_of(token), 1}};
    return layout;
}

static qkv_layout absent_or(double address, qkv_layout layout)
{
    const qkv_layout none = {QKV_NONE, 0, {0}};
    return address != 0 ? layout : none;
}

static void set_tensors(const web_problem *p, qkv_desc *d)
{
    const int32_t extra = i32_of(p->q_type) == QKV_F64 ? QKV_F64 : QKV_F32;
    const double rows = p->n_q_heads * p->q_len;

    d->q = layout_of(p->q_type, p->q_seq, p->q_head, p->q_token);
    d->k = layout_of(p->k_type, p->k_seq, p->k_head, p->k_token);
    d->v = layout_of(p->v_type, p->v_seq, p->v_head, p->v_token);
    d->o = layout_of(p->o_type, p->o_seq, p->o_head, p->o_token);
    d->mask = absent_or(p->mask, layout_of(QKV_BOOL, p->mask_seq, p->mask_head, p->mask_query));
    d->bias = absent_or(p->bias, layout_of(p->bias_type, p->bias_seq, p->bias_head, p->bias_query));
    d->sinks = absent_or(p->sinks, layout_of(extra, 0, 1, 0));
    d->slopes = absent_or(p->slopes, layout_of(extra, 0, 1, 0));
    d->lse = absent_or(p->lse, layout_of(extra, rows, p->q_len, 1));
    d->lse.stride[3] = 0;
    d->weights = absent_or(p->weights,
                           layout_of(extra, rows * p->kv_len, p->q_len * p->kv_len, p->kv_len));
}

static void describe(const web_problem *p, qkv_desc *d)
{
    qkv_desc_init(d);
    d->cpu_mask = (uint32_t)i32_of(p->cpu_mask);
    d->n_seqs = i32_of(p->n_seqs);
    d->n_q_heads = i32_of(p->n_q_heads);
    d->n_kv_heads = i32_of(p->n_kv_heads);
    d->head_dim = i32_of(p->head_dim);
    d->head_dim_v = i32_of(p->head_dim_v);
    d->q_len = i64_of(p->q_len);
    d->kv_len = i64_of(p->kv_len);
    d->causal = i32_of(p->causal);
    d->align = i32_of(p->align);
    d->stage = i32_of(p->stage);
    d->window_left = i64_of(p->window_left);
    d->window_right = i64_of(p->window_right);
    d->scale = isnan(p->scale) ? QKV_SCALE_DEFAULT : p->scale;
    d->softcap = p->softcap;
    d->q_lens = address_of(p->q_lens);
    d->kv_lens = address_of(p->kv_lens);
    d->kv_starts = address_of(p->kv_starts);
    d->q_offsets = address_of(p->q_offsets);
    set_tensors(p, d);
}

static void set_args(const web_problem *p, qkv_args *args)
{
    qkv_args_init(args);
    args->q = address_of(p->q);
    args->k = address_of(p->k);
    args->v = address_of(p->v);
    args->o = address_of(p->o);
    args->mask = address_of(p->mask);
    args->bias = address_of(p->bias);
    args->sinks = address_of(p->sinks);
    args->slopes = address_of(p->slopes);
    args->lse = address_of(p->lse);
    args->weights = address_of(p->weights);
}

void web_problem_defaults(web_problem *p)
{
    memset(p, 0, sizeof *p);
    p->n_seqs = p->n_q_heads = p->n_kv_heads = 1;
    p->cpu_mask = QKV_CPU_ALL;
    p->q_type = p->k_type = p->v_type = p->o_type = p->bias_type = QKV_F32;
    p->window_left = p->window_right = QKV_UNBOUNDED;
    p->scale = NAN;
    p->stage = QKV_STAGE_WEIGHTS;
}

/* A plan in memory of its own; NULL if it is refused or there is no memory. */
static const qkv_plan *plan_of(const web_problem *p, void **memory)
{
    const qkv_plan *plan = NULL;
    qkv_desc d;

    describe(p, &d);
    const size_t bytes = qkv_plan_size(&d);
    *memory = bytes ? web_alloc(bytes) : NULL;
    if (*memory)
        qkv_plan_init(*memory, bytes, &d, &plan);
    return plan;
}

const char *web_kernel(const web_problem *p)
{
    void *memory;
    const qkv_plan *plan = plan_of(p, &memory);
    const char *name = plan ? qkv_plan_kernel(plan) : NULL; /* static */
    web_free(memory);
    return name;
}

double web_visible_pairs(const web_problem *p)
{
    void *memory;
    const qkv_plan *plan = plan_of(p, &memory);
    const double pairs = plan ? (double)qkv_plan_visible_pairs(plan) : -1;
    web_free(memory);
    return pairs;
}

static int out_of_memory(char *text, size_t bytes, const char *what)
{
    if (bytes) {
        strncpy(text, what, bytes - 1);
        text[bytes - 1] = 0;
    }
    return QKV_ERR_MEMORY;
}

int web_attention(const web_problem *p, char *text, size_t bytes)
{
    qkv_desc d;
    qkv_args args;
    void *memory;

    describe(p, &d);
    set_args(p, &args);
    qkv_status status = qkv_explain(&d, text, bytes);
    if (status != QKV_OK)
        return status;
    const qkv_plan *plan = plan_of(p, &memory);
    const size_t workspace_bytes = plan ? qkv_workspace_size(plan, 1) : 0;
    void *workspace = plan ? web_alloc(workspace_bytes) : NULL;
    if (workspace) {
        args.workspace = workspace;
        args.workspace_bytes = workspace_bytes;
        status = qkv_args_check(plan, &args, 1, text, bytes);
        if (status == QKV_OK)
            qkv_run(plan, &args);
    } else {
        status = out_of_memory(text, bytes, "there is no memory for the plan or its workspace");
    }
    web_free(workspace);
    web_free(memory);
    return status;
}

int web_reference(const web_problem *p, double *o, double *lse, double *weights, double *o_budget,
                  double *lse_budget, char *text, size_t bytes)
{
    const qkv_ref_out out = {o, lse, weights, o_budget, lse_budget};
    qkv_desc d;
    qkv_args args;

    describe(p, &d);
    set_args(p, &args);
    const qkv_status refused = qkv_explain(&d, text, bytes);
    if (refused != QKV_OK)
        return refused;
    void *scratch = web_alloc(qkv_ref_scratch_size(&d));
    if (!scratch)
        return out_of_memory(text, bytes, "there is no memory for the oracle");
    const qkv_status status = qkv_ref_attention(&d, &args, &out, scratch);
    web_free(scratch);
    return status;
}
