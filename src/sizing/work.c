/* sizing/work.c - one step of a model, stage by stage. */
#include <string.h>

#include "sizing/work.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)

const char *qkv_size_stage_name(int32_t stage)
{
    static const char *const names[] = {"project", "expand", "scores", "softmax", "values",
                                        "output",  "state",  "mlp",    "head"};
    return stage >= 0 && stage < QKV_SIZE_STAGES ? names[stage] : "?";
}

/* ---- the steps that have names ------------------------------------------------------------ */

qkv_status qkv_size_step_of(const qkv_size_setup *s, int32_t which, qkv_size_step *step, char *text,
                            size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!s || !step || s->context < 1 || s->context > INT32_MAX || s->batch < 1)
        REFUSE("setup or step is NULL, or context and batch are not set");
    if (which < QKV_STEP_PREFILL || which > QKV_STEP_RECOMPUTE)
        REFUSE("which is %d; accepted are QKV_STEP_", which);
    const int64_t chunk = s->chunk < 1 ? 2048 : s->chunk;
    const qkv_size_step prefill = {1, s->context, 0, 0};
    *step = prefill;
    if (which == QKV_STEP_CHUNKED)
        step->chunk = chunk < s->context ? chunk : s->context;
    if (which == QKV_STEP_DECODE || which == QKV_STEP_RECOMPUTE)
        step->n_seqs = s->batch;
    if (which == QKV_STEP_DECODE) {
        step->n_new = 1;
        step->past = s->context - 1;
    }
    return qkv_accept(say);
}

/* ---- all layers --------------------------------------------------------------------------- */

static void count_part(qkv_work *c, int32_t part)
{
    const qkv_model *m = c->model;
    const int encoder = part == QKV_PART_ENCODER, cross = part == QKV_PART_CROSS;

    if (encoder && c->past > 0) /* it has run, with the first tokens */
        return;
    for (int32_t kind = 0; kind < m->n_kinds; kind++) {
        qkv_work_layers k = {&m->kinds[kind],
                             0,
                             0,
                             encoder ? c->memory : c->n,
                             encoder ? 0 : c->past,
                             encoder ? 1 : c->steps,
                             cross     ? (c->past == 0 ? c->memory : 0)
                             : encoder ? c->memory
                                       : c->n,
                             0,
                             0};
        for (int32_t i = 0; i < qkv_size_layers(m, part); i++)
            if (m->kind_of[part][i] == kind)
                *(part == QKV_PART_DECODER && m->cache_of[i] != i ? &k.shared : &k.own) += 1;
        if (k.own + k.shared > 0)
            qkv_work_count_kind(c, &k);
    }
}

static void count_blocks(qkv_work *c)
{
    const qkv_model *m = c->model;
    const uint64_t encoded = c->past > 0 ? 0 : qkv_work_times(c, c->seqs, c->memory);
    qkv_size_mlp b;

    for (int32_t i = 0; i < m->n_layers + m->encoder_layers; i++) {
        const int decoder = i < m->n_layers;
        const uint64_t tokens = decoder ? qkv_work_times(c, c->seqs, c->n) : encoded;
        const uint64_t steps = decoder ? c->steps : 1;
        const uint64_t used = decoder ? qkv_work_times(c, c->seqs, c->chunk) : tokens; /* at once */
        if (tokens == 0)
            continue;
        qkv_size_block(m, decoder ? i : -1, &b);
        qkv_work_add_product(c, QKV_SIZE_MLP, tokens, b.fixed, steps);
        qkv_work_add_states(c, QKV_SIZE_MLP, tokens, 2 * (uint64_t)m->d_model);
        if (b.n == 0)
            continue;
        /* Tokens choose alike at best, and all differently at worst. */
        const uint64_t most = qkv_min_u64(b.n, qkv_work_times(c, b.used, used));
        const uint64_t one = qkv_work_times(c, qkv_work_weight_bytes(c, b.expert), steps);
        qkv_work_add(c, &c->work->stage[QKV_SIZE_MLP].multiply_adds,
                     qkv_work_times(c, tokens, qkv_work_times(c, b.expert, b.used)));
        qkv_work_add(c, &c->work->stage[QKV_SIZE_MLP].bytes, qkv_work_times(c, one, most));
        qkv_work_add(c, &c->work->stage[QKV_SIZE_MLP].bytes_least, qkv_work_times(c, one, b.used));
        qkv_work_add(c, &c->work->weights_read, qkv_work_times(c, one, most));
    }
}

static void count_all(qkv_work *c)
{
    const uint64_t d = (uint64_t)c->model->d_model, vocab = (uint64_t)c->model->vocab_size;

    memset(c->work, 0, sizeof *c->work);
    c->work->absorbed = c->absorbed;
    for (int32_t part = 0; part < 3; part++)
        count_part(c, part);
    count_blocks(c);
    qkv_work_add_product(c, QKV_SIZE_HEAD, c->seqs, vocab * d, 1);
    qkv_work_add_states(c, QKV_SIZE_HEAD, c->seqs, vocab > 0 ? vocab + d : 0);
    for (int i = 0; i < QKV_SIZE_STAGES; i++) {
        const qkv_size_stage *s = &c->work->stage[i];
        qkv_work_add(c, &c->work->all.multiply_adds, s->multiply_adds);
        qkv_work_add(c, &c->work->all.exponentials, s->exponentials);
        qkv_work_add(c, &c->work->all.bytes, s->bytes);
        qkv_work_add(c, &c->work->all.bytes_least, s->bytes_least);
    }
}

static int has_latents(const qkv_model *m)
{
    for (int32_t i = 0; i < m->n_kinds; i++)
        if (m->kinds[i].kind == QKV_LAYER_MLA)
            return 1;
    return 0;
}

static qkv_status check_step(const qkv_size_step *s, qkv_say say)
{
    if (!s)
        REFUSE("step is NULL");
    if (s->n_seqs < 1 || s->n_seqs > INT32_MAX || s->n_new < 1 || s->past < 0 ||
        s->n_new > INT32_MAX || s->past > INT32_MAX - s->n_new)
        REFUSE("n_seqs, n_new and past are %lld, %lld and %lld; accepted are from 1, 1 and 0, and "
               "at most 2147483647 for past + n_new",
               (long long)s->n_seqs, (long long)s->n_new, (long long)s->past);
    if (s->chunk < 0 || s->chunk > s->n_new || (s->chunk > 0 && s->n_new / s->chunk > 1 << 20))
        REFUSE("chunk is %lld; accepted are 0 and up to n_new, %lld, that make no more than 2^20 "
               "steps",
               (long long)s->chunk, (long long)s->n_new);
    return QKV_OK;
}

qkv_status qkv_size_work_find(const qkv_model *model, const qkv_size_setup *setup,
                              const qkv_size_step *step, qkv_size_work *work, char *text,
                              size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_size_work other;
    qkv_size_setup full;
    qkv_status status = qkv_size_resolve(model, setup, &full, say);

    if (status == QKV_OK)
        status = check_step(step, say);
    if (status != QKV_OK)
        return status;
    if (!work)
        REFUSE("work is NULL");
    const uint64_t n = (uint64_t)step->n_new, chunk = step->chunk > 0 ? (uint64_t)step->chunk : n;
    qkv_work c = {model,
                  &full,
                  (uint64_t)step->n_seqs,
                  n,
                  (uint64_t)step->past,
                  chunk,
                  qkv_up(n, chunk),
                  (uint64_t)full.memory_tokens,
                  qkv_type_size((qkv_type)full.compute),
                  full.absorbed == 1,
                  {0},
                  work};
    count_all(&c);
    if (full.absorbed == QKV_SIZE_AUTO && has_latents(model)) {
        qkv_work b = c;
        b.tally.over = 0;
        b.absorbed = 1;
        b.work = &other;
        count_all(&b);
        if (other.all.multiply_adds < work->all.multiply_adds) {
            *work = other;
            c.tally = b.tally;
        }
    }
    return c.tally.over ? qkv_size_refuse_over(&full, say) : qkv_accept(say);
}
