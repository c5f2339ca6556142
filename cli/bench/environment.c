/* environment.c - what a result must name, so that it can be judged and repeated. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "machine.h"

/* The first line of a file of the system, or "unknown". */
static const char *first_line(const char *path, char text[128])
{
    FILE *f = fopen(path, "r");
    snprintf(text, 128, "unknown");
    if (f != NULL) {
        if (fgets(text, 128, f) == NULL)
            snprintf(text, 128, "unknown");
        text[strcspn(text, "\n")] = 0;
        fclose(f);
    }
    return text;
}

/* "64" to "512": the widest vectors a tier may use here. */
static int vector_bits(void)
{
    return bench_cpu_has(BENCH_FMA_512) ? 512 : bench_cpu_has(BENCH_FMA_256) ? 256 : 128;
}

static json_t *tiers_json(void)
{
    json_t *tiers = json_array();
    for (int32_t i = 0; i < qkv_tier_count(); i++) {
        qkv_tier t;
        if (qkv_tier_info(i, &t) == QKV_OK && t.available)
            json_array_append_new(tiers, json_string(t.name));
    }
    return tiers;
}

json_t *bench_environment_json(const char *command)
{
    char cpu[128], system[300] = "unknown", date[32] = "", governor[128], pages[128];
    struct utsname name;
    struct tm utc;
    const time_t now = time(NULL);

    if (uname(&name) == 0)
        snprintf(system, sizeof system, "%s %s %s", name.sysname, name.release, name.machine);
    if (gmtime_r(&now, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return json_pack(
        "{s:s, s:s, s:i, s:i, s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "qkv_version",
        qkv_version_string(), "cpu", qkv_cpu_name(cpu, sizeof cpu), "processors",
        (int)qkv_cpu_count(), "vector_bits", vector_bits(), "tiers", tiers_json(), "system", system,
        "governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor),
        "huge_pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled", pages), "compiler",
        BENCH_COMPILER, "flags", BENCH_FLAGS, "date", date, "command", command);
}
