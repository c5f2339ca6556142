/*
 * calibrate.c - qkv bench --calibrate: the machine's ceilings in a file, for programs that plan.
 *
 *     {"schema": "qkv-machine", "schema_version": 1,
 *      "environment": {...}, "threads": 2, "memory_bytes": 1073741824,
 *      "ceilings": {"fma_f32_512": {"unit": "GFLOP/s",
 *                                   "one_thread": {"median": x, "best": x},
 *                                   "all_threads": {"median": x, "best": x}}, ...,
 *                   "read": {"unit": "GB/s", ...}, "read_plain": ...}}
 *
 * Readers take what they know and ignore the rest; schema_version grows when the meaning of
 * something changes.  A ceiling the machine does not have is absent.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"

enum { SCHEMA_VERSION = 1, PATH_BYTES = 4096 };

/* $XDG_CONFIG_HOME/qkv/machine.json, or ~/.config/...: XDG Base Directory Specification 0.8,
 * which says that a relative path is to be ignored. */
static int default_path(char path[PATH_BYTES])
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int n = -1;
    if (config != NULL && config[0] == '/')
        n = snprintf(path, PATH_BYTES, "%s/qkv/machine.json", config);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, PATH_BYTES, "%s/.config/qkv/machine.json", home);
    if (n < 0)
        return cli_complain("neither XDG_CONFIG_HOME nor HOME is an absolute path; give "
                            "--calibrate FILE");
    if (n >= PATH_BYTES)
        return cli_complain("the path of the profile is too long; give --calibrate FILE");
    return CLI_DONE;
}

/* Makes the folders that lead to a file. */
static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        const int failed = mkdir(path, 0700) != 0 && errno != EEXIST ? errno : 0;
        if (failed)
            return cli_complain("--calibrate: the folder %s cannot be made: %s", path,
                                strerror(failed));
        *slash = '/';
    }
    return CLI_DONE;
}

static int measure(const bench_options *options, bench_machine *machine)
{
    qkv_pool *pool;
    const qkv_status status = qkv_pool_create(options->threads, NULL, &pool);
    if (status != QKV_OK)
        return cli_complain("--threads is %d: %s", (int)options->threads, qkv_status_text(status));
    const qkv_parallel workers = qkv_pool_parallel(pool);
    const int code = bench_machine_measure(machine, options->memory, &workers);
    qkv_pool_destroy(pool);
    return code;
}

int bench_run_calibrate(const bench_options *options)
{
    char own[PATH_BYTES];
    bench_machine machine = {.threads = 1};
    const char *path = options->profile;

    if (path == NULL) {
        if (default_path(own) != CLI_DONE || make_folders(own) != CLI_DONE)
            return CLI_WRONG;
        path = own;
    }
    if (measure(options, &machine) != CLI_DONE)
        return CLI_WRONG;
    json_t *profile = json_pack(
        "{s:s, s:i, s:o, s:i, s:I, s:o}", "schema", "qkv-machine", "schema_version", SCHEMA_VERSION,
        "environment", bench_environment_json(options->command), "threads", (int)machine.threads,
        "memory_bytes", (json_int_t)machine.bytes, "ceilings", bench_machine_json(&machine));
    if (bench_write_json("--calibrate", path, profile) != CLI_DONE)
        return CLI_WRONG;
    bench_machine_print(&machine);
    printf("wrote %s\n", path);
    return CLI_DONE;
}
