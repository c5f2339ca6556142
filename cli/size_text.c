/* size_text.c - the answers of qkv size for people. */
#include <stdio.h>
#include <string.h>

#include "size.h"

typedef unsigned long long u64;

/* ---- the question ------------------------------------------------------------------------- */

static void print_question(const size_report *r)
{
    static const char *const froms[] = {"", " (the model's own limit)", " (the most that fits)"};
    const size_subject *s = &r->subjects[0];
    const qkv_size_setup *q = &r->setup;
    char words[2048];

    printf("%s", s->name);
    if (s->model.model_type[0] != '\0')
        printf(" (%s)", s->model.model_type);
    printf(": %s\n", size_model_words(&s->model, words, sizeof words));
    printf("  context %lld tokens%s, %lld sequence%s\n", (long long)q->context,
           froms[r->context_from], (long long)q->batch, q->batch == 1 ? "" : "s");
    printf("  keys %s, values %s, pages of %d tokens; weights %d bits%s\n",
           qkv_size_format_name(q->k_format), qkv_size_format_name(q->v_format), q->page_tokens,
           q->weight_bits, r->weights_assumed ? " (assumed; say --weights)" : "");
    if (q->pairs == QKV_COUNT_SQUARE)
        puts("  all pairs of query and key counted, also hidden ones");
    if (s->model.unpriced[0] != '\0')
        printf("  not priced: %s\n", s->model.unpriced);
    if (s->parameters.missing & QKV_SIZE_PARTS)
        puts("  not priced: what models of this family have besides attention, blocks, norms and "
             "embeddings");
}

/* ---- the cache ---------------------------------------------------------------------------- */

static void print_bytes(const char *what, uint64_t bytes)
{
    printf("  %-34s %22llu bytes %12.3f GiB\n", what, (u64)bytes, (double)bytes / SIZE_GIB);
}

static void group_words(const qkv_size_group *g, char *text, size_t bytes)
{
    char sees[48] = "all tokens";
    if (g->kind == QKV_LAYER_STATE) {
        snprintf(text, bytes, "%d layer%s, states", g->n_layers, g->n_layers == 1 ? "" : "s");
        return;
    }
    if (g->window > 0)
        snprintf(sees, sizeof sees, "%llu tokens", (u64)g->tokens);
    snprintf(text, bytes, "%d layer%s%s, %s", g->n_layers, g->n_layers == 1 ? "" : "s",
             g->cross                   ? ", encoder's tokens"
             : g->kind == QKV_LAYER_MLA ? ", latent"
                                        : "",
             sees);
}

static void print_cache(const size_report *r)
{
    const qkv_size_cache *c = &r->subjects[0].cache;

    printf("\ncache: %llu elements, %llu bytes a token\n", (u64)c->elements, (u64)c->token_bytes);
    if (c->n_groups == 0)
        puts("  none: no layer of this model decodes");
    for (int32_t i = 0; i < c->n_groups; i++) {
        const qkv_size_group *g = &c->group[i];
        char words[96];
        group_words(g, words, sizeof words);
        print_bytes(words, g->payload);
        if (g->n_sharing > 0)
            printf("    and %d more layers that read these\n", g->n_sharing);
    }
    print_bytes("payload", c->payload);
    if (c->not_cached)
        puts("  allocated                          not by a qkv_cache, which has no such format");
    else
        print_bytes("allocated, with pages and tables", c->allocated);
}

static void print_ranks(const size_report *r)
{
    const qkv_size_rank *k = &r->subjects[0].rank;

    if (r->setup.ranks == 1)
        return;
    printf("\n%d ranks share %s\n", r->setup.ranks,
           r->setup.split == QKV_SPLIT_HEADS ? "heads" : "the context");
    print_bytes("payload of a rank", k->payload);
    print_bytes("allocated by a rank", k->allocated);
    printf("  each key and value is held by %d rank%s\n", k->copies, k->copies == 1 ? "" : "s");
    print_bytes("sent by a rank, decoding step", k->sent_step);
    print_bytes("sent by a rank, prefill", k->sent_prefill);
}

/* ---- parameters --------------------------------------------------------------------------- */

static void print_count(const char *what, uint64_t n) { printf("  %-34s %22llu\n", what, (u64)n); }

static void print_parameters(const size_report *r)
{
    const qkv_size_parameters *p = &r->subjects[0].parameters;

    puts("\nparameters");
    print_count("attention", p->attention);
    if (p->missing & QKV_SIZE_NO_MLP)
        puts("  blocks                             not counted: their width is not given");
    else
        print_count("blocks", p->mlp);
    if (p->experts > 0)
        print_count("  of these in experts", p->experts);
    print_count("norms", p->norms);
    if (p->missing & QKV_SIZE_NO_VOCAB)
        puts("  embeddings                         not counted: the vocabulary is not given");
    else
        print_count("embeddings and output", p->embeddings + p->head);
    print_count("all", p->total);
    if (p->active != p->total)
        print_count("that a token is multiplied by", p->active);
    if (r->subjects[0].fit.weights > 0)
        print_bytes(r->setup.ranks > 1 ? "weights of a rank" : "weights",
                    r->subjects[0].fit.weights);
}

/* ---- work --------------------------------------------------------------------------------- */

static const char *const headings[] = {"prefill", "in chunks", "decode", "no cache"};

static void print_work_row(const size_subject *s, int stage)
{
    printf("  %-10s", stage < QKV_SIZE_STAGES ? qkv_size_stage_name(stage) : "all");
    for (int i = 0; i < SIZE_STEPS; i++) {
        const qkv_size_stage *g =
            stage < QKV_SIZE_STAGES ? &s->steps[i].work.stage[stage] : &s->steps[i].work.all;
        if (s->steps[i].known)
            printf(" %22llu",
                   (u64)(stage == QKV_SIZE_SOFTMAX ? g->exponentials : g->multiply_adds));
        else
            printf(" %22s", "-");
    }
    putchar('\n');
}

static void print_last_rows(const size_subject *s)
{
    printf("  %-10s", "bytes");
    for (int i = 0; i < SIZE_STEPS; i++)
        if (s->steps[i].known)
            printf(" %22llu", (u64)s->steps[i].work.all.bytes);
        else
            printf(" %22s", "-");
    printf("\n  %-10s", "FLOPs/byte");
    for (int i = 0; i < SIZE_STEPS; i++)
        if (s->steps[i].known)
            printf(" %22.2f", 2 * (double)s->steps[i].work.all.multiply_adds /
                                  (double)s->steps[i].work.all.bytes);
        else
            printf(" %22s", "-");
    putchar('\n');
}

static int has_stage(const size_subject *s, int stage)
{
    for (int i = 0; i < SIZE_STEPS; i++)
        if (s->steps[i].known && (s->steps[i].work.stage[stage].multiply_adds > 0 ||
                                  s->steps[i].work.stage[stage].exponentials > 0))
            return 1;
    return 0;
}

static void print_work(const size_report *r)
{
    const size_subject *s = &r->subjects[0];
    const qkv_size_step *chunked = &s->steps[QKV_STEP_CHUNKED].step;

    puts("\nwork in multiply-adds (a FLOP count is twice that); softmax in exponentials");
    printf("  %-10s", "");
    for (int i = 0; i < SIZE_STEPS; i++)
        printf(" %22s", headings[i]);
    putchar('\n');
    for (int stage = 0; stage < QKV_SIZE_STAGES; stage++)
        if (has_stage(s, stage))
            print_work_row(s, stage);
    print_work_row(s, QKV_SIZE_STAGES);
    print_last_rows(s);
    printf("  prefill: %lld tokens of one sequence", (long long)r->setup.context);
    if (chunked->chunk > 0)
        printf("; in chunks of %lld", (long long)chunked->chunk);
    printf("; decode: the last of %lld, of %lld sequence%s; no cache: all of them again\n",
           (long long)r->setup.context, (long long)r->setup.batch, r->setup.batch == 1 ? "" : "s");
}

/* ---- time --------------------------------------------------------------------------------- */

static void print_seconds(const char *what, const qkv_size_seconds *t)
{
    if (t->bound == 0)
        return;
    printf("  %-24s %12.6g .. %-12.6g s  %10.2f FLOPs/byte  %s\n", what, t->best, t->worst,
           t->intensity, t->bound == QKV_BOUND_COMPUTE ? "compute" : "bandwidth");
}

static void print_time(const size_report *r)
{
    const size_subject *s = &r->subjects[0];
    const qkv_machine *m = &r->machine;
    const int wide = r->setup.compute == QKV_F32;

    if (!r->has_machine)
        return;
    printf("\ntime on %s: %s\n", m->name, m->source);
    printf(
        "  %.4g .. %.4g TFLOP/s (%s), %.5g .. %.5g GB/s; compute bound above %.1f FLOPs/byte%s\n",
        (wide ? m->flops_f32[0] : m->flops_16[0]) / 1e12,
        (wide ? m->flops_f32[1] : m->flops_16[1]) / 1e12, wide ? "f32" : "16 bits",
        m->bytes[0] / 1e9, m->bytes[1] / 1e9, s->steps[QKV_STEP_PREFILL].time.ridge,
        m->measured ? "" : "; data sheets, which no program reaches");
    for (int i = 0; i < SIZE_STEPS; i++) {
        char name[48];
        if (!s->steps[i].known || i == QKV_STEP_RECOMPUTE)
            continue;
        print_seconds(headings[i], &s->steps[i].time.all);
        snprintf(name, sizeof name, "  attention of it");
        print_seconds(name, &s->steps[i].time.attention);
    }
}

/* ---- what fits ---------------------------------------------------------------------------- */

static void print_fit(const size_report *r)
{
    const qkv_size_fit *f = &r->subjects[0].fit;

    if (r->budget.memory == 0 && !(r->budget.latency > 0))
        return;
    puts("\nfits?");
    if (r->budget.memory > 0) {
        print_bytes(r->setup.ranks > 1 ? "needed by a rank" : "needed", f->needed);
        if (f->weights > 0 && r->subjects[0].parameters.missing != 0)
            puts("  (without weights that are not counted above)");
        print_bytes("memory", r->budget.memory);
    }
    if (r->budget.latency > 0)
        printf("  decoding step at worst %.6g s, of %.6g s\n", f->latency, r->budget.latency);
    printf("  %s\n", f->fits ? "yes" : f->fits_memory ? "no: too slow" : "no: too large");
}

static void print_lines(const size_report *r, int explain)
{
    char text[QKV_SIZE_LINE];
    const qkv_model *m = &r->subjects[0].model;

    puts(explain ? "\nformulas" : "\nwhat the numbers say");
    for (int32_t n = 0;
         (explain ? qkv_size_explain(m, &r->setup, n, text, sizeof text)
                  : qkv_size_advice(m, &r->setup, &r->budget, n, text, sizeof text)) == QKV_OK;
         n++)
        printf("  %s\n", text);
}

int size_print_text(const size_report *r)
{
    print_question(r);
    print_cache(r);
    print_ranks(r);
    print_parameters(r);
    print_work(r);
    print_time(r);
    print_fit(r);
    size_print_answers(r);
    size_print_compared(r);
    print_lines(r, r->options->explain);
    return CLI_DONE;
}
