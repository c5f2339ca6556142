/* sizing/solve.c - what fits a budget, and the largest that does. */
#include <math.h>
#include <string.h>

#include "sizing/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)

/* ---- one question ------------------------------------------------------------------------- */

static qkv_status weigh(const qkv_model *model, const qkv_size_setup *s, uint64_t *weights,
                        qkv_say say)
{
    qkv_size_parameters p;
    qkv_tally t = {0};
    const qkv_status status = qkv_size_parameters_find(model, &p, say.text, say.bytes);

    if (status != QKV_OK)
        return status;
    const uint64_t bits = qkv_tally_mul(&t, p.total, (uint64_t)s->weight_bits);
    /* Ranks that share heads share the matrices; ranks that share tokens have all of them. */
    *weights = qkv_up(qkv_up(bits, 8), s->split == QKV_SPLIT_HEADS ? (uint64_t)s->ranks : 1);
    return t.over ? qkv_size_refuse_over(s, say) : QKV_OK;
}

static qkv_status find_cache(const qkv_model *model, const qkv_size_setup *s, uint64_t *cache,
                             qkv_say say)
{
    qkv_size_cache all;
    qkv_size_rank rank;
    const qkv_status status = s->ranks > 1
                                  ? qkv_size_rank_find(model, s, &rank, say.text, say.bytes)
                                  : qkv_size_cache_find(model, s, &all, say.text, say.bytes);

    if (status != QKV_OK)
        return status;
    const uint64_t allocated = s->ranks > 1 ? rank.allocated : all.allocated;
    const uint64_t payload = s->ranks > 1 ? rank.payload : all.payload;
    *cache = allocated > 0 ? allocated : payload;
    return QKV_OK;
}

static qkv_status find_latency(const qkv_model *model, const qkv_size_setup *s,
                               const qkv_machine *machine, double *seconds, qkv_say say)
{
    qkv_size_step step;
    qkv_size_work work;
    qkv_size_time time;
    qkv_status status = qkv_size_step_of(s, QKV_STEP_DECODE, &step, say.text, say.bytes);

    if (status == QKV_OK)
        status = qkv_size_work_find(model, s, &step, &work, say.text, say.bytes);
    if (status == QKV_OK)
        status = qkv_size_time_find(&work, s, machine, &time, say.text, say.bytes);
    *seconds = status == QKV_OK ? time.all.worst : 0;
    return status;
}

static qkv_status check_budget(const qkv_size_setup *s, const qkv_size_budget *b, qkv_say say)
{
    if (!b || !(b->latency >= 0) || !isfinite(b->latency))
        REFUSE("budget is NULL, or latency is not a finite number from 0");
    if (b->latency > 0 && !b->machine)
        REFUSE("latency is %g s without a machine; seconds need its rates", b->latency);
    if (b->latency > 0 && s->ranks > 1)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "latency is %g s with %d ranks; the network between them is not priced",
                          b->latency, s->ranks);
    return QKV_OK;
}

qkv_status qkv_size_fit_find(const qkv_model *model, const qkv_size_setup *setup,
                             const qkv_size_budget *budget, qkv_size_fit *fit, char *text,
                             size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_size_setup s;
    qkv_tally t = {0};
    qkv_status status = qkv_size_resolve(model, setup, &s, say);

    if (status == QKV_OK)
        status = check_budget(&s, budget, say);
    if (status != QKV_OK)
        return status;
    if (!fit)
        REFUSE("fit is NULL");
    memset(fit, 0, sizeof *fit);
    status = find_cache(model, &s, &fit->cache, say);
    if (status == QKV_OK && !s.cache_only)
        status = weigh(model, &s, &fit->weights, say);
    if (status == QKV_OK && budget->machine && s.ranks == 1)
        status = find_latency(model, &s, budget->machine, &fit->latency, say);
    if (status != QKV_OK)
        return status;
    fit->needed = qkv_tally_add(&t, qkv_tally_add(&t, fit->cache, fit->weights), s.reserve);
    if (t.over)
        return qkv_size_refuse_over(&s, say);
    fit->fits_memory = budget->memory == 0 || fit->needed <= budget->memory;
    fit->fits_latency = !(budget->latency > 0) || fit->latency <= budget->latency;
    fit->fits = fit->fits_memory && fit->fits_latency;
    return qkv_accept(say);
}

/* ---- the largest -------------------------------------------------------------------------- */

typedef struct question {
    const qkv_model *model;
    qkv_size_setup setup;
    const qkv_size_budget *budget;
    int64_t *field; /* of setup */
} question;

/* Does it fit with this value?  Counts that are too large do not. */
static int fits(question *q, int64_t value, qkv_size_fit *fit)
{
    *q->field = value;
    return qkv_size_fit_find(q->model, &q->setup, q->budget, fit, NULL, 0) == QKV_OK && fit->fits;
}

/* Needs grow with the value, so halving finds the last one that fits. */
static qkv_status largest(question *q, int64_t high, qkv_size_answer *a, qkv_say say)
{
    int64_t low = 1;
    qkv_size_fit fit;

    *q->field = low;
    const qkv_status status =
        qkv_size_fit_find(q->model, &q->setup, q->budget, &a->fit, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    a->value = low;
    if (!a->fit.fits)
        return qkv_accept(say);
    a->found = 1;
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        if (fits(q, middle, &fit)) {
            low = middle;
            a->fit = fit;
        } else {
            high = middle - 1;
        }
    }
    a->value = low;
    return qkv_accept(say);
}

static int32_t query_heads(const qkv_model *m)
{
    for (int32_t i = 0; i < m->n_kinds; i++)
        if (m->kinds[i].kind != QKV_LAYER_STATE && !m->kinds[i].cross)
            return m->kinds[i].n_q_heads;
    return 0;
}

/* Divisors from the largest down; those that another kind of layer does not have are passed over.
 */
static qkv_status largest_groups(question *q, qkv_size_answer *a, qkv_say say)
{
    const int32_t heads = query_heads(q->model);
    qkv_status status = QKV_ERR_ARGUMENT;
    qkv_model other;

    if (heads == 0)
        REFUSE("the model has no layer with heads of keys and values");
    for (int32_t g = heads; g >= 1; g--) {
        const qkv_size_variant_of v = {QKV_VARIANT_HEADS, g, 0, 0, 0, 0};
        if (heads % g != 0 || qkv_size_variant(q->model, &v, &other, NULL, 0) != QKV_OK)
            continue;
        status = qkv_size_fit_find(&other, &q->setup, q->budget, &a->fit, say.text, say.bytes);
        if (status != QKV_OK)
            return status;
        a->value = g;
        a->found = a->fit.fits;
        if (a->found) {
            a->limited = g == heads;
            break;
        }
    }
    return status == QKV_OK ? qkv_accept(say) : status;
}

static qkv_status widest_format(question *q, qkv_size_answer *a, qkv_say say)
{
    static const int32_t formats[] = {QKV_FORMAT_BF16, QKV_FORMAT_INT8, QKV_FORMAT_INT8_CHANNEL,
                                      QKV_FORMAT_E4M3, QKV_FORMAT_INT4};
    qkv_size_setup *s = &q->setup;

    s->k_group = s->v_group = 0;
    s->k_scale = s->v_scale = QKV_SCALE_TOKEN;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0] && !a->found; i++) {
        s->k_format = formats[i];
        s->v_format = formats[i] == QKV_FORMAT_INT8_CHANNEL ? QKV_FORMAT_INT8 : formats[i];
        const qkv_status status =
            qkv_size_fit_find(q->model, s, q->budget, &a->fit, say.text, say.bytes);
        if (status != QKV_OK)
            return status;
        a->value = formats[i];
        a->found = a->fit.fits;
        a->limited = a->found && i == 0;
    }
    return qkv_accept(say);
}

qkv_status qkv_size_solve(const qkv_model *model, const qkv_size_setup *setup,
                          const qkv_size_budget *budget, int32_t what, qkv_size_answer *answer,
                          char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    question q = {model, {0}, budget, NULL};
    qkv_size_setup as_given;

    if (!setup || setup->struct_size < offsetof(qkv_size_setup, k_format) ||
        setup->struct_size > sizeof as_given)
        REFUSE("setup is NULL or was not set up by qkv_size_setup_init");
    qkv_size_setup_init(&as_given);
    memcpy(&as_given, setup, setup->struct_size);
    as_given.struct_size = (uint32_t)sizeof as_given;
    q.setup = as_given;
    if (!answer || !budget || (budget->memory == 0 && !(budget->latency > 0)))
        REFUSE("answer is NULL, or budget has neither memory nor latency");
    memset(answer, 0, sizeof *answer);
    qkv_status status = QKV_ERR_ARGUMENT;
    if (what == QKV_SOLVE_CONTEXT || what == QKV_SOLVE_USERS) {
        const int64_t high = what == QKV_SOLVE_CONTEXT ? INT32_MAX : 65535;
        q.field = what == QKV_SOLVE_CONTEXT ? &q.setup.context : &q.setup.batch;
        status = largest(&q, high, answer, say);
        answer->limited = answer->found && answer->value == high;
        return status;
    }
    if (what == QKV_SOLVE_GROUPS)
        return largest_groups(&q, answer, say);
    if (what == QKV_SOLVE_FORMAT)
        return widest_format(&q, answer, say);
    REFUSE("what is %d; accepted are QKV_SOLVE_", what);
}
