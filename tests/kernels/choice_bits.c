/*
 * choice_bits.c - tiles on which two kernels work: the same bits in any order of tasks, alone and
 * in a batch, with keys in pages; and whether they are right.
 */
#include <math.h>
#include <string.h>

#include "choice.h"
#include "qkv/ref.h"

enum { G = 7, HKV = 2, HQ = G * HKV, T = 3, TK = 1500, D = 72, PAGE = 16, LONGEST = 5 };
enum { O_COUNT = HQ * LONGEST * D };

/* Numbers in the type of the problem, the same in every call. */
static void *numbers(qkv_type type, int64_t n, uint64_t seed)
{
    t_rng rng = t_rng_of(seed);
    double *x = t_scratch((size_t)n * sizeof *x);
    void *out = t_scratch((size_t)n * qkv_type_size(type));

    for (int64_t i = 0; i < n; i++)
        x[i] = t_normal(&rng);
    t_check(qkv_convert(out, type, x, QKV_F64, (size_t)n) == QKV_OK, "no numbers");
    return out;
}

static qkv_desc describe(qkv_type type, int32_t n_seqs, int64_t longest)
{
    qkv_desc d;
    qkv_desc_init(&d);
    d.n_seqs = n_seqs;
    d.n_q_heads = HQ;
    d.n_kv_heads = HKV;
    d.q_len = longest;
    d.kv_len = TK;
    d.head_dim = d.head_dim_v = D;
    d.causal = QKV_CAUSAL_INCLUSIVE;
    qkv_desc_dense(&d, type, QKV_BHTD);
    return d;
}

/* Tasks of each phase from the last to the first, if `back`. */
static void run(const qkv_desc *d, qkv_args *a, int back)
{
    const qkv_plan *plan = choice_plan(d);

    a->workspace_bytes = qkv_workspace_size(plan, 1);
    a->workspace = t_alloc(a->workspace_bytes, 64, T_END, 0xff);
    for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++)
        for (int64_t n = qkv_n_tasks(plan, phase), i = 0; i < n; i++)
            qkv_run_task(plan, a, phase, back ? n - 1 - i : i, 0);
}

static void check_right(const qkv_desc *d, const qkv_args *a, qkv_type type)
{
    double *want = t_scratch(O_COUNT * sizeof *want), *got = t_scratch(O_COUNT * sizeof *got);
    const qkv_ref_out out = {.o = want};
    const double most = type == QKV_F32 ? 1e-5 : type == QKV_F16 ? 2e-3 : 2e-2;

    t_check(qkv_ref_attention(d, a, &out, t_scratch(qkv_ref_scratch_size(d))) == QKV_OK, "oracle");
    t_check(qkv_convert(got, QKV_F64, a->o, type, (size_t)(HQ * T * D)) == QKV_OK, "convert");
    for (int i = 0; i < HQ * T * D; i++)
        t_check(fabs(got[i] - want[i]) <= most * (0.05 + fabs(want[i])), "o[%d] is %g, not %g", i,
                got[i], want[i]);
}

/* Keys and values of a sequence as pages in another order. */
static void *in_pages(const void *rows, qkv_type type, const int32_t *table, int64_t n_pages)
{
    const size_t row = D * qkv_type_size(type);
    char *out = t_scratch((size_t)(n_pages * HKV * PAGE) * row);

    for (int64_t h = 0; h < HKV; h++)
        for (int64_t j = 0; j < TK; j++)
            memcpy(out + (size_t)((table[j / PAGE] * HKV + h) * PAGE + j % PAGE) * row,
                   (const char *)rows + (size_t)(h * TK + j) * row, row);
    return out;
}

static void check_pages(qkv_type type, const qkv_args *dense, const void *want)
{
    enum { N_PAGES = (TK + PAGE - 1) / PAGE };
    const size_t bytes = (size_t)(HQ * T * D) * qkv_type_size(type);
    int32_t table[N_PAGES];
    qkv_desc d = describe(type, 1, T);
    qkv_args a = *dense;

    for (int i = 0; i < N_PAGES; i++)
        table[i] = (int32_t)((i * 7 + 3) % N_PAGES);
    d.page_tokens = PAGE;
    d.n_pages = N_PAGES;
    d.block_table_stride[0] = N_PAGES;
    d.k.stride[0] = d.v.stride[0] = HKV * PAGE * D;
    d.k.stride[1] = d.v.stride[1] = PAGE * D;
    a.block_table = table;
    a.k = in_pages(dense->k, type, table, N_PAGES);
    a.v = in_pages(dense->v, type, table, N_PAGES);
    a.o = t_scratch(bytes);
    run(&d, &a, 0);
    t_check(memcmp(a.o, want, bytes) == 0, "pages give other bits");
}

/* Sequence 1 of three has the T queries. */
static void check_batch(qkv_type type, const qkv_args *one, const void *want)
{
    static const int32_t q_lens[] = {LONGEST, T, 1};
    const size_t size = qkv_type_size(type), kv = (size_t)(HKV * TK * D) * size;
    const size_t q = (size_t)(HQ * LONGEST * D) * size, row = D * size;
    qkv_desc d = describe(type, 3, LONGEST);
    qkv_args a = *one;
    char *all[4] = {t_scratch(3 * q), t_scratch(3 * kv), t_scratch(3 * kv), t_scratch(3 * q)};

    d.q_lens = q_lens;
    memset(all[0], 0, 3 * q);
    for (int b = 0; b < 3; b++) {
        memcpy(all[1] + (size_t)b * kv, one->k, kv);
        memcpy(all[2] + (size_t)b * kv, one->v, kv);
    }
    for (int h = 0; h < HQ; h++)
        memcpy(all[0] + q + (size_t)(h * LONGEST) * row,
               (const char *)one->q + (size_t)(h * T) * row, T * row);
    a.q = all[0];
    a.k = all[1];
    a.v = all[2];
    a.o = all[3];
    run(&d, &a, 1);
    for (int h = 0; h < HQ; h++)
        t_check(memcmp(all[3] + q + (size_t)(h * LONGEST) * row,
                       (const char *)want + (size_t)(h * T) * row, T * row) == 0,
                "head %d has other bits in a batch", h);
}

void test_bits(void)
{
    static const qkv_type types[] = {QKV_F32, QKV_F16, QKV_BF16};

    for (int i = 0; i < 3; i++) {
        const qkv_type type = types[i];
        const size_t bytes = (size_t)(HQ * T * D) * qkv_type_size(type);
        const qkv_desc d = describe(type, 1, T);
        qkv_args a;
        if (!t_case("%s", qkv_type_name(type)))
            continue;
        qkv_args_init(&a);
        a.q = numbers(type, HQ * T * D, 1);
        a.k = numbers(type, HKV * TK * D, 2);
        a.v = numbers(type, HKV * TK * D, 3);
        a.o = t_scratch(bytes);
        run(&d, &a, 0);
        check_right(&d, &a, type);
        void *first = a.o;
        a.o = t_scratch(bytes);
        run(&d, &a, 1);
        t_check(memcmp(a.o, first, bytes) == 0, "tasks in another order give other bits");
        check_batch(type, &a, first);
        check_pages(type, &a, first);
    }
}
