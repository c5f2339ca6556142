/*
 * layers/run_mla.c - multi-head latent attention (DeepSeek-V2, 2024), two ways.
 *
 * in:      [q or its latent | c_kv | k_pe].  What is cached is the row [norm(c_kv) | rope(k_pe)].
 * expanded  k_h = [W_UK,h c_kv | k_pe], v_h = W_UV,h c_kv for every head: attention of Hq heads.
 * absorbed  q_h' = [q_nope,h W_UK,h | q_pe,h] meets the latent rows, which are keys and values of
 *           one head; o_h = W_UV,h o_h'.
 * Both are (q_nope . W_UK c + q_pe . k_pe), with the sums in another order.
 */
#include <string.h>

#include "layers/internal.h"

enum { ROWS_A_TASK = 64 };

typedef struct mla {
    const qkv_layer_job *job;
    int64_t heads, n, r, v, c, d; /* n + r = d channels of a query */
    float *q;                     /* [rows][heads][d] */
    int64_t ldq;
    float *latents; /* rows [c | r] of the step's own tokens */
    int64_t ld_latents;
    const float *all; /* latent rows of all keys that expanded attention sees */
    int64_t ld_all, n_keys;
} mla;

/* ---- projections ------------------------------------------------------------------------ */

static qkv_status project(const qkv_layer_job *job, mla *made)
{
    const qkv_layer *l = job->layer;
    const qkv_layer_desc *d = &l->desc;
    const int64_t rows = job->plan->rows;
    mla m = {.job = job, .heads = d->n_q_heads, .n = qkv_layer_nope(d), .r = d->rope_dim,
             .v = d->head_dim_v, .c = d->kv_lora_rank, .d = d->head_dim, .q = job->space.in,
             .ldq = l->in.rows, .ld_latents = l->in.rows};

    m.latents = job->space.in + l->in.rows - m.c - m.r;
    qkv_status status = qkv_layer_project(job, &l->in, job->args->x, d->d_model, job->space.in, rows);
    if (status != QKV_OK)
        return status;
    if (d->q_lora_rank) {
        qkv_norm_rows(m.q, m.ldq, rows, 1, d->q_lora_rank, l->q_a_norm, d->latent_norm,
                      d->norm_eps, job->parallel);
        status = qkv_layer_project(job, &l->q_b, m.q, m.ldq, job->space.q, rows);
        if (status != QKV_OK)
            return status;
        m.q = job->space.q;
        m.ldq = l->q_b.rows;
    }
    qkv_norm_rows(m.latents, m.ld_latents, rows, 1, m.c, l->kv_a_norm, d->latent_norm, d->norm_eps,
                  job->parallel);
    qkv_layer_rotate(job, m.q + m.n, m.ldq, m.heads, m.d);
    qkv_layer_rotate(job, m.latents + m.c, m.ld_latents, 1, 0);
    m.all = m.latents;
    m.ld_all = m.ld_latents;
    m.n_keys = rows;
    *made = m;
    return QKV_OK;
}

static qkv_status store(const mla *m)
{
    const qkv_layer_plan *plan = m->job->plan;
    qkv_cache_rows rows;

    qkv_cache_rows_init(&rows);
    rows.n_seqs = plan->n_seqs;
    rows.seqs = plan->seqs;
    rows.counts = plan->counts;
    rows.first_rows = plan->packed ? plan->first_rows : NULL;
    rows.k = m->latents;
    rows.k_stride[0] = plan->packed ? 0 : plan->q_len * m->ld_latents;
    rows.k_stride[2] = m->ld_latents;
    return qkv_cache_write(plan->cache, m->job->args->cache_layer, &rows, m->job->say.text,
                           m->job->say.bytes);
}

/* ---- expanded --------------------------------------------------------------------------- */

/* The latent rows of all tokens, as the cache has them. */
static qkv_status load(mla *m)
{
    const qkv_layer_plan *plan = m->job->plan;
    const int64_t row = m->c + m->r, stride[2] = {row, row};
    qkv_status status = QKV_OK;

    for (int32_t b = 0; status == QKV_OK && b < plan->n_seqs; b++) {
        const int64_t first = plan->cu_k[b], count = plan->cu_k[b + 1] - first;
        if (count > 0)
            status = qkv_cache_read(plan->cache, m->job->args->cache_layer, plan->seqs[b], 0, count,
                                    QKV_F32, m->job->space.latents + first * row, stride, NULL,
                                    NULL, m->job->say.text, m->job->say.bytes);
    }
    m->all = m->job->space.latents;
    m->ld_all = row;
    m->n_keys = plan->cu_k[plan->n_seqs];
    return status;
}

/* Keys [H][n + r] from expanded rows [H][n + v] and the shared rotary part. */
static void place_keys(void *arg, int64_t task, int32_t worker)
{
    const mla *m = arg;
    const int64_t up = m->n + m->v;

    (void)worker;
    for (int64_t t = task * ROWS_A_TASK; t < (task + 1) * ROWS_A_TASK && t < m->n_keys; t++)
        for (int64_t h = 0; h < m->heads; h++) {
            float *k = m->job->space.keys + (t * m->heads + h) * m->d;
            memcpy(k, m->job->space.expanded + (t * m->heads + h) * up, (size_t)m->n * sizeof *k);
            memcpy(k + m->n, m->all + t * m->ld_all + m->c, (size_t)m->r * sizeof *k);
        }
}

static qkv_status run_expanded(mla *m)
{
    const qkv_layer_job *job = m->job;
    const qkv_matrix *b = &job->layer->kv_b;

    if (job->plan->cache) {
        const qkv_status status = load(m);
        if (status != QKV_OK)
            return status;
    }
    qkv_project(b, m->all, m->ld_all, job->space.expanded, b->rows, m->n_keys, job->parallel);
    qkv_each(job->parallel, (m->n_keys + ROWS_A_TASK - 1) / ROWS_A_TASK, place_keys, m);
    return qkv_layer_attend(job, m->q, job->space.keys, job->space.expanded + m->n, job->space.o);
}

/* ---- absorbed --------------------------------------------------------------------------- */

/* The rotary part of queries, behind what becomes of the rest. */
static void place_queries(void *arg, int64_t task, int32_t worker)
{
    const mla *m = arg;
    const int64_t row = m->c + m->r;

    (void)worker;
    for (int64_t t = task * ROWS_A_TASK; t < (task + 1) * ROWS_A_TASK && t < m->job->plan->rows; t++)
        for (int64_t h = 0; h < m->heads; h++)
            memcpy(m->job->space.expanded + (t * m->heads + h) * row + m->c,
                   m->q + t * m->ldq + h * m->d + m->n, (size_t)m->r * sizeof(float));
}

static qkv_status run_absorbed(mla *m)
{
    const qkv_layer_job *job = m->job;
    const float *w = job->layer->kv_b.w; /* a head: n rows W_UK, v rows W_UV, of c columns */
    const int64_t rows = job->plan->rows, up = (m->n + m->v) * m->c, row = m->c + m->r;
    float *q = job->space.expanded, *o = job->space.keys;
    const qkv_product in = {.x = m->q, .w = w, .y = q, .rows = rows, .cols = m->c, .inner = m->n,
                            .ldx = m->ldq, .ldw = m->c, .ldy = m->heads * row, .n = m->heads,
                            .x_step = m->d, .w_step = up, .y_step = row};
    const qkv_product out = {.x = o, .w = w + m->n * m->c, .y = job->space.o, .rows = rows,
                             .cols = m->v, .inner = m->c, .ldx = m->heads * m->c, .ldw = m->c,
                             .ldy = m->heads * m->v, .w_transposed = 1, .n = m->heads,
                             .x_step = m->c, .w_step = up, .y_step = m->v};

    qkv_product_run(&in, job->parallel);
    qkv_each(job->parallel, (rows + ROWS_A_TASK - 1) / ROWS_A_TASK, place_queries, m);
    const qkv_status status = qkv_layer_attend(job, q, m->latents, m->latents, o);
    if (status == QKV_OK)
        qkv_product_run(&out, job->parallel);
    return status;
}

qkv_status qkv_layer_run_mla(const qkv_layer_job *job)
{
    mla m;
    qkv_status status = project(job, &m);

    if (status == QKV_OK && job->plan->cache)
        status = store(&m);
    if (status != QKV_OK)
        return status;
    return job->plan->mla == QKV_MLA_EXPANDED ? run_expanded(&m) : run_absorbed(&m);
}
