/* size_machine.c - the machine of qkv size: built in, or measured by qkv bench --calibrate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "size.h"

/* ---- a profile ---------------------------------------------------------------------------- */

/* One number of a profile, or 0. */
static double rate(const json_t *ceilings, const char *name, const char *which)
{
    const json_t *at =
        json_object_get(json_object_get(json_object_get(ceilings, name), "all_threads"), which);
    const double n = json_is_number(at) ? json_number_value(at) : 0;
    return n > 0 ? n * 1e9 : 0;
}

/* The largest of several ceilings, [0] by the medians and [1] by the best. */
static void largest(const json_t *ceilings, const char *const *names, size_t n, double found[2])
{
    for (size_t i = 0; i < n; i++) {
        const double median = rate(ceilings, names[i], "median");
        const double best = rate(ceilings, names[i], "best");
        if (median > found[0]) {
            found[0] = median;
            found[1] = best > median ? best : median;
        }
    }
}

static int read_profile(const char *path, const json_t *profile, qkv_machine *m)
{
    static const char *const f32[] = {"fma_f32_128", "fma_f32_256", "fma_f32_512"};
    /* f32 last: a machine without products of 16 bits widens them. */
    static const char *const narrow[] = {"amx_bf16", "dot_bf16_512", "fma_f32_128", "fma_f32_256",
                                         "fma_f32_512"};
    static const char *const reads[] = {"read"};
    const json_t *ceilings = json_object_get(profile, "ceilings");
    const char *schema = json_string_value(json_object_get(profile, "schema"));
    const json_int_t version = json_integer_value(json_object_get(profile, "schema_version"));
    const char *cpu =
        json_string_value(json_object_get(json_object_get(profile, "environment"), "cpu"));

    if (schema == NULL || strcmp(schema, "qkv-machine") != 0 || version != 1)
        return cli_complain("--machine %s: schema is %s, version %lld; accepted is qkv-machine, "
                            "version 1, as qkv bench --calibrate writes it",
                            path, schema != NULL ? schema : "not there", (long long)version);
    memset(m, 0, sizeof *m);
    m->measured = 1;
    snprintf(m->name, sizeof m->name, "%s", cpu != NULL ? cpu : "measured");
    snprintf(m->source, sizeof m->source, "%.150s, qkv bench --calibrate, %lld threads", path,
             (long long)json_integer_value(json_object_get(profile, "threads")));
    largest(ceilings, f32, sizeof f32 / sizeof f32[0], m->flops_f32);
    largest(ceilings, narrow, sizeof narrow / sizeof narrow[0], m->flops_16);
    largest(ceilings, reads, 1, m->bytes);
    if (!(m->flops_f32[0] > 0) || !(m->bytes[0] > 0))
        return cli_complain("--machine %s: ceilings have no fma_f32_ or no read rate above 0 for "
                            "all threads",
                            path);
    return CLI_DONE;
}

/* As qkv bench --calibrate without a file. */
static int default_path(char *path, size_t bytes)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int n = -1;
    if (config != NULL && config[0] == '/')
        n = snprintf(path, bytes, "%s/qkv/machine.json", config);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, bytes, "%s/.config/qkv/machine.json", home);
    if (n < 0 || (size_t)n >= bytes)
        return cli_complain("--machine is this; neither XDG_CONFIG_HOME nor HOME is an absolute "
                            "path of a usual length");
    return CLI_DONE;
}

static int from_file(const char *name, qkv_machine *m)
{
    char own[4096];
    json_error_t error;

    if (strcmp(name, "this") == 0) {
        if (default_path(own, sizeof own) != CLI_DONE)
            return CLI_WRONG;
        name = own;
    }
    json_t *profile = json_load_file(name, JSON_REJECT_DUPLICATES, &error);
    if (profile == NULL && name == own)
        return cli_complain("--machine is this: %s; qkv bench --calibrate writes it", error.text);
    if (profile == NULL)
        return cli_complain("--machine is %s: %s; accepted are the names that qkv size --machines "
                            "lists, this, and files of qkv bench --calibrate",
                            name, error.text);
    const int code = read_profile(name, profile, m);
    json_decref(profile);
    return code;
}

int size_machine_of(const char *name, qkv_machine *m)
{
    for (int32_t i = 0; i < qkv_machine_count(); i++)
        if (strcmp(name, qkv_machine_at(i)->name) == 0) {
            *m = *qkv_machine_at(i);
            return CLI_DONE;
        }
    return from_file(name, m);
}

void size_list_machines(void)
{
    printf("%-12s %10s %10s %8s %8s  %s\n", "machine", "f32", "16 bits", "memory", "", "source");
    printf("%-12s %10s %10s %8s %8s\n", "", "TFLOP/s", "TFLOP/s", "GB/s", "GiB");
    for (int32_t i = 0; i < qkv_machine_count(); i++) {
        const qkv_machine *m = qkv_machine_at(i);
        printf("%-12s %10.2f %10.2f %8.1f ", m->name, m->flops_f32[0] / 1e12, m->flops_16[0] / 1e12,
               m->bytes[0] / 1e9);
        if (m->memory > 0)
            printf("%8.0f", (double)m->memory / SIZE_GIB);
        else
            printf("%8s", "-");
        printf("  %s\n", m->source);
    }
    puts("this         what qkv bench --calibrate has measured here");
}
