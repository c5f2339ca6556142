/*
 * size.c - qkv size: what a model's attention costs, and what fits.
 *
 * All counting is done by qkv/sizing.h; here the question is put together and the answer printed.
 */
#include "size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Is the context what is asked for, and nothing else? */
static int asks_context(const size_options *o)
{
    return !o->context_given && o->n_solve == 1 && o->solve[0] == QKV_SOLVE_CONTEXT;
}

/* The context: given, or what the model is for, or the answer. */
static int resolve_context(size_report *r, const qkv_model *m)
{
    if (r->options->context_given)
        return CLI_DONE;
    if (asks_context(r->options)) {
        r->setup.context = 1;
        r->context_from = SIZE_SOLVED;
        return CLI_DONE;
    }
    if (m->max_positions < 1 || m->max_positions > INT32_MAX)
        return cli_complain("--context is not given, and the model's own limit is %s",
                            m->max_positions < 1 ? "not there" : "more than 2147483647 tokens");
    r->setup.context = m->max_positions;
    r->context_from = SIZE_FROM_MODEL;
    return CLI_DONE;
}

/* Weights: given, or the type that the configuration says. */
static void resolve_weights(size_report *r, const qkv_model *m)
{
    const size_t bytes = qkv_type_size((qkv_type)m->weight_type);

    if (!r->options->weights_given && bytes > 0)
        r->setup.weight_bits = (int32_t)(8 * bytes);
    r->weights_assumed = !r->options->weights_given && bytes == 0;
    if (!r->options->compute_given && m->weight_type == QKV_F32 && !r->options->weights_given)
        r->setup.compute = QKV_F32;
}

static int prepare(size_report *r, const size_options *o)
{
    size_subject *s = &r->subjects[0];
    const int code = o->config != NULL ? size_model_of_config(o->config, o->as, &s->model)
                                       : size_model_of_flags(&o->flags, &s->model);

    if (code != CLI_DONE)
        return code;
    r->n_subjects = 1;
    r->options = o;
    r->setup = o->setup;
    r->budget.memory = o->memory;
    r->budget.latency = o->latency;
    snprintf(s->name, sizeof s->name, "%s", o->config != NULL ? o->config : "model in flags");
    if (o->machine != NULL) {
        if (size_machine_of(o->machine, &r->machine) != CLI_DONE)
            return CLI_WRONG;
        r->has_machine = 1;
        r->budget.machine = &r->machine;
    }
    resolve_weights(r, &s->model);
    return resolve_context(r, &s->model);
}

/* 1 if what was asked for does not fit. */
static int verdict(const size_report *r)
{
    for (int i = 0; i < r->options->n_solve; i++)
        if (!r->answers[i].found)
            return CLI_CHECK_FAILED;
    return r->options->n_solve > 0 || r->subjects[0].fit.fits ? CLI_DONE : CLI_CHECK_FAILED;
}

static int print(const size_report *r)
{
    if (r->options->json)
        return size_print_json(r);
    return r->options->csv ? size_print_csv(r) : size_print_text(r);
}

static int run(size_report *r, const size_options *o)
{
    int code = prepare(r, o);

    if (code == CLI_DONE && r->context_from == SIZE_SOLVED) {
        code = size_answer(r);
        r->setup.context = r->answers[0].value;
    }
    if (code == CLI_DONE)
        code = size_fill_subject(r, &r->subjects[0]);
    if (code == CLI_DONE)
        code = size_add_others(r);
    if (code == CLI_DONE && r->context_from != SIZE_SOLVED)
        code = size_answer(r);
    if (code == CLI_DONE)
        code = print(r);
    return code == CLI_DONE ? verdict(r) : code;
}

int cli_size(int argc, char **argv)
{
    size_options options;
    size_report report;

    if (size_parse(&options, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (options.help) {
        fputs(cli_help_page("size"), stdout);
        return CLI_DONE;
    }
    if (options.machines) {
        size_list_machines();
        return CLI_DONE;
    }
    memset(&report, 0, sizeof report);
    report.subjects = calloc(SIZE_MAX_OTHERS + 1, sizeof *report.subjects);
    if (report.subjects == NULL)
        return cli_complain_memory("the report", (SIZE_MAX_OTHERS + 1) * sizeof *report.subjects);
    const int code = run(&report, &options);
    free(report.subjects);
    return code;
}
