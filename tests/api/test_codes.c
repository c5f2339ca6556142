/* test_codes.c - pages and codes: what is refused and how, and which entries of a table are. */
#include <stddef.h>
#include <string.h>

#include "api.h"

static void set_strides(qkv_layout *l, int32_t type, int64_t tokens, int64_t channels)
{
    const int64_t heads = 2;
    *l = (qkv_layout){type, 0, {heads * tokens * channels, tokens * channels, channels, 1}};
}

/* api_desc with keys in i8 beside a rotary part of 2 channels and values in u4, in 7 pages of 4
 * tokens; 9 keys take 3 pages. */
static qkv_desc coded_desc(void)
{
    qkv_desc d = api_desc();

    d.page_tokens = 4;
    d.n_pages = 7;
    d.block_table_stride[0] = 6;
    d.block_table_stride[1] = 3;
    d.rope_dim = 2;
    d.k_group = 2;
    d.v_group = 4;
    set_strides(&d.k, QKV_I8, 4, 6);
    set_strides(&d.k_scale, QKV_F32, 4, 3);
    set_strides(&d.k_rope, QKV_F16, 4, 2);
    set_strides(&d.v, QKV_U4, 4, 4);
    set_strides(&d.v_scale, QKV_F16, 4, 2);
    d.v_min = d.v_scale;
    return d;
}

static const int32_t some_cu[] = {0, 4, 8};

#define REFUSALS(X)                                                                                \
    X("page_tokens is -1; it must be 0 .. 2147483647", d->page_tokens = -1)                        \
    X("n_pages is 0; it must be 1 .. 2147483647", d->n_pages = 0)                                  \
    X("n_pages is -2147483648", d->n_pages = INT32_MIN)                                            \
    X("cu_seqlens_k is given together with page_tokens 4", d->cu_seqlens_k = some_cu)              \
    X("block_table_stride[0] is -1; it must be 0 .. ", d->block_table_stride[0] = -1)              \
    X("block_table_stride[1] is 1152921504606846976",                                              \
      d->block_table_stride[1] = (int64_t)1 << 60)                                                 \
    X("block_table_stride[0] is 2; kv_len 9 takes 3 pages of 4 tokens, so it must be that or "     \
      "more, or 0", d->block_table_stride[0] = 2)                                                  \
    X("block_table_stride[1] is 1; kv_len 9", d->block_table_stride[1] = 1)                        \
    X("q.type is 8 (i8); it must be f32, f16, bf16 or f64", d->q.type = QKV_I8)                    \
    X("o.type is 10 (e4m3); it must be f32, f16, bf16 or f64", d->o.type = QKV_E4M3)               \
    X("k.type is 6 (i32); it must be f32, f16, bf16 or f64, or codes: i8, u4, e4m3 or e5m2",       \
      d->k.type = QKV_I32)                                                                         \
    X("v.type is 12 (?)", d->v.type = 12)                                                          \
    X("k.type is i8 but q.type is f64; f64 goes only with f64", d->q.type = QKV_F64)               \
    X("v.stride[3] is 2; channels must be contiguous", d->v.stride[3] = 2)                         \
    X("k_scale.type is none; codes of type i8 need scales in f32 or f16",                          \
      d->k_scale.type = QKV_NONE)                                                                  \
    X("v_scale.type is bf16; codes of type u4 need scales", d->v_scale.type = QKV_BF16)            \
    X("v_min.type is none; it must be that of the scales for codes of type u4",                    \
      d->v_min.type = QKV_NONE)                                                                    \
    X("v_min.type is f32; it must be that of the scales", d->v_min.type = QKV_F32)                 \
    X("k_min.type is f32; it must be none for codes of type i8", d->k_min = d->k_scale)            \
    X("v_min.type is f16; it must be none for codes of type e5m2", d->v.type = QKV_E5M2)           \
    X("k_scale or k_min is given, but k.type is f32; only codes have scales",                      \
      d->k.type = QKV_F32)                                                                         \
    X("v_scale or v_min is given, but v.type is bf16",                                             \
      (d->v.type = QKV_BF16, d->v_scale.type = QKV_NONE))                                          \
    X("v_min.stride[2] is 5; it must be that of v_scale, 2", d->v_min.stride[2] = 5)               \
    X("k_group is -1; it must be 1 .. 6 channels, or 0 for all", d->k_group = -1)                  \
    X("k_group is 7; it must be 1 .. 6 channels", d->k_group = 7)                                  \
    X("v_group is 3; it must be 1 .. 8 channels, an even number, or 0 for all", d->v_group = 3)    \
    X("v_group is 9", d->v_group = 9)                                                              \
    X("rope_dim is 8; it must be 0 .. 7", d->rope_dim = 8)                                         \
    X("rope_dim is -1", d->rope_dim = -1)                                                          \
    X("k_rope.type is f16 and rope_dim 0; give both or neither", d->rope_dim = 0)                  \
    X("k_rope.type is none and rope_dim 2; give both", d->k_rope.type = QKV_NONE)                  \
    X("k_rope.type is i32 and q.type f32; k_rope must be f32, f16 or bf16",                        \
      d->k_rope.type = QKV_I32)                                                                    \
    X("k_rope.type is f64 and q.type f32", d->k_rope.type = QKV_F64)                               \
    X("k_rope.stride[3] is -1; channels must be contiguous", d->k_rope.stride[3] = -1)             \
    X("k_scale.stride is (9223372036854775807, ", d->k_scale.stride[0] = INT64_MAX)                \
    X("k.stride is (4611686018427387904, ", d->k.stride[0] = (int64_t)1 << 62)

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

void test_coded_refusals(void)
{
    char text[300];

    if (t_case("ok")) {
        qkv_desc d = coded_desc();
        t_check(qkv_explain(&d, text, sizeof text) == QKV_OK, "%s", text);
        d.block_table_stride[0] = d.block_table_stride[1] = 0;
        d.k_group = d.v_group = 0;
        t_check(qkv_explain(&d, text, sizeof text) == QKV_OK, "shared rows, one group: %s", text);
        d.rope_dim = 1;
        d.k_rope.stride[3] = 77; /* never used */
        t_check(qkv_explain(&d, text, sizeof text) == QKV_OK, "one rotary channel: %s", text);
        d = api_desc();
        d.n_pages = -5;
        d.k_group = -5;
        d.block_table_stride[0] = -5;
        t_check(qkv_explain(&d, text, sizeof text) == QKV_OK, "what is not used: %s", text);
    }
    for (int i = 0; i < (int)(sizeof expected / sizeof *expected); i++) {
        if (!t_case("%s", expected[i]))
            continue;
        qkv_desc d = coded_desc();
        edit(&d, i);
        api_check_refused(&d, expected[i]);
    }
}

/* ---- arguments -------------------------------------------------------------------------------- */

static float q[320], o[320], lse[40], k_scale[7 * 24];
static int8_t k[7 * 48];
static uint8_t v[7 * 32];
static uint16_t v_scale[7 * 16], v_min[7 * 16], k_rope[7 * 16];
static int32_t table[13]; /* 2 sequences, 2 heads, 3 entries, and one to misalign */

static qkv_args coded_args(const qkv_plan *plan)
{
    qkv_args a;

    qkv_args_init(&a);
    a.q = q;
    a.o = o;
    a.lse = lse;
    a.k = k;
    a.v = v;
    a.k_scale = k_scale;
    a.v_scale = v_scale;
    a.v_min = v_min;
    a.k_rope = k_rope;
    a.block_table = table;
    for (int i = 0; i < 12; i++)
        table[i] = i % 7;
    a.workspace_bytes = qkv_workspace_size(plan, 1);
    a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0xff);
    return a;
}

static const qkv_plan *plan_of(const qkv_desc *d)
{
    const qkv_plan *plan = NULL;
    const size_t bytes = qkv_plan_size(d);
    t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, d, &plan) == QKV_OK, "no plan");
    return plan;
}

#define BAD_ARGS(X)                                                                                \
    X("block_table is at", "a plan with pages needs one", a->block_table = NULL)                   \
    X("block_table is at", "aligned to 4 bytes",                                                   \
      a->block_table = (const int32_t *)(const void *)((const char *)table + 2))                   \
    X("block_table has page -1 as entry 0 of sequence 0, head 0; pages are 0 .. 6", "",            \
      table[0] = -1)                                                                               \
    X("block_table has page 7 as entry 2 of sequence 0, head 1", "", table[5] = 7)                 \
    X("block_table has page -2147483648 as entry 1 of sequence 1, head 1", "",                     \
      table[10] = INT32_MIN)                                                                       \
    X("k_scale is NULL; the plan needs it", "", a->k_scale = NULL)                                 \
    X("k_scale is NULL", "", a->struct_size = offsetof(qkv_args, block_table)) /* older */         \
    X("v_min is NULL", "", a->v_min = NULL)                                                        \
    X("k_rope is at", "it must be aligned to 2 bytes, the size of f16",                            \
      a->k_rope = (const char *)k_rope + 1)                                                        \
    X("o overlaps k_scale", "", a->k_scale = o + 7)                                                \
    X("o overlaps v", "", a->v = o + 3)

static int edit_args(qkv_args *a, int n, const char *text[2])
{
    int i = 0;
#define X(first, second, change)                                                                   \
    if (n == i++) {                                                                                \
        text[0] = first;                                                                           \
        text[1] = second;                                                                          \
        (void)(change);                                                                            \
        return 1;                                                                                  \
    }
    BAD_ARGS(X)
#undef X
    return 0;
}

static void test_bad_args(void)
{
    const qkv_desc d = coded_desc();
    const char *want[2];
    char text[300];
    qkv_args dummy;

    qkv_args_init(&dummy);
    for (int i = 0; edit_args(&dummy, i, want); i++) {
        if (!t_case("%s %s", want[0], want[1]))
            continue;
        const qkv_plan *plan = plan_of(&d);
        qkv_args a = coded_args(plan);
        t_check(qkv_args_check(plan, &a, 1, text, sizeof text) == QKV_OK, "good args: %s", text);
        edit_args(&a, i, want);
        t_check(qkv_args_check(plan, &a, 1, text, sizeof text) == QKV_ERR_ARGUMENT &&
                    strstr(text, want[0]) && strstr(text, want[1]), "%s", text);
    }
}

/* Entries that are not looked at may hold anything, and the run must not look either. */
static void check_ignored(const qkv_desc *d, int entry, int ignored)
{
    const qkv_plan *plan = plan_of(d);
    qkv_args a = coded_args(plan);
    char text[300];

    table[entry] = -1;
    const qkv_status status = qkv_args_check(plan, &a, 1, text, sizeof text);
    t_check((status == QKV_OK) == ignored, "entry %d: %s", entry, text);
    if (status == QKV_OK)
        qkv_run(plan, &a);
}

/* Scores of hidden keys are wanted too: then their pages must be there. */
static void check_raw_stages(qkv_desc d, int entry, int ignored)
{
    static float weights[360];

    for (int32_t stage = 0; stage < 4; stage++) {
        d.weights = (qkv_layout){QKV_F32, 0, {180, 45, 9, 1}};
        d.stage = stage;
        const qkv_plan *plan = plan_of(&d);
        qkv_args a = coded_args(plan);
        a.weights = weights;
        table[entry] = -1;
        const qkv_status status = qkv_args_check(plan, &a, 1, NULL, 0);
        t_check((status == QKV_OK) == (ignored && stage > QKV_STAGE_CAPPED), "stage %d", stage);
        if (status == QKV_OK)
            qkv_run(plan, &a);
    }
}

void test_block_tables(void)
{
    static const int32_t lens[] = {4, 9}, starts[] = {4, 3}, none[] = {0, 5}, offsets[] = {5, 5};

    test_bad_args();
    for (int entry = 0; entry < 12; entry++) {
        const int seq = entry / 6, page = entry % 3;
        qkv_desc d = coded_desc();
        if (!t_case("entry %d", entry))
            continue;
        d.kv_lens = lens; /* 4 keys, one page, in the first sequence */
        check_ignored(&d, entry, seq == 0 && page > 0);
        d.kv_lens = NULL;
        d.kv_starts = starts;
        check_ignored(&d, entry, seq == 0 && page == 0);
        d.kv_starts = NULL;
        d.q_lens = none;
        check_ignored(&d, entry, seq == 0);
        d.q_lens = NULL;
        d.causal = QKV_CAUSAL_INCLUSIVE; /* queries at 5 .. 9: they see from key 4 on */
        d.q_offsets = offsets;
        d.window_left = 1;
        check_ignored(&d, entry, page == 0);
        d.window_left = QKV_UNBOUNDED;
        d.align = QKV_ALIGN_TOP_LEFT; /* queries at 0 .. 4 */
        d.q_offsets = NULL;
        check_ignored(&d, entry, page == 2);
        check_raw_stages(d, entry, page == 2);
    }
}
