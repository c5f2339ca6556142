/* check.c - qkv check: every tier against the oracle. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "problem.h"

#define MOST_RESULTS 256

/* What became of one kernel. */
typedef struct result {
    char kernel[64];
    int64_t cases, failures;
    cli_worst worst;
    uint64_t seed; /* of the worst */
} result;

typedef struct session {
    const cli_options *options;
    const qkv_parallel *parallel; /* NULL: one thread */
    result results[MOST_RESULTS];
    int n_results;
    int64_t failures;
} session;

/* ---- results ------------------------------------------------------------------------------ */

static void add_result(session *s, const char *kernel, const cli_worst *worst, uint64_t seed)
{
    int i = 0;
    while (i < s->n_results && strcmp(s->results[i].kernel, kernel) != 0)
        i++;
    if (i == MOST_RESULTS)
        return;
    result *r = &s->results[i];
    if (i == s->n_results) {
        snprintf(r->kernel, sizeof r->kernel, "%s", kernel);
        s->n_results++;
    }
    if (r->cases == 0 || worst->ratio > r->worst.ratio) {
        r->worst = *worst;
        r->seed = seed;
    }
    r->cases++;
    r->failures += worst->ratio > 1;
    s->failures += worst->ratio > 1;
}

static int compare_results(const void *a, const void *b)
{
    return strcmp(((const result *)a)->kernel, ((const result *)b)->kernel);
}

static const char *place_text(const cli_worst *w, char text[96])
{
    if (w->tensor == NULL)
        snprintf(text, 96, "nothing to compare");
    else if (strcmp(w->tensor, "lse") == 0)
        snprintf(text, 96, "lse[%lld,%lld,%lld]", (long long)w->at[0], (long long)w->at[1],
                 (long long)w->at[2]);
    else
        snprintf(text, 96, "%s[%lld,%lld,%lld,%lld]", w->tensor, (long long)w->at[0],
                 (long long)w->at[1], (long long)w->at[2], (long long)w->at[3]);
    return text;
}

/* ---- running ------------------------------------------------------------------------------ */

/* One problem on every tier up to the one chosen; a kernel two tiers share runs once. */
static int check_problem(session *s, qkv_desc *desc, const qkv_args *args, uint64_t seed,
                         const char *what)
{
    cli_truth truth;
    if (cli_truth_make(&truth, desc, args, desc->weights.type != QKV_NONE) != CLI_DONE)
        return CLI_WRONG;
    uint32_t flags = 0;
    char last[64] = "";
    int code = CLI_DONE;
    for (int32_t i = 0; i < qkv_tier_count() && code == CLI_DONE; i++) {
        qkv_tier tier;
        if (qkv_tier_info(i, &tier) != QKV_OK)
            continue;
        flags |= tier.flag;
        if (!tier.available || (s->options->tier >= 0 && i > s->options->tier))
            continue;
        cli_report report;
        cli_worst worst;
        desc->cpu_mask = flags;
        cli_poison_outputs(desc, args);
        code = cli_run(desc, args, s->parallel, &report);
        if (code != CLI_DONE || strcmp(report.kernel, last) == 0)
            continue;
        memcpy(last, report.kernel, sizeof last);
        cli_compare(desc, args, &truth, &worst);
        add_result(s, report.kernel, &worst, seed);
        if (s->options->verbose || worst.ratio > 1) {
            char place[96];
            fprintf(stderr, "%s %s%s: error %.3g, budget %.3g, ratio %.3g at %s\n",
                    worst.ratio > 1 ? "FAIL" : "ok  ", what, report.kernel, worst.error,
                    worst.budget, worst.ratio, place_text(&worst, place));
        }
    }
    cli_truth_free(&truth);
    return code;
}

static int check_random(session *s)
{
    for (int64_t i = 0; i < s->options->cases; i++) {
        const uint64_t seed = s->options->seed + (uint64_t)i;
        cli_case c;
        if (!cli_case_make(&c, seed))
            return cli_complain("not enough memory for the problem of seed %llu",
                                (unsigned long long)seed);
        char what[400];
        snprintf(what, sizeof what, "seed %llu %s: ", (unsigned long long)seed, c.text);
        const int code = check_problem(s, &c.desc, &c.args, seed, what);
        cli_case_free(&c);
        if (code != CLI_DONE)
            return cli_complain("the problem of seed %llu could not be checked",
                                (unsigned long long)seed);
    }
    return CLI_DONE;
}

static int check_files(session *s)
{
    cli_problem problem;
    int code = cli_problem_load(&problem, s->options);
    if (code == CLI_DONE)
        code = cli_problem_outputs(&problem, 1, 0);
    if (code == CLI_DONE)
        code = check_problem(s, &problem.desc, &problem.args, 0, "");
    cli_problem_free(&problem);
    return code;
}

/* ---- report ------------------------------------------------------------------------------- */

static int report_json(const session *s, int files)
{
    json_t *list = json_array();
    for (int i = 0; i < s->n_results; i++) {
        const result *r = &s->results[i];
        const char *tier = strstr(r->kernel, "__");
        char place[96];
        json_t *entry =
            json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:s}", "kernel", r->kernel, "tier",
                      tier != NULL ? tier + 2 : "?", "cases", (json_int_t)r->cases, "failures",
                      (json_int_t)r->failures, "worst_ratio", cli_json_number(r->worst.ratio),
                      "worst_error", cli_json_number(r->worst.error), "worst_budget",
                      cli_json_number(r->worst.budget), "worst_at", place_text(&r->worst, place));
        if (!files)
            json_object_set_new(entry, "worst_seed", json_integer((json_int_t)r->seed));
        json_array_append_new(list, entry);
    }
    json_t *all =
        json_pack("{s:s, s:s, s:b, s:I, s:o}", "command", "check", "version", qkv_version_string(),
                  "passed", s->failures == 0, "failures", (json_int_t)s->failures, "kernels", list);
    if (all != NULL && !files) {
        json_object_set_new(all, "seed", json_integer((json_int_t)s->options->seed));
        json_object_set_new(all, "cases", json_integer((json_int_t)s->options->cases));
    }
    return cli_print_json(all);
}

static void report_text(const session *s, int files)
{
    printf("%-34s%7s%7s%12s%11s%11s  %s\n", "kernel", "cases", "failed", "error/bud.", "error",
           "budget", files ? "where" : "seed, where");
    int64_t runs = 0;
    for (int i = 0; i < s->n_results; i++) {
        const result *r = &s->results[i];
        char place[96];
        printf("%-34s%7lld%7lld%12.3g%11.3g%11.3g  ", r->kernel, (long long)r->cases,
               (long long)r->failures, r->worst.ratio, r->worst.error, r->worst.budget);
        if (!files)
            printf("%llu, ", (unsigned long long)r->seed);
        printf("%s\n", place_text(&r->worst, place));
        runs += r->cases;
    }
    if (files)
        printf("%lld runs on the files given, %lld beyond budget\n", (long long)runs,
               (long long)s->failures);
    else
        printf("%lld cases from seed %llu, %lld runs, %lld beyond budget\n",
               (long long)s->options->cases, (unsigned long long)s->options->seed, (long long)runs,
               (long long)s->failures);
}

/* ---- the command -------------------------------------------------------------------------- */

static int has_files(const cli_options *options)
{
    int files = options->in != NULL;
    for (int i = 0; i < CLI_N_INPUTS; i++)
        files |= options->input[i] != NULL;
    return files;
}

static int check(session *s, int files)
{
    int code = files ? check_files(s) : check_random(s);
    if (code != CLI_DONE)
        return code;
    qsort(s->results, (size_t)s->n_results, sizeof *s->results, compare_results);
    if (s->options->json)
        code = report_json(s, files);
    else
        report_text(s, files);
    return code != CLI_DONE ? code : s->failures > 0 ? CLI_CHECK_FAILED : CLI_DONE;
}

int cli_check(int argc, char **argv)
{
    cli_options options;
    if (cli_options_parse(&options, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (options.help) {
        fputs(cli_help_page("check"), stdout);
        return CLI_DONE;
    }
    if (!options.seed_given)
        options.seed = (uint64_t)time(NULL) % 1000000000u;
    session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return cli_complain_memory("the results", sizeof *s);
    s->options = &options;
    qkv_pool *pool = NULL;
    qkv_parallel parallel;
    const qkv_status status =
        options.threads > 1 ? qkv_pool_create(options.threads, NULL, &pool) : QKV_OK;
    if (pool != NULL) {
        parallel = qkv_pool_parallel(pool);
        s->parallel = &parallel;
    }
    const int code = status == QKV_OK ? check(s, has_files(&options))
                                      : cli_complain("--threads is %d: %s", (int)options.threads,
                                                     qkv_status_text(status));
    qkv_pool_destroy(pool);
    free(s);
    return code;
}
