/* size_table.c - qkv size: models beside each other, and answers to --solve; as text and as CSV. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "size.h"

typedef unsigned long long u64;

/* ---- side by side ------------------------------------------------------------------------- */

void size_print_compared(const size_report *r)
{
    const size_subject *first = &r->subjects[0];

    if (r->n_subjects < 2)
        return;
    puts("\nside by side");
    printf("  %-28s %14s %9s %12s %20s %16s %20s", "", "elements/token", "cache", "cache GiB",
           "cache bytes", "parameters", "decode bytes");
    printf(r->has_machine ? " %23s\n" : "\n", "decode s");
    for (int i = 0; i < r->n_subjects; i++) {
        const size_subject *s = &r->subjects[i];
        const int known = s->steps[QKV_STEP_DECODE].known;
        const size_t length = strlen(s->name);
        printf(
            "  %-28s %14llu %8.4gx %12.3f %20llu %16llu %20llu",
            s->name + (length > 28 ? length - 28 : 0), /* of a path, the end tells more */
            (u64)s->cache.elements,
            first->cache.payload > 0 ? (double)s->cache.payload / (double)first->cache.payload : 0,
            (double)s->cache.payload / SIZE_GIB, (u64)s->cache.payload, (u64)s->parameters.total,
            known ? (u64)s->steps[QKV_STEP_DECODE].work.all.bytes : 0);
        if (r->has_machine && known)
            printf(" %10.4g .. %-10.4g", s->steps[QKV_STEP_DECODE].time.all.best,
                   s->steps[QKV_STEP_DECODE].time.all.worst);
        if (r->budget.memory > 0 || r->budget.latency > 0)
            printf("  %s", s->fit.fits ? "fits" : "does not fit");
        putchar('\n');
    }
}

/* ---- the other way round ------------------------------------------------------------------ */

void size_print_answers(const size_report *r)
{
    static const char *const words[] = {"", "longest context", "most sequences",
                                        "most key/value heads", "widest format"};

    if (r->options->n_solve > 0)
        puts("\nsolved for");
    for (int i = 0; i < r->options->n_solve; i++) {
        const qkv_size_answer *a = &r->answers[i];
        const int32_t what = r->options->solve[i];
        printf("  %-22s ", words[what]);
        if (!a->found)
            printf("nothing fits: even ");
        if (what == QKV_SOLVE_FORMAT)
            printf("%s", qkv_size_format_name((int32_t)a->value));
        else
            printf("%lld", (long long)a->value);
        printf(" %s %llu bytes (%.3f GiB)", a->found ? "needs" : "would need", (u64)a->fit.needed,
               (double)a->fit.needed / SIZE_GIB);
        if (r->budget.latency > 0)
            printf(", %.6g s a step at worst", a->fit.latency);
        puts(a->limited ? "; no more is possible, whatever the budget" : "");
        if (what == QKV_SOLVE_CONTEXT && r->subjects[0].model.max_positions > 0 &&
            a->value > r->subjects[0].model.max_positions)
            printf("  %-22s (the model itself is for %lld tokens)\n", "",
                   (long long)r->subjects[0].model.max_positions);
    }
}

/* ---- CSV ---------------------------------------------------------------------------------- */

/* RFC 4180: quotes doubled. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_step_columns(const size_subject *s, int step)
{
    if (!s->steps[step].known) {
        printf(",,,");
        return;
    }
    const qkv_size_work *w = &s->steps[step].work;
    printf(",%" PRIu64 ",%" PRIu64 ",%" PRIu64, w->all.multiply_adds,
           w->stage[QKV_SIZE_SCORES].multiply_adds + w->stage[QKV_SIZE_VALUES].multiply_adds,
           w->all.bytes);
}

int size_print_csv(const size_report *r)
{
    printf("model,context,batch,cache_elements_token,cache_bytes_token,cache_payload_bytes,"
           "cache_allocated_bytes,parameters,parameters_attention,weights_bytes,needed_bytes,fits");
    for (int i = 0; i < SIZE_STEPS; i++)
        printf(",%s_multiply_adds,%s_attention_multiply_adds,%s_bytes", size_step_word(i),
               size_step_word(i), size_step_word(i));
    printf("\r\n");
    for (int i = 0; i < r->n_subjects; i++) {
        const size_subject *s = &r->subjects[i];
        print_quoted(s->name);
        printf(",%lld,%lld,%" PRIu64 ",%" PRIu64 ",%" PRIu64, (long long)r->setup.context,
               (long long)r->setup.batch, s->cache.elements, s->cache.token_bytes,
               s->cache.payload);
        if (s->cache.not_cached)
            printf(",");
        else
            printf(",%" PRIu64, s->cache.allocated);
        printf(",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d", s->parameters.total,
               s->parameters.attention, s->fit.weights, s->fit.needed, s->fit.fits);
        for (int k = 0; k < SIZE_STEPS; k++)
            print_step_columns(s, k);
        printf("\r\n");
    }
    return CLI_DONE;
}
