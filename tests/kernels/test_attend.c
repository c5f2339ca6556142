/*
 * test_attend.c - every kernel at every tier of this machine against the oracle.
 *
 * Each problem is solved once by the oracle and run once per tier; a kernel is right if every
 * element of every output is within the budget that the oracle derived for it.  The closing table
 * is the worst error of each kernel as a fraction of its budget.
 */
#include <stdio.h>
#include <string.h>

#include "t_problem.h"

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

static void run_tiers(t_problem *p, int how)
{
    uint32_t masks[8];
    const char *names[8];
    const int n = t_tiers(masks, names);

    for (int i = 0; i < n; i++) {
        const char *kernel = t_run(p, masks[i], how);
        if (kernel)
            note(kernel, t_compare(p, kernel));
    }
}

static void random_problems(const char *label, int n, const t_limits *limits)
{
    t_problem p;
    for (int i = 0; i < t_times(n); i++) {
        if (!t_case("%s%d", label, i))
            continue;
        t_problem_make(&p, t_seed() * 1000003 + (uint64_t)i, limits);
        run_tiers(&p, i % 3 ? T_SERIAL : T_TASKS_BACK);
    }
}

/* All features, all types. */
static void test_mixed(void)
{
    const t_limits limits = t_limits_all();
    random_problems("p", 1500, &limits);
}

/* Many more, small: the corners of masks and lengths. */
static void test_small(void)
{
    t_limits limits = t_limits_all();
    limits.max_len = 24;
    limits.max_dim = 24;
    random_problems("p", 4000, &limits);
}

/* Few queries for the decode kernels, many for the others. */
static void suit_operation(qkv_desc *d, const char *name)
{
    d->cu_seqlens_q = d->cu_seqlens_k = NULL;
    d->q_lens = d->kv_lens = d->kv_starts = NULL;
    d->block_bits = NULL;
    d->n_seqs = 1;
    d->n_q_heads = d->n_kv_heads;
    d->q_len = strncmp(name, "decode_", 7) == 0 ? 1 + d->kv_len % 5 : 30 + d->kv_len % 170;
}

/* Each kernel of the registry by its own types, so that none goes untested. */
static void test_registry(void)
{
    t_limits limits = t_limits_all();
    t_problem p;
    limits.max_len = 300;
    limits.max_dim = 130;
    for (int32_t k = 0; k < qkv_kernel_count(); k++) {
        qkv_kernel_info info;
        qkv_kernel_info_get(k, &info);
        if (!info.available || info.k_type == QKV_NONE) /* any types are those of tests `pages` */
            continue;
        for (int n = 0; n < t_times(8); n++) {
            if (!t_case("%s/%d", info.name, n))
                continue;
            limits.type = info.k_type; /* decides f64 or not, and the extras' types */
            t_problem_describe(&p, t_seed() * 7919 + (uint64_t)(k * 100 + n), &limits);
            p.desc.v.type = info.v_type;
            p.desc.precision = info.precision;
            suit_operation(&p.desc, info.name);
            t_problem_rebuild(&p);
            t_problem_fill(&p);
            t_problem_solve(&p);
            const char *kernel = t_run(&p, info.cpu, T_SERIAL);
            t_check(kernel && strcmp(kernel, info.name) == 0, "ran %s", kernel ? kernel : "none");
            if (kernel)
                note(kernel, t_compare(&p, kernel));
        }
    }
}

/* Every fill against lengths and channels at the edges of tiles. */
static void test_fills(void)
{
    static const int32_t dims[] = {1, 7, 16, 17, 64, 96, 128, 1024};
    static const int64_t keys[] = {1, 2, 15, 17, 64, 127, 128, 129, 257, 600};
    static const int32_t types[] = {QKV_F32, QKV_F64, QKV_F16, QKV_BF16};
    t_limits limits = t_limits_plain();
    t_problem p;
    uint64_t seed = t_seed() * 104729;

    for (int fill = 0; fill < T_N_FILLS; fill++)
        for (int type = 0; type < 4; type++)
            for (int d = 0; d < 8; d++)
                for (int k = 0; k < 10; k++) {
                    seed++;
                    if ((seed % 4 && t_times(100) <= 100) || (dims[d] > 500 && keys[k] > 200))
                        continue; /* a quarter of the table; more with --scale above 100 */
                    if (!t_case("%s_%s_d%d_n%lld", t_fill_name(fill),
                                qkv_type_name((qkv_type)types[type]), dims[d], (long long)keys[k]))
                        continue;
                    limits.type = types[type];
                    t_problem_describe(&p, seed, &limits);
                    p.fill = fill;
                    p.desc.n_seqs = 1;
                    p.desc.n_q_heads = p.desc.n_kv_heads = 2;
                    p.desc.head_dim = p.desc.head_dim_v = dims[d];
                    p.desc.q_len = 1 + (int64_t)(seed % 19);
                    p.desc.kv_len = keys[k];
                    t_problem_shape(&p);
                    t_problem_lay_out(&p);
                    t_problem_allocate(&p);
                    t_problem_fill(&p);
                    t_problem_solve(&p);
                    run_tiers(&p, T_SERIAL);
                }
}

/* Few queries and thousands of keys: cut into parts and merged. */
static void test_long(void)
{
    t_limits limits = t_limits_all();
    t_problem p;
    limits.max_work = 6000000;
    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        t_problem_describe(&p, t_seed() * 15485863 + (uint64_t)i, &limits);
        p.desc.q_lens = p.desc.kv_lens = p.desc.kv_starts = p.desc.q_offsets = NULL;
        p.desc.cu_seqlens_q = p.desc.cu_seqlens_k = NULL;
        p.desc.block_bits = NULL;
        p.desc.n_seqs = 1;
        p.desc.head_dim = 1 + i % 70;
        p.desc.head_dim_v = 1 + i % 50;
        p.desc.n_kv_heads = 1 + i % 2;
        p.desc.n_q_heads = p.desc.n_kv_heads * (1 + i % 3);
        p.desc.q_len = 1 + i % 5;
        p.desc.kv_len = 900 + 113 * (i % 60);
        t_problem_shape(&p);
        t_problem_lay_out(&p);
        t_problem_allocate(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        run_tiers(&p, i % 2 ? T_THREADS + 3 : T_SERIAL);
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"mixed", test_mixed},
                                   {"small", test_small},
                                   {"registry", test_registry},
                                   {"fills", test_fills},
                                   {"long", test_long}};
    const int status = t_main(argc, argv, "attend", tests, 5);

    for (int i = 0; i < MAX_KERNELS && kernels[i].name; i++)
        printf("  %-34s worst error %.3f of its budget in %d problems\n", kernels[i].name,
               kernels[i].worst, kernels[i].problems);
    return status;
}
