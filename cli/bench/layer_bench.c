/*
 * layer_bench.c - qkv bench layer: a whole attention layer, and where its time goes.
 *
 * Four cases: all tokens of a prompt at once; one token after many that are in a cache; and the
 * same token with MLA of the same width, absorbed and expanded in turns.
 */
#include "layer_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

enum { SCHEMA_VERSION = 1, PAGE = 64 };

static const char *const case_names[] = {"prefill", "decode", "mla-absorbed", "mla-expanded"};

static int wanted(const layer_options *o, int i)
{
    return o->common.shape == NULL || strstr(case_names[i], o->common.shape) != NULL;
}

/* ---- attention alone ---------------------------------------------------------------------- */

/* What the layer asks of attention; mla 0 for GQA. */
static bench_shape shape_of(const layer_case *c, const layer_options *o, int32_t mla)
{
    bench_shape s = {.name = c->name, .family = "layer", .type = QKV_F32, .B = 1,
                     .Hq = o->n_heads, .Hkv = o->n_kv_heads, .Tq = c->tokens,
                     .Tk = c->past + c->tokens, .D = o->head_dim, .Dv = o->head_dim,
                     .causal = QKV_CAUSAL_INCLUSIVE, .cold = c->past > 0};

    if (c->past > 0 && mla != QKV_MLA_EXPANDED) {
        s.format = o->format;
        s.page_tokens = PAGE;
    }
    if (mla == QKV_MLA_ABSORBED) {
        s.Hkv = 1;
        s.D = o->latent_dim + o->rope_dim;
        s.Dv = o->latent_dim;
        s.latent = 1;
    } else if (mla == QKV_MLA_EXPANDED) {
        s.Hkv = o->n_heads;
        s.D = o->nope_dim + o->rope_dim;
        s.Dv = o->value_dim;
    }
    return s;
}

/* ---- cases -------------------------------------------------------------------------------- */

/* Every row a sequence of one token. */
static int make_alone(layer_case *c, const layer_options *o, int32_t mla)
{
    const int32_t n = (int32_t)c->tokens;
    int32_t *cu = malloc(((size_t)n + 1) * sizeof *cu);
    qkv_layer_step what;

    if (cu == NULL)
        return cli_complain_memory("row numbers", ((size_t)n + 1) * sizeof *cu);
    for (int32_t i = 0; i <= n; i++)
        cu[i] = i;
    layer_step_init(&what, o, c->stack, 1, 0);
    what.n_seqs = n;
    what.cu_seqlens = cu;
    what.mla = mla;
    const int code = layer_step_make(&c->alone, c->stack, &what, NULL, o->common.threads);
    free(cu);
    return code;
}

/* With a past the token that attends is reserved already. */
static int case_make(layer_case *c, layer_stack *stack, const layer_options *o, int which,
                     int32_t mla)
{
    const bench_setting setting = {o->common.cpu_mask, o->common.threads, o->common.memory};
    qkv_layer_step what;

    memset(c, 0, sizeof *c);
    c->stack = stack;
    c->past = which == 0 ? 0 : o->decode;
    c->tokens = which == 0 ? o->prefill : 1;
    snprintf(c->name, sizeof c->name, "%s-%lld", case_names[which],
             (long long)(which == 0 ? c->tokens : c->past));
    layer_step_init(&what, o, stack, c->tokens, c->past > 0);
    what.mla = mla;
    const bench_shape shape = shape_of(c, o, mla);
    if (layer_step_make(&c->whole, stack, &what, NULL, o->common.threads) != CLI_DONE ||
        make_alone(c, o, mla) != CLI_DONE)
        return CLI_WRONG;
    return bench_case_make(&c->attention, &shape, &setting);
}

static void case_free(layer_case *c)
{
    layer_step_free(&c->whole);
    layer_step_free(&c->alone);
    bench_case_free(&c->attention);
}

/* Cases first .. first+n-1 of the names in turns, on one stack. */
static int run_cases(layer_stack *stack, const layer_place *place, int first, int n, json_t *rows)
{
    static const int32_t how[] = {QKV_MLA_AUTO, QKV_MLA_AUTO, QKV_MLA_ABSORBED, QKV_MLA_EXPANDED};
    layer_case cases[2] = {{.tokens = 0}, {.tokens = 0}};
    int code = CLI_DONE;

    for (int i = 0; code == CLI_DONE && i < n; i++)
        code = case_make(&cases[i], stack, place->options, first + i, how[first + i]);
    if (code == CLI_DONE)
        code = layer_measure(cases, n, place);
    for (int i = 0; i < n; i++) {
        if (code == CLI_DONE) {
            layer_print_case(&cases[i]);
            json_array_append_new(rows, layer_case_json(&cases[i]));
        }
        case_free(&cases[i]);
    }
    return code;
}

static int run_kind(const layer_place *place, int mla, json_t *rows)
{
    const layer_options *o = place->options;
    const int first = wanted(o, 2 * mla), second = wanted(o, 2 * mla + 1);
    layer_stack stack = {.n = 0};

    if (!first && !second)
        return CLI_DONE;
    int code = layer_stack_make(&stack, o, mla);
    if (code == CLI_DONE && (mla || second)) {
        code = layer_stack_cache(&stack, o, o->decode, 1);
        if (code == CLI_DONE)
            code = layer_stack_reserve(&stack, 1);
    }
    if (mla && first && second) {
        if (code == CLI_DONE)
            code = run_cases(&stack, place, 2, 2, rows);
    } else {
        if (code == CLI_DONE && first)
            code = run_cases(&stack, place, 2 * mla, 1, rows);
        if (code == CLI_DONE && second)
            code = run_cases(&stack, place, 2 * mla + 1, 1, rows);
    }
    layer_stack_free(&stack);
    return code;
}

/* ---- the command -------------------------------------------------------------------------- */

static int run_all(const layer_place *place, json_t *rows)
{
    if (place->options->no_cache)
        return layer_run_again(place, rows);
    layer_print_head(place->options);
    const int code = run_kind(place, 0, rows);
    return code == CLI_DONE ? run_kind(place, 1, rows) : code;
}

static json_t *report(const layer_options *o, const bench_machine *machine, json_t *rows)
{
    return json_pack(
        "{s:s, s:i, s:o, s:s, s:i, s:i, s:I, s:o, s:o, s:O}", "schema",
        o->no_cache ? "qkv-bench-layer-no-cache" : "qkv-bench-layer", "schema_version",
        SCHEMA_VERSION, "environment", bench_environment_json(o->common.command), "tier",
        o->common.tier != NULL ? o->common.tier : "highest", "threads", (int)o->common.threads,
        "repeats", (int)o->common.repeat, "memory_bytes", (json_int_t)o->common.memory, "shape",
        layer_shape_json(o), "ceilings", bench_machine_json(machine), "rows", rows);
}

static int measure(const layer_options *o, const qkv_parallel *workers)
{
    bench_machine machine = {.threads = 1};
    json_t *rows = json_array();
    void *memory = NULL;

    int code = bench_machine_measure(&machine, o->common.memory, workers);
    if (code == CLI_DONE) {
        bench_machine_print(&machine);
        memory = bench_alloc(o->common.memory);
        if (memory == NULL)
            code = cli_complain_memory("what the read rate is measured over", o->common.memory);
    }
    if (code == CLI_DONE) {
        const layer_place place = {o, &machine, memory, workers};
        bench_fill(memory, QKV_F32, (int64_t)(o->common.memory / sizeof(float)), 1);
        code = run_all(&place, rows);
    }
    if (code == CLI_DONE && o->common.json != NULL)
        code = bench_write_json("--json", o->common.json, report(o, &machine, rows));
    json_decref(rows);
    free(memory);
    return code;
}

static int check(const layer_options *o)
{
    int any = 0;
    for (int mla = 0; mla < (o->no_cache ? 1 : 2); mla++)
        if (wanted(o, 2 * mla) || wanted(o, 2 * mla + 1)) {
            any = 1;
            if (layer_stack_check(o, mla) != CLI_DONE)
                return CLI_WRONG;
        }
    if (any)
        return CLI_DONE;
    return cli_complain("--shape is %s, which is in no case's name; they are prefill, decode, "
                        "mla-absorbed and mla-expanded", o->common.shape);
}

int bench_run_layer(int argc, char **argv)
{
    layer_options o;
    qkv_pool *pool;

    cli_set_command("bench layer");
    if (layer_options_parse(&o, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (o.common.help) {
        fputs(bench_layer_page, stdout);
        return CLI_DONE;
    }
    if (check(&o) != CLI_DONE)
        return CLI_WRONG;
    const qkv_status status = qkv_pool_create(o.common.threads, NULL, &pool);
    if (status != QKV_OK)
        return cli_complain("--threads is %d: %s", (int)o.common.threads,
                            qkv_status_text(status));
    qkv_layers_blas_threads(1); /* the pool spreads the products */
    const qkv_parallel workers = qkv_pool_parallel(pool);
    const int code = measure(&o, &workers);
    qkv_pool_destroy(pool);
    return code;
}
