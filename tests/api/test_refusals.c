/* test_refusals.c - everything that is refused, and the sentence that says so. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api.h"

qkv_desc api_desc(void)
{
    qkv_desc d;
    qkv_desc_init(&d);
    d.n_seqs = 2;
    d.n_q_heads = 4;
    d.n_kv_heads = 2;
    d.head_dim = d.head_dim_v = 8;
    d.q_len = 5;
    d.kv_len = 9;
    d.lse.type = QKV_F32;
    qkv_desc_dense(&d, QKV_F32, QKV_BHTD);
    return d;
}

static const int32_t low_lens[] = {3, -1}, long_lens[] = {3, 10}, starts[] = {0, 10};
static const int32_t falling[] = {0, 5, 4}, negative[] = {-1, 2, 4}, far[] = {0, 2, 30};
static const int32_t good_cu[] = {0, 4, 8}, five[] = {5, 5};
static const uint8_t bits[64];

/* What the sentence must contain, and the change that provokes it. */
#define REFUSALS(X)                                                                                \
    X("n_seqs is -1", d->n_seqs = -1)                                                              \
    X("n_q_heads is 0", d->n_q_heads = 0)                                                          \
    X("n_kv_heads is 0", d->n_kv_heads = 0)                                                        \
    X("n_kv_heads is 3; it must divide n_q_heads, which is 4", d->n_kv_heads = 3)                  \
    X("head_dim is 0", d->head_dim = 0)                                                            \
    X("head_dim is 1025", d->head_dim = 1025)                                                      \
    X("head_dim_v is 1025", d->head_dim_v = 1025)                                                  \
    X("q_len is -1", d->q_len = -1)                                                                \
    X("q_len is 2147483648", d->q_len = (int64_t)1 << 31)                                          \
    X("kv_len is 2147483648", d->kv_len = (int64_t)1 << 31)                                        \
    X("precision is 3", d->precision = 3)                                                          \
    X("causal is 3", d->causal = 3)                                                                \
    X("align is -1", d->align = -1)                                                                \
    X("stage is 4", d->stage = 4)                                                                  \
    X("window_left is -2", d->window_left = -2)                                                    \
    X("window_right is -7", d->window_right = -7)                                                  \
    X("scale is nan", d->scale = NAN)                                                              \
    X("scale is inf", d->scale = INFINITY)                                                         \
    X("scale is 1e+300", d->scale = 1e300)                                                         \
    X("softcap is -1", d->softcap = -1)                                                            \
    X("softcap is nan", d->softcap = NAN)                                                          \
    X("softcap is inf", d->softcap = INFINITY)                                                     \
    X("q.type is 5 (bool)", d->q.type = QKV_BOOL)                                                  \
    X("k.type is 0 (none)", d->k.type = QKV_NONE)                                                  \
    X("v.type is 99 (?)", d->v.type = 99)                                                          \
    X("f64 goes only with f64", d->v.type = QKV_F64)                                               \
    X("f64 goes only with f64", d->q.type = QKV_F64)                                               \
    X("k.stride[3] is 2; channels must be contiguous", d->k.stride[3] = 2)                         \
    X("o.stride[3] is 0", d->o.stride[3] = 0)                                                      \
    X("mask.type is 2 (f32)", d->mask.type = QKV_F32)                                              \
    X("bias.type is 5 (bool)", d->bias.type = QKV_BOOL)                                            \
    X("bias.type is f64", d->bias.type = QKV_F64)                                                  \
    X("sinks.type is 6 (i32)", d->sinks.type = QKV_I32)                                            \
    X("slopes.type is f64", d->slopes.type = QKV_F64)                                              \
    X("lse.type is 3 (f16); it must be f32", d->lse.type = QKV_F16)                                \
    X("weights.type is 1 (f64)", d->weights.type = QKV_F64)                                        \
    X("q_lens[1] is -1; it must be 0 .. 5", d->q_lens = low_lens)                                  \
    X("kv_lens[1] is 10; it must be 0 .. 9", d->kv_lens = long_lens)                               \
    X("kv_starts[1] is 10; it must be 0 .. 9", d->kv_starts = starts)                              \
    X("cu_seqlens_q[2] is 4, less than the 5 before it", d->cu_seqlens_q = falling)                \
    X("cu_seqlens_k[0] is -1", d->cu_seqlens_k = negative)                                         \
    X("cu_seqlens_k gives sequence 1 28 tokens; kv_len allows 9", d->cu_seqlens_k = far)           \
    X("cu_seqlens_type is 2 (f32); it must be i32 or i64",                                         \
      (d->cu_seqlens_q = good_cu, d->cu_seqlens_type = QKV_F32))                                   \
    X("q_lens is given together with cu_seqlens_q",                                                \
      (d->cu_seqlens_q = good_cu, d->q_lens = five))                                               \
    X("kv_lens[0] is 5; cu_seqlens_k gives that sequence 4 keys",                                  \
      (d->cu_seqlens_k = good_cu, d->kv_lens = five))                                              \
    X("block_q is 0", (d->block_bits = bits, d->block_q = 0))                                      \
    X("block_k is -1", (d->block_bits = bits, d->block_k = -1))                                    \
    X("block_stride[2] is -1", (d->block_bits = bits, d->block_stride[2] = -1))                    \
    X("o.stride is", d->o.stride[2] = 0)                                                           \
    X("an output must not have two elements in one place", d->lse.stride[1] = 1)                   \
    X("more than 2^62 bytes", d->k.stride[0] = INT64_MAX)                                          \
    X("more than 2^62 bytes", d->v.stride[2] = INT64_MIN)                                          \
    X("desc.struct_size is 0; it must be 584 .. ", d->struct_size = 0)                             \
    X("compiled with a newer header", d->struct_size += 8)

static const char *const expected[] = {
#define X(text, change) text,
    REFUSALS(X)
#undef X
};

static void edit(qkv_desc *d, int n)
{
    int i = 0;
#define X(text, change)                                                                            \
    if (n == i++)                                                                                  \
        (void)(change);
    REFUSALS(X)
#undef X
}

void api_check_refused(const qkv_desc *d, const char *sentence)
{
    char text[300], memory[64];
    const qkv_plan *plan = (const qkv_plan *)(const void *)memory;
    const qkv_status status = qkv_explain(d, text, sizeof text);

    t_check(status == QKV_ERR_ARGUMENT || status == QKV_ERR_UNSUPPORTED, "accepted");
    t_check(strstr(text, sentence) != NULL, "the sentence is: %s", text);
    t_check(qkv_plan_size(d) == 0, "qkv_plan_size is %zu", qkv_plan_size(d));
    t_check(qkv_plan_init(memory, sizeof memory, d, &plan) == status, "plan_init differs");
    t_check((const void *)plan == (const void *)memory, "plan was touched");
    t_check(qkv_attention_workspace_size(d, 1) == 0, "workspace size is not 0");
}

void test_refusals(void)
{
    qkv_desc good = api_desc();
    char text[300];

    if (t_case("ok")) {
        t_check(qkv_explain(&good, text, sizeof text) == QKV_OK && strcmp(text, "ok") == 0,
                "the good descriptor: %s", text);
        t_check(qkv_explain(NULL, text, sizeof text) == QKV_ERR_ARGUMENT &&
                    strstr(text, "desc is NULL"), "NULL: %s", text);
        char small[5] = {1, 1, 1, 1, 1};
        good.n_seqs = -1;
        t_check(qkv_explain(&good, small, 4) == QKV_ERR_ARGUMENT &&
                    memcmp(small, "n_s\0\1", 5) == 0,
                "a sentence is cut to fit and terminated");
        t_check(qkv_explain(&good, NULL, 0) == QKV_ERR_ARGUMENT, "no text wanted");
    }
    for (int i = 0; i < (int)(sizeof expected / sizeof *expected); i++) {
        if (!t_case("%s", expected[i]))
            continue;
        qkv_desc d = api_desc();
        edit(&d, i);
        api_check_refused(&d, expected[i]);
    }
}

/* ---- arguments ---- */

static float q[2 * 4 * 5 * 8], k[2 * 2 * 9 * 8], v[2 * 2 * 9 * 8], o[2 * 4 * 5 * 8], lse[40];

#define BAD_ARGS(X)                                                                                \
    X("q is NULL; the plan needs it", QKV_ERR_ARGUMENT, a->q = NULL)                               \
    X("o is NULL", QKV_ERR_ARGUMENT, a->o = NULL)                                                  \
    X("lse is NULL", QKV_ERR_ARGUMENT, a->lse = NULL)                                              \
    X("it must be aligned to 4 bytes, the size of f32", QKV_ERR_ARGUMENT,                          \
      a->k = (const char *)k + 2)                                                                  \
    X("workspace_bytes is 1", QKV_ERR_BUFFER, a->workspace_bytes = 1)                              \
    X("must be aligned to 64 bytes", QKV_ERR_BUFFER, a->workspace = (char *)a->workspace + 8)      \
    X("workspace is at", QKV_ERR_BUFFER, a->workspace = NULL)                                      \
    X("o overlaps q", QKV_ERR_ARGUMENT, a->o = q + 8)                                              \
    X("o overlaps", QKV_ERR_ARGUMENT, a->o = v)                                                    \
    X("overlaps o", QKV_ERR_ARGUMENT, a->lse = o + 3)                                              \
    X("overlaps", QKV_ERR_ARGUMENT, a->o = a->workspace)                                           \
    X("not set up by qkv_args_init", QKV_ERR_ARGUMENT, a->struct_size = 0)

static int edit_args(qkv_args *a, int n, const char **text, qkv_status *status)
{
    int i = 0;
#define X(sentence, code, change)                                                                  \
    if (n == i++) {                                                                                \
        *text = sentence;                                                                          \
        *status = code;                                                                            \
        (void)(change);                                                                            \
        return 1;                                                                                  \
    }
    BAD_ARGS(X)
#undef X
    return 0;
}

void test_args(void)
{
    const qkv_desc d = api_desc();
    const char *want;
    qkv_status code;
    qkv_args dummy;

    qkv_args_init(&dummy);
    dummy.workspace = q;
    for (int i = 0; edit_args(&dummy, i, &want, &code); i++) {
        if (!t_case("%s %d", want, i))
            continue;
        const qkv_plan *plan;
        const size_t bytes = qkv_plan_size(&d);
        t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &d, &plan) == QKV_OK, "no plan");
        qkv_args a;
        char text[300];
        qkv_args_init(&a);
        a.q = q;
        a.k = k;
        a.v = v;
        a.o = o;
        a.lse = lse;
        a.workspace_bytes = qkv_workspace_size(plan, 3) + 64;
        a.workspace = t_alloc(a.workspace_bytes, 64, T_START, 0);
        t_check(qkv_args_check(plan, &a, 3, text, sizeof text) == QKV_OK, "good args: %s", text);
        edit_args(&a, i, &want, &code);
        const qkv_status status = qkv_args_check(plan, &a, 3, text, sizeof text);
        t_check(status == code && strstr(text, want), "status %d, %s", status, text);
    }
    if (t_case("slots of one array")) {
        qkv_desc p = api_desc();
        const qkv_plan *plan;
        /* o as a fourth slot of packed [B][T][q k v o][D], Tq = Tk. */
        static float array[2 * 9 * (4 + 2 + 2 + 4) * 8];
        qkv_layout *layouts[] = {&p.q, &p.k, &p.v, &p.o};
        p.q_len = 9;
        p.lse.type = QKV_NONE;
        for (int i = 0; i < 4; i++) {
            layouts[i]->stride[0] = 9 * 96;
            layouts[i]->stride[1] = 8;
            layouts[i]->stride[2] = 96;
        }
        const size_t bytes = qkv_plan_size(&p);
        t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &p, &plan) == QKV_OK, "no plan");
        qkv_args a;
        char text[300];
        qkv_args_init(&a);
        a.q = array;
        a.k = array + 32;
        a.v = array + 48;
        a.o = array + 64;
        a.workspace_bytes = qkv_workspace_size(plan, 1);
        a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0);
        t_check(qkv_args_check(plan, &a, 1, text, sizeof text) == QKV_OK, "refused: %s", text);
        a.o = array + 56;
        t_check(qkv_args_check(plan, &a, 1, text, sizeof text) == QKV_ERR_ARGUMENT,
                "o over v accepted");
    }
}

void test_merge_refusals(void)
{
    static const char *const want[] = {"type is 3 (f16)", "n_parts", "head_dim_v is 0", "o is NULL",
                                       "o_parts or lse_parts is NULL", "is NULL",
                                       "not set up by qkv_merge_init"};
    const void *parts[] = {q, NULL};
    for (int i = 0; i < 7; i++) {
        if (!t_case("%s %d", want[i], i))
            continue;
        qkv_merge_args m;
        char text[300];
        qkv_merge_init(&m);
        m.n_parts = 1;
        m.head_dim_v = 4;
        m.n_tokens = 1;
        m.o_parts = m.lse_parts = parts;
        m.o = o;
        t_check(qkv_merge(&m, text, sizeof text) == QKV_OK, "good args: %s", text);
        m.type = i == 0 ? QKV_F16 : QKV_F32;
        m.n_parts = i == 1 ? -1 : i == 5 ? 2 : 1;
        m.head_dim_v = i == 2 ? 0 : 4;
        m.o = i == 3 ? NULL : o;
        m.lse_parts = i == 4 ? NULL : parts;
        m.struct_size -= i == 6 ? 8 : 0;
        t_check(qkv_merge(&m, text, sizeof text) == QKV_ERR_ARGUMENT && strstr(text, want[i]),
                "the sentence is: %s", text);
    }
}
