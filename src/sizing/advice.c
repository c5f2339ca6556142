/*
 * sizing/advice.c - what the numbers say.
 *
 * Every sentence holds the numbers it rests on, and is there only if they call for it; nothing is
 * taken from a table of rules.
 */
#include "sizing/internal.h"
#include "sizing/lines.h"

#define GIB (1024.0 * 1024 * 1024)

/* What all sentences look at. */
typedef struct facts {
    const qkv_model *model;
    const qkv_size_setup *setup;
    const qkv_size_budget *budget;
    const qkv_layer_desc *layer; /* the first with keys and values */
    qkv_size_cache cache;
    qkv_size_fit fit;
    qkv_size_work decode;
    int has_decode;
    int32_t bound;  /* QKV_BOUND_ of that step; 0: no machine */
    double seconds; /* of it, at worst */
} facts;

static const qkv_layer_desc *first_layer(const qkv_model *m)
{
    for (int32_t i = 0; i < m->n_layers; i++) {
        const qkv_layer_desc *l = qkv_size_layer(m, QKV_PART_DECODER, i);
        if (l->kind != QKV_LAYER_STATE && l->causal)
            return l;
    }
    return NULL;
}

static int vary(const facts *f, const qkv_size_variant_of *v, qkv_model *other,
                qkv_size_cache *cache, qkv_size_fit *fit)
{
    return qkv_size_variant(f->model, v, other, NULL, 0) == QKV_OK &&
           qkv_size_cache_find(other, f->setup, cache, NULL, 0) == QKV_OK &&
           qkv_size_fit_find(other, f->setup, f->budget, fit, NULL, 0) == QKV_OK;
}

/* ---- memory ------------------------------------------------------------------------------- */

static void memory_lines(qkv_lines *out, const facts *f)
{
    const double needed = (double)f->fit.needed, share = (double)f->fit.cache / needed;

    LINE("Keys and values take %.3f of the %.3f GiB that %s: %.1f %%.", (double)f->fit.cache / GIB,
         needed / GIB, f->fit.weights > 0 ? "they and the weights need" : "are counted",
         100 * share);
    if (f->budget->memory == 0)
        return;
    LINE("That %s %.3f GiB: %.3f GiB %s.", f->fit.fits_memory ? "fits into" : "does not fit into",
         (double)f->budget->memory / GIB,
         f->fit.fits_memory ? ((double)f->budget->memory - needed) / GIB
                            : (needed - (double)f->budget->memory) / GIB,
         f->fit.fits_memory ? "are left" : "are missing");
}

static void largest_lines(qkv_lines *out, const facts *f)
{
    qkv_size_answer a;

    if (f->budget->memory == 0 && !(f->budget->latency > 0))
        return;
    if (qkv_size_solve(f->model, f->setup, f->budget, QKV_SOLVE_USERS, &a, NULL, 0) == QKV_OK)
        LINE("At %lld tokens %s%lld sequence%s.", (long long)f->setup->context,
             a.found ? "the budget holds " : "it does not hold even ", (long long)a.value,
             a.value == 1 ? "" : "s");
    if (qkv_size_solve(f->model, f->setup, f->budget, QKV_SOLVE_CONTEXT, &a, NULL, 0) == QKV_OK)
        LINE("%lld sequence%s may %shave %lld token%s%s.", (long long)f->setup->batch,
             f->setup->batch == 1 ? "" : "s each", a.found ? "" : "not even ", (long long)a.value,
             a.value == 1 ? "" : "s", a.limited ? " (the most a cache counts)" : "");
}

static void rounding_line(qkv_lines *out, const facts *f)
{
    const double more = (double)f->cache.allocated - (double)f->cache.payload;

    if (f->cache.payload > 0 && more > 0.1 * (double)f->cache.payload)
        LINE("Pages of %d tokens and what windows hold besides cost %.3f GiB, %.0f %% of the %.3f "
             "GiB of tokens that are seen.",
             f->setup->page_tokens, more / GIB, 100 * more / (double)f->cache.payload,
             (double)f->cache.payload / GIB);
}

static void window_line(qkv_lines *out, const facts *f)
{
    double saved = 0;
    int32_t layers = 0;

    for (int32_t i = 0; i < f->cache.n_groups; i++) {
        const qkv_size_group *g = &f->cache.group[i];
        if (g->window == 0 || (int64_t)g->tokens >= f->setup->context)
            continue;
        layers += g->n_layers;
        saved += (double)g->token_bytes * (double)f->setup->batch *
                 ((double)f->setup->context - (double)g->tokens);
    }
    if (layers > 0)
        LINE("Windows in %d layers save %.3f GiB, %.1f times what is left.", layers, saved / GIB,
             saved / (double)f->cache.payload);
}

/* ---- the step ----------------------------------------------------------------------------- */

static void bound_line(qkv_lines *out, const facts *f)
{
    const qkv_size_work *w = &f->decode;

    LINE("A decoding step of %lld sequence%s moves %.3f GiB of weights and %.3f GiB of keys and "
         "values (%.1f %%) for %.3f GFLOPs: %.2f FLOPs a byte%s.",
         (long long)f->setup->batch, f->setup->batch == 1 ? "" : "s", (double)w->weights_read / GIB,
         (double)w->cache_read / GIB, 100 * (double)w->cache_read / (double)w->all.bytes,
         2e-9 * (double)w->all.multiply_adds,
         2 * (double)w->all.multiply_adds / (double)w->all.bytes,
         f->bound == QKV_BOUND_COMPUTE     ? ", which this machine computes longer than it reads"
         : f->bound == QKV_BOUND_BANDWIDTH ? ", which this machine reads longer than it computes"
                                           : "");
}

/* Seconds of a step at worst; 0 without a machine. */
static double seconds_of(const facts *f, const qkv_size_work *work, int32_t *bound)
{
    qkv_size_time time;

    *bound = 0;
    if (!f->budget->machine ||
        qkv_size_time_find(work, f->setup, f->budget->machine, &time, NULL, 0) != QKV_OK)
        return 0;
    *bound = time.all.bound;
    return time.all.worst;
}

/* One other attention: what it would change. */
static void variant_line(qkv_lines *out, const facts *f, const char *name,
                         const qkv_size_variant_of *v)
{
    qkv_model other;
    qkv_size_cache cache;
    qkv_size_fit fit;
    qkv_size_step step;
    qkv_size_work work;
    char time[64] = "";
    const qkv_say say = {time, sizeof time};
    int32_t bound;

    if (!vary(f, v, &other, &cache, &fit) ||
        qkv_size_step_of(f->setup, QKV_STEP_DECODE, &step, NULL, 0) != QKV_OK ||
        qkv_size_work_find(&other, f->setup, &step, &work, NULL, 0) != QKV_OK)
        return;
    const double bytes = (double)work.all.bytes / (double)f->decode.all.bytes;
    const double size = (double)cache.payload / (double)f->cache.payload;
    const double seconds = seconds_of(f, &work, &bound);
    if (seconds > 0)
        qkv_refuse(say, QKV_OK, ", %.4g instead of %.4g ms at worst", 1e3 * seconds,
                   1e3 * f->seconds);
    if (size > 1 && fit.fits && f->budget->memory > 0 && bytes < 1.25)
        LINE(
            "The cache is not the bottleneck: %s, with %.3f GiB instead of %.3f, would fit too and "
            "move %.2f times the bytes a step%s.",
            name, (double)cache.payload / GIB, (double)f->cache.payload / GIB, bytes, time);
    else
        LINE(
            "%s would keep %.3f GiB, %.3g times as much, and move %.2f times the bytes a step%s%s.",
            name, (double)cache.payload / GIB, size, bytes, time,
            f->budget->memory == 0 ? ""
            : fit.fits             ? "; it fits"
                                   : "; it does not fit");
}

static void variant_lines(qkv_lines *out, const facts *f)
{
    const qkv_size_variant_of mha = {QKV_VARIANT_HEADS, 0, 0, 0, 0, 0};
    const qkv_size_variant_of gqa = {QKV_VARIANT_HEADS, 8, 0, 0, 0, 0};
    const qkv_size_variant_of mqa = {QKV_VARIANT_HEADS, 1, 0, 0, 0, 0};
    const qkv_size_variant_of mla = {QKV_VARIANT_MLA, 0, 0, 0, 0, 0};
    const qkv_layer_desc *l = f->layer;
    const int heads = l->kind == QKV_LAYER_ATTENTION;

    if (!heads || l->n_kv_heads < l->n_q_heads)
        variant_line(out, f, "MHA", &mha);
    if (l->n_q_heads > 8 && l->n_q_heads % 8 == 0 && (!heads || l->n_kv_heads != 8))
        variant_line(out, f, "GQA-8", &gqa);
    if (l->n_q_heads > 1 && (!heads || l->n_kv_heads != 1))
        variant_line(out, f, "MQA", &mqa);
    if (heads)
        variant_line(out, f, "MLA", &mla);
}

static void format_line(qkv_lines *out, const facts *f)
{
    qkv_size_setup s = *f->setup;
    qkv_size_cache cache;
    const int wide = s.k_format == QKV_FORMAT_BF16 || s.k_format == QKV_FORMAT_F16 ||
                     s.k_format == QKV_FORMAT_F32;

    s.k_format = s.v_format = QKV_FORMAT_INT8;
    if (wide && qkv_size_cache_find(f->model, &s, &cache, NULL, 0) == QKV_OK)
        LINE("In int8 the cache would be %.3f GiB instead of %.3f.", (double)cache.payload / GIB,
             (double)f->cache.payload / GIB);
}

static void prefill_line(qkv_lines *out, const facts *f)
{
    qkv_size_step step;
    qkv_size_work w;

    if (qkv_size_step_of(f->setup, QKV_STEP_PREFILL, &step, NULL, 0) != QKV_OK ||
        qkv_size_work_find(f->model, f->setup, &step, &w, NULL, 0) != QKV_OK ||
        w.all.multiply_adds == 0)
        return;
    const double both =
        (double)(w.stage[QKV_SIZE_SCORES].multiply_adds + w.stage[QKV_SIZE_VALUES].multiply_adds);
    LINE("In prefill of %lld tokens Q K^T and P V are %.1f %% of %.3f TFLOPs.",
         (long long)f->setup->context, 100 * both / (double)w.all.multiply_adds,
         2e-12 * (double)w.all.multiply_adds);
}

/* ---- all ---------------------------------------------------------------------------------- */

static qkv_status gather(facts *f, qkv_size_setup *full, const qkv_size_setup *setup, qkv_say say)
{
    qkv_size_step step;
    qkv_status status = qkv_size_resolve(f->model, setup, full, say);

    if (status == QKV_OK)
        status = qkv_size_cache_find(f->model, full, &f->cache, say.text, say.bytes);
    if (status == QKV_OK)
        status = qkv_size_fit_find(f->model, full, f->budget, &f->fit, say.text, say.bytes);
    if (status != QKV_OK)
        return status;
    f->layer = first_layer(f->model);
    f->has_decode = f->layer != NULL && f->cache.payload > 0 &&
                    qkv_size_step_of(full, QKV_STEP_DECODE, &step, NULL, 0) == QKV_OK &&
                    qkv_size_work_find(f->model, full, &step, &f->decode, NULL, 0) == QKV_OK;
    f->seconds = f->has_decode ? seconds_of(f, &f->decode, &f->bound) : 0;
    return QKV_OK;
}

qkv_status qkv_size_advice(const qkv_model *model, const qkv_size_setup *setup,
                           const qkv_size_budget *budget, int32_t line, char *text, size_t bytes)
{
    static const qkv_size_budget none = {0, 0, NULL};
    qkv_lines lines = {{text, bytes}, line, 0}, *out = &lines;
    qkv_size_setup full;
    facts f = {.model = model, .setup = &full, .budget = budget ? budget : &none};
    const qkv_status status = gather(&f, &full, setup, lines.say);

    if (status != QKV_OK)
        return status;
    if (f.has_decode) {
        memory_lines(out, &f);
        largest_lines(out, &f);
        rounding_line(out, &f);
        window_line(out, &f);
        bound_line(out, &f);
        variant_lines(out, &f);
        format_line(out, &f);
    }
    prefill_line(out, &f);
    return qkv_lines_end(out);
}
