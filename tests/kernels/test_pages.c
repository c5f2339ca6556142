/*
 * test_pages.c - attention over pages and codes, at every tier of this machine, against the oracle;
 * and the oracle over pages and codes against itself over plain numbers.
 *
 * Pages lie beside guard pages; what no query sees, in pages, scales and tables, is NaN, infinity
 * or no page at all.  The closing table is the worst error of each kernel as a fraction of its
 * budget.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pages.h"

enum { MAX_KERNELS = 256 };
static struct {
    const char *name;
    double worst;
    int problems;
} kernels[MAX_KERNELS];

static void note(const char *name, double worst)
{
    int i = 0;
    while (i < MAX_KERNELS - 1 && kernels[i].name && strcmp(kernels[i].name, name) != 0)
        i++;
    kernels[i].name = name;
    kernels[i].problems++;
    if (worst > kernels[i].worst)
        kernels[i].worst = worst;
}

static const char *run(paged *x, uint32_t cpu_mask, int how)
{
    const char *kernel = t_run(&x->p, cpu_mask, how);
    if (kernel)
        note(kernel, t_compare(&x->p, kernel));
    if (t_failed())
        t_fail("of the problem: %s", pages_text(x));
    return kernel;
}

static void run_tiers(paged *x, int how)
{
    uint32_t masks[8];
    const char *names[8];
    const int n = t_tiers(masks, names);

    for (int i = 0; i < n; i++)
        run(x, masks[i], how);
}

static void random_problems(int n, uint64_t seed, const t_limits *limits)
{
    paged x;
    for (int i = 0; i < t_times(n); i++) {
        if (!t_case("p%d", i))
            continue;
        pages_describe(&x, seed + (uint64_t)i, limits);
        pages_make(&x);
        run_tiers(&x, i % 3 ? T_SERIAL : T_TASKS_BACK);
    }
}

/* All features, all types. */
static void test_mixed(void)
{
    t_limits limits = t_limits_all();
    limits.max_work = 1000000;
    random_problems(700, t_seed() * 1000033, &limits);
}

/* Many more, small: pages of a few tokens, groups of a few channels. */
static void test_small(void)
{
    t_limits limits = t_limits_all();
    limits.max_len = 24;
    limits.max_dim = 24;
    random_problems(2500, t_seed() * 1000037, &limits);
}

/* Few queries and thousands of keys in parts, on threads. */
static void test_long(void)
{
    t_limits limits = t_limits_all();
    paged x;

    limits.max_work = 3000000;
    limits.max_len = 40;
    limits.packed = 0;
    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        pages_describe(&x, t_seed() * 1000039 + (uint64_t)i, &limits);
        qkv_desc *d = &x.p.desc;
        d->q_lens = d->kv_lens = d->kv_starts = d->q_offsets = NULL;
        d->block_bits = NULL;
        d->n_seqs = 1 + i % 2;
        d->n_kv_heads = 1 + i % 2;
        d->n_q_heads = d->n_kv_heads * (1 + i % 3);
        d->q_len = 1 + i % 5;
        d->kv_len = 900 + 113 * (i % 19);
        d->page_tokens = 1 + (i * 37) % 300;
        d->weights.type = QKV_NONE; /* with weights, keys are not cut */
        pages_make(&x);
        run_tiers(&x, i % 2 ? T_THREADS + 3 : T_SERIAL);
    }
}

/* Absorbed MLA: one latent row a token, all heads, V in K, the rotary part within or apart. */
static void test_latent(void)
{
    static const int32_t types[] = {QKV_F32, QKV_F16, QKV_BF16, QKV_I8, QKV_U4, QKV_E4M3, QKV_E5M2};
    t_limits limits = t_limits_all();
    paged x;

    limits.layouts = limits.packed = limits.masks = 0;
    limits.max_len = 20;
    for (int i = 0; i < t_times(84); i++) {
        if (!t_case("%s_%d", qkv_type_name((qkv_type)types[i % 7]), i))
            continue;
        pages_describe(&x, t_seed() * 1000081 + (uint64_t)i, &limits);
        qkv_desc *d = &x.p.desc;
        const int large = i % 4 == 0;
        x.latent = 1;
        d->q.type = d->o.type = i % 2 ? QKV_BF16 : QKV_F32;
        d->n_seqs = 2;
        d->q_lens = d->kv_lens = d->kv_starts = d->q_offsets = NULL;
        d->n_kv_heads = 1;
        d->n_q_heads = large ? 16 : 5;
        d->q_len = 1 + i % 3;
        d->kv_len = large ? 70 : 300;
        d->head_dim_v = large ? 512 : 64;
        d->head_dim = d->head_dim_v + (large ? 64 : 16);
        d->rope_dim = i % 3 ? d->head_dim - d->head_dim_v : 0;
        d->k_rope.type = d->rope_dim ? QKV_F32 : QKV_NONE;
        d->k.type = d->v.type = types[i % 7];
        d->k_group = d->v_group = i % 5 ? 32 : 0;
        d->sinks.type = d->slopes.type = QKV_NONE;
        d->lse.type = QKV_F32;
        d->weights.type = QKV_NONE;
        d->page_tokens = 16 + i;
        pages_make(&x);
        run_tiers(&x, T_SERIAL);
    }
}

/* Pages, however large, change no bit of what tensors without pages give, nor do threads. */
static void test_same_bits(void)
{
    t_limits limits = t_limits_all();
    uint32_t masks[8];
    const char *names[8];
    const int n = t_tiers(masks, names);
    t_copy in_pages[8];
    paged x;

    limits.max_work = 300000;
    for (int i = 0; i < t_times(500); i++) {
        if (!t_case("p%d", i))
            continue;
        pages_describe(&x, t_seed() * 1000099 + (uint64_t)i, &limits);
        if (x.p.desc.page_tokens == 0)
            continue;
        pages_make(&x);
        for (int tier = 0; tier < n; tier++) {
            run(&x, masks[tier], i % 4 ? T_SERIAL : T_THREADS + 3);
            in_pages[tier] = t_copy_outputs(&x.p);
        }
        pages_unpage(&x);
        for (int tier = 0; tier < n; tier++) {
            const char *kernel = run(&x, masks[tier], T_SERIAL);
            t_check(t_same_outputs(&x.p, &in_pages[tier]), "%s: other bits in pages; %s",
                    kernel ? kernel : "nothing", pages_text(&x));
        }
    }
}

/* Where the oracle says NaN, which with these numbers comes of a NaN alone, there must be one; also
 * from scores, for which the budget makes no demand. */
static void check_nan(const paged *x, const char *kernel)
{
    const qkv_desc *d = &x->p.desc;
    int64_t n = 0, lost = 0;

    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_q_heads; h++)
            for (int64_t i = 0; i < d->q_len; i++)
                for (int32_t c = 0; c < d->head_dim_v; c++, n++)
                    lost += isnan(x->p.ref.o[n]) && !isnan(t_get_o(&x->p, b, h, i, c));
    t_check(lost == 0, "%s: %lld NaN are lost; %s", kernel, (long long)lost, pages_text(x));
}

/* One NaN among codes, scales, minima or rotary parts, which some queries see and others do not. */
static void test_nan(void)
{
    static const int32_t types[] = {QKV_E4M3, QKV_E5M2, QKV_I8, QKV_U4, QKV_F16};
    t_limits limits = t_limits_plain();
    uint32_t masks[8];
    const char *names[8];
    const int n = t_tiers(masks, names);
    paged x;

    limits.max_dim = 40;
    for (int i = 0; i < t_times(280); i++) {
        if (!t_case("%s_%d", qkv_type_name((qkv_type)types[i / 7 % 5]), i))
            continue;
        pages_describe(&x, t_seed() * 1000133 + (uint64_t)i, &limits);
        x.p.desc.k.type = x.p.desc.v.type = types[i / 7 % 5];
        x.p.desc.k_group = x.p.desc.v_group = 0;
        x.p.desc.causal = QKV_CAUSAL_INCLUSIVE;
        x.latent = 0;
        x.nan_in = 1 + i % PAGES_TENSORS;
        pages_make(&x);
        for (int tier = 0; tier < n; tier++) {
            const char *kernel = run(&x, masks[tier], T_SERIAL);
            check_nan(&x, kernel ? kernel : "nothing");
        }
    }
}

/* ---- every kernel for any type ---- */

/* Few queries for the decode kernels, many for the others; types that no other kernel takes. */
static void suit_kernel(paged *x, const qkv_kernel_info *info, int n)
{
    static const int32_t types[] = {QKV_I8, QKV_E4M3, QKV_E5M2, QKV_U4};
    const int exact = info->compute_type == QKV_BF16;
    qkv_desc *d = &x->p.desc;

    d->cu_seqlens_q = d->cu_seqlens_k = NULL;
    d->q_lens = d->kv_lens = d->kv_starts = NULL;
    d->block_bits = NULL;
    d->n_seqs = 1;
    d->n_q_heads = d->n_kv_heads;
    d->q_len = strcmp(info->op, "decode") == 0 ? 1 + d->kv_len % 5 : 30 + d->kv_len % 170;
    d->q.type = exact ? QKV_BF16 : QKV_F32;
    d->k.type = types[n % (exact ? 3 : 4)];
    d->v.type = exact && n % 2 ? QKV_BF16 : types[n / 2 % (exact ? 3 : 4)];
    d->precision = info->precision;
    d->page_tokens = n % 3 ? 1 + n * 7 : 0;
    x->latent = 0;
    d->k_group = d->v_group = exact ? 0 : d->k_group;
    if (exact) {
        d->rope_dim = 0;
        d->k_rope.type = QKV_NONE;
    }
    d->v_group = d->v_group % 2 || d->v_group > d->head_dim_v ? 0 : d->v_group;
    d->k_group = d->k_group % 2 || d->k_group > d->head_dim - d->rope_dim ? 0 : d->k_group;
}

/* test_attend.c runs the kernels for given types one by one; these are the others. */
static void test_registry(void)
{
    t_limits limits = t_limits_all();
    paged x;

    limits.type = QKV_F32;
    limits.max_len = 300;
    limits.max_dim = 130;
    for (int32_t k = 0; k < qkv_kernel_count(); k++) {
        qkv_kernel_info info;
        qkv_kernel_info_get(k, &info);
        if (!info.available || info.k_type != QKV_NONE)
            continue;
        for (int n = 0; n < t_times(12); n++) {
            if (!t_case("%s/%d", info.name, n))
                continue;
            pages_describe(&x, t_seed() * 1000117 + (uint64_t)(k * 100 + n), &limits);
            suit_kernel(&x, &info, n);
            pages_make(&x);
            const char *kernel = run(&x, info.cpu, T_SERIAL);
            t_check(kernel && strcmp(kernel, info.name) == 0, "ran %s", kernel ? kernel : "none");
        }
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"mixed", test_mixed},         {"small", test_small},
                                   {"long", test_long},           {"latent", test_latent},
                                   {"same_bits", test_same_bits}, {"nan", test_nan},
                                   {"registry", test_registry}};
    const int status = t_main(argc, argv, "pages", tests, (int)(sizeof tests / sizeof *tests));

    for (int i = 0; i < MAX_KERNELS && kernels[i].name; i++)
        printf("  %-34s worst error %.3f of its budget in %d problems\n", kernels[i].name,
               kernels[i].worst, kernels[i].problems);
    return status;
}
