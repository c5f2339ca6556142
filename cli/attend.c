/* attend.c - qkv attend: tensors from files through attention and into files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heatmap.h"

/* ---- outputs to files --------------------------------------------------------------------- */

enum { N_OUTPUTS = 3 };

typedef struct output {
    const char *option, *name, *path;
    const qkv_tensor *tensor;
} output;

static void list_outputs(const cli_options *options, const cli_problem *p, output out[N_OUTPUTS])
{
    out[0] = (output){"-o", "o", options->output, &p->o};
    out[1] = (output){"--lse", "lse", options->lse, &p->lse};
    out[2] = (output){"--weights", "weights", options->weights, &p->weights};
}

/* Found out before anything is computed. */
static int check_outputs(const cli_options *options)
{
    output out[N_OUTPUTS];
    const cli_problem none = {0};
    list_outputs(options, &none, out);
    int n = options->heatmap != NULL;
    for (int i = 0; i < N_OUTPUTS; i++) {
        if (out[i].path == NULL)
            continue;
        n++;
        const cli_format format = cli_format_of(out[i].path);
        if (format == CLI_OTHER)
            return cli_complain("%s is %s; accepted are files ending in .npy or .safetensors",
                                out[i].option, out[i].path);
        for (int j = 0; j < i; j++)
            if (format == CLI_NPY && out[j].path != NULL && strcmp(out[i].path, out[j].path) == 0)
                return cli_complain(
                    "%s and %s are both %s; a .npy file holds one tensor (a .safetensors "
                    "file may hold all)",
                    out[j].option, out[i].option, out[i].path);
    }
    if (n == 0)
        return cli_complain("nothing to write: give -o, --lse, --weights or --heatmap FILE");
    if (options->heatmap == NULL && (options->heatmap_heads != NULL || options->heatmap_seq != 0 ||
                                     options->labels != NULL || options->labels_q != NULL))
        return cli_complain(
            "--heatmap-head, --heatmap-seq, --labels and --labels-q need --heatmap FILE");
    return CLI_DONE;
}

/* Outputs that name one .safetensors file are written together, at the first of them. */
static int write_outputs(const cli_options *options, const cli_problem *p)
{
    output out[N_OUTPUTS];
    char text[CLI_TEXT];
    list_outputs(options, p, out);
    for (int i = 0; i < N_OUTPUTS; i++) {
        if (out[i].path == NULL)
            continue;
        qkv_status status;
        if (cli_format_of(out[i].path) == CLI_NPY) {
            status = qkv_npy_write(out[i].path, out[i].tensor, text, sizeof text);
        } else {
            const char *names[N_OUTPUTS];
            qkv_tensor tensors[N_OUTPUTS];
            int32_t n = 0;
            for (int j = i; j < N_OUTPUTS; j++) {
                if (out[j].path == NULL || (j > i && strcmp(out[j].path, out[i].path) != 0))
                    continue;
                names[n] = out[j].name;
                tensors[n++] = *out[j].tensor;
                if (j > i)
                    out[j].path = NULL;
            }
            status = qkv_safetensors_write(out[i].path, n, names, tensors, text, sizeof text);
        }
        if (status != QKV_OK)
            return cli_complain("%s: %s", out[i].option, text);
    }
    return CLI_DONE;
}

/* ---- report ------------------------------------------------------------------------------- */

/* Two operations for each channel of q.k and of w v. */
static double useful_flops(const cli_problem *p, const cli_report *r)
{
    return 2.0 * (double)r->visible_pairs * (p->desc.head_dim + p->desc.head_dim_v);
}

static int report_json(const cli_options *options, const cli_problem *p, const cli_report *r)
{
    output out[N_OUTPUTS];
    list_outputs(options, p, out);
    json_t *inputs = json_object(), *outputs = json_array();
    for (int i = 0; i < CLI_N_INPUTS; i++)
        if (p->in[i].type != QKV_NONE)
            json_object_set_new(inputs, cli_input_tensor((cli_input)i), cli_json_tensor(&p->in[i]));
    for (int i = 0; i < N_OUTPUTS; i++) {
        if (out[i].path == NULL)
            continue;
        json_t *entry = cli_json_tensor(out[i].tensor);
        json_object_set_new(entry, "name", json_string(out[i].name));
        json_object_set_new(entry, "path", json_string(out[i].path));
        json_array_append_new(outputs, entry);
    }
    if (options->heatmap != NULL)
        json_array_append_new(outputs,
                              json_pack("{s:s, s:s}", "name", "heatmap", "path", options->heatmap));
    return cli_print_json(json_pack(
        "{s:s, s:s, s:o, s:o, s:s, s:i, s:f, s:I, s:I, s:I, s:f}", "command", "attend", "version",
        qkv_version_string(), "inputs", inputs, "outputs", outputs, "kernel", r->kernel, "threads",
        (int)r->n_workers, "seconds", r->seconds, "plan_bytes", (json_int_t)r->plan_bytes,
        "workspace_bytes", (json_int_t)r->workspace_bytes, "visible_pairs",
        (json_int_t)r->visible_pairs, "useful_flops", useful_flops(p, r)));
}

static void report_text(const cli_options *options, const cli_problem *p, const cli_report *r)
{
    char shape[CLI_SHAPE];
    output out[N_OUTPUTS];
    for (int i = 0; i < CLI_N_INPUTS; i++)
        if (p->in[i].type != QKV_NONE)
            fprintf(stderr, "%-13s %-5s %s\n", cli_input_tensor((cli_input)i),
                    qkv_type_name((qkv_type)p->in[i].type), cli_shape_text(&p->in[i], shape));
    fprintf(stderr,
            "%s, %d thread%s, %.3f ms, %.2f GFLOP/s, workspace %.1f KiB, %lld visible pairs\n",
            r->kernel, (int)r->n_workers, r->n_workers == 1 ? "" : "s", 1e3 * r->seconds,
            r->seconds > 0 ? 1e-9 * useful_flops(p, r) / r->seconds : 0.0,
            (double)r->workspace_bytes / 1024, (long long)r->visible_pairs);
    list_outputs(options, p, out);
    for (int i = 0; i < N_OUTPUTS; i++)
        if (out[i].path != NULL)
            fprintf(stderr, "wrote %s: %s %s %s\n", out[i].path, out[i].name,
                    qkv_type_name((qkv_type)out[i].tensor->type),
                    cli_shape_text(out[i].tensor, shape));
    if (options->heatmap != NULL)
        fprintf(stderr, "wrote %s: heatmap\n", options->heatmap);
}

/* ---- the command -------------------------------------------------------------------------- */

static int run_on_pool(const cli_options *options, cli_problem *p, cli_report *report)
{
    if (options->threads == 1)
        return cli_run(&p->desc, &p->args, NULL, report);
    qkv_pool *pool;
    const qkv_status status = qkv_pool_create(options->threads, NULL, &pool);
    if (status != QKV_OK)
        return cli_complain("--threads is %d: %s", (int)options->threads, qkv_status_text(status));
    const qkv_parallel parallel = qkv_pool_parallel(pool);
    const int code = cli_run(&p->desc, &p->args, &parallel, report);
    qkv_pool_destroy(pool);
    return code;
}

static int attend(const cli_options *options, cli_problem *p)
{
    cli_report report;
    if (check_outputs(options) != CLI_DONE || cli_problem_load(p, options) != CLI_DONE ||
        cli_problem_outputs(p, options->lse != NULL, options->weights != NULL) != CLI_DONE ||
        run_on_pool(options, p, &report) != CLI_DONE || write_outputs(options, p) != CLI_DONE ||
        (options->heatmap != NULL && cli_heatmap(p, options) != CLI_DONE))
        return CLI_WRONG;
    if (options->json)
        return report_json(options, p, &report);
    report_text(options, p, &report);
    return CLI_DONE;
}

int cli_attend(int argc, char **argv)
{
    cli_options options;
    if (cli_options_parse(&options, argc, argv) != CLI_DONE)
        return CLI_WRONG;
    if (options.help) {
        fputs(cli_help_page("attend"), stdout);
        return CLI_DONE;
    }
    cli_problem problem = {0};
    const int code = attend(&options, &problem);
    cli_problem_free(&problem);
    return code;
}
