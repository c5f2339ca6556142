/* info.c - qkv info: what this build can do on this machine. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

/* What products are computed in, as in the kernel's name. */
static const char *compute_text(const qkv_kernel_info *k)
{
    return k->precision == QKV_PRECISION_HIGH ? "f32high"
                                              : qkv_type_name((qkv_type)k->compute_type);
}

/* The type of keys or values that a kernel is for. */
static const char *type_text(int32_t type)
{
    return type == QKV_NONE ? "any" : qkv_type_name((qkv_type)type);
}

static int print_json(void)
{
    char cpu[128];
    json_t *tiers = json_array(), *kernels = json_array();
    for (int32_t i = 0; i < qkv_tier_count(); i++) {
        qkv_tier t;
        if (qkv_tier_info(i, &t) == QKV_OK)
            json_array_append_new(tiers, json_pack("{s:s, s:b, s:s}", "name", t.name, "available",
                                                   t.available, "reason", t.reason));
    }
    for (int32_t i = 0; i < qkv_kernel_count(); i++) {
        qkv_kernel_info k;
        if (qkv_kernel_info_get(i, &k) == QKV_OK)
            json_array_append_new(
                kernels, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "name", k.name, "for",
                                   k.op, "tier", k.tier, "compute", compute_text(&k), "k",
                                   type_text(k.k_type), "v", type_text(k.v_type), "available",
                                   k.available));
    }
    return cli_print_json(json_pack("{s:s, s:s, s:i, s:o, s:o}", "version", qkv_version_string(),
                                    "cpu", qkv_cpu_name(cpu, sizeof cpu), "processors",
                                    (int)qkv_cpu_count(), "tiers", tiers, "kernels", kernels));
}

static int same_work(const qkv_kernel_info *a, const qkv_kernel_info *b)
{
    return strcmp(a->op, b->op) == 0 && a->compute_type == b->compute_type &&
           a->precision == b->precision &&
           a->k_type == b->k_type && a->v_type == b->v_type;
}

/* Whether a kernel for the work of a exists in a tier: 0 no, 1 not on this machine, 2 yes. */
static int found_in_tier(const qkv_kernel_info *a, const char *tier)
{
    for (int32_t i = 0; i < qkv_kernel_count(); i++) {
        qkv_kernel_info k;
        if (qkv_kernel_info_get(i, &k) == QKV_OK && same_work(a, &k) && strcmp(k.tier, tier) == 0)
            return 1 + (k.available != 0);
    }
    return 0;
}

static int column_width(const qkv_tier *tier)
{
    const int n = (int)strlen(tier->name) + 2;
    return n > 8 ? n : 8;
}

/* One row for each operation and combination of types, one column for each tier. */
static void print_matrix(void)
{
    static const char *const words[] = {"-", "off", "yes"};
    printf("\nkernels: attend is for tiles of many queries, decode for a few; types of k and v (any: those\n"
           "without a line of their own, codes among them), and what scores, softmax and sums are\n"
           "computed in (q and the output: any of f32, bf16 and f16; f64 only with f64); f32 is\n"
           "computed in f32high or bf16 if the precision permits\n\n"
           "  %-8s%-6s%-6s%-9s",
           "for", "k", "v", "compute");
    for (int32_t i = 0; i < qkv_tier_count(); i++) {
        qkv_tier t;
        if (qkv_tier_info(i, &t) == QKV_OK)
            printf("%-*s", column_width(&t), t.name);
    }
    putchar('\n');
    for (int32_t i = 0; i < qkv_kernel_count(); i++) {
        qkv_kernel_info k, earlier;
        int seen = qkv_kernel_info_get(i, &k) != QKV_OK;
        for (int32_t j = 0; j < i && !seen; j++)
            seen = qkv_kernel_info_get(j, &earlier) == QKV_OK && same_work(&k, &earlier);
        if (seen)
            continue;
        printf("  %-8s%-6s%-6s%-9s", k.op, type_text(k.k_type), type_text(k.v_type),
               compute_text(&k));
        for (int32_t t = 0; t < qkv_tier_count(); t++) {
            qkv_tier tier;
            if (qkv_tier_info(t, &tier) == QKV_OK)
                printf("%-*s", column_width(&tier), words[found_in_tier(&k, tier.name)]);
        }
        putchar('\n');
    }
}

static int print_text(void)
{
    char cpu[128];
    printf("qkv %s\ncpu: %s, %d processor%s for this process\n\ntiers, lowest first:\n",
           qkv_version_string(), qkv_cpu_name(cpu, sizeof cpu), (int)qkv_cpu_count(),
           qkv_cpu_count() == 1 ? "" : "s");
    for (int32_t i = 0; i < qkv_tier_count(); i++) {
        qkv_tier t;
        if (qkv_tier_info(i, &t) == QKV_OK)
            printf("  %-12s %s%s%s\n", t.name, t.available ? "yes" : "off", t.available ? "" : ": ",
                   t.reason);
    }
    print_matrix();
    return CLI_DONE;
}

int cli_info(int argc, char **argv)
{
    static const struct option list[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int json = 0, help = 0;
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":h", list, NULL)) != -1;) {
        if (code == '?')
            return cli_complain("%s is not an option of qkv info; accepted are --json and --help",
                                argv[optind - 1]);
        json |= code == 'j';
        help |= code == 'h';
    }
    if (optind < argc)
        return cli_complain("%s is not expected; accepted are --json and --help", argv[optind]);
    if (help) {
        fputs(cli_help_page("info"), stdout);
        return CLI_DONE;
    }
    return json ? print_json() : print_text();
}
