/* questions.c - ranks, budgets, variants, sentences and refusals. */
#include <math.h>
#include <string.h>

#include "sizing_test.h"

typedef unsigned long long u64;

void test_ranks(void)
{
    const qkv_model gqa = heads_model(80, 8192, 64, 8, 128), mla = latent_model();
    qkv_size_setup s = setup_of(64000, 1);
    qkv_size_rank r;
    char text[256];

    if (t_case("heads")) {
        s.ranks = 4;
        t_check(qkv_size_rank_find(&gqa, &s, &r, TEXT) == QKV_OK, "%s", text);
        t_check(r.payload == 20971520000ull / 4 && r.copies == 1 && r.kv_heads == 2, "quarter");
        t_check(r.sent_step == 80ull * 8192 * 2 * 2 * 3 / 4, "sent %llu", (u64)r.sent_step);
        s.ranks = 32;
        t_check(qkv_size_rank_find(&gqa, &s, &r, TEXT) == QKV_OK, "%s", text);
        t_check(r.payload == 20971520000ull / 8 && r.copies == 4 && r.kv_heads == 1, "copies");
    }
    if (t_case("context")) {
        s.ranks = 4;
        s.split = QKV_SPLIT_CONTEXT;
        t_check(qkv_size_rank_find(&gqa, &s, &r, TEXT) == QKV_OK, "%s", text);
        t_check(r.payload == 20971520000ull / 4 && r.copies == 1 && r.kv_heads == 8, "quarter");
        t_check(r.sent_step == 80ull * 64 * 129 * 4 * 2 * 3 / 4, "sent %llu", (u64)r.sent_step);
    }
    if (t_case("latents_are_copied")) {
        s = setup_of(1024, 2);
        s.ranks = 8;
        t_check(qkv_size_rank_find(&mla, &s, &r, TEXT) == QKV_OK, "%s", text);
        t_check(r.payload == 2ull * 1024 * 70272 && r.copies == 8, "whole");
        s.split = QKV_SPLIT_CONTEXT;
        t_check(qkv_size_rank_find(&mla, &s, &r, TEXT) == QKV_OK, "%s", text);
        t_check(r.payload == 2ull * 128 * 70272, "an eighth");
    }
    if (t_case("refused")) {
        s = setup_of(1024, 1);
        s.ranks = 3;
        t_check(qkv_size_rank_find(&gqa, &s, &r, TEXT) == QKV_ERR_ARGUMENT, "3 ranks");
        t_check(strstr(text, "ranks is 3") != NULL, "%s", text);
        s.ranks = 1;
        t_check(qkv_size_rank_find(&gqa, &s, &r, TEXT) == QKV_OK && r.sent_step == 0, "alone");
    }
}

/* ---- budgets ------------------------------------------------------------------------------ */

/* The answer fits, and one more does not. */
static void check_edge(const qkv_model *m, qkv_size_setup s, const qkv_size_budget *b, int32_t what)
{
    char text[256];
    qkv_size_answer a;
    qkv_size_fit fit;
    int64_t *field = what == QKV_SOLVE_CONTEXT ? &s.context : &s.batch;

    t_check(qkv_size_solve(m, &s, b, what, &a, TEXT) == QKV_OK && a.found, "%s", text);
    *field = a.value;
    t_check(qkv_size_fit_find(m, &s, b, &fit, TEXT) == QKV_OK && fit.fits, "%lld: %s",
            (long long)a.value, text);
    t_check(a.fit.needed == fit.needed, "needed");
    *field = a.value + 1;
    t_check(qkv_size_fit_find(m, &s, b, &fit, TEXT) == QKV_OK && !fit.fits, "%lld fits too",
            (long long)a.value + 1);
}

void test_solve(void)
{
    const qkv_model m = heads_model(80, 8192, 64, 64, 128);
    const qkv_machine *gpu = qkv_machine_at(5);
    const qkv_size_budget memory = {80ull << 30, 0, NULL};
    const qkv_size_budget both = {0, 0.05, gpu};
    qkv_size_setup s = setup_of(4096, 2);
    qkv_size_answer a;
    char text[256];

    s.weight_bits = 4;
    if (t_case("context"))
        check_edge(&m, s, &memory, QKV_SOLVE_CONTEXT);
    if (t_case("users"))
        check_edge(&m, s, &memory, QKV_SOLVE_USERS);
    if (t_case("latency")) {
        check_edge(&m, s, &both, QKV_SOLVE_CONTEXT);
        check_edge(&m, s, &both, QKV_SOLVE_USERS);
    }
    if (t_case("groups")) {
        s = setup_of(131072, 1);
        t_check(qkv_size_solve(&m, &s, &memory, QKV_SOLVE_GROUPS, &a, TEXT) == QKV_OK, "%s", text);
        /* 24 GiB of attention weights in bf16 and 5 GiB a head of the cache. */
        t_check(a.found && a.value == 8, "%lld groups", (long long)a.value);
    }
    if (t_case("format")) {
        s = setup_of(131072, 1);
        s.cache_only = 1;
        const qkv_size_budget small = {100ull << 30, 0, NULL}, none = {1 << 20, 0, NULL};
        t_check(qkv_size_solve(&m, &s, &small, QKV_SOLVE_FORMAT, &a, TEXT) == QKV_OK, "%s", text);
        t_check(a.found && a.value == QKV_FORMAT_INT4, "%s", qkv_size_format_name((int)a.value));
        t_check(qkv_size_solve(&m, &s, &none, QKV_SOLVE_FORMAT, &a, TEXT) == QKV_OK, "%s", text);
        t_check(!a.found && a.value == QKV_FORMAT_INT4 && a.fit.needed > none.memory, "none");
    }
    if (t_case("nothing_fits")) {
        const qkv_size_budget tiny = {1000, 0, NULL};
        t_check(qkv_size_solve(&m, &s, &tiny, QKV_SOLVE_CONTEXT, &a, TEXT) == QKV_OK, "%s", text);
        t_check(!a.found && a.value == 1 && !a.fit.fits, "not even one token");
    }
    if (t_case("refused")) {
        const qkv_size_budget nothing = {0, 0, NULL}, no_machine = {0, 0.1, NULL};
        t_check(qkv_size_solve(&m, &s, &nothing, QKV_SOLVE_CONTEXT, &a, TEXT) == QKV_ERR_ARGUMENT,
                "no budget");
        t_check(qkv_size_solve(&m, &s, &no_machine, QKV_SOLVE_USERS, &a, TEXT) == QKV_ERR_ARGUMENT,
                "no machine");
        t_check(qkv_size_solve(&m, &s, &memory, 9, &a, TEXT) == QKV_ERR_ARGUMENT, "what");
    }
}

/* ---- variants ----------------------------------------------------------------------------- */

void test_variants(void)
{
    const qkv_model m = heads_model(2, 4096, 32, 8, 128);
    qkv_model other;
    qkv_size_cache c;
    qkv_size_setup s = setup_of(1, 1);
    char text[256];
    static const struct {
        const char *name;
        qkv_size_variant_of v;
        uint64_t elements;
    } list[] = {{"mha", {QKV_VARIANT_HEADS, 0, 0, 0, 0, 0}, 32 * 256},
                {"gqa16", {QKV_VARIANT_HEADS, 16, 0, 0, 0, 0}, 16 * 256},
                {"mqa", {QKV_VARIANT_HEADS, 1, 0, 0, 0, 0}, 256},
                {"mla", {QKV_VARIANT_MLA, 0, 0, 0, 0, 0}, 512 + 64},
                {"mla_given", {QKV_VARIANT_MLA, 0, 256, 32, 0, 0}, 256 + 32}};

    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (t_case("%s", list[i].name)) {
            t_check(qkv_size_variant(&m, &list[i].v, &other, TEXT) == QKV_OK, "%s", text);
            t_check(qkv_size_cache_find(&other, &s, &c, TEXT) == QKV_OK, "%s", text);
            t_check(c.elements == 2 * list[i].elements, "%llu elements", (u64)c.elements);
        }
    if (t_case("refused")) {
        const qkv_size_variant_of three = {QKV_VARIANT_HEADS, 3, 0, 0, 0, 0};
        const qkv_size_variant_of wide = {QKV_VARIANT_MLA, 0, 1024, 64, 0, 0};
        t_check(qkv_size_variant(&m, &three, &other, TEXT) == QKV_ERR_ARGUMENT, "3 of 32");
        t_check(strstr(text, "divisors of the 32") != NULL, "%s", text);
        t_check(qkv_size_variant(&m, &wide, &other, TEXT) == QKV_ERR_ARGUMENT, "1088 channels");
    }
}

/* ---- sentences ---------------------------------------------------------------------------- */

/* All lines, one after another; how many there are. */
static int all_lines(const qkv_model *m, const qkv_size_setup *s, const qkv_size_budget *b,
                     char *all, size_t room)
{
    char text[QKV_SIZE_LINE];
    int n = 0;
    all[0] = 0;
    while ((b ? qkv_size_advice(m, s, b, n, TEXT) : qkv_size_explain(m, s, n, TEXT)) == QKV_OK) {
        t_check(strlen(text) + 1 < sizeof text, "line %d is cut: %s", n, text);
        strncat(all, text, room - strlen(all) - 2);
        strcat(all, "\n");
        n++;
    }
    t_check(strstr(text, "accepted are 0 to") != NULL, "%s", text);
    return n;
}

void test_words(void)
{
    static char all[20000];
    const qkv_model gqa = heads_model(80, 8192, 64, 8, 128), mla = latent_model();
    const qkv_size_budget memory = {80ull << 30, 0, NULL}, plenty = {1ull << 42, 0, NULL};
    qkv_size_setup s = setup_of(64000, 1);

    if (t_case("explain")) {
        t_check(all_lines(&gqa, &s, NULL, all, sizeof all) >= 8, "lines");
        t_check(strstr(all, "8 x (128 + 128) = 2048") != NULL, "%s", all);
        t_check(strstr(all, "= 20971520000 bytes") != NULL, "%s", all);
        t_check(all_lines(&mla, &s, NULL, all, sizeof all) >= 8, "lines");
        t_check(strstr(all, "512 + 64 = 576") != NULL && strstr(all, "= 40960, 71.1") != NULL, "%s",
                all);
    }
    if (t_case("advice")) {
        t_check(all_lines(&gqa, &s, &memory, all, sizeof all) >= 6, "lines");
        t_check(strstr(all, "MHA would keep 156.250 GiB, 8 times") != NULL, "%s", all);
        t_check(strstr(all, "19.5") != NULL, "%s", all);
    }
    if (t_case("not_the_bottleneck")) {
        qkv_model m = gqa;
        s = setup_of(128, 1);
        m.d_ff = 28672;
        m.ffn_gated = 1;
        all_lines(&m, &s, &plenty, all, sizeof all);
        t_check(strstr(all, "The cache is not the bottleneck: MHA") != NULL, "%s", all);
    }
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void refuse(const qkv_model *m, qkv_size_setup s, const char *words)
{
    char text[256];
    qkv_size_cache c;
    const qkv_status status = qkv_size_cache_find(m, &s, &c, TEXT);
    t_check(status != QKV_OK && strstr(text, words) != NULL, "%s: %s", words, text);
}

#define REFUSED(field, value, words)                                                               \
    if (t_case(#field "_" #value)) {                                                               \
        qkv_size_setup s = setup_of(100, 1);                                                       \
        s.field = value;                                                                           \
        refuse(&m, s, words);                                                                      \
    }

void test_refusals(void)
{
    const qkv_model m = heads_model(2, 64, 4, 2, 16);

    REFUSED(context, 0, "context is 0; accepted are 1 to")
    REFUSED(context, (int64_t)1 << 60, "context is 1152921504606846976; accepted are 1 to")
    REFUSED(batch, 0, "batch is 0")
    REFUSED(batch, 65536, "batch is 65536")
    REFUSED(page_tokens, 24, "page_tokens is 24")
    REFUSED(weight_bits, 65, "weight_bits is 65")
    REFUSED(k_format, 0, "k_format is 0")
    REFUSED(k_format, 99, "k_format is 99")
    REFUSED(v_format, QKV_FORMAT_INT8_CHANNEL, "v_format is int8_channel")
    REFUSED(compute, QKV_I8, "compute is 8 (i8)")
    REFUSED(ranks, 0, "ranks is 0")
    REFUSED(pairs, 7, "pairs is 7")
    if (t_case("counts_beyond_2_63")) {
        qkv_model big = heads_model(1024, 1 << 20, 65536, 65536, 1024);
        qkv_size_setup s = setup_of(INT32_MAX, 65535);
        qkv_size_work w;
        qkv_size_step step;
        char text[256];
        refuse(&big, s, "not exact");
        t_check(qkv_size_step_of(&s, QKV_STEP_PREFILL, &step, TEXT) == QKV_OK, "%s", text);
        t_check(qkv_size_work_find(&big, &s, &step, &w, TEXT) == QKV_ERR_ARGUMENT, "work");
        t_check(strstr(text, "2^63") != NULL, "%s", text);
    }
    if (t_case("windows_without_end")) { /* no sequence is longer, so they see all */
        qkv_model wide = m;
        const qkv_size_setup s = setup_of(INT32_MAX, 1);
        qkv_size_cache c;
        wide.kinds[0].window_left = INT64_MAX;
        wide.kinds[0].chunk_tokens = INT64_MAX;
        t_check(qkv_size_cache_find(&wide, &s, &c, NULL, 0) == QKV_OK, "cache");
        t_check(c.group[0].window == 0 && c.payload == 2ull * INT32_MAX * 64 * 2, "all tokens");
    }
    if (t_case("model_not_set_up")) {
        static qkv_model nothing;
        refuse(&nothing, setup_of(1, 1), "model is NULL or was not set up");
    }
    if (t_case("model_with_bad_layer")) {
        qkv_model bad = m;
        bad.kinds[0].n_kv_heads = 3;
        refuse(&bad, setup_of(1, 1), "kinds[0]: n_kv_heads is 3");
        bad = m;
        bad.kind_of[0][1] = 5;
        refuse(&bad, setup_of(1, 1), "kind_of[0][1] is 5");
    }
    if (t_case("names_of_formats"))
        for (int32_t f = -1; f < 20; f++)
            t_check(strcmp(qkv_size_format_name(f), qkv_format_name(f)) == 0, "%d", f);
}
