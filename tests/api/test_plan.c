/* test_plan.c - versions, sizes, reuse, the one-shot call, the registry. */
#include <stddef.h>
#include <string.h>

#include "qkv/ref.h"

#include "api.h"

void test_versions(void)
{
    if (t_case("header and library")) {
        t_check(qkv_version() == (QKV_VERSION_MAJOR << 16 | QKV_VERSION_MINOR << 8 |
                                  QKV_VERSION_PATCH), "qkv_version is %x", qkv_version());
        t_check(strcmp(qkv_version_string(), "0.1.0") == 0, "it is %s", qkv_version_string());
    }
    if (t_case("a struct of a newer program")) {
        /* Bytes past what this library knows are zeroed, and the size is kept, so that
         * qkv_explain can refuse what it cannot honour. */
        struct {
            qkv_desc d;
            char more[16];
        } newer;
        memset(&newer, 0x77, sizeof newer);
        qkv_desc_init_sized(&newer.d, sizeof newer);
        t_check(newer.d.struct_size == sizeof newer, "struct_size is %u", newer.d.struct_size);
        for (size_t i = 0; i < sizeof newer.more; i++)
            t_check(newer.more[i] == 0, "byte %zu past the struct is not 0", i);
        newer.d.head_dim = newer.d.head_dim_v = 4;
        t_check(qkv_explain(&newer.d, NULL, 0) == QKV_ERR_UNSUPPORTED, "it is not refused");
    }
    if (t_case("a struct of an older program")) {
        unsigned char older[sizeof(qkv_desc)];
        memset(older, 0x77, sizeof older);
        qkv_desc_init_sized((qkv_desc *)(void *)older, sizeof older - 8);
        for (size_t i = sizeof older - 8; i < sizeof older; i++)
            t_check(older[i] == 0x77, "byte %zu past the older struct was written", i);
    }
    if (t_case("status and type names")) {
        for (int i = 0; i < 7; i++)
            t_check(strncmp(qkv_status_name((qkv_status)i), i ? "QKV_ERR_" : "QKV_OK", 6) == 0 &&
                        strlen(qkv_status_text((qkv_status)i)) > 1, "status %d", i);
        t_check(qkv_status_name((qkv_status)77) && qkv_status_text((qkv_status)77), "status 77");
        static const char *const names[] = {"none", "f64", "f32", "f16", "bf16", "bool", "i32",
                                            "i64"};
        static const size_t sizes[] = {0, 8, 4, 2, 2, 1, 4, 8};
        for (int i = 0; i < 8; i++)
            t_check(strcmp(qkv_type_name((qkv_type)i), names[i]) == 0 &&
                        qkv_type_size((qkv_type)i) == sizes[i], "type %d", i);
        t_check(strcmp(qkv_type_name((qkv_type)50), "?") == 0 && qkv_type_size((qkv_type)50) == 0,
                "a value that is no type");
    }
}

static float q[320], k[288], v[288], o[2][320], lse[2][40];

static qkv_args some_args(int which)
{
    qkv_args a;
    qkv_args_init(&a);
    for (int i = 0; i < 320; i++)
        q[i] = (float)((i * 37) % 17) / 8 - 1;
    for (int i = 0; i < 288; i++) {
        k[i] = (float)((i * 53) % 19) / 9 - 1;
        v[i] = (float)((i * 71) % 23) / 11 - 1;
    }
    a.q = q;
    a.k = k;
    a.v = v;
    a.o = o[which];
    a.lse = lse[which];
    return a;
}

/* Of two key/value heads with two query heads each, causal. */
static int64_t key_reads(int64_t q_len, int64_t kv_len, int64_t window_left)
{
    qkv_desc d;
    const qkv_plan *plan = NULL;

    qkv_desc_init(&d);
    d.n_q_heads = 4;
    d.n_kv_heads = 2;
    d.head_dim = d.head_dim_v = 8;
    d.q_len = q_len;
    d.kv_len = kv_len;
    d.causal = QKV_CAUSAL_INCLUSIVE;
    d.window_left = window_left < 0 ? QKV_UNBOUNDED : window_left;
    qkv_desc_dense(&d, QKV_F32, QKV_BHTD);
    const size_t size = qkv_plan_size(&d);
    t_check(qkv_plan_init(t_alloc(size, 8, T_END, 0), size, &d, &plan) == QKV_OK, "no plan");
    return qkv_plan_key_reads(plan);
}

void test_plans(void)
{
    const qkv_desc d = api_desc();
    const size_t bytes = qkv_plan_size(&d);
    const qkv_plan *plan = NULL;

    if (t_case("too small or misaligned memory")) {
        char *memory = t_alloc(bytes + 8, 8, T_START, 0);
        t_check(qkv_plan_init(memory, bytes - 1, &d, &plan) == QKV_ERR_BUFFER, "one byte less");
        t_check(qkv_plan_init(memory + 4, bytes, &d, &plan) == QKV_ERR_BUFFER, "misaligned");
        t_check(qkv_plan_init(NULL, bytes, &d, &plan) != QKV_OK, "NULL");
        t_check(plan == NULL, "plan was touched");
    }
    if (t_case("one plan for many runs")) {
        t_check(qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &d, &plan) == QKV_OK, "no plan");
        qkv_args a = some_args(0), b = some_args(1);
        a.workspace_bytes = b.workspace_bytes = qkv_workspace_size(plan, 1);
        a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0xff);
        b.workspace = t_alloc(b.workspace_bytes, 64, T_END, 0);
        qkv_run(plan, &a);
        qkv_run(plan, &b);
        t_check(memcmp(o[0], o[1], sizeof o[0]) == 0 && memcmp(lse[0], lse[1], sizeof lse[0]) == 0,
                "two runs differ");
        t_check(qkv_workspace_size(plan, 0) == qkv_workspace_size(plan, 1), "0 workers");
        t_check(qkv_plan_visible_pairs(plan) == 2 * 4 * 5 * 9, "visible pairs: %lld",
                (long long)qkv_plan_visible_pairs(plan));
        t_check(qkv_n_tasks(plan, 7) == 0, "a phase that does not exist has tasks");
    }
    if (t_case("how often keys are read")) {
        /* A decoding step reads each key once a key/value head; so do its parts together. */
        t_check(key_reads(1, 5000, -1) == 2 * 5000, "%lld", (long long)key_reads(1, 5000, -1));
        t_check(key_reads(1, 5000, 99) == 2 * 100, "%lld", (long long)key_reads(1, 5000, 99));
        /* Tiles of all kernels have less than 1,000 rows; each reads what its last row sees. */
        const int64_t n = key_reads(2000, 2000, -1);
        t_check(n > 2 * 2000 && n <= (int64_t)2 * 2000 * 4000, "%lld", (long long)n);
        t_check(key_reads(2000, 2000, 0) < n, "a window does not help");
        t_check(key_reads(0, 5000, -1) == 0, "without queries");
    }
    if (t_case("the workspace does not grow with the lengths")) {
        size_t need[2];
        for (int i = 0; i < 2; i++) {
            qkv_desc x = api_desc();
            x.q_len = i ? 1000000 : 50000;
            x.kv_len = i ? 100000000 : 50000;
            x.lse.type = QKV_NONE;
            qkv_desc_dense(&x, QKV_F32, QKV_BHTD);
            const size_t size = qkv_plan_size(&x);
            t_check(qkv_plan_init(t_alloc(size, 8, T_END, 0), size, &x, &plan) == QKV_OK,
                    "no plan");
            need[i] = qkv_workspace_size(plan, 2);
        }
        t_check(need[0] == need[1], "%zu bytes at 50,000 tokens, %zu at 100,000,000", need[0],
                need[1]);
    }
    if (t_case("the plan outlives the arrays")) {
        int32_t lens[] = {4, 9};
        qkv_desc x = api_desc();
        x.kv_lens = lens;
        const size_t size = qkv_plan_size(&x);
        t_check(qkv_plan_init(t_alloc(size, 8, T_END, 0), size, &x, &plan) == QKV_OK, "no plan");
        qkv_args a = some_args(0), b = some_args(1);
        a.workspace_bytes = b.workspace_bytes = qkv_workspace_size(plan, 1);
        a.workspace = b.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0);
        qkv_run(plan, &a);
        lens[0] = 9;
        memset(&x, 0xff, sizeof x);
        qkv_run(plan, &b);
        t_check(memcmp(o[0], o[1], sizeof o[0]) == 0, "the plan still reads the array");
    }
}

/* The structs of the first version, at the end of readable memory. */
void test_older_structs(void)
{
    const size_t desc_bytes = offsetof(qkv_desc, page_tokens);
    const size_t args_bytes = offsetof(qkv_args, block_table);
    const qkv_desc full = api_desc();
    qkv_args all = some_args(0);
    double ref[2][320];

    if (!t_case("plan, run and oracle"))
        return;
    qkv_desc *d = t_alloc(desc_bytes, 8, T_END, 0);
    qkv_args *a = t_alloc(args_bytes, 8, T_END, 0);
    all.workspace_bytes = qkv_attention_workspace_size(&full, 1);
    all.workspace = t_alloc(all.workspace_bytes, 64, T_END, 0xff);
    memcpy(d, &full, desc_bytes);
    memcpy(a, &all, args_bytes);
    d->struct_size = (uint32_t)desc_bytes;
    a->struct_size = (uint32_t)args_bytes;
    a->o = o[1];
    a->lse = lse[1];
    t_check(qkv_attention(&full, &all, NULL) == QKV_OK, "refused");
    t_check(qkv_attention(d, a, NULL) == QKV_OK, "the older structs are refused");
    t_check(memcmp(o[0], o[1], sizeof o[0]) == 0, "other bits");
    for (int older = 0; older < 2; older++) {
        const qkv_ref_out out = {.o = ref[older]};
        void *scratch = t_scratch(qkv_ref_scratch_size(d));
        t_check(qkv_ref_attention(older ? d : &full, older ? a : &all, &out, scratch) == QKV_OK,
                "the oracle refuses");
    }
    t_check(memcmp(ref[0], ref[1], sizeof ref[0]) == 0, "the oracle says something else");
    a->struct_size--;
    t_check(qkv_attention(d, a, NULL) == QKV_ERR_ARGUMENT, "args shorter than ever");
    d->struct_size--;
    t_check(qkv_explain(d, NULL, 0) == QKV_ERR_ARGUMENT, "a descriptor shorter than ever");
}

void test_one_call(void)
{
    const qkv_desc d = api_desc();

    if (t_case("the same bits as a plan")) {
        const size_t bytes = qkv_plan_size(&d);
        const qkv_plan *plan;
        qkv_plan_init(t_alloc(bytes, 8, T_END, 0), bytes, &d, &plan);
        qkv_args a = some_args(0), b = some_args(1);
        a.workspace_bytes = qkv_workspace_size(plan, 1);
        a.workspace = t_alloc(a.workspace_bytes, 64, T_END, 0);
        qkv_run(plan, &a);
        b.workspace_bytes = qkv_attention_workspace_size(&d, 1);
        b.workspace = t_alloc(b.workspace_bytes, 64, T_END, 0);
        t_check(qkv_attention(&d, &b, NULL) == QKV_OK, "refused");
        t_check(memcmp(o[0], o[1], sizeof o[0]) == 0, "other bits");
        b.workspace_bytes--;
        t_check(qkv_attention(&d, &b, NULL) == QKV_ERR_BUFFER, "a byte less is accepted");
        t_check(qkv_attention(&d, NULL, NULL) == QKV_ERR_ARGUMENT, "NULL args");
        t_check(qkv_attention(NULL, &b, NULL) == QKV_ERR_ARGUMENT, "NULL desc");
        b.q = NULL;
        b.workspace_bytes++;
        t_check(qkv_attention(&d, &b, NULL) == QKV_ERR_ARGUMENT, "NULL q");
    }
}

void test_registry(void)
{
    qkv_kernel_info info, other;
    qkv_tier tier;

    if (t_case("kernels")) {
        t_check(qkv_kernel_count() > 0, "none");
        for (int32_t i = 0; i < qkv_kernel_count(); i++) {
            t_check(qkv_kernel_info_get(i, &info) == QKV_OK &&
                        (strncmp(info.name, "attend_", 7) == 0 ||
                         strncmp(info.name, "decode_", 7) == 0), "kernel %d", i);
            t_check(strstr(info.name, info.tier) != NULL, "%s is of tier %s", info.name, info.tier);
            t_check(info.available == ((info.cpu & ~qkv_cpu_flags()) == 0), "%s", info.name);
            for (int32_t j = 0; j < i; j++)
                t_check(qkv_kernel_info_get(j, &other) == QKV_OK &&
                            strcmp(info.name, other.name) != 0, "%s twice", info.name);
        }
        t_check(qkv_kernel_info_get(-1, &info) == QKV_ERR_ARGUMENT &&
                    qkv_kernel_info_get(qkv_kernel_count(), &info) == QKV_ERR_ARGUMENT &&
                    qkv_kernel_info_get(0, NULL) == QKV_ERR_ARGUMENT, "bad arguments accepted");
    }
    if (t_case("tiers")) {
        for (int32_t i = 0; i < qkv_tier_count(); i++) {
            t_check(qkv_tier_info(i, &tier) == QKV_OK, "tier %d", i);
            t_check(tier.available == (tier.reason[0] == 0), "%s: available %d, reason '%s'",
                    tier.name, tier.available, tier.reason);
        }
        qkv_tier_info(0, &tier);
        t_check(strcmp(tier.name, "scalar") == 0 && tier.available, "the first is %s", tier.name);
        t_check(qkv_tier_info(-1, &tier) == QKV_ERR_ARGUMENT &&
                    qkv_tier_info(qkv_tier_count(), &tier) == QKV_ERR_ARGUMENT &&
                    qkv_tier_info(0, NULL) == QKV_ERR_ARGUMENT, "bad arguments accepted");
    }
    if (t_case("the machine")) {
        char name[8];
        memset(name, 'x', sizeof name);
        t_check(qkv_cpu_name(name, sizeof name) == name && memchr(name, 0, sizeof name) != NULL,
                "the name is not terminated");
        t_check(qkv_cpu_count() >= 1, "%d processors", qkv_cpu_count());
    }
}
