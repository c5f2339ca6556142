/* size.c - sizing for JavaScript: a web_size as qkv_size_setup and qkv_size_budget. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "qkv/qkv.h"
#include "report.h"
#include "web.h"

static const char *const names[] = {
#define FIELD(name) #name,
#include "size.inc"
#undef FIELD
};

const char *web_size_field(int index)
{
    const int n = (int)(sizeof names / sizeof *names);
    return index >= 0 && index < n ? names[index] : NULL;
}

/* What is out of a field's range is refused by name later. */
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

void web_size_defaults(web_size *w)
{
    qkv_size_setup s;

    qkv_size_setup_init(&s);
    memset(w, 0, sizeof *w);
    w->context = w->weight_bits = w->compute = NAN;
    w->batch = (double)s.batch;
    w->chunk = (double)s.chunk;
    w->memory_tokens = (double)s.memory_tokens;
    w->k_format = s.k_format;
    w->v_format = s.v_format;
    w->k_group = s.k_group;
    w->v_group = s.v_group;
    w->k_scale = s.k_scale;
    w->v_scale = s.v_scale;
    w->float_type = s.float_type;
    w->page_tokens = s.page_tokens;
    w->pairs = s.pairs;
    w->absorbed = s.absorbed;
    w->ranks = s.ranks;
    w->split = s.split;
    w->machine = -1;
}

/* ---- the model ------------------------------------------------------------------------------ */

static qkv_model model, changed; /* as read, and with another attention */
static int there;                /* is there a model? */

static qkv_status refuse(char *text, size_t bytes, const char *sentence)
{
    snprintf(text, bytes, "%s", sentence);
    return QKV_ERR_ARGUMENT;
}

int web_model_read(const char *as, char *text, size_t bytes)
{
    const qkv_config config = web_config();
    const qkv_status status = qkv_model_read(&config, as, &model, text, bytes);
    there = status == QKV_OK;
    return status;
}

static void describe(const web_size *w, qkv_layer_desc *l)
{
    const double dim = w->head_dim > 0 ? w->head_dim : floor(w->d_model / w->heads);

    qkv_layer_desc_init(l);
    l->d_model = i32_of(w->d_model);
    l->n_q_heads = i32_of(w->heads);
    l->n_kv_heads = i32_of(w->kv_heads > 0 ? w->kv_heads : w->heads);
    l->head_dim = i32_of(dim + w->rope_dim);
    l->head_dim_v = i32_of(w->head_dim_v > 0 ? w->head_dim_v : dim);
    if (w->latent > 0) {
        l->kind = QKV_LAYER_MLA;
        l->n_kv_heads = l->n_q_heads;
        l->kv_lora_rank = i32_of(w->latent);
        l->rope_dim = i32_of(w->rope_dim);
        l->q_lora_rank = i32_of(w->q_latent);
    }
    if (w->window > 0)
        l->window_left = i64_of(w->window) - 1;
}

/* Every full_every-th layer without the window, as in the flags of qkv size. */
static void interleave(const web_size *w)
{
    const int32_t every = i32_of(w->full_every);

    model.n_kinds = 2;
    model.kinds[1] = model.kinds[0];
    model.kinds[1].window_left = QKV_UNBOUNDED;
    for (int32_t i = 0; i < model.n_layers; i++)
        model.kind_of[QKV_PART_DECODER][i] = (i + 1) % every == 0;
}

int web_model_of(const web_size *w, char *text, size_t bytes)
{
    qkv_layer_desc layer;

    there = 0;
    if (!(w->heads >= 1))
        return refuse(text, bytes, "heads is not 1 or more");
    if (w->latent > 0 && w->kv_heads > 0)
        return refuse(text, bytes, "kv_heads is given with latent, which all heads share");
    if (!(w->latent > 0) && w->rope_dim > 0)
        return refuse(text, bytes, "rope_dim is given without latent");
    if (w->full_every >= 1 && !(w->window > 0))
        return refuse(text, bytes, "full_every is given without window");
    describe(w, &layer);
    const qkv_status status = qkv_size_model_of(&layer, i32_of(w->layers), &model, text, bytes);
    if (status != QKV_OK)
        return status;
    if (w->full_every >= 1)
        interleave(w);
    model.d_ff = i32_of(w->d_ff);
    model.ffn_gated = 1;
    model.vocab_size = i64_of(w->vocab);
    model.tied_embeddings = w->tied != 0;
    model.norms_a_layer = 2;
    model.norms_besides = 1;
    there = 1;
    return QKV_OK;
}

/* ---- the question --------------------------------------------------------------------------- */

typedef struct question {
    const qkv_model *model;
    qkv_size_setup setup;
    qkv_size_budget budget;
    qkv_machine machine;
    int context_assumed, weights_assumed;
} question;

static void set_setup(const web_size *w, qkv_size_setup *s)
{
    qkv_size_setup_init(s);
    s->batch = i64_of(w->batch);
    s->chunk = i64_of(w->chunk);
    s->memory_tokens = i64_of(w->memory_tokens);
    s->k_format = i32_of(w->k_format);
    s->v_format = i32_of(w->v_format);
    s->k_group = i32_of(w->k_group);
    s->v_group = i32_of(w->v_group);
    s->k_scale = i32_of(w->k_scale);
    s->v_scale = i32_of(w->v_scale);
    s->float_type = i32_of(w->float_type);
    s->page_tokens = i32_of(w->page_tokens);
    s->pairs = i32_of(w->pairs);
    s->absorbed = i32_of(w->absorbed);
    s->ranks = i32_of(w->ranks);
    s->split = i32_of(w->split);
    s->cache_only = i32_of(w->cache_only);
    s->reserve = (uint64_t)i64_of(w->reserve);
}

/* What is not given follows from the configuration, as in qkv size. */
static qkv_status resolve(const web_size *w, question *q, char *text, size_t bytes)
{
    const size_t own = qkv_type_size((qkv_type)model.weight_type);

    q->context_assumed = isnan(w->context);
    if (q->context_assumed && model.max_positions < 1)
        return refuse(text, bytes, "context is not given, and the model has no limit of its own");
    q->setup.context = q->context_assumed ? model.max_positions : i64_of(w->context);
    q->weights_assumed = isnan(w->weight_bits) && own == 0;
    if (!isnan(w->weight_bits))
        q->setup.weight_bits = i32_of(w->weight_bits);
    else if (own > 0)
        q->setup.weight_bits = (int32_t)(8 * own);
    if (!isnan(w->compute))
        q->setup.compute = i32_of(w->compute);
    else if (model.weight_type == QKV_F32 && isnan(w->weight_bits))
        q->setup.compute = QKV_F32;
    return QKV_OK;
}

static qkv_status set_machine(const web_size *w, question *q, char *text, size_t bytes)
{
    const int32_t index = i32_of(w->machine);
    const qkv_machine *known = qkv_machine_at(index);

    memset(&q->machine, 0, sizeof q->machine);
    q->budget.machine = index == -1 ? NULL : &q->machine;
    if (index == -2) {
        snprintf(q->machine.name, sizeof q->machine.name, "own");
        snprintf(q->machine.source, sizeof q->machine.source, "rates given here");
        for (int i = 0; i < 2; i++) {
            q->machine.flops_f32[i] = w->machine_f32;
            q->machine.flops_16[i] = w->machine_16;
            q->machine.bytes[i] = w->machine_bytes;
        }
    } else if (known) {
        q->machine = *known;
    } else if (index != -1) {
        return refuse(text, bytes, "machine is no built-in one");
    }
    return QKV_OK;
}

static qkv_status ask(const web_size *w, question *q, char *text, size_t bytes)
{
    const qkv_size_variant_of variant = {
        i32_of(w->variant), i32_of(w->variant_kv_heads), i32_of(w->variant_latent),
        i32_of(w->variant_rope), i32_of(w->variant_q_latent), 0};

    if (!there)
        return refuse(text, bytes, "there is no model yet");
    memset(q, 0, sizeof *q);
    q->model = &model;
    q->budget.memory = (uint64_t)i64_of(w->memory);
    q->budget.latency = w->latency;
    set_setup(w, &q->setup);
    qkv_status status = resolve(w, q, text, bytes);
    if (status == QKV_OK)
        status = set_machine(w, q, text, bytes);
    if (status == QKV_OK && variant.variant != 0) {
        status = qkv_size_variant(&model, &variant, &changed, text, bytes);
        q->model = &changed;
    }
    return status;
}

/* ---- answers -------------------------------------------------------------------------------- */

static void report_words(web_lines *l, const question *q, int explain)
{
    const char *name = explain ? "formulas" : "advice";
    char line[QKV_SIZE_LINE], place[16];

    web_list(l, name);
    const size_t at = web_enter(l, name);
    for (int32_t n = 0;
         (explain ? qkv_size_explain(q->model, &q->setup, n, line, sizeof line)
                  : qkv_size_advice(q->model, &q->setup, &q->budget, n, line, sizeof line)) ==
         QKV_OK;
         n++) {
        snprintf(place, sizeof place, "%d", (int)n);
        web_text(l, place, line);
    }
    web_leave(l, at);
}

static void report_budget(web_lines *l, const question *q)
{
    if (q->budget.machine)
        web_report_machine(l, "machine", q->budget.machine);
    else
        web_null(l, "machine");
    if (q->budget.memory > 0)
        web_whole(l, "memory", q->budget.memory);
    else
        web_null(l, "memory");
    if (q->budget.latency > 0)
        web_real(l, "latency", q->budget.latency);
    else
        web_null(l, "latency");
}

static qkv_status finish(const web_lines *l, qkv_status status, char *text, size_t bytes)
{
    if (status != QKV_OK || !l->cut)
        return status;
    snprintf(text, bytes, "the report is longer than its %zu bytes", l->bytes);
    return QKV_ERR_BUFFER;
}

int web_size_report(const web_size *w, char *lines, size_t lines_bytes, char *text, size_t bytes)
{
    web_lines l = web_lines_begin(lines, lines_bytes);
    question q;
    qkv_status status = ask(w, &q, text, bytes);

    if (status != QKV_OK)
        return status;
    web_text(&l, "schema", "qkv-size");
    web_whole(&l, "schema_version", 1);
    web_report_setup(&l, &q.setup, q.context_assumed, q.weights_assumed);
    report_budget(&l, &q);
    status = web_report_model(&l, q.model, &q.setup, &q.budget, text, bytes);
    report_words(&l, &q, 0);
    report_words(&l, &q, 1);
    web_report_layers(&l, q.model);
    return finish(&l, status, text, bytes);
}

int web_size_curve(const web_size *w, int n, const double *contexts, double *payload,
                   double *allocated, char *text, size_t bytes)
{
    question q;
    qkv_size_cache cache;
    qkv_status status = ask(w, &q, text, bytes);

    for (int i = 0; i < n && status == QKV_OK; i++) {
        q.setup.context = i64_of(contexts[i]);
        status = qkv_size_cache_find(q.model, &q.setup, &cache, text, bytes);
        if (status == QKV_OK) {
            payload[i] = (double)cache.payload;
            allocated[i] = (double)cache.allocated;
        }
    }
    return status;
}

int web_size_solve(const web_size *w, int what, char *lines, size_t lines_bytes, char *text,
                   size_t bytes)
{
    static const char *const words[] = {"?", "context", "users", "groups", "format"};
    web_lines l = web_lines_begin(lines, lines_bytes);
    question q;
    qkv_size_answer a;
    qkv_status status = ask(w, &q, text, bytes);

    if (status == QKV_OK)
        status = qkv_size_solve(q.model, &q.setup, &q.budget, what, &a, text, bytes);
    if (status != QKV_OK)
        return status;
    web_text(&l, "what", words[what >= 1 && what <= 4 ? what : 0]);
    web_bool(&l, "found", a.found);
    web_bool(&l, "limited", a.limited);
    if (what == QKV_SOLVE_FORMAT)
        web_text(&l, "value", qkv_size_format_name((int32_t)a.value));
    else
        web_whole(&l, "value", (uint64_t)a.value);
    web_report_fit(&l, "fit", &a.fit);
    return finish(&l, status, text, bytes);
}

const char *web_format_name(int format)
{
    const char *name = qkv_size_format_name(format);
    return strcmp(name, "?") != 0 ? name : NULL;
}

int web_machine(int index, char *lines, size_t lines_bytes)
{
    web_lines l = web_lines_begin(lines, lines_bytes);
    const qkv_machine *m = qkv_machine_at(index);

    if (!m)
        return QKV_ERR_ARGUMENT;
    web_report_machine(&l, "machine", m);
    return l.cut ? QKV_ERR_BUFFER : QKV_OK;
}
