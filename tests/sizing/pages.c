/* pages.c - bytes of caches: against what qkv_cache_config_check says, and caches that are made. */
#include <stdlib.h>
#include <string.h>

#include "sizing_test.h"

typedef unsigned long long u64;

/* Bookkeeping is priced for 64-bit machines everywhere. */
#define NARROW (sizeof(void *) != 8)

static int32_t one_of(t_rng *rng, const int32_t *list, int n) { return list[t_below(rng, n)]; }

/* A model of one kind of layer, and a setup, drawn at random; some are refused. */
static void draw(t_rng *rng, qkv_model *m, qkv_size_setup *s)
{
    static const int32_t dims[] = {16, 33, 64, 80, 128, 192, 256},
                         groups[] = {0, 0, 0, 32, 64, 128};
    const int32_t kv = (int32_t)t_between(rng, 1, 9), dim = one_of(rng, dims, 7);
    qkv_layer_desc *l = &m->kinds[0];

    *m = heads_model((int32_t)t_between(rng, 1, 5), 512, 2 * kv, kv, dim);
    l->head_dim_v = one_of(rng, dims, 7);
    if (t_chance(rng, 30)) {
        l->kind = QKV_LAYER_MLA;
        l->n_kv_heads = l->n_q_heads;
        l->kv_lora_rank = one_of(rng, dims, 7);
        l->rope_dim = l->head_dim / 2;
    }
    if (t_chance(rng, 40))
        l->window_left = t_below(rng, 300);
    *s = setup_of(t_between(rng, 1, 700), t_between(rng, 1, 5));
    s->chunk = t_chance(rng, 50) ? QKV_SIZE_AUTO : t_between(rng, 1, 400);
    s->k_format = (int32_t)t_between(rng, QKV_FORMAT_F32, QKV_FORMAT_E5M2);
    s->v_format = (int32_t)t_between(rng, QKV_FORMAT_F32, QKV_FORMAT_E5M2);
    s->k_group = one_of(rng, groups, 6);
    s->v_group = one_of(rng, groups, 6);
    s->k_scale = t_chance(rng, 20);
    s->v_scale = t_chance(rng, 20);
    s->float_type = (int32_t)t_between(rng, QKV_F32, QKV_BF16);
    s->page_tokens = 16 * (int32_t)t_between(rng, 1, 8);
}

/* The library's own configuration of the same cache; refusals must agree. */
static int configure(const qkv_model *m, const qkv_size_setup *s, qkv_size_cache *c,
                     qkv_cache_config *config)
{
    char text[256], other[256];
    qkv_size_setup plain = *s;
    qkv_cache_config full;
    const qkv_status status = qkv_size_cache_find(m, s, c, TEXT);

    plain.k_format = plain.v_format = QKV_FORMAT_BF16;
    plain.k_group = plain.v_group = plain.k_scale = plain.v_scale = 0;
    if (qkv_size_cache_config(m, &plain, 0, config, other, sizeof other) != QKV_OK) {
        t_fail("plain: %s", other);
        return 0;
    }
    config->k_format = s->k_format;
    config->v_format = s->v_format;
    config->k_group = s->k_group;
    config->v_group = s->v_group;
    config->k_scale = s->k_scale;
    config->v_scale = s->v_scale;
    config->n_open_pages = QKV_CACHE_AUTO;
    if (config->flags & QKV_CACHE_LATENT) /* not looked at */
        config->v_scale = QKV_SCALE_TOKEN;
    const qkv_status wanted = qkv_cache_config_check(config, NULL, other, sizeof other);
    t_check(status == wanted, "%s: %s; a cache: %s", status == QKV_OK ? "accepted" : "refused",
            text, other);
    if (status != QKV_OK || wanted != QKV_OK)
        return 0;
    t_check(qkv_size_cache_config(m, s, 0, &full, TEXT) == QKV_OK, "config: %s", text);
    *config = full;
    return 1;
}

void test_pages(void)
{
    const int n = t_times(3000);
    int accepted = 0;

    for (int i = 0; i < n; i++) {
        t_rng rng = t_rng_of(t_seed() + (uint64_t)i);
        qkv_model m;
        qkv_size_setup s;
        qkv_size_cache c;
        qkv_cache_config config;
        qkv_cache_bytes bytes;
        char text[256];
        if (!t_case("seed%llu", (u64)(t_seed() + (uint64_t)i)))
            continue;
        draw(&rng, &m, &s);
        if (!configure(&m, &s, &c, &config))
            continue;
        accepted++;
        t_check(qkv_cache_config_check(&config, &bytes, TEXT) == QKV_OK, "%s", text);
        t_check(NARROW || c.allocated == bytes.allocated,
                "allocated %llu, a cache %llu: are its tables others than sizing/page.c has?",
                (u64)c.allocated, (u64)bytes.allocated);
        t_check(c.group[0].page_bytes == bytes.page, "page %llu, a cache %llu",
                (u64)c.group[0].page_bytes, (u64)bytes.page);
        t_check(c.token_bytes == bytes.token, "token %llu, a cache %llu", (u64)c.token_bytes,
                (u64)bytes.token);
    }
    if (t_case("enough_accepted"))
        t_check(n < 100 || accepted > n / 10, "%d of %d", accepted, n);
}

/* ---- caches that are made and filled ------------------------------------------------------ */

typedef struct counter {
    uint64_t bytes;
} counter;

static void *counted_alloc(void *ctx, size_t bytes)
{
    ((counter *)ctx)->bytes += bytes;
    return malloc(bytes);
}

static void counted_free(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

/* Prefill of each sequence in chunks, one after the other, then all a token at a time. */
static int fill(qkv_cache *cache, const qkv_size_setup *s, int64_t chunk, int64_t prompt)
{
    int32_t seqs[8];
    char text[256];

    for (int32_t i = 0; i < s->batch; i++) {
        if (qkv_cache_add(cache, &seqs[i], TEXT) != QKV_OK)
            return 0;
        for (int64_t at = 0; at < prompt; at += chunk) {
            const int32_t n = (int32_t)(prompt - at < chunk ? prompt - at : chunk);
            if (qkv_cache_reserve(cache, 1, &seqs[i], &n, TEXT) != QKV_OK)
                return 0;
            qkv_cache_commit(cache, 1, &seqs[i], NULL, NULL, 0);
        }
    }
    for (int64_t at = prompt; at < s->context; at++) {
        if (qkv_cache_reserve(cache, (int32_t)s->batch, seqs, NULL, TEXT) != QKV_OK)
            return 0;
        qkv_cache_commit(cache, (int32_t)s->batch, seqs, NULL, NULL, 0);
    }
    return 1;
}

/* Equal without a window.  With one the cache holds whole pages, and between two steps no more than
 * the W - 1 keys that a next query sees besides its own. */
static void check_payload(const qkv_model *m, const qkv_size_setup *s, const qkv_size_cache *c,
                          uint64_t stored)
{
    qkv_model less = *m;
    qkv_size_cache least;

    if (m->kinds[0].window_left == QKV_UNBOUNDED) {
        t_check(stored == c->payload, "payload %llu, a cache %llu", (u64)c->payload, (u64)stored);
        return;
    }
    less.kinds[0].window_left -= less.kinds[0].window_left > 0;
    t_check(qkv_size_cache_find(&less, s, &least, NULL, 0) == QKV_OK, "a window less");
    t_check(stored >= least.payload, "payload %llu, a cache %llu", (u64)least.payload, (u64)stored);
}

void test_real_caches(void)
{
    for (int i = 0; i < t_times(250); i++) {
        t_rng rng = t_rng_of(t_seed() + 50000 + (uint64_t)i);
        counter count = {0};
        const qkv_allocator allocator = {counted_alloc, counted_free, &count};
        qkv_model m;
        qkv_size_setup s;
        qkv_size_cache c;
        qkv_cache_config config;
        qkv_cache *cache = NULL;
        qkv_cache_stats stats;
        char text[256];
        if (!t_case("seed%llu", (u64)(t_seed() + 50000 + (uint64_t)i)))
            continue;
        draw(&rng, &m, &s);
        if (!configure(&m, &s, &c, &config))
            continue;
        if (qkv_cache_create(&config, &allocator, &cache, TEXT) != QKV_OK) {
            t_fail("create: %s", text);
            continue;
        }
        t_check(NARROW || count.bytes == c.allocated, "asked for %llu, said %llu", (u64)count.bytes,
                (u64)c.allocated);
        const int64_t chunk = s.chunk == QKV_SIZE_AUTO ? 2048 : s.chunk;
        t_check(fill(cache, &s, chunk, t_between(&rng, 0, s.context)), "it is full");
        qkv_cache_stats_get(cache, &stats);
        check_payload(&m, &s, &c, stats.payload);
        qkv_cache_destroy(cache);
    }
}

/* One page less is too few: where every length passes, the most that can be needed is. */
void test_windows(void)
{
    for (int64_t window = 1; window < 200; window += 13)
        for (int32_t page = 16; page <= 64; page += 16) {
            qkv_model m = heads_model(2, 64, 2, 1, 32);
            qkv_size_setup s = setup_of(700, 3);
            qkv_cache_config config;
            qkv_cache *cache = NULL;
            char text[256];
            if (!t_case("w%lld_p%d", (long long)window, page))
                continue;
            m.kinds[0].window_left = window - 1;
            s.page_tokens = page;
            s.chunk = 1;
            t_check(qkv_size_cache_config(&m, &s, 0, &config, TEXT) == QKV_OK, "%s", text);
            t_check(qkv_cache_create(&config, NULL, &cache, TEXT) == QKV_OK, "%s", text);
            t_check(fill(cache, &s, 1, 0), "%d pages are too few", config.n_pages);
            qkv_cache_destroy(cache);
            config.n_pages--;
            t_check(qkv_cache_create(&config, NULL, &cache, TEXT) == QKV_OK, "%s", text);
            t_check(!fill(cache, &s, 1, 0), "%d pages are enough", config.n_pages);
            qkv_cache_destroy(cache);
        }
}
