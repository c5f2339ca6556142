/* size_compare.c - what is said about each model, and the other models of --compare. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "size.h"

const char *size_step_word(int step)
{
    static const char *const words[] = {"prefill", "chunked_prefill", "decode",
                                        "decode_without_cache"};
    return step >= 0 && step < SIZE_STEPS ? words[step] : "?";
}

/* ---- one model ---------------------------------------------------------------------------- */

/* Does any layer keep something for a next token? */
static int decodes(const qkv_model *m)
{
    for (int32_t i = 0; i < m->n_layers; i++) {
        const qkv_layer_desc *l = &m->kinds[m->kind_of[QKV_PART_DECODER][i]];
        if (l->causal || l->kind == QKV_LAYER_STATE)
            return 1;
    }
    return 0;
}

static int fill_steps(const size_report *r, size_subject *s)
{
    char text[CLI_TEXT];

    for (int i = 0; i < SIZE_STEPS; i++) {
        if (i != QKV_STEP_PREFILL && !decodes(&s->model))
            continue;
        if (qkv_size_step_of(&r->setup, i, &s->steps[i].step, text, sizeof text) != QKV_OK)
            return cli_complain("%s", text);
        /* Counts of 2^63 and more are left out, not wrapped; the text says so. */
        s->steps[i].known = qkv_size_work_find(&s->model, &r->setup, &s->steps[i].step,
                                               &s->steps[i].work, text, sizeof text) == QKV_OK;
        if (s->steps[i].known && r->has_machine &&
            qkv_size_time_find(&s->steps[i].work, &r->setup, &r->machine, &s->steps[i].time, text,
                               sizeof text) != QKV_OK)
            return cli_complain("%s", text);
    }
    return CLI_DONE;
}

int size_fill_subject(const size_report *r, size_subject *s)
{
    char text[CLI_TEXT];
    const qkv_size_setup *setup = &r->setup;

    if (qkv_size_cache_find(&s->model, setup, &s->cache, text, sizeof text) != QKV_OK ||
        qkv_size_parameters_find(&s->model, &s->parameters, text, sizeof text) != QKV_OK ||
        qkv_size_rank_find(&s->model, setup, &s->rank, text, sizeof text) != QKV_OK ||
        qkv_size_fit_find(&s->model, setup, &r->budget, &s->fit, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->name, text);
    return fill_steps(r, s);
}

/* ---- others ------------------------------------------------------------------------------- */

/* "mha", "gqa:8", "mqa", "mla", "mla:512:64": 1 and the variant, 0 for something else, or -1. */
static int variant_of(const char *word, qkv_size_variant_of *v)
{
    int64_t a = 0, b = 0;
    char part[32];
    const char *colon = strchr(word, ':');

    memset(v, 0, sizeof *v);
    v->variant = strncmp(word, "mla", 3) == 0 ? QKV_VARIANT_MLA : QKV_VARIANT_HEADS;
    if (strcmp(word, "mha") == 0 || strcmp(word, "mla") == 0)
        return 1;
    if (strcmp(word, "mqa") == 0) {
        v->n_kv_heads = 1;
        return 1;
    }
    if (strncmp(word, "gqa:", 4) == 0) {
        if (cli_parse_integer("compare gqa", word + 4, 1, 65536, &a) != CLI_DONE)
            return -1;
        v->n_kv_heads = (int32_t)a;
        return 1;
    }
    if (strncmp(word, "mla:", 4) != 0)
        return 0;
    const char *second = strchr(colon + 1, ':');
    snprintf(part, sizeof part, "%.*s", second ? (int)(second - colon - 1) : 31, colon + 1);
    if (cli_parse_integer("compare mla", part, 1, 1024, &a) != CLI_DONE ||
        (second && cli_parse_integer("compare mla", second + 1, 1, 1024, &b) != CLI_DONE))
        return -1;
    v->kv_lora_rank = (int32_t)a;
    v->rope_dim = (int32_t)b;
    return 1;
}

static int add_other(size_report *r, const char *word)
{
    char text[CLI_TEXT];
    qkv_size_variant_of v;
    size_subject *s = &r->subjects[r->n_subjects];
    const int kind = variant_of(word, &v);

    if (kind < 0)
        return CLI_WRONG;
    snprintf(s->name, sizeof s->name, "%s", word);
    if (kind == 0) {
        if (size_model_of_config(word, NULL, &s->model) != CLI_DONE)
            return CLI_WRONG;
    } else if (qkv_size_variant(&r->subjects[0].model, &v, &s->model, text, sizeof text) !=
               QKV_OK) {
        return cli_complain("--compare %s: %s", word, text);
    }
    r->n_subjects++;
    return size_fill_subject(r, s);
}

int size_add_others(size_report *r)
{
    char *words = r->options->compare != NULL ? strdup(r->options->compare) : NULL, *rest = words;
    int code = CLI_DONE;

    if (r->options->compare != NULL && words == NULL)
        return cli_complain_memory("--compare", strlen(r->options->compare));
    for (char *word; code == CLI_DONE && rest != NULL && (word = strsep(&rest, ",")) != NULL;) {
        if (r->n_subjects > SIZE_MAX_OTHERS)
            code = cli_complain("--compare has more than %d models", SIZE_MAX_OTHERS);
        else if (*word == '\0')
            code = cli_complain("--compare is %s; accepted are mha, gqa:N, mqa, mla, mla:C:R and "
                                "configurations, with commas between",
                                r->options->compare);
        else
            code = add_other(r, word);
    }
    free(words);
    return code;
}

/* ---- the other way round ------------------------------------------------------------------ */

int size_answer(size_report *r)
{
    char text[CLI_TEXT];

    for (int i = 0; i < r->options->n_solve; i++)
        if (qkv_size_solve(&r->subjects[0].model, &r->setup, &r->budget, r->options->solve[i],
                           &r->answers[i], text, sizeof text) != QKV_OK)
            return cli_complain("--solve %s: %s", size_solve_word(r->options->solve[i]), text);
    return CLI_DONE;
}
