/*
 * test_bf16.c - kernels whose products are of bf16, at the edges of their tiles: channels in pairs
 * and 32s, keys in pairs, 16s and 32s, queries in 16s, 32s and whole tiles.
 *
 * test_attend.c draws everything a descriptor can say; here sizes are chosen so that each rest of
 * each tile is met, on every tier that has such kernels.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pages.h"

enum { MAX_KERNELS = 8 };

/* Kernels for tiles of many queries that compute with bf16 at this precision. */
static int kernels_for(const qkv_desc *d, qkv_kernel_info infos[MAX_KERNELS])
{
    int n = 0;
    for (int32_t i = 0; i < qkv_kernel_count() && n < MAX_KERNELS; i++) {
        qkv_kernel_info *info = &infos[n];
        qkv_kernel_info_get(i, info);
        n += info->available && strcmp(info->op, "attend") == 0 && info->k_type == d->k.type &&
             info->v_type == d->v.type && info->precision == d->precision &&
             (info->compute_type == QKV_BF16 || info->precision == QKV_PRECISION_HIGH);
    }
    return n;
}

static struct {
    const char *name;
    double worst;
    int problems;
} ran[MAX_KERNELS];

static void note(const char *name, double worst)
{
    int i = 0;
    while (i < MAX_KERNELS - 1 && ran[i].name && strcmp(ran[i].name, name) != 0)
        i++;
    ran[i].name = name;
    ran[i].problems++;
    ran[i].worst = worst > ran[i].worst ? worst : ran[i].worst;
}

/* What this program is about: one head or a few, bf16 or f32 that may be rounded. */
static void describe(t_problem *p, uint64_t seed, int32_t type, int32_t precision)
{
    t_limits limits = t_limits_plain();

    limits.type = type;
    limits.outputs = 1;
    limits.layouts = T_ANY_LAYOUT;
    limits.max_dim = 40;
    limits.max_len = 60;
    t_problem_describe(p, seed, &limits);
    p->desc.n_seqs = 1;
    p->desc.precision = precision;
    p->desc.align = seed % 3 ? QKV_ALIGN_BOTTOM_RIGHT : QKV_ALIGN_TOP_LEFT;
}

static void run_one(t_problem *p, const qkv_kernel_info *info, int how)
{
    const char *kernel = t_run(p, info->cpu, how);

    t_check(kernel && strcmp(kernel, info->name) == 0, "ran %s, not %s",
            kernel ? kernel : "nothing", info->name);
    if (kernel)
        note(kernel, t_compare(p, kernel));
}

/* Returns how many kernels there were. */
static int run(t_problem *p)
{
    qkv_kernel_info infos[MAX_KERNELS];
    const int n = kernels_for(&p->desc, infos);

    for (int i = 0; i < n; i++)
        run_one(p, &infos[i], i % 2 ? T_TASKS_BACK : T_SERIAL);
    return n;
}

static int64_t pick(t_rng *rng, const int64_t *from, int n) { return from[t_below(rng, n)]; }

/* Sizes around every edge, with ranges that cut blocks at odd places. */
static void test_edges(void)
{
    static const int64_t dims[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 128, 130, 576};
    static const int64_t queries[] = {17, 31, 32, 33, 48, 49, 64, 65, 255, 256, 257, 300};
    static const int64_t keys[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 95, 96, 97, 127, 128, 129, 160, 255, 300};
    t_problem p;

    for (int i = 0; i < t_times(400); i++) {
        static const int32_t precisions[] = {QKV_PRECISION_HIGHEST, QKV_PRECISION_HIGHEST,
                                             QKV_PRECISION_HIGHEST, QKV_PRECISION_HIGH,
                                             QKV_PRECISION_MEDIUM};
        const int32_t precision = precisions[i % 5];
        if (!t_case("p%d", i))
            continue;
        describe(&p, t_seed() * 6151 + (uint64_t)i,
                 precision == QKV_PRECISION_HIGHEST ? QKV_BF16 : QKV_F32, precision);
        qkv_desc *d = &p.desc;
        d->n_kv_heads = 1;
        d->n_q_heads = (int32_t)t_between(&p.rng, 1, 3);
        d->head_dim = (int32_t)pick(&p.rng, dims, 15);
        d->head_dim_v = (int32_t)pick(&p.rng, dims, 14);
        d->q_len = pick(&p.rng, queries, d->head_dim > 300 ? 6 : 12);
        d->kv_len = pick(&p.rng, keys, 18);
        d->causal = (int32_t)t_below(&p.rng, 3) /* none, inclusive, strict */;
        if (t_chance(&p.rng, 30))
            d->window_left = t_between(&p.rng, 0, 150);
        int32_t *start = t_scratch(sizeof *start);
        *start = (int32_t)t_below(&p.rng, d->kv_len + 1);
        if (t_chance(&p.rng, 30))
            d->kv_starts = start;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        run(&p);
    }
}

/* Many blocks of keys for one sub-tile or a few, whose maxima rise: every rescaling counts. */
static void test_long(void)
{
    t_problem p;

    for (int i = 0; i < t_times(48); i++) {
        if (!t_case("p%d", i))
            continue;
        describe(&p, t_seed() * 3079 + (uint64_t)i, i % 3 ? QKV_BF16 : QKV_F32,
                 i % 3 ? QKV_PRECISION_HIGHEST : QKV_PRECISION_HIGH);
        p.desc.n_kv_heads = p.desc.n_q_heads = 1;
        p.desc.head_dim_v = 1 + 9 * (i % 9);
        p.desc.q_len = (i % 4 ? 17 : 70) + i % 16;
        p.desc.kv_len = 257 + 61 * (i % 12);
        p.fill = i % 2 ? T_RISING : T_NORMAL;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        run(&p);
    }
}

/* A NaN or an infinity in a value that some queries of a tile see and others do not. */
static void test_seen_by_some(void)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    t_problem p;

    for (int i = 0; i < t_times(120); i++) {
        if (!t_case("p%d", i))
            continue;
        describe(&p, t_seed() * 12289 + (uint64_t)i, i % 3 ? QKV_BF16 : QKV_F32,
                 i % 3 ? QKV_PRECISION_HIGHEST : QKV_PRECISION_HIGH);
        p.desc.n_kv_heads = p.desc.n_q_heads = 1;
        p.desc.q_len = 150 + i;
        p.desc.kv_len = p.desc.q_len + i % 4; /* the last key a tile sees is odd or even */
        p.desc.causal = QKV_CAUSAL_INCLUSIVE;
        p.desc.align = QKV_ALIGN_BOTTOM_RIGHT;
        p.desc.window_left = i % 2 ? -1 : 40;
        p.fill = T_NORMAL;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        for (int n = 0; n < 3; n++) { /* behind what some sub-tile, of 32 or 48, sees last */
            const int64_t j = (i & 4 ? 32 : 48) * (1 + (i + n) % 4) + i % 4;
            if (j < p.desc.kv_len)
                t_put(&p, T_V, 0, 0, j, n % p.desc.head_dim_v, bad[(i + n) % 3]);
        }
        t_problem_solve(&p);
        run(&p);
    }
}

/* A sub-tile of one token, all its heads seeing the same keys, beside one of the next token: nothing
 * is hidden in either, and still the first must not meet the last key of the second. */
static void test_one_token_a_tile(void)
{
    static const int32_t heads[] = {32, 48, 96, 144};
    t_problem p;

    for (int i = 0; i < t_times(60); i++) {
        if (!t_case("p%d", i))
            continue;
        describe(&p, t_seed() * 24593 + (uint64_t)i, i % 3 ? QKV_BF16 : QKV_F32,
                 i % 3 ? QKV_PRECISION_HIGHEST : QKV_PRECISION_HIGH);
        p.desc.n_kv_heads = 1;
        p.desc.n_q_heads = heads[i % 4];
        p.desc.q_len = 5;
        p.desc.kv_len = 5 + i;
        p.desc.causal = QKV_CAUSAL_INCLUSIVE;
        p.desc.align = QKV_ALIGN_BOTTOM_RIGHT;
        p.fill = T_NORMAL;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_put(&p, T_V, 0, 0, p.desc.kv_len - 1 - i / 4 % 4, 0, i % 8 < 4 ? NAN : INFINITY);
        t_problem_solve(&p);
        run(&p);
    }
}

/* Keys and values in pages: a product of 32 keys must not touch pages that no query needs, whose
 * ids are junk here, and gives the same bits as without pages. */
static void test_in_pages(void)
{
    static const int32_t pages[] = {1, 8, 16, 17, 32, 48, 64, 128, 256};
    t_limits limits = t_limits_all();
    paged x;

    limits.max_len = 300;
    limits.max_dim = 130;
    limits.max_work = 1500000;
    limits.outputs = limits.strange = 0;
    for (int i = 0; i < t_times(150); i++) {
        if (!t_case("p%d", i))
            continue;
        limits.type = i % 3 ? QKV_BF16 : QKV_F32;
        pages_describe(&x, t_seed() * 98317 + (uint64_t)i, &limits);
        qkv_desc *d = &x.p.desc;
        d->k.type = d->v.type = limits.type;
        d->q.type = limits.type;
        d->precision = i % 3 ? QKV_PRECISION_HIGHEST : QKV_PRECISION_HIGH;
        d->k_group = d->v_group = d->rope_dim = 0;
        d->k_rope.type = QKV_NONE;
        d->cu_seqlens_q = d->cu_seqlens_k = NULL;
        d->q_lens = d->kv_lens = NULL;
        d->q_len = 20 + d->q_len % 100; /* too many for the decode kernels */
        d->kv_len = 40 + d->kv_len % 200;
        int32_t *starts = t_scratch((size_t)d->n_seqs * sizeof *starts);
        for (int32_t b = 0; b < d->n_seqs; b++)
            starts[b] = (int32_t)t_below(&x.p.rng, d->kv_len + 1);
        d->kv_starts = i % 2 ? starts : NULL;
        d->block_bits = NULL;
        d->page_tokens = pages[i / 2 % 9];
        d->head_dim = i % 4 ? d->head_dim : 64;
        x.latent = x.latent && d->head_dim_v <= d->head_dim;
        pages_make(&x);
        qkv_kernel_info infos[MAX_KERNELS];
        t_copy in_pages[MAX_KERNELS];
        const int n = kernels_for(&x.p.desc, infos);
        for (int k = 0; k < n; k++) {
            run_one(&x.p, &infos[k], T_SERIAL);
            in_pages[k] = t_copy_outputs(&x.p);
        }
        pages_unpage(&x);
        for (int k = 0; k < n; k++) {
            run_one(&x.p, &infos[k], T_THREADS + 3);
            t_check(t_same_outputs(&x.p, &in_pages[k]), "%s: other bits in pages; %s",
                    infos[k].name, pages_text(&x));
        }
    }
}

/* f32 in parts of bf16 is for error near 1e-5: within 2e-5 of the oracle in the 2-norm. */
static void test_high(void)
{
    static const int32_t dims[] = {64, 128, 256};
    t_problem p;

    for (int i = 0; i < 3; i++) {
        if (!t_case("d%d", dims[i]))
            continue;
        describe(&p, t_seed() * 49157 + (uint64_t)i, QKV_F32, QKV_PRECISION_HIGH);
        p.desc.n_kv_heads = p.desc.n_q_heads = 1;
        p.desc.head_dim = p.desc.head_dim_v = dims[i];
        p.desc.q_len = 40;
        p.desc.kv_len = 400;
        p.fill = T_NORMAL;
        t_problem_rebuild(&p);
        t_problem_fill(&p);
        t_problem_solve(&p);
        if (run(&p) == 0) /* o was not written */
            continue;
        double error = 0, norm = 0;
        for (int64_t t = 0; t < p.desc.q_len; t++)
            for (int64_t c = 0; c < dims[i]; c++) {
                const double want = p.ref.o[t * dims[i] + c];
                error += pow(t_get_o(&p, 0, 0, t, c) - want, 2);
                norm += want * want;
            }
        t_check(error <= 4e-10 * norm, "the relative error is %.2g", sqrt(error / norm));
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"edges", test_edges},
                                   {"long", test_long},
                                   {"seen_by_some", test_seen_by_some},
                                   {"one_token_a_tile", test_one_token_a_tile},
                                   {"in_pages", test_in_pages},
                                   {"high", test_high}};
    const int status = t_main(argc, argv, "bf16", tests, (int)(sizeof tests / sizeof *tests));

    for (int i = 0; i < MAX_KERNELS && ran[i].name; i++)
        printf("  %-34s worst error %.3f of its budget in %d problems\n", ran[i].name, ran[i].worst,
               ran[i].problems);
    if (!ran[0].name)
        printf("  nothing was run: this CPU has no tier with products of bf16\n");
    return status;
}
