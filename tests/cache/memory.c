/* memory.c - every allocation failing in turn, and every byte counted. */
#include <stdlib.h>

#include "tape.h"

typedef struct counter {
    int left; /* allocations until one fails; -1: never */
    int live, calls;
    size_t bytes;
} counter;

static void *counted_alloc(void *ctx, size_t bytes)
{
    counter *c = ctx;
    c->calls++;
    if (c->left == 0)
        return NULL;
    c->left -= c->left > 0;
    c->live++;
    c->bytes += bytes;
    return malloc(bytes);
}

static void counted_free(void *ctx, void *memory)
{
    ((counter *)ctx)->live -= memory != NULL;
    free(memory);
}

/* Create, use, save, load, destroy; returns the first status that is not QKV_OK. */
static qkv_status life(const qkv_allocator *a, tape *file)
{
    qkv_cache_config c = small_config();
    const int32_t count = 20;
    qkv_cache *cache = NULL;
    qkv_cache_stats before, after;
    int32_t seq = 0, loaded = 0, n = 0;

    c.n_layers = 5;
    qkv_status status = qkv_cache_create(&c, a, &cache, NULL, 0);
    if (status != QKV_OK)
        return status;
    qkv_cache_add(cache, &seq, NULL, 0);
    expect(qkv_cache_reserve(cache, 1, &seq, &count, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &seq, NULL, TEXT), QKV_OK);
    qkv_cache_stats_get(cache, &before);
    status = tape_save(file, cache, 1, &seq, NULL, 0);
    if (status == QKV_OK)
        status = tape_load(file, cache, &loaded, &n, NULL, 0);
    qkv_cache_stats_get(cache, &after);
    t_check(after.n_seqs == before.n_seqs + (status == QKV_OK) && n == (status == QKV_OK) &&
                after.used_pages == before.used_pages * (status == QKV_OK ? 2 : 1),
            "%d sequences and %d pages", after.n_seqs, after.used_pages);
    qkv_cache_destroy(cache);
    return status;
}

void test_failing_memory(void)
{
    enum { LAYERS = 5, CALLS = 1 + LAYERS + 2 /* save, load */ };
    for (int fail = 0; fail <= CALLS; fail++)
        if (t_case("allocation %d", fail)) {
            counter c = {fail, 0, 0, 0};
            tape file = tape_new();
            const qkv_allocator a = {counted_alloc, counted_free, &c};
            const qkv_status status = life(&a, &file);
            t_check(status == (fail < CALLS ? QKV_ERR_MEMORY : QKV_OK), "%s",
                    qkv_status_name(status));
            t_check(c.live == 0, "%d allocations are left", c.live);
            t_check(c.calls == (fail < CALLS ? fail + 1 : CALLS), "%d calls", c.calls);
        }
    if (t_case("half an allocator")) {
        const qkv_allocator a = {NULL, counted_free, NULL};
        const qkv_cache_config c = small_config();
        qkv_cache *cache;
        expect(qkv_cache_create(&c, &a, &cache, TEXT), QKV_ERR_ARGUMENT);
    }
    if (t_case("nothing but the create allocates")) {
        counter n = {-1, 0, 0, 0};
        const qkv_allocator a = {counted_alloc, counted_free, &n};
        qkv_cache_config c = small_config();
        qkv_cache *cache = NULL;
        int32_t seq = 0, child = 0;
        expect(qkv_cache_create(&c, &a, &cache, TEXT), QKV_OK);
        const int calls = n.calls;
        qkv_cache_add(cache, &seq, NULL, 0);
        qkv_cache_reserve(cache, 1, &seq, NULL, NULL, 0);
        qkv_cache_fork(cache, seq, &child, NULL, 0);
        qkv_cache_reserve(cache, 1, &child, NULL, NULL, 0);
        qkv_cache_commit(cache, 1, &seq, NULL, NULL, 0);
        qkv_cache_release(cache, seq);
        t_check(n.calls == calls, "%d allocations", n.calls - calls);
        qkv_cache_destroy(cache);
    }
}

/* ---- bytes ------------------------------------------------------------------------------ */

/* Bytes of a token and head, by the table of qkv/cache.h. */
static double row_bytes(int32_t format, int d, int group, int per_head, int page)
{
    const int groups = group ? (d + group - 1) / group : 1;
    switch (format) {
    case QKV_FORMAT_F32:
        return 4 * d;
    case QKV_FORMAT_F16:
    case QKV_FORMAT_BF16:
        return 2 * d;
    case QKV_FORMAT_INT8_CHANNEL:
        return d + 4.0 * d / page;
    case QKV_FORMAT_INT4:
        return (d + 1) / 2 + 4 * groups;
    default:
        return per_head ? d + 4.0 / page : d + 4 * groups;
    }
}

static qkv_cache_config config_of(int32_t k, int variant)
{
    const int coded = k == QKV_FORMAT_INT8 || k >= QKV_FORMAT_INT4;
    qkv_cache_config c = small_config();

    c.flags = 0;
    c.head_dim = 64;
    c.head_dim_v = 96;
    c.k_format = k;
    c.k_group = coded && variant == 1 ? 32 : 0;
    c.k_scale = k >= QKV_FORMAT_E4M3 && variant == 2 ? QKV_SCALE_HEAD : QKV_SCALE_TOKEN;
    c.v_format = k == QKV_FORMAT_INT8_CHANNEL ? QKV_FORMAT_INT8 : k;
    return c;
}

static void count_bytes(const qkv_cache_config *c)
{
    counter n = {-1, 0, 0, 0};
    const qkv_allocator a = {counted_alloc, counted_free, &n};
    const int32_t count = 32;
    qkv_cache_bytes needs;
    qkv_cache_stats s;
    qkv_cache *cache = NULL;
    int32_t seq = 0;

    expect(qkv_cache_config_check(c, &needs, TEXT), QKV_OK);
    expect(qkv_cache_create(c, &a, &cache, TEXT), QKV_OK);
    qkv_cache_stats_get(cache, &s);
    t_check(s.allocated == needs.allocated && s.allocated == n.bytes && s.payload == 0,
            "%d bytes are %d", (int)s.allocated, (int)n.bytes);
    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_reserve(cache, 1, &seq, &count, NULL, 0);
    qkv_cache_commit(cache, 1, &seq, NULL, NULL, 0);
    qkv_cache_stats_get(cache, &s);
    const double want = 2 * 2 * 32 *
                        (row_bytes(c->k_format, 64, c->k_group, c->k_scale, 16) +
                         row_bytes(c->v_format, 96, 0, 0, 16));
    t_check((double)s.payload == want && s.stored_tokens == 32, "payload is %g, not %g",
            (double)s.payload, want);
    t_check(needs.page * 2 >= s.payload && needs.allocated >= 8 * needs.page, "pages");
    qkv_cache_destroy(cache);
}

void test_bytes(void)
{
    for (int32_t k = QKV_FORMAT_F32; k <= QKV_FORMAT_E5M2; k++)
        for (int variant = 0; variant < 3; variant++)
            if (t_case("%s %d", qkv_format_name(k), variant)) {
                const qkv_cache_config c = config_of(k, variant);
                count_bytes(&c);
            }
}
