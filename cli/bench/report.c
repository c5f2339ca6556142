/* report.c - results as a table and as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* 171.09 ms, 3.25 us, 412 ns: four digits at any size. */
static const char *time_text(double seconds, char text[32])
{
    if (seconds >= 1e-3)
        snprintf(text, 32, "%.2f ms", seconds * 1e3);
    else if (seconds >= 1e-6)
        snprintf(text, 32, "%.2f us", seconds * 1e6);
    else
        snprintf(text, 32, "%.0f ns", seconds * 1e9);
    return text;
}

static int bound_by_reads(const bench_shape *s, const bench_result *r)
{
    return s->cold && r->bytes / r->read > r->operations / r->compute;
}

void bench_print_head(void)
{
    printf("\n%-25s %-5s %11s %6s %8s %7s  %-13s %7s %5s %6s %7s %6s %8s\n", "case", "type",
           "median", "spread", "GFLOP/s", "GB/s", "bound by", "ceiling", "roof", "start", "versus",
           "reads", "error");
}

void bench_print_row(const bench_shape *s, const bench_result *r)
{
    char time[32], versus[16] = "";
    const int reads = bound_by_reads(s, r);

    if (r->against > 0)
        snprintf(versus, sizeof versus, "%.2fx", r->against / r->median);
    else if (r->versus > 0)
        snprintf(versus, sizeof versus, "%.2f", r->versus);
    printf("%-25s %-5s %11s %5.0f%% %8.1f %7.2f  %-13s %7.1f %4.0f%% %5.0f%% %7s %6.2f %8.3f\n",
           s->name,
           qkv_type_name(s->type), time_text(r->median, time), r->spread * 100,
           r->operations / r->median / 1e9, r->bytes / r->median / 1e9,
           reads ? "read" : bench_ceiling_name(r->ceiling), reads ? r->read : r->compute,
           r->of_roof * 100, r->of_roof_at_start * 100, versus, r->reads, r->error.over_budget);
    fflush(stdout);
}

static json_t *extras_json(unsigned extras)
{
    json_t *names = json_array();
    for (int i = 0; i < BENCH_N_EXTRAS; i++)
        if (extras & 1u << i)
            json_array_append_new(names, json_string(bench_extra_name(i)));
    return names;
}

static json_t *shape_json(const bench_shape *s)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:i, s:i, s:i, s:I, s:o, s:b, s:b}",
                     "name", s->name, "family", s->family, "type", qkv_type_name(s->type), "B",
                     (int)s->B, "Hq", (int)s->Hq, "Hkv", (int)s->Hkv, "Tq", (json_int_t)s->Tq, "Tk",
                     (json_int_t)s->Tk, "D", (int)s->D, "Dv", (int)s->Dv, "causal", (int)s->causal,
                     "window", (json_int_t)s->window, "extras", extras_json(s->extras), "latent",
                     s->latent, "cold", s->cold);
}

json_t *bench_row_json(const bench_shape *s, const bench_result *r)
{
    json_t *row = shape_json(s);
    json_t *measured = json_pack(
        "{s:s, s:I, s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:f}", "kernel", r->kernel, "calls",
        (json_int_t)r->calls, "median_seconds", r->median, "best_seconds", r->best, "spread",
        r->spread, "operations", (json_int_t)r->operations, "bytes", (json_int_t)r->bytes, "gflops",
        r->operations / r->median / 1e9, "gbytes_per_second", r->bytes / r->median / 1e9,
        "operations_per_byte", r->bytes > 0 ? r->operations / r->bytes : 0);
    json_t *judged =
        json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:o, s:o, s:I, s:I}", "ceiling",
                  bench_ceiling_name(r->ceiling), "bound_by",
                  bound_by_reads(s, r) ? "read" : bench_ceiling_name(r->ceiling), "ceiling_gflops",
                  r->compute, "read_gbytes_per_second", r->read, "fraction_of_roof", r->of_roof,
                  "fraction_of_roof_at_start", r->of_roof_at_start, "largest_error",
                  cli_json_number(r->error.largest), "error_over_budget",
                  cli_json_number(r->error.over_budget), "plan_bytes", (json_int_t)r->plan_bytes,
                  "workspace_bytes", (json_int_t)r->workspace_bytes);

    json_object_update(row, measured);
    json_object_update(row, judged);
    json_decref(measured);
    json_decref(judged);
    if (s->versus != NULL)
        json_object_set_new(row, "versus", json_string(s->versus));
    if (r->versus > 0)
        json_object_set_new(row, "fraction_over_versus", json_real(r->versus));
    json_object_set_new(row, "reads", json_real(r->reads));
    if (s->format != 0)
        json_object_set_new(row, "cache",
                            json_pack("{s:s, s:i, s:s}", "format", qkv_format_name(s->format),
                                      "page_tokens", (int)s->page_tokens, "use",
                                      bench_use_name(s->use)));
    if (s->against != NULL) {
        json_object_set_new(row, "against", json_string(s->against));
        json_object_set_new(row, "against_median_seconds", json_real(r->against));
        json_object_set_new(row, "times_faster", json_real(r->against / r->median));
    }
    return row;
}

int bench_write_json(const char *option, const char *path, json_t *value)
{
    char why[CLI_TEXT];
    char *text = value != NULL ? json_dumps(value, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(value);
    if (text == NULL)
        return cli_complain("not enough memory for the JSON of %s", option);
    const size_t n = strlen(text);
    text[n] = '\n'; /* over the terminator: files end with a newline */
    const qkv_status status = qkv_file_write(path, text, n + 1, why, sizeof why);
    free(text);
    return status == QKV_OK ? CLI_DONE : cli_complain("%s: %s", option, why);
}
