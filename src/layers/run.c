/* layers/run.c - a step of MHA, MQA, GQA and cross-attention; what MLA shares with them. */
#include <string.h>

#include "layers/internal.h"

/* ---- shared ----------------------------------------------------------------------------- */

void qkv_layer_rotate(const qkv_layer_job *job, float *x, int64_t ldx, int64_t n_heads,
                      int64_t head_stride)
{
    const qkv_layer_plan *plan = job->plan;
    qkv_rope_args a;

    if (!plan->cosines)
        return;
    qkv_rope_args_init(&a);
    a.n_heads = (int32_t)n_heads;
    a.n_tokens = plan->rows;
    a.x_layout.type = QKV_F32;
    a.x_layout.stride[1] = head_stride;
    a.x_layout.stride[2] = ldx;
    a.x_layout.stride[3] = 1;
    a.x = a.y = x;
    a.cos = plan->cosines;
    a.sin = plan->sines;
    a.table_rows = plan->rows;
    qkv_rope_run(&job->layer->desc.rope, &a, job->parallel);
}

qkv_status qkv_layer_project(const qkv_layer_job *job, const qkv_matrix *m, const float *x,
                             int64_t ldx, float *y, int64_t rows)
{
    if (m->w) {
        qkv_project(m, x, ldx, y, m->rows, rows, job->parallel);
        return QKV_OK;
    }
    const qkv_narrow_product *p = job->plan->products;
    while (qkv_layer_matrix(job->layer, (int)(p - job->plan->products)) != m)
        p++;
    const qkv_status status =
        p->rows ? qkv_narrow_run(m, p, x, ldx, y, job->parallel, job->space.narrow,
                                 job->space.narrow_workers, job->plan->shape.narrow_worker)
                : QKV_OK;
    if (status != QKV_OK)
        return qkv_refuse(job->say, status, "oneDNN failed at a product (%s)",
                          qkv_status_name(status));
    return QKV_OK;
}

/* T5's bias of every distance between a query and a key. */
static void fill_bias(const qkv_layer_job *job)
{
    const qkv_layer_plan *plan = job->plan;
    const qkv_layer_desc *d = &plan->desc;
    const int64_t heads = d->n_q_heads, n = plan->bias_len;

    for (int64_t b = 0; b * heads * n < plan->shape.bias; b++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t distance = i - (plan->q_len - 1) - plan->offsets[b];
            const int32_t bucket =
                qkv_relative_bucket(distance, d->relative_bidirectional, d->relative_buckets,
                                    d->relative_max_distance);
            for (int64_t h = 0; h < heads; h++)
                job->space.bias[(b * heads + h) * n + i] = job->layer->relative[bucket * heads + h];
        }
}

/* Which keys are in a query's chunk.  Chunks begin at the first key that exists, so that padding in
 * front of a sequence does not move them; what lies before it is hidden anyway. */
static void fill_mask(const qkv_layer_job *job)
{
    const qkv_layer_plan *plan = job->plan;
    const int64_t chunk = plan->desc.chunk_tokens, n = plan->mask_len;

    for (int64_t b = 0; b * plan->q_len * n < plan->shape.mask; b++)
        for (int64_t t = 0; t < plan->q_len; t++) {
            const int64_t p = plan->offsets[b] + t - plan->starts[b];
            for (int64_t j = 0; j < n; j++) {
                const int64_t key = j - plan->starts[b];
                job->space.mask[(b * plan->q_len + t) * n + j] =
                    p >= 0 && key >= 0 && key / chunk == p / chunk;
            }
        }
}

qkv_status qkv_layer_attend(const qkv_layer_job *job, const float *q, const float *k,
                            const float *v, float *o)
{
    const qkv_layer_plan *plan = job->plan;
    const int32_t n_workers = job->parallel ? job->parallel->n_workers : 1;
    qkv_args a;

    if (plan->shape.bias)
        fill_bias(job);
    if (plan->shape.mask)
        fill_mask(job);
    qkv_args_init(&a);
    a.q = q;
    a.k = k;
    a.v = v;
    a.o = o;
    a.sinks = job->layer->sinks;
    a.slopes = job->layer->slopes;
    a.bias = plan->shape.bias ? job->space.bias + plan->q_len - 1 : NULL;
    a.mask = plan->shape.mask ? job->space.mask : NULL;
    a.workspace = job->space.attention;
    a.workspace_bytes = job->space.attention_bytes;
    if (plan->cached)
        return qkv_cache_run(plan->cached, job->args->cache_layer, &a, job->parallel,
                             job->say.text, job->say.bytes);
    const qkv_status status =
        qkv_args_check(plan->plain, &a, n_workers, job->say.text, job->say.bytes);
    if (status != QKV_OK)
        return status;
    if (job->parallel)
        qkv_run_parallel(plan->plain, &a, job->parallel);
    else
        qkv_run(plan->plain, &a);
    return QKV_OK;
}

/* ---- attention -------------------------------------------------------------------------- */

static void norm(const qkv_layer_job *job, float *x, int64_t ldx, int64_t rows, int64_t n_heads,
                 const float *weight)
{
    const qkv_layer_desc *d = &job->layer->desc;
    qkv_norm_rows(x, ldx, rows, n_heads, d->head_dim, weight, d->qk_norm, d->norm_eps,
                  job->parallel);
}

/* Keys and values of all heads from rows [k heads | v heads] into the cache. */
static qkv_status store(const qkv_layer_job *job, const float *k, int64_t row, int64_t seq)
{
    const qkv_layer_plan *plan = job->plan;
    const qkv_layer_desc *d = &plan->desc;
    qkv_cache_rows r;

    qkv_cache_rows_init(&r);
    r.n_seqs = plan->n_seqs;
    r.seqs = plan->seqs;
    r.counts = plan->counts;
    r.first_rows = plan->packed ? plan->first_rows : NULL;
    r.k = k;
    r.v = k + (int64_t)d->n_kv_heads * d->head_dim;
    r.k_stride[0] = r.v_stride[0] = plan->packed ? 0 : seq * row;
    r.k_stride[1] = d->head_dim;
    r.v_stride[1] = d->head_dim_v;
    r.k_stride[2] = r.v_stride[2] = row;
    return qkv_cache_write(plan->cache, job->args->cache_layer, &r, job->say.text, job->say.bytes);
}

static qkv_status project_memory(const qkv_layer_job *job)
{
    const qkv_matrix *m = &job->layer->memory;
    float *k = job->space.memory;

    const qkv_status status =
        qkv_layer_project(job, m, job->args->memory, m->cols, k, job->plan->memory_rows);
    if (status == QKV_OK)
        norm(job, k, m->rows, job->plan->memory_rows, job->plan->desc.n_kv_heads,
             job->layer->k_norm);
    return status;
}

static qkv_status run_attention(const qkv_layer_job *job)
{
    const qkv_layer_plan *plan = job->plan;
    const qkv_layer *l = job->layer;
    const qkv_layer_desc *d = &l->desc;
    const int64_t row = l->in.rows, q = (int64_t)d->n_q_heads * d->head_dim;
    float *in = job->space.in;
    float *k = d->cross ? job->space.memory : in + q;

    qkv_status status = qkv_layer_project(job, &l->in, job->args->x, d->d_model, in, plan->rows);
    if (status != QKV_OK)
        return status;
    norm(job, in, row, plan->rows, d->n_q_heads, l->q_norm);
    if (!d->cross) {
        norm(job, k, row, plan->rows, d->n_kv_heads, l->k_norm);
        qkv_layer_rotate(job, in, row, d->n_q_heads + d->n_kv_heads, d->head_dim);
    }
    if (plan->cache && !d->cross) {
        status = store(job, k, row, plan->q_len);
    } else if (!plan->cache && d->cross) {
        status = project_memory(job);
    }
    if (status != QKV_OK)
        return status;
    return qkv_layer_attend(job, in, k, k + (int64_t)d->n_kv_heads * d->head_dim, job->space.o);
}

/* ---- the call --------------------------------------------------------------------------- */

static qkv_status check(const qkv_layer_job *job, qkv_say say)
{
    const qkv_layer_plan *plan = job->plan;
    const qkv_layer_args *a = job->args;
    const int memory = plan->desc.cross && plan->memory_rows > 0;

    if (!qkv_layer_same(&plan->desc, &job->layer->desc))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "layer has another description than the one the plan was made for");
    if (plan->rows > 0 && (!a->x || !a->out))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "x or out is NULL");
    if (memory && !a->memory)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "memory is NULL; the plan needs it");
    if (plan->cache) {
        qkv_cache_config c;
        qkv_cache_config_get(plan->cache, &c);
        if (a->cache_layer < 0 || a->cache_layer >= c.n_layers)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "cache_layer is %d; it must be 0 .. %d",
                              a->cache_layer, c.n_layers - 1);
    }
    if (job->space.used > 0 && (!a->workspace || (uintptr_t)a->workspace % QKV_LAYERS_ALIGN != 0 ||
                                a->workspace_bytes < job->space.used))
        return qkv_refuse(say, QKV_ERR_BUFFER,
                          "workspace is %p with %zu bytes; this plan needs %zu, aligned to %d",
                          a->workspace, a->workspace_bytes, job->space.used, QKV_LAYERS_ALIGN);
    return QKV_OK;
}

static void clear_padding(const qkv_layer_plan *plan, float *out)
{
    const int64_t d = plan->desc.d_model;

    for (int64_t b = 0; plan->q_lens && b < plan->n_seqs; b++)
        memset(out + (b * plan->q_len + plan->counts[b]) * d, 0,
               (size_t)((plan->q_len - plan->counts[b]) * d) * sizeof *out);
}

static qkv_status run(const qkv_layer_job *job)
{
    const qkv_layer_plan *plan = job->plan;
    const qkv_layer *l = job->layer;
    qkv_status status;

    if (plan->form == QKV_FORM_MEMORY) {
        if (plan->memory_rows == 0)
            return QKV_OK;
        status = project_memory(job);
        return status == QKV_OK
                   ? store(job, job->space.memory, l->memory.rows, plan->memory_len)
                   : status;
    }
    if (plan->rows == 0)
        return QKV_OK;
    status = l->desc.kind == QKV_LAYER_MLA ? qkv_layer_run_mla(job) : run_attention(job);
    if (status == QKV_OK)
        status = qkv_layer_project(job, &l->out, job->space.o, l->out.cols, job->args->out,
                                   plan->rows);
    if (status == QKV_OK)
        clear_padding(plan, job->args->out);
    return status;
}

qkv_status qkv_layer_run(const qkv_layer_plan *plan, const qkv_layer *layer,
                         const qkv_layer_args *args, const qkv_parallel *parallel, char *text,
                         size_t bytes)
{
    qkv_layer_job job = {.plan = plan, .layer = layer, .args = args, .parallel = parallel,
                         .say = {text, bytes}};

    if (!plan || !layer || !args || args->struct_size != sizeof *args)
        return qkv_refuse(job.say, QKV_ERR_ARGUMENT,
                          "plan, layer or args is NULL, or args was not set up by "
                          "qkv_layer_args_init");
    if (parallel && (parallel->n_workers < 1 || !parallel->parallel_for))
        return qkv_refuse(job.say, QKV_ERR_ARGUMENT, "parallel has no workers or no parallel_for");
    qkv_layer_space_of(plan, parallel ? parallel->n_workers : 1, args->workspace, &job.space);
    qkv_status status = check(&job, job.say);
    if (status == QKV_OK)
        status = run(&job);
    return status == QKV_OK ? qkv_accept(job.say) : status;
}
