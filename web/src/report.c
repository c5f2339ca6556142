/* report.c - see report.h.  Names are those of cli/size_json.c; tests/web compares the two. */
#include "report.h"

#include <string.h>

#define WHOLE(field) (uint64_t)(field)

void web_report_setup(web_lines *l, const qkv_size_setup *s, int context_assumed,
                      int weights_assumed)
{
    const size_t at = web_enter(l, "setup");
    web_whole(l, "context", WHOLE(s->context));
    web_bool(l, "context_from_model", context_assumed);
    web_whole(l, "batch", WHOLE(s->batch));
    web_text(l, "k_format", qkv_size_format_name(s->k_format));
    web_text(l, "v_format", qkv_size_format_name(s->v_format));
    web_whole(l, "k_group", WHOLE(s->k_group));
    web_whole(l, "v_group", WHOLE(s->v_group));
    web_whole(l, "page_tokens", WHOLE(s->page_tokens));
    web_whole(l, "weight_bits", WHOLE(s->weight_bits));
    web_bool(l, "weight_bits_assumed", weights_assumed);
    web_text(l, "compute", qkv_type_name((qkv_type)s->compute));
    web_text(l, "pairs", s->pairs == QKV_COUNT_SQUARE ? "square" : "visible");
    web_whole(l, "ranks", WHOLE(s->ranks));
    web_text(l, "split", s->split == QKV_SPLIT_HEADS ? "heads" : "context");
    web_whole(l, "reserve", s->reserve);
    web_bool(l, "cache_only", s->cache_only);
    web_leave(l, at);
}

static void range(web_lines *l, const char *name, const double x[2])
{
    const size_t at = web_enter(l, name);
    web_real(l, "0", x[0]);
    web_real(l, "1", x[1]);
    web_leave(l, at);
}

void web_report_machine(web_lines *l, const char *name, const qkv_machine *m)
{
    const size_t at = web_enter(l, name);
    web_text(l, "name", m->name);
    web_text(l, "source", m->source);
    web_bool(l, "measured", m->measured);
    range(l, "flops_f32", m->flops_f32);
    range(l, "flops_16", m->flops_16);
    range(l, "bytes_per_second", m->bytes);
    web_whole(l, "memory", m->memory);
    web_leave(l, at);
}

/* ---- cache and parameters ------------------------------------------------------------------- */

static void report_group(web_lines *l, const qkv_size_group *g)
{
    static const char *const kinds[] = {"?", "attention", "mla", "state"};
    web_text(l, "kind", kinds[g->kind]);
    web_bool(l, "cross", g->cross);
    web_whole(l, "layers", WHOLE(g->n_layers));
    web_whole(l, "layers_sharing", WHOLE(g->n_sharing));
    web_whole(l, "kv_heads", WHOLE(g->n_kv_heads));
    web_whole(l, "head_dim", WHOLE(g->head_dim));
    web_whole(l, "head_dim_v", WHOLE(g->head_dim_v));
    if (g->window > 0)
        web_whole(l, "window", WHOLE(g->window));
    else
        web_null(l, "window");
    web_whole(l, "elements_token", g->elements);
    web_whole(l, "tokens", g->tokens);
    web_whole(l, "pages", g->pages);
    web_whole(l, "page_bytes", g->page_bytes);
    web_whole(l, "bytes_token", g->token_bytes);
    web_whole(l, "payload", g->payload);
    web_whole(l, "allocated", g->allocated);
}

static void report_cache(web_lines *l, const qkv_size_cache *c)
{
    const size_t at = web_enter(l, "cache");
    web_whole(l, "elements_token", c->elements);
    web_whole(l, "bytes_token", c->token_bytes);
    web_whole(l, "state_bytes", c->state);
    web_whole(l, "payload", c->payload);
    if (c->not_cached)
        web_null(l, "allocated");
    else
        web_whole(l, "allocated", c->allocated);
    web_list(l, "groups");
    const size_t groups = web_enter(l, "groups");
    for (int32_t i = 0; i < c->n_groups; i++) {
        const size_t group = web_enter_at(l, i);
        report_group(l, &c->group[i]);
        web_leave(l, group);
    }
    web_leave(l, groups);
    web_leave(l, at);
}

static void report_missing(web_lines *l, int32_t missing)
{
    static const char *const names[] = {"blocks", "embeddings", "other_parts"};
    static const int32_t bits[] = {QKV_SIZE_NO_MLP, QKV_SIZE_NO_VOCAB, QKV_SIZE_PARTS};
    static const char *const places[] = {"0", "1", "2"};
    int n = 0;

    web_list(l, "not_counted");
    const size_t at = web_enter(l, "not_counted");
    for (int i = 0; i < 3; i++)
        if (missing & bits[i])
            web_text(l, places[n++], names[i]);
    web_leave(l, at);
}

static void report_parameters(web_lines *l, const qkv_size_parameters *p)
{
    const size_t at = web_enter(l, "parameters");
    web_whole(l, "total", p->total);
    web_whole(l, "active", p->active);
    web_whole(l, "attention", p->attention);
    web_whole(l, "attention_matrices", p->matrices);
    web_whole(l, "attention_layer", p->layer[QKV_PART_DECODER]);
    web_whole(l, "states", p->states);
    web_whole(l, "blocks", p->mlp);
    web_whole(l, "experts", p->experts);
    web_whole(l, "norms", p->norms);
    web_whole(l, "embeddings", p->embeddings);
    web_whole(l, "head", p->head);
    report_missing(l, p->missing);
    web_leave(l, at);
}

/* ---- work and time -------------------------------------------------------------------------- */

static void report_stage(web_lines *l, const char *name, const qkv_size_stage *s)
{
    const size_t at = web_enter(l, name);
    web_whole(l, "multiply_adds", s->multiply_adds);
    web_whole(l, "exponentials", s->exponentials);
    web_whole(l, "bytes", s->bytes);
    web_whole(l, "bytes_least", s->bytes_least);
    web_leave(l, at);
}

static void report_seconds(web_lines *l, const char *name, const qkv_size_seconds *t)
{
    const size_t at = web_enter(l, name);
    web_real(l, "best", t->best);
    web_real(l, "worst", t->worst);
    web_real(l, "intensity", t->intensity);
    web_text(l, "bound", t->bound == QKV_BOUND_COMPUTE     ? "compute"
                         : t->bound == QKV_BOUND_BANDWIDTH ? "bandwidth"
                                                           : NULL);
    web_leave(l, at);
}

static void report_time(web_lines *l, const qkv_size_time *t)
{
    const size_t at = web_enter(l, "seconds");
    report_seconds(l, "all", &t->all);
    report_seconds(l, "attention", &t->attention);
    for (int i = 0; i < QKV_SIZE_STAGES; i++)
        report_seconds(l, qkv_size_stage_name(i), &t->stage[i]);
    web_leave(l, at);
}

static void report_work(web_lines *l, const qkv_size_step *t, const qkv_size_work *w)
{
    web_whole(l, "sequences", WHOLE(t->n_seqs));
    web_whole(l, "new_tokens", WHOLE(t->n_new));
    web_whole(l, "past_tokens", WHOLE(t->past));
    if (t->chunk > 0)
        web_whole(l, "chunk", WHOLE(t->chunk));
    else
        web_null(l, "chunk");
    web_bool(l, "absorbed", w->absorbed);
    web_whole(l, "pairs", w->pairs);
    web_whole(l, "cache_read", w->cache_read);
    web_whole(l, "cache_written", w->cache_written);
    web_whole(l, "weights_read", w->weights_read);
    report_stage(l, "all", &w->all);
    const size_t at = web_enter(l, "stages");
    for (int i = 0; i < QKV_SIZE_STAGES; i++)
        report_stage(l, qkv_size_stage_name(i), &w->stage[i]);
    web_leave(l, at);
}

/* Does any layer keep something for a next token? */
static int decodes(const qkv_model *m)
{
    for (int32_t i = 0; i < m->n_layers; i++) {
        const qkv_layer_desc *layer = &m->kinds[m->kind_of[QKV_PART_DECODER][i]];
        if (layer->causal || layer->kind == QKV_LAYER_STATE)
            return 1;
    }
    return 0;
}

static qkv_status report_step(web_lines *l, int which, const qkv_model *m, const qkv_size_setup *s,
                              const qkv_machine *machine, char *text, size_t bytes)
{
    static const char *const words[] = {"prefill", "chunked_prefill", "decode",
                                        "decode_without_cache"};
    qkv_size_step step;
    qkv_size_work work;
    qkv_size_time time;
    qkv_status status = QKV_OK;

    const int is_asked = which == QKV_STEP_PREFILL || decodes(m);
    if (is_asked)
        status = qkv_size_step_of(s, which, &step, text, bytes);
    if (status != QKV_OK)
        return status;
    /* Counts of 2^63 and more are left out, not wrapped. */
    if (!is_asked || qkv_size_work_find(m, s, &step, &work, text, bytes) != QKV_OK) {
        web_null(l, words[which]);
        return QKV_OK;
    }
    const size_t at = web_enter(l, words[which]);
    report_work(l, &step, &work);
    if (machine) {
        status = qkv_size_time_find(&work, s, machine, &time, text, bytes);
        if (status == QKV_OK)
            report_time(l, &time);
    }
    web_leave(l, at);
    return status;
}

/* ---- a model -------------------------------------------------------------------------------- */

void web_report_fit(web_lines *l, const char *name, const qkv_size_fit *f)
{
    const size_t at = web_enter(l, name);
    web_bool(l, "fits", f->fits);
    web_bool(l, "fits_memory", f->fits_memory);
    web_bool(l, "fits_latency", f->fits_latency);
    web_whole(l, "weights", f->weights);
    web_whole(l, "cache", f->cache);
    web_whole(l, "needed", f->needed);
    web_real(l, "decode_seconds_worst", f->latency);
    web_leave(l, at);
}

static void report_rank(web_lines *l, const qkv_size_rank *r)
{
    const size_t at = web_enter(l, "rank");
    web_whole(l, "payload", r->payload);
    web_whole(l, "allocated", r->allocated);
    web_whole(l, "sent_decode", r->sent_step);
    web_whole(l, "sent_prefill", r->sent_prefill);
    web_whole(l, "copies", WHOLE(r->copies));
    web_leave(l, at);
}

static qkv_status report_subject(web_lines *l, const qkv_model *m, const qkv_size_setup *s,
                                 const qkv_size_budget *budget, char *text, size_t bytes)
{
    qkv_size_cache cache;
    qkv_size_parameters parameters;
    qkv_size_rank rank;
    qkv_size_fit fit;
    qkv_status status = qkv_size_cache_find(m, s, &cache, text, bytes);

    if (status == QKV_OK)
        status = qkv_size_parameters_find(m, &parameters, text, bytes);
    if (status == QKV_OK)
        status = qkv_size_rank_find(m, s, &rank, text, bytes);
    if (status == QKV_OK)
        status = qkv_size_fit_find(m, s, budget, &fit, text, bytes);
    if (status != QKV_OK)
        return status;
    web_text(l, "model_type", m->model_type);
    web_text(l, "not_priced", m->unpriced);
    web_whole(l, "layers", WHOLE(m->n_layers));
    web_whole(l, "d_model", WHOLE(m->d_model));
    report_cache(l, &cache);
    report_parameters(l, &parameters);
    const size_t work = web_enter(l, "work");
    for (int i = 0; i < 4 && status == QKV_OK; i++)
        status = report_step(l, i, m, s, budget->machine, text, bytes);
    web_leave(l, work);
    report_rank(l, &rank);
    web_report_fit(l, "fit", &fit);
    return status;
}

qkv_status web_report_model(web_lines *l, const qkv_model *m, const qkv_size_setup *s,
                            const qkv_size_budget *budget, char *text, size_t bytes)
{
    const size_t models = web_enter(l, "models"), first = web_enter_at(l, 0);
    const qkv_status status = report_subject(l, m, s, budget, text, bytes);
    web_leave(l, first);
    web_leave(l, models);
    return status;
}

/* ---- layers --------------------------------------------------------------------------------- */

static void report_kind(web_lines *l, const qkv_layer_desc *k)
{
    static const char *const kinds[] = {"?", "attention", "mla", "state"};
    char variant[32];

    web_text(l, "variant", qkv_layer_variant(k, variant, sizeof variant));
    web_text(l, "kind", kinds[k->kind]);
    web_whole(l, "heads", WHOLE(k->n_q_heads));
    web_whole(l, "kv_heads", WHOLE(k->n_kv_heads));
    web_whole(l, "head_dim", WHOLE(k->head_dim));
    web_whole(l, "head_dim_v", WHOLE(k->head_dim_v));
    web_whole(l, "latent", WHOLE(k->kv_lora_rank));
    web_whole(l, "rope_dim", WHOLE(k->rope_dim));
    web_whole(l, "window", WHOLE(k->window_left == QKV_UNBOUNDED ? 0 : k->window_left + 1));
    web_whole(l, "chunk", WHOLE(k->chunk_tokens));
}

void web_report_layers(web_lines *l, const qkv_model *m)
{
    char map[2 * QKV_MODEL_MAX_LAYERS + 1];
    const size_t at = web_enter(l, "layers");

    for (int32_t i = 0; i < m->n_layers; i++) {
        map[2 * i] = (char)('a' + m->kind_of[QKV_PART_DECODER][i]);
        map[2 * i + 1] = m->cache_of[i] == i ? '.' : '^'; /* its own cache, or another's */
    }
    map[2 * m->n_layers] = 0;
    web_text(l, "map", map);
    web_list(l, "kinds");
    const size_t kinds = web_enter(l, "kinds");
    for (int32_t i = 0; i < m->n_kinds; i++) {
        const size_t kind = web_enter_at(l, i);
        report_kind(l, &m->kinds[i]);
        web_leave(l, kind);
    }
    web_leave(l, kinds);
    web_leave(l, at);
}
