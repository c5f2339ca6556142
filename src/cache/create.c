/* cache/create.c - one block for the bookkeeping, one for the pages of each layer. */
#include <math.h>
#include <string.h>

#include "cache/internal.h"

/* ---- the bookkeeping block -------------------------------------------------------------- */

/* Places one array after another; without memory it only counts. */
typedef struct carver {
    unsigned char *memory; /* NULL: only count */
    uint64_t used;
} carver;

static void *carve(carver *c, uint64_t bytes)
{
    const uint64_t at = c->used;
    c->used += (bytes + QKV_CACHE_ALIGN - 1) / QKV_CACHE_ALIGN * QKV_CACHE_ALIGN;
    return c->memory ? c->memory + at : NULL;
}

static void carve_set(carver *c, qkv_page_set *set, uint64_t n, uint64_t n_layers)
{
    set->free = carve(c, n * sizeof *set->free);
    set->refs = carve(c, n * sizeof *set->refs);
    set->pending = carve(c, n * sizeof *set->pending);
    set->memory = carve(c, n_layers * sizeof *set->memory);
}

static int32_t table_pages(const qkv_cache_config *f)
{
    const int64_t pages = (f->max_tokens + f->page_tokens - 1) / f->page_tokens;
    return (int32_t)(pages < f->n_pages ? pages : f->n_pages);
}

static void carve_tables(carver *c, const qkv_cache_config *f, qkv_cache *cache)
{
    const uint64_t seqs = (uint64_t)f->max_seqs;
    const uint64_t table = (uint64_t)table_pages(f), open = (uint64_t)f->n_open_pages;
    int32_t *tables = carve(c, 2 * seqs * table * sizeof *tables);
    int32_t *opens = carve(c, 2 * seqs * open * sizeof *opens);

    for (uint64_t i = 0; c->memory && i < seqs; i++) {
        qkv_cache_seq *s = &cache->seqs[i];
        s->now.table = tables + 2 * i * table;
        s->next.table = s->now.table + table;
        s->now.open = opens + 2 * i * open;
        s->next.open = s->now.open + open;
    }
}

uint64_t qkv_cache_carve(const qkv_cache_config *f, qkv_cache *cache)
{
    qkv_cache unused;
    carver c = {(unsigned char *)cache, 0};
    const uint64_t layers = (uint64_t)f->n_layers, seqs = (uint64_t)f->max_seqs;
    const uint64_t scales = f->k_scale == QKV_SCALE_HEAD || f->v_scale == QKV_SCALE_HEAD
                                ? layers * (uint64_t)f->n_kv_heads
                                : 0;
    const uint64_t scratch =
        qkv_cache_has_open(f) ? (uint64_t)f->page_tokens * (uint64_t)f->head_dim : 0;

    cache = cache ? cache : &unused;
    carve(&c, sizeof *cache);
    cache->seqs = carve(&c, seqs * sizeof *cache->seqs);
    cache->free_seqs = carve(&c, seqs * sizeof *cache->free_seqs);
    cache->blocks = carve(&c, layers * sizeof *cache->blocks);
    cache->is_closed = carve(&c, (uint64_t)f->n_pages);
    cache->given[0] = carve(&c, scales * sizeof(float));
    cache->given[1] = carve(&c, scales * sizeof(float));
    cache->scratch = carve(&c, scratch * sizeof(float));
    carve_set(&c, &cache->pages, (uint64_t)f->n_pages, layers);
    carve_set(&c, &cache->open, (uint64_t)f->n_open_pages, layers);
    carve_tables(&c, f, cache);
    return c.used;
}

uint64_t qkv_cache_layer_bytes(const qkv_cache_config *full)
{
    qkv_cache_map map;
    uint64_t bytes;

    qkv_cache_map_of(full, 0, &map);
    bytes = (uint64_t)map.bytes * (uint64_t)full->n_pages;
    qkv_cache_map_of(full, 1, &map);
    bytes += (uint64_t)map.bytes * (uint64_t)full->n_open_pages;
    return bytes + QKV_CACHE_ALIGN; /* the allocator need not align that much */
}

/* ---- the pages -------------------------------------------------------------------------- */

static unsigned char *align(void *memory)
{
    const uintptr_t at = (uintptr_t)memory, up = (at + QKV_CACHE_ALIGN - 1) / QKV_CACHE_ALIGN;
    return (unsigned char *)memory + (up * QKV_CACHE_ALIGN - at);
}

static void set_up_set(qkv_cache *cache, qkv_page_set *set, int open, int32_t n)
{
    qkv_cache_map_of(&cache->config, open, &set->map);
    set->n = n;
    set->n_layers = cache->config.n_layers;
    set->poison = (cache->config.flags & QKV_CACHE_POISON) != 0;
}

static int allocate_layers(qkv_cache *cache)
{
    const uint64_t bytes = qkv_cache_layer_bytes(&cache->config);

    for (int32_t i = 0; i < cache->config.n_layers; i++) {
        void *block =
            bytes <= SIZE_MAX ? cache->allocator.alloc(cache->allocator.ctx, (size_t)bytes) : NULL;
        if (!block)
            return 0;
        cache->blocks[i] = block;
        cache->allocated += bytes;
        cache->pages.memory[i] = align(block);
        cache->open.memory[i] =
            cache->pages.memory[i] + cache->pages.map.bytes * cache->config.n_pages;
    }
    return 1;
}

static void set_up_seqs(qkv_cache *cache)
{
    const int32_t n = cache->config.max_seqs;

    cache->n_free_seqs = n;
    for (int32_t i = 0; i < n; i++) {
        cache->free_seqs[i] = n - 1 - i;
        cache->seqs[i].id = i + 1;
        qkv_cache_state_clear(cache, &cache->seqs[i].now);
    }
}

static void free_all(qkv_cache *cache)
{
    const qkv_allocator a = cache->allocator;

    for (int32_t i = 0; i < cache->config.n_layers; i++)
        a.free(a.ctx, cache->blocks[i]);
    a.free(a.ctx, cache);
}

/* The bookkeeping of the config, zeroed, without layers. */
static qkv_cache *allocate_cache(const qkv_cache_config *full, const qkv_allocator *a)
{
    const uint64_t bytes = qkv_cache_carve(full, NULL);
    qkv_cache *cache = bytes <= SIZE_MAX ? a->alloc(a->ctx, (size_t)bytes) : NULL;

    if (!cache)
        return NULL;
    memset(cache, 0, (size_t)bytes);
    qkv_cache_carve(full, cache);
    cache->allocator = *a;
    cache->allocated = bytes;
    cache->config = *full;
    cache->has_open = qkv_cache_has_open(full);
    cache->table_pages = table_pages(full);
    cache->head_pages = (int32_t)qkv_cache_pages_for(cache, full->sink_tokens);
    return cache;
}

qkv_status qkv_cache_create(const qkv_cache_config *config, const qkv_allocator *allocator,
                            qkv_cache **out, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_cache_config full;
    qkv_allocator a;

    if (!out)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "cache is NULL");
    *out = NULL;
    if (!qkv_allocator_of(allocator, &a))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "allocator.alloc or allocator.free is NULL");
    const qkv_status status = qkv_cache_config_resolve(config, &full, say);
    if (status != QKV_OK)
        return status;
    qkv_cache *cache = allocate_cache(&full, &a);
    if (!cache)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for %llu bytes of tables",
                          (unsigned long long)qkv_cache_carve(&full, NULL));
    set_up_set(cache, &cache->pages, 0, full.n_pages);
    set_up_set(cache, &cache->open, 1, full.n_open_pages);
    if (!allocate_layers(cache)) {
        free_all(cache);
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for %d layers of %llu bytes",
                          full.n_layers, (unsigned long long)qkv_cache_layer_bytes(&full));
    }
    qkv_pages_clear(&cache->pages);
    qkv_pages_clear(&cache->open);
    set_up_seqs(cache);
    if (pthread_mutex_init(&cache->lock, NULL) != 0) {
        free_all(cache);
        return qkv_refuse(say, QKV_ERR_SYSTEM, "the system has no more locks");
    }
    *out = cache;
    return qkv_accept(say);
}

void qkv_cache_destroy(qkv_cache *cache)
{
    if (!cache)
        return;
    pthread_mutex_destroy(&cache->lock);
    free_all(cache);
}

void qkv_cache_config_get_sized(const qkv_cache *cache, qkv_cache_config *config,
                                size_t struct_size)
{
    qkv_cache_config c = cache->config;

    c.struct_size = (uint32_t)struct_size;
    memset(config, 0, struct_size);
    memcpy(config, &c, struct_size < sizeof c ? struct_size : sizeof c);
}

qkv_status qkv_cache_set_scales(qkv_cache *cache, int32_t layer, const float *k_scales,
                                const float *v_scales, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const float *from[2] = {k_scales, v_scales};
    const int32_t per[2] = {cache->config.k_scale, cache->config.v_scale};
    const int32_t heads = cache->config.n_kv_heads;

    if (layer < 0 || layer >= cache->config.n_layers)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is %d; it must be 0 .. %d", layer,
                          cache->config.n_layers - 1);
    for (int side = 0; side < 2; side++) {
        if (from[side] && per[side] != QKV_SCALE_HEAD)
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "%s_scales is given; it needs %s_scale QKV_SCALE_HEAD",
                              side ? "v" : "k", side ? "v" : "k");
        for (int32_t h = 0; from[side] && h < heads; h++)
            if (!(from[side][h] > 0) || !isfinite(from[side][h]))
                return qkv_refuse(say, QKV_ERR_ARGUMENT,
                                  "%s_scales[%d] is %g; it must be finite and more than 0",
                                  side ? "v" : "k", h, (double)from[side][h]);
    }
    for (int side = 0; side < 2; side++)
        for (int32_t h = 0; per[side] == QKV_SCALE_HEAD && h < heads; h++)
            cache->given[side][(int64_t)layer * heads + h] = from[side] ? from[side][h] : 0;
    return qkv_accept(say);
}
