/* layers/plan.c - a step, checked and fixed: tokens, rotations, the plan of attention, sizes. */
#include <string.h>

#include "layers/internal.h"

void qkv_layer_step_init_sized(qkv_layer_step *step, size_t struct_size)
{
    qkv_layer_step defaults;
    memset(&defaults, 0, sizeof defaults);
    defaults.struct_size = (uint32_t)struct_size;
    defaults.n_seqs = 1;
    defaults.rope_len = QKV_ROPE_AUTO;
    defaults.cpu_mask = QKV_CPU_ALL;
    memcpy(step, &defaults, struct_size < sizeof defaults ? struct_size : sizeof defaults);
}

void qkv_layer_args_init_sized(qkv_layer_args *args, size_t struct_size)
{
    memset(args, 0, struct_size);
    args->struct_size = (uint32_t)struct_size;
}

/* ---- the plan's own arrays -------------------------------------------------------------- */

static int64_t longest(const qkv_layer_step *s)
{
    int64_t n = 0;
    for (int32_t b = 0; s->cu_seqlens && b < s->n_seqs; b++)
        if (s->cu_seqlens[b + 1] - s->cu_seqlens[b] > n)
            n = s->cu_seqlens[b + 1] - s->cu_seqlens[b];
    return s->cu_seqlens ? n : s->q_len;
}

static int64_t rows_of(const qkv_layer_step *s)
{
    if (s->form == QKV_FORM_MEMORY)
        return 0;
    return s->cu_seqlens ? s->cu_seqlens[s->n_seqs] : s->n_seqs * s->q_len;
}

static size_t carve_arrays(qkv_carver c, const qkv_layer *layer, const qkv_layer_step *s,
                           qkv_layer_plan *plan, int64_t **positions)
{
    const size_t n = (size_t)s->n_seqs, rows = (size_t)rows_of(s);
    const size_t table = layer->desc.rope.type == QKV_ROPE_NONE
                             ? 0
                             : qkv_rope_table_bytes(&layer->desc.rope, (int64_t)rows, QKV_F32);

    qkv_carve(&c, sizeof *plan);
    plan->offsets = qkv_carve(&c, n * sizeof *plan->offsets);
    plan->starts = qkv_carve(&c, n * sizeof *plan->starts);
    plan->counts = qkv_carve(&c, n * sizeof *plan->counts);
    plan->first_rows = qkv_carve(&c, n * sizeof *plan->first_rows);
    plan->seqs = qkv_carve(&c, n * sizeof *plan->seqs);
    plan->cu_k = qkv_carve(&c, (n + 1) * sizeof *plan->cu_k);
    plan->cosines = table ? qkv_carve(&c, table) : NULL;
    plan->sines = table ? qkv_carve(&c, table) : NULL;
    *positions = qkv_carve(&c, rows * sizeof **positions);
    return c.used;
}

/* ---- work ------------------------------------------------------------------------------- */

static int64_t size_of(const qkv_matrix *m) { return m->rows * m->cols; }

static void count_work(const qkv_layer *l, const qkv_layer_step *s, qkv_layer_plan *plan)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, c = d->kv_lora_rank, up = qkv_layer_nope(d) + d->head_dim_v;
    qkv_layer_work *w = &plan->work;
    int64_t tokens = 0, keys = 0;

    for (int32_t b = 0; b < s->n_seqs; b++) {
        tokens += plan->counts[b];
        keys += qkv_step_keys(plan, s, b);
    }
    if (s->form == QKV_FORM_MEMORY) {
        w->projections = tokens * size_of(&l->memory);
        return;
    }
    w->rows = tokens;
    w->pairs = qkv_step_pairs(d, s, plan);
    w->projections = tokens * (size_of(&l->in) + size_of(&l->q_b) + size_of(&l->out));
    if (d->cross && !s->cache)
        w->projections += keys * size_of(&l->memory);
    w->expanded = w->pairs * heads * (d->head_dim + d->head_dim_v);
    if (d->kind != QKV_LAYER_MLA)
        return;
    w->expanded += keys * c * heads * up;
    w->absorbed = w->pairs * heads * (2 * c + d->rope_dim) + tokens * heads * c * up;
    w->mla = s->mla != QKV_MLA_AUTO           ? s->mla
             : w->absorbed < w->expanded ? QKV_MLA_ABSORBED
                                         : QKV_MLA_EXPANDED;
}

void qkv_layer_work_get_sized(const qkv_layer_plan *plan, qkv_layer_work *work, size_t struct_size)
{
    memset(work, 0, struct_size);
    memcpy(work, &plan->work, struct_size < sizeof *work ? struct_size : sizeof *work);
}

/* ---- workspace -------------------------------------------------------------------------- */

static void size_workspace(const qkv_layer *l, qkv_layer_plan *plan)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t heads = d->n_q_heads, rows = plan->rows;
    const int64_t keys = plan->cache ? plan->cu_k[plan->n_seqs] : rows;
    qkv_layer_shape *shape = &plan->shape;

    shape->in = rows * l->in.rows;
    shape->memory = plan->memory_rows * l->memory.rows;
    shape->q = rows * l->q_b.rows;
    shape->o = rows * heads * d->head_dim_v;
    if (plan->mla == QKV_MLA_EXPANDED) {
        shape->latents = plan->cache ? keys * qkv_layer_latent(d) : 0;
        shape->expanded = keys * l->kv_b.rows;
        shape->keys = keys * heads * d->head_dim;
    } else if (plan->mla == QKV_MLA_ABSORBED) {
        shape->expanded = rows * heads * qkv_layer_latent(d);
        shape->keys = rows * heads * d->kv_lora_rank;
    }
}

static size_t more(size_t a, size_t b) { return a > b ? a : b; }

/* Products with narrow matrices, which one after another use the same workspace. */
static qkv_status plan_narrow(const qkv_layer *l, qkv_layer_plan *plan, qkv_say say)
{
    for (int i = 0; i < QKV_NARROW_MATRICES; i++) {
        const qkv_matrix *m = qkv_layer_matrix(l, i);
        const int64_t rows = m == &l->memory ? plan->memory_rows : plan->rows;
        const qkv_status status = qkv_narrow_plan(m, rows, &plan->products[i]);
        if (status != QKV_OK)
            return qkv_refuse(say, status, "oneDNN refuses a product of %lld rows (%s)",
                              (long long)rows, qkv_status_name(status));
        plan->shape.narrow = more(plan->shape.narrow, qkv_narrow_shared_bytes(m, rows));
        plan->shape.narrow_worker =
            more(plan->shape.narrow_worker, qkv_narrow_worker_bytes(&plan->products[i]));
    }
    return QKV_OK;
}

static float *floats(qkv_carver *c, int64_t n) { return qkv_carve(c, (size_t)n * sizeof(float)); }

void qkv_layer_space_of(const qkv_layer_plan *plan, int32_t n_workers, void *memory,
                        qkv_layer_space *space)
{
    const qkv_layer_shape *s = &plan->shape;
    qkv_carver c = {memory, 0};

    space->in = floats(&c, s->in);
    space->memory = floats(&c, s->memory);
    space->q = floats(&c, s->q);
    space->latents = floats(&c, s->latents);
    space->expanded = floats(&c, s->expanded);
    space->keys = floats(&c, s->keys);
    space->o = floats(&c, s->o);
    space->bias = floats(&c, s->bias);
    space->mask = qkv_carve(&c, (size_t)s->mask);
    space->narrow = qkv_carve(&c, s->narrow);
    space->narrow_workers = qkv_carve(&c, (size_t)n_workers * s->narrow_worker);
    space->attention_bytes = plan->cached  ? qkv_cache_workspace_size(plan->cached, n_workers)
                             : plan->plain ? qkv_workspace_size(plan->plain, n_workers)
                                           : 0;
    space->attention = qkv_carve(&c, space->attention_bytes);
    space->used = c.used;
}

size_t qkv_layer_workspace_size(const qkv_layer_plan *plan, int32_t n_workers)
{
    qkv_layer_space space;
    qkv_layer_space_of(plan, n_workers < 1 ? 1 : n_workers, NULL, &space);
    return space.used;
}

/* ---- attention -------------------------------------------------------------------------- */

static void *get(const qkv_layer_plan *plan, size_t bytes)
{
    return plan->allocator.alloc(plan->allocator.ctx, bytes);
}

static qkv_status refuse_memory(qkv_say say, size_t bytes)
{
    return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for a plan of %zu bytes", bytes);
}

static qkv_status make_view(const qkv_layer *layer, qkv_layer_plan *plan, qkv_say say)
{
    qkv_cache_select select;

    qkv_cache_select_init(&select);
    select.n_seqs = plan->n_seqs;
    select.seqs = plan->seqs;
    select.q_lens = plan->counts;
    select.causal = layer->desc.cross ? QKV_CAUSAL_NONE : QKV_CAUSAL_INCLUSIVE;
    const size_t bytes = qkv_cache_view_size(plan->cache, &select);
    plan->view_block = bytes ? get(plan, bytes) : NULL;
    if (bytes && !plan->view_block)
        return refuse_memory(say, bytes);
    return qkv_cache_view_init(plan->view_block, bytes, plan->cache, &select, &plan->view,
                               say.text, say.bytes);
}

static qkv_status plan_attention(const qkv_layer *layer, const qkv_layer_step *step,
                                 qkv_layer_plan *plan, qkv_say say)
{
    qkv_desc desc;
    qkv_status status = qkv_step_problem(layer, step, plan, &desc, say);

    if (status != QKV_OK)
        return status;
    size_t bytes = plan->view ? qkv_cache_plan_size(plan->view, &desc) : qkv_plan_size(&desc);
    if (bytes == 0 && !plan->view)
        return qkv_explain(&desc, say.text, say.bytes);
    plan->attention_block = bytes ? get(plan, bytes) : NULL;
    if (bytes && !plan->attention_block)
        return refuse_memory(say, bytes);
    if (plan->view)
        return qkv_cache_plan_init(plan->attention_block, bytes, plan->view, &desc, &plan->cached,
                                   say.text, say.bytes);
    return qkv_plan_init(plan->attention_block, bytes, &desc, &plan->plain);
}

/* ---- creation --------------------------------------------------------------------------- */

/* Rows of keys of all sequences, where MLA makes them from the cache. */
static qkv_status count_keys(const qkv_layer_step *step, qkv_layer_plan *plan, qkv_say say)
{
    int64_t rows = 0;

    for (int32_t b = 0; b <= plan->n_seqs; b++) {
        plan->cu_k[b] = (int32_t)rows;
        if (b < plan->n_seqs)
            rows += qkv_step_keys(plan, step, b);
        if (rows > INT32_MAX)
            return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                              "more than %d cached tokens for one expanded step", INT32_MAX);
    }
    return QKV_OK;
}

static qkv_status fill(const qkv_layer *layer, const qkv_layer_step *step, qkv_layer_plan *plan,
                       int64_t *positions, qkv_say say)
{
    qkv_status status = qkv_step_tokens(layer, step, plan, positions, say);

    if (status != QKV_OK)
        return status;
    count_work(layer, step, plan);
    plan->mla = plan->work.mla;
    plan->cu_k[plan->n_seqs] = 0;
    if (plan->cache && plan->mla == QKV_MLA_EXPANDED)
        status = count_keys(step, plan, say);
    else if (step->form == QKV_FORM_CACHED)
        status = make_view(layer, plan, say);
    if (status == QKV_OK && step->form != QKV_FORM_MEMORY)
        status = plan_attention(layer, step, plan, say);
    if (status == QKV_OK)
        status = plan_narrow(layer, plan, say);
    if (status == QKV_OK)
        size_workspace(layer, plan);
    return status;
}

qkv_status qkv_layer_plan_create(const qkv_layer *layer, const qkv_layer_step *step,
                                 const qkv_allocator *allocator, qkv_layer_plan **plan, char *text,
                                 size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_carver counting = {NULL, 0};
    qkv_layer_plan made;
    int64_t *positions;

    if (!plan)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "plan is NULL");
    *plan = NULL;
    qkv_status status = qkv_step_check(layer, step, say);
    if (status != QKV_OK)
        return status;
    memset(&made, 0, sizeof made);
    if (!qkv_allocator_of(allocator, &made.allocator))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "allocator lacks a function");
    const size_t need = carve_arrays(counting, layer, step, &made, &positions);
    qkv_layer_plan *p = get(&made, need);
    if (!p)
        return refuse_memory(say, need);
    made.desc = layer->desc;
    made.form = step->form;
    made.n_seqs = step->n_seqs;
    made.packed = step->cu_seqlens != NULL;
    made.q_len = longest(step);
    made.rows = rows_of(step);
    made.memory_len = step->memory_len;
    made.memory_rows = step->n_seqs * step->memory_len;
    made.cache = step->cache;
    *p = made;
    carve_arrays((qkv_carver){(unsigned char *)p, 0}, layer, step, p, &positions);
    status = fill(layer, step, p, positions, say);
    if (status != QKV_OK) {
        qkv_layer_plan_destroy(p);
        return status;
    }
    *plan = p;
    return qkv_accept(say);
}

void qkv_layer_plan_destroy(qkv_layer_plan *plan)
{
    if (plan) {
        const qkv_allocator a = plan->allocator;
        for (int i = 0; i < QKV_NARROW_MATRICES; i++)
            qkv_narrow_plan_end(&plan->products[i]);
        a.free(a.ctx, plan->attention_block);
        a.free(a.ctx, plan->view_block);
        a.free(a.ctx, plan);
    }
}
