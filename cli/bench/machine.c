/* machine.c - see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>

#include "../cli.h"
#include "memory.h"

/* Tries of a tenth of a second in all: short enough to be patient with, long enough for a clock
 * that climbs.  Five passes over memory, of which the first fills the TLB. */
enum { TRIES = 5, PASSES = 5 };
#define TRY_SECONDS 0.02

static void one_thread_for(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int32_t worker),
                           void *arg)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++)
        fn(arg, i, 0);
}

static const qkv_parallel one_thread = {1, one_thread_for, NULL};

static int measure_reads(bench_machine *m, int plain, const qkv_parallel *workers)
{
    void *memory = plain ? bench_alloc_plain(m->bytes) : bench_alloc(m->bytes);
    if (memory == NULL)
        return cli_complain_memory("what the read rate is measured over", m->bytes);
    bench_fill(memory, QKV_F32, (int64_t)(m->bytes / sizeof(float)), 1);
    const bench_rate one = bench_measure_read(memory, m->bytes, PASSES, &one_thread);
    const bench_rate all =
        m->threads > 1 ? bench_measure_read(memory, m->bytes, PASSES, workers) : one;
    *(plain ? &m->one.read_plain : &m->one.read) = one;
    *(plain ? &m->all.read_plain : &m->all.read) = all;
    free(memory);
    return CLI_DONE;
}

int bench_machine_measure(bench_machine *m, size_t bytes, const qkv_parallel *workers)
{
    m->threads = workers->n_workers;
    m->bytes = bytes;
    for (int c = 0; c < BENCH_N_CEILINGS; c++) {
        m->one.compute[c] =
            bench_measure_compute((bench_ceiling)c, TRIES, TRY_SECONDS, &one_thread);
        m->all.compute[c] = m->one.compute[c];
        if (m->threads > 1)
            m->all.compute[c] =
                bench_measure_compute((bench_ceiling)c, TRIES, TRY_SECONDS, workers);
    }
    const int code = measure_reads(m, 0, workers);
    return code == CLI_DONE ? measure_reads(m, 1, workers) : code;
}

/* ---- report ------------------------------------------------------------------------------- */

static void print_line(const char *name, const char *text, const char *unit, const bench_rate *one,
                       const bench_rate *all, int32_t threads)
{
    printf("  %-13s %-36s %-8s %8.1f %8.1f", name, text, unit, one->median, one->best);
    if (threads > 1)
        printf("  %8.1f %8.1f", all->median, all->best);
    putchar('\n');
}

void bench_machine_print(const bench_machine *m)
{
    char cpu[128];
    printf("qkv %s, %s\n", qkv_version_string(), qkv_cpu_name(cpu, sizeof cpu));
    printf("  %-13s %-36s %-8s %17s", "ceiling", "", "", "1 thread");
    if (m->threads > 1)
        printf("  %9d threads", (int)m->threads);
    printf("\n  %-13s %-36s %-8s %8s %8s", "", "", "", "median", "best");
    printf(m->threads > 1 ? "  %8s %8s\n" : "\n", "median", "best");
    for (int c = 0; c < BENCH_N_CEILINGS; c++)
        if (m->one.compute[c].best > 0)
            print_line(bench_ceiling_name((bench_ceiling)c), bench_ceiling_text((bench_ceiling)c),
                       bench_ceiling_unit((bench_ceiling)c), &m->one.compute[c], &m->all.compute[c],
                       m->threads);
    print_line("read", "memory, huge pages advised", "GB/s", &m->one.read, &m->all.read,
               m->threads);
    print_line("read_plain", "memory, small pages", "GB/s", &m->one.read_plain, &m->all.read_plain,
               m->threads);
}

static json_t *rate_json(const bench_rate *r)
{
    return json_pack("{s:f, s:f}", "median", r->median, "best", r->best);
}

static void add_rates(json_t *to, const char *name, const char *unit, const bench_rate *one,
                      const bench_rate *all)
{
    json_object_set_new(to, name,
                        json_pack("{s:s, s:o, s:o}", "unit", unit, "one_thread", rate_json(one),
                                  "all_threads", rate_json(all)));
}

json_t *bench_machine_json(const bench_machine *m)
{
    json_t *all = json_object();
    for (int c = 0; c < BENCH_N_CEILINGS; c++)
        if (m->one.compute[c].best > 0)
            add_rates(all, bench_ceiling_name((bench_ceiling)c),
                      bench_ceiling_unit((bench_ceiling)c), &m->one.compute[c], &m->all.compute[c]);
    add_rates(all, "read", "GB/s", &m->one.read, &m->all.read);
    add_rates(all, "read_plain", "GB/s", &m->one.read_plain, &m->all.read_plain);
    return all;
}
