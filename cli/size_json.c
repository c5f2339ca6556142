/* size_json.c - the answers of qkv size as JSON; docs/sizing.md has the schema. */
#include <stdio.h>

#include "size.h"

enum { SCHEMA_VERSION = 1 };

static json_t *whole(uint64_t n) { return json_integer((json_int_t)n); }

static void set(json_t *to, const char *name, uint64_t n)
{
    json_object_set_new(to, name, whole(n));
}

/* ---- cache -------------------------------------------------------------------------------- */

static json_t *json_group(const qkv_size_group *g)
{
    static const char *const kinds[] = {"?", "attention", "mla", "state"};
    json_t *o = json_object();

    json_object_set_new(o, "kind", json_string(kinds[g->kind]));
    json_object_set_new(o, "cross", json_boolean(g->cross));
    set(o, "layers", (uint64_t)g->n_layers);
    set(o, "layers_sharing", (uint64_t)g->n_sharing);
    set(o, "kv_heads", (uint64_t)g->n_kv_heads);
    set(o, "head_dim", (uint64_t)g->head_dim);
    set(o, "head_dim_v", (uint64_t)g->head_dim_v);
    json_object_set_new(o, "window", g->window > 0 ? whole((uint64_t)g->window) : json_null());
    set(o, "elements_token", g->elements);
    set(o, "tokens", g->tokens);
    set(o, "pages", g->pages);
    set(o, "page_bytes", g->page_bytes);
    set(o, "bytes_token", g->token_bytes);
    set(o, "payload", g->payload);
    set(o, "allocated", g->allocated);
    return o;
}

static json_t *json_cache(const qkv_size_cache *c)
{
    json_t *o = json_object(), *groups = json_array();

    set(o, "elements_token", c->elements);
    set(o, "bytes_token", c->token_bytes);
    set(o, "state_bytes", c->state);
    set(o, "payload", c->payload);
    json_object_set_new(o, "allocated", c->not_cached ? json_null() : whole(c->allocated));
    for (int32_t i = 0; i < c->n_groups; i++)
        json_array_append_new(groups, json_group(&c->group[i]));
    json_object_set_new(o, "groups", groups);
    return o;
}

/* ---- parameters and work ------------------------------------------------------------------ */

static json_t *json_parameters(const qkv_size_parameters *p)
{
    json_t *o = json_object(), *missing = json_array();

    set(o, "total", p->total);
    set(o, "active", p->active);
    set(o, "attention", p->attention);
    set(o, "attention_matrices", p->matrices);
    set(o, "attention_layer", p->layer[QKV_PART_DECODER]);
    set(o, "states", p->states);
    set(o, "blocks", p->mlp);
    set(o, "experts", p->experts);
    set(o, "norms", p->norms);
    set(o, "embeddings", p->embeddings);
    set(o, "head", p->head);
    if (p->missing & QKV_SIZE_NO_MLP)
        json_array_append_new(missing, json_string("blocks"));
    if (p->missing & QKV_SIZE_NO_VOCAB)
        json_array_append_new(missing, json_string("embeddings"));
    if (p->missing & QKV_SIZE_PARTS)
        json_array_append_new(missing, json_string("other_parts"));
    json_object_set_new(o, "not_counted", missing);
    return o;
}

static json_t *json_stage(const qkv_size_stage *s)
{
    json_t *o = json_object();

    set(o, "multiply_adds", s->multiply_adds);
    set(o, "exponentials", s->exponentials);
    set(o, "bytes", s->bytes);
    set(o, "bytes_least", s->bytes_least);
    return o;
}

static json_t *json_seconds(const qkv_size_seconds *t)
{
    return json_pack("{s:f, s:f, s:f, s:s?}", "best", t->best, "worst", t->worst, "intensity",
                     t->intensity, "bound",
                     t->bound == QKV_BOUND_COMPUTE     ? "compute"
                     : t->bound == QKV_BOUND_BANDWIDTH ? "bandwidth"
                                                       : NULL);
}

static json_t *json_step(const size_report *r, const size_subject *s, int step)
{
    const qkv_size_work *w = &s->steps[step].work;
    const qkv_size_step *t = &s->steps[step].step;
    json_t *o = json_object(), *stages = json_object(), *seconds = json_object();

    set(o, "sequences", (uint64_t)t->n_seqs);
    set(o, "new_tokens", (uint64_t)t->n_new);
    set(o, "past_tokens", (uint64_t)t->past);
    json_object_set_new(o, "chunk", t->chunk > 0 ? whole((uint64_t)t->chunk) : json_null());
    json_object_set_new(o, "absorbed", json_boolean(w->absorbed));
    set(o, "pairs", w->pairs);
    set(o, "cache_read", w->cache_read);
    set(o, "cache_written", w->cache_written);
    set(o, "weights_read", w->weights_read);
    json_object_set_new(o, "all", json_stage(&w->all));
    for (int i = 0; i < QKV_SIZE_STAGES; i++)
        json_object_set_new(stages, qkv_size_stage_name(i), json_stage(&w->stage[i]));
    json_object_set_new(o, "stages", stages);
    if (!r->has_machine) {
        json_decref(seconds);
        return o;
    }
    json_object_set_new(seconds, "all", json_seconds(&s->steps[step].time.all));
    json_object_set_new(seconds, "attention", json_seconds(&s->steps[step].time.attention));
    for (int i = 0; i < QKV_SIZE_STAGES; i++)
        json_object_set_new(seconds, qkv_size_stage_name(i),
                            json_seconds(&s->steps[step].time.stage[i]));
    json_object_set_new(o, "seconds", seconds);
    return o;
}

/* ---- a model ------------------------------------------------------------------------------ */

static json_t *json_fit(const qkv_size_fit *f)
{
    json_t *o = json_object();

    json_object_set_new(o, "fits", json_boolean(f->fits));
    json_object_set_new(o, "fits_memory", json_boolean(f->fits_memory));
    json_object_set_new(o, "fits_latency", json_boolean(f->fits_latency));
    set(o, "weights", f->weights);
    set(o, "cache", f->cache);
    set(o, "needed", f->needed);
    json_object_set_new(o, "decode_seconds_worst", json_real(f->latency));
    return o;
}

static json_t *json_subject(const size_report *r, const size_subject *s)
{
    json_t *o = json_object(), *work = json_object(), *rank = json_object();

    json_object_set_new(o, "name", json_string(s->name));
    json_object_set_new(o, "model_type", json_string(s->model.model_type));
    json_object_set_new(o, "not_priced", json_string(s->model.unpriced));
    set(o, "layers", (uint64_t)s->model.n_layers);
    set(o, "d_model", (uint64_t)s->model.d_model);
    json_object_set_new(o, "cache", json_cache(&s->cache));
    json_object_set_new(o, "parameters", json_parameters(&s->parameters));
    for (int i = 0; i < SIZE_STEPS; i++)
        json_object_set_new(work, size_step_word(i),
                            s->steps[i].known ? json_step(r, s, i) : json_null());
    json_object_set_new(o, "work", work);
    set(rank, "payload", s->rank.payload);
    set(rank, "allocated", s->rank.allocated);
    set(rank, "sent_decode", s->rank.sent_step);
    set(rank, "sent_prefill", s->rank.sent_prefill);
    set(rank, "copies", (uint64_t)s->rank.copies);
    json_object_set_new(o, "rank", rank);
    json_object_set_new(o, "fit", json_fit(&s->fit));
    return o;
}

/* ---- all ---------------------------------------------------------------------------------- */

static json_t *json_setup(const size_report *r)
{
    const qkv_size_setup *s = &r->setup;
    json_t *o = json_object();

    set(o, "context", (uint64_t)s->context);
    json_object_set_new(o, "context_from_model", json_boolean(r->context_from == SIZE_FROM_MODEL));
    set(o, "batch", (uint64_t)s->batch);
    json_object_set_new(o, "k_format", json_string(qkv_size_format_name(s->k_format)));
    json_object_set_new(o, "v_format", json_string(qkv_size_format_name(s->v_format)));
    set(o, "k_group", (uint64_t)s->k_group);
    set(o, "v_group", (uint64_t)s->v_group);
    set(o, "page_tokens", (uint64_t)s->page_tokens);
    set(o, "weight_bits", (uint64_t)s->weight_bits);
    json_object_set_new(o, "weight_bits_assumed", json_boolean(r->weights_assumed));
    json_object_set_new(o, "compute", json_string(qkv_type_name((qkv_type)s->compute)));
    json_object_set_new(o, "pairs",
                        json_string(s->pairs == QKV_COUNT_SQUARE ? "square" : "visible"));
    set(o, "ranks", (uint64_t)s->ranks);
    json_object_set_new(o, "split", json_string(s->split == QKV_SPLIT_HEADS ? "heads" : "context"));
    set(o, "reserve", s->reserve);
    json_object_set_new(o, "cache_only", json_boolean(s->cache_only));
    return o;
}

static json_t *json_machine(const qkv_machine *m)
{
    return json_pack("{s:s, s:s, s:b, s:[ff], s:[ff], s:[ff], s:I}", "name", m->name, "source",
                     m->source, "measured", m->measured, "flops_f32", m->flops_f32[0],
                     m->flops_f32[1], "flops_16", m->flops_16[0], m->flops_16[1],
                     "bytes_per_second", m->bytes[0], m->bytes[1], "memory", (json_int_t)m->memory);
}

static json_t *json_answers(const size_report *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->options->n_solve; i++) {
        const qkv_size_answer *a = &r->answers[i];
        const int32_t what = r->options->solve[i];
        json_t *o = json_object();
        json_object_set_new(o, "what", json_string(size_solve_word(what)));
        json_object_set_new(o, "found", json_boolean(a->found));
        json_object_set_new(o, "limited", json_boolean(a->limited));
        json_object_set_new(o, "value",
                            what == QKV_SOLVE_FORMAT
                                ? json_string(qkv_size_format_name((int32_t)a->value))
                                : json_integer(a->value));
        json_object_set_new(o, "fit", json_fit(&a->fit));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *json_lines(const size_report *r, int explain)
{
    char text[QKV_SIZE_LINE];
    json_t *list = json_array();
    const qkv_model *m = &r->subjects[0].model;

    for (int32_t n = 0;
         (explain ? qkv_size_explain(m, &r->setup, n, text, sizeof text)
                  : qkv_size_advice(m, &r->setup, &r->budget, n, text, sizeof text)) == QKV_OK;
         n++)
        json_array_append_new(list, json_string(text));
    return list;
}

int size_print_json(const size_report *r)
{
    json_t *o = json_object(), *models = json_array();

    json_object_set_new(o, "schema", json_string("qkv-size"));
    set(o, "schema_version", SCHEMA_VERSION);
    json_object_set_new(o, "setup", json_setup(r));
    json_object_set_new(o, "machine", r->has_machine ? json_machine(&r->machine) : json_null());
    json_object_set_new(o, "memory", r->budget.memory > 0 ? whole(r->budget.memory) : json_null());
    json_object_set_new(o, "latency",
                        r->budget.latency > 0 ? json_real(r->budget.latency) : json_null());
    for (int i = 0; i < r->n_subjects; i++)
        json_array_append_new(models, json_subject(r, &r->subjects[i]));
    json_object_set_new(o, "models", models);
    json_object_set_new(o, "solved", json_answers(r));
    json_object_set_new(o, "advice", json_lines(r, 0));
    json_object_set_new(o, "formulas", json_lines(r, 1));
    return cli_print_json(o);
}
