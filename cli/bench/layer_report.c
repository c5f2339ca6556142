/* layer_report.c - cases of layers as a table and as JSON. */
#include <stdio.h>

#include "layer_bench.h"

static const char *const part_names[LAYER_N_PARTS] = {"layer", "attention", "projections", "rest"};

void layer_print_head(const layer_options *o)
{
    printf("\nd_model %d, %d heads on %d of %d channels; MLA: %d heads of %d + %d and %d, latent "
           "%d + %d\n", (int)o->d_model, (int)o->n_heads, (int)o->n_kv_heads, (int)o->head_dim,
           (int)o->n_heads, (int)o->nope_dim, (int)o->rope_dim, (int)o->value_dim,
           (int)o->latent_dim, (int)o->rope_dim);
    printf("\n%-22s %-12s %11s %6s %8s %7s  %-13s %5s\n", "case", "part", "median", "spread",
           "GFLOP/s", "GB/s", "bound by", "roof");
}

static const char *bound_of(const layer_part *p)
{
    return p->by_reads ? "read" : bench_ceiling_name(p->ceiling);
}

void layer_print_case(const layer_case *c)
{
    for (int i = 0; i < LAYER_N_PARTS; i++) {
        const layer_part *p = &c->part[i];
        printf("%-22s %-12s ", c->name, part_names[i]);
        if (i == LAYER_REST && p->operations == 0) { /* a difference, which noise may make < 0 */
            printf("%8.2f ms\n", p->median * 1e3);
            continue;
        }
        printf("%8.2f ms %5.0f%% %8.1f %7.2f  %-13s %4.0f%%\n", p->median * 1e3, p->spread * 100,
               p->operations / p->median / 1e9, p->bytes / p->median / 1e9,
               i == LAYER_WHOLE ? "both" : bound_of(p), 100 * p->roof / p->median);
    }
    if (c->times > 0)
        printf("%-22s %.2fx as fast as the case below; their outputs differ by %.1e of the "
               "largest\n", c->name, c->times, c->difference);
    fflush(stdout);
}

static json_t *part_json(const layer_case *c, int i)
{
    const layer_part *p = &c->part[i];
    json_t *json = json_pack("{s:f, s:I, s:I, s:f}", "median_seconds", p->median, "operations",
                             (json_int_t)p->operations, "bytes", (json_int_t)p->bytes,
                             "roof_seconds", p->roof);
    if (i == LAYER_REST)
        return json;
    json_t *more = json_pack("{s:f, s:f, s:I, s:f}", "best_seconds", p->best, "spread", p->spread,
                             "calls", (json_int_t)p->calls, "fraction_of_roof",
                             p->roof / p->median);
    json_object_update(json, more);
    json_decref(more);
    if (i != LAYER_WHOLE)
        json_object_set_new(json, "bound_by", json_string(bound_of(p)));
    return json;
}

json_t *layer_case_json(const layer_case *c)
{
    json_t *row = json_pack(
        "{s:s, s:I, s:I, s:i, s:I, s:s, s:f, s:o, s:o}", "name", c->name, "tokens",
        (json_int_t)c->tokens, "past", (json_int_t)c->past, "layers", (int)c->stack->n,
        "layer_bytes", (json_int_t)c->stack->bytes, "kernel", c->kernel, "read_gbytes_per_second",
        c->read, "attention_error", cli_json_number(c->error.largest),
        "attention_error_over_budget", cli_json_number(c->error.over_budget));
    for (int i = 0; i < LAYER_N_PARTS; i++)
        json_object_set_new(row, part_names[i], part_json(c, i));
    if (c->times > 0) {
        json_object_set_new(row, "times_faster", json_real(c->times));
        json_object_set_new(row, "difference", cli_json_number(c->difference));
    }
    return row;
}

json_t *layer_shape_json(const layer_options *o)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:s}", "d_model",
                     (int)o->d_model, "heads", (int)o->n_heads, "kv_heads", (int)o->n_kv_heads,
                     "head_dim", (int)o->head_dim, "latent_dim", (int)o->latent_dim, "rope_dim",
                     (int)o->rope_dim, "nope_dim", (int)o->nope_dim, "value_dim",
                     (int)o->value_dim, "prefill", (json_int_t)o->prefill, "decode",
                     (json_int_t)o->decode, "cache", qkv_format_name(o->format));
}
