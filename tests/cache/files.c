/* files.c - caches saved and loaded: what comes back, and what is refused. */
#include <string.h>

#include "damage.h"
#include "model.h"
#include "tape.h"

/* ---- round trips ------------------------------------------------------------------------ */

static int list_of(const model *m, const m_seq **list, int32_t *ids)
{
    int n = 0;
    for (int i = 0; i < M_SEQS; i++)
        if (m->seq[i].live) {
            list[n] = &m->seq[i];
            ids[n++] = m->seq[i].id;
        }
    return n;
}

/* The file's own config must do, and its numbers must be those of the cache. */
static void check_inspect(const model *m, tape *t, int n, qkv_cache_config *config)
{
    qkv_cache_file_info info;
    qkv_cache_stats stats;

    expect(tape_inspect(t, &info, TEXT), QKV_OK);
    qkv_cache_stats_get(m->cache, &stats);
    t_check(info.n_seqs == n && info.tokens == stats.tokens && info.n_pages == stats.used_pages &&
                info.n_open_pages == stats.used_open_pages && info.bytes == t->size &&
                info.version == 1,
            "%d sequences, %d tokens, %d + %d pages, %d bytes of %d", info.n_seqs, (int)info.tokens,
            info.n_pages, info.n_open_pages, (int)info.bytes, (int)t->size);
    *config = info.config;
}

static void round_trip(model *m, tape *t)
{
    const m_seq *list[M_SEQS];
    int32_t ids[M_SEQS], loaded[M_SEQS], n = 0;
    const int live = list_of(m, list, ids);
    qkv_cache_config config;
    qkv_cache_stats before, after;
    unsigned char *first = NULL;

    expect(tape_save(t, m->cache, live, ids, TEXT), QKV_OK);
    const size_t size = t->size;
    check_inspect(m, t, live, &config);
    config.flags |= QKV_CACHE_POISON;
    qkv_cache *other = make_cache(&config);
    if (!other)
        return;
    expect(tape_load(t, other, loaded, &n, TEXT), QKV_OK);
    t_check(n == live && t->at == t->size, "%d sequences of %d", n, live);
    for (int i = 0; i < n; i++)
        m_check_seq(m, list[i], other, loaded[i]);
    qkv_cache_stats_get(m->cache, &before);
    qkv_cache_stats_get(other, &after);
    t_check(before.used_pages == after.used_pages && before.shared_pages == after.shared_pages &&
                before.used_open_pages == after.used_open_pages && before.tokens == after.tokens,
            "pages %d, shared %d, open %d", after.used_pages, after.shared_pages,
            after.used_open_pages);
    /* The same again: nothing is lost, and nothing that was not saved gets in. */
    first = t_scratch(size);
    memcpy(first, t->data, size);
    expect(tape_save(t, other, n, loaded, TEXT), QKV_OK);
    t_check(t->size == size && memcmp(first, t->data, size) == 0, "another file");
    for (int i = 0; i < n; i++)
        expect(qkv_cache_release(other, loaded[i]), QKV_OK);
    qkv_cache_stats_get(other, &after);
    t_check(after.used_pages == 0 && after.used_open_pages == 0, "pages are left");
    qkv_cache_destroy(other);
}

void test_save(void)
{
    static model m;

    for (int i = 0; i < t_times(60); i++) {
        const uint64_t seed = t_seed() * 7919 + (uint64_t)i;
        t_rng rng = t_rng_of(seed);
        const qkv_cache_config c = m_random_config(&rng);
        if (!t_case("c%d k=%s v=%s P%d", i, qkv_format_name(c.k_format),
                    qkv_format_name(c.v_format), c.page_tokens) ||
            !m_create(&m, &c, seed))
            continue;
        tape t = tape_new();
        for (int step = 0; step < 80 && !t_failed(); step++) {
            m_step(&m);
            if (step % 20 == 19)
                round_trip(&m, &t);
        }
        m_destroy(&m);
    }
}

/* ---- files of another kind -------------------------------------------------------------- */

/* What the sentence must contain, and the change to a config that provokes it.  taken is the number
 * of pages that are in use already. */
// clang-format off
#define OTHER_KINDS(X)                                                                             \
    X("n_layers is 1 in the file and 2", c.n_layers = 2)                                           \
    X("head_dim is 4 in the file and 5", c.head_dim = 5)                                           \
    X("v_format is 1 in the file and 3", c.v_format = QKV_FORMAT_BF16)                             \
    X("page_tokens is 16 in the file and 32", c.page_tokens = 32)                                  \
    X("float_type is 4 in the file and 2", c.float_type = QKV_F32)                                 \
    X("window_left is -1 in the file and 9", c.window_left = 9)                                    \
    X("sink_tokens is 0 in the file and 3", c.sink_tokens = 3)                                     \
    X("flags are 0 in the file and 0x4", c.flags |= QKV_CACHE_KEY_BOUNDS)                          \
    X("full: 2 pages needed, 1 free", (c.n_pages = 2, taken = 1))                                  \
    X("full: 2 sequences needed, 1 free", c.max_seqs = 1)                                          \
    X("a sequence of the file has 2 pages; max_tokens", c.max_tokens = 16)
// clang-format on

static void other_kind(tape *t, const qkv_cache_config *c, int taken, const char *sentence)
{
    qkv_cache *cache = make_cache(c);
    int32_t ids[8], n, seq = 0;
    char text[256] = "";

    if (taken) {
        qkv_cache_add(cache, &seq, NULL, 0);
        qkv_cache_reserve(cache, 1, &seq, NULL, NULL, 0);
    }
    const qkv_status got = tape_load(t, cache, ids, &n, text, sizeof text);
    t_check(got != QKV_OK && n == 0 && strstr(text, sentence), "%s: %s", qkv_status_name(got),
            text);
    qkv_cache_destroy(cache);
}

static void foreign_files(void)
{
    static const char *const files[] = {"", "qkv", "{\"json\": 1}", "qkvcacheX",
                                        "PK\3\4 a zip of some size"};
    const qkv_cache_config c = small_config();
    qkv_cache *cache = make_cache(&c);

    for (int i = 0; i < 5; i++) {
        tape t = tape_new();
        t.size = strlen(files[i]);
        memcpy(t.data, files[i], t.size);
        expect_refusal(cache, &t, files[i], 0);
    }
    qkv_cache_destroy(cache);
}

static void missing_arguments(void)
{
    const qkv_cache_config c = small_config();
    qkv_cache *cache = make_cache(&c);
    const qkv_cache_reader nothing = {NULL, NULL};
    int32_t ids[4], n;

    expect(qkv_cache_load(cache, NULL, 4, ids, &n, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_load(cache, &nothing, 4, ids, &n, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_load(cache, &nothing, 4, NULL, &n, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_load(cache, &nothing, 4, ids, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_save(cache, 0, NULL, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_inspect(NULL, NULL, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(cache);
}

void test_load_refusals(void)
{
#define TRY(sentence, change)                                                                      \
    if (t_case("%s", sentence)) {                                                                  \
        qkv_cache_config c;                                                                        \
        tape t = tape_new();                                                                       \
        int taken = 0;                                                                             \
        qkv_cache_destroy(small_file(&t, QKV_FORMAT_BF16, &c));                                    \
        change;                                                                                    \
        other_kind(&t, &c, taken, sentence);                                                       \
    }
    OTHER_KINDS(TRY)
#undef TRY
    if (t_case("foreign files"))
        foreign_files();
    if (t_case("NULL"))
        missing_arguments();
}
