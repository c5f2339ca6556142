/* sizing/groups.c - layers to caches, and what these take. */
#include <string.h>

#include "sizing/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)

/* ---- shapes ------------------------------------------------------------------------------- */

void qkv_size_shape(const qkv_layer_desc *l, qkv_size_group *g)
{
    memset(g, 0, sizeof *g);
    g->kind = l->kind;
    if (l->kind == QKV_LAYER_STATE) {
        g->elements = (uint64_t)l->state_elements;
        g->reserved = l->state_type; /* until the bytes are known */
        return;
    }
    const int latent = l->kind == QKV_LAYER_MLA;
    g->cross = l->cross;
    g->n_kv_heads = latent ? 1 : l->n_kv_heads;
    g->head_dim = latent ? l->kv_lora_rank + l->rope_dim : l->head_dim;
    g->head_dim_v = latent ? l->kv_lora_rank : l->head_dim_v;
    g->window = l->cross ? 0 : qkv_size_window(l);
    g->elements = (uint64_t)g->n_kv_heads * (uint64_t)(g->head_dim + (latent ? 0 : g->head_dim_v));
}

static int same_shape(const qkv_size_group *a, const qkv_size_group *b)
{
    return a->kind == b->kind && a->cross == b->cross && a->n_kv_heads == b->n_kv_heads &&
           a->head_dim == b->head_dim && a->head_dim_v == b->head_dim_v && a->window == b->window &&
           a->elements == b->elements && a->reserved == b->reserved;
}

/* ---- layers to groups --------------------------------------------------------------------- */

static int add_layer(qkv_size_cache *cache, const qkv_layer_desc *layer, int own)
{
    qkv_size_group g;
    int32_t i = 0;

    qkv_size_shape(layer, &g);
    while (i < cache->n_groups && !same_shape(&g, &cache->group[i]))
        i++;
    if (i == QKV_SIZE_MAX_GROUPS)
        return 0;
    if (i == cache->n_groups)
        cache->group[cache->n_groups++] = g;
    cache->group[i].n_layers += own;
    cache->group[i].n_sharing += !own;
    return 1;
}

/* Bidirectional layers see their whole sequence at once and keep nothing. */
static int keeps(const qkv_layer_desc *l)
{
    return l->kind == QKV_LAYER_STATE || l->causal || l->cross;
}

qkv_status qkv_size_find_groups(const qkv_model *m, const qkv_size_setup *full,
                                qkv_size_cache *cache, qkv_say say)
{
    int ok = 1;

    memset(cache, 0, sizeof *cache);
    cache->context = full->context;
    cache->batch = full->batch;
    cache->not_cached = qkv_size_is_foreign(full->k_format) || qkv_size_is_foreign(full->v_format);
    for (int32_t i = 0; ok && i < m->n_layers; i++) {
        const qkv_layer_desc *l = qkv_size_layer(m, QKV_PART_DECODER, m->cache_of[i]);
        if (keeps(l))
            ok = add_layer(cache, l, m->cache_of[i] == i);
    }
    for (int32_t i = 0; ok && i < qkv_size_layers(m, QKV_PART_CROSS); i++)
        ok = add_layer(cache, qkv_size_layer(m, QKV_PART_CROSS, i), 1);
    if (!ok)
        REFUSE("n_kinds is %d; layers of more than %d shapes of cache are not priced", m->n_kinds,
               QKV_SIZE_MAX_GROUPS);
    return QKV_OK;
}

/* ---- pages -------------------------------------------------------------------------------- */

static uint64_t tokens_of(const qkv_size_group *g, const qkv_size_setup *s)
{
    const uint64_t n = (uint64_t)(g->cross ? s->memory_tokens : s->context);
    return g->window > 0 ? qkv_min_u64(n, (uint64_t)g->window) : n;
}

/*
 * A window of W keys is evicted by pages: of the oldest one up to P - 1 tokens are past it.  So
 * before s more tokens go in there may be P - 1 + W - 1 of them.  The newest page always stays, as
 * it does for W = 2.
 */
static uint64_t window_pages(const qkv_size_group *g, const qkv_size_setup *s, uint64_t more)
{
    const uint64_t page = (uint64_t)s->page_tokens;
    const uint64_t left = g->window > 2 ? (uint64_t)g->window - 1 : 1;
    return qkv_min_u64(qkv_up((uint64_t)s->context, page), qkv_up(page - 1 + left + more, page));
}

uint64_t qkv_size_pages(const qkv_size_group *g, const qkv_size_setup *s, uint64_t *of_sequence,
                        qkv_tally *t)
{
    const uint64_t batch = (uint64_t)s->batch;

    if (g->window == 0) {
        *of_sequence = qkv_up(tokens_of(g, s), (uint64_t)s->page_tokens);
        return qkv_tally_mul(t, batch, *of_sequence);
    }
    const uint64_t decoding = window_pages(g, s, 1);
    *of_sequence = window_pages(g, s, (uint64_t)s->chunk);
    return qkv_tally_add(t, qkv_tally_mul(t, batch - 1, decoding), *of_sequence);
}

static void config_of(const qkv_size_group *g, const qkv_size_setup *s, qkv_cache_config *c,
                      qkv_tally *t)
{
    uint64_t of_sequence;
    const uint64_t pages = qkv_size_pages(g, s, &of_sequence, t);
    const uint64_t open =
        2 * (uint64_t)s->batch + qkv_up((uint64_t)s->chunk, (uint64_t)s->page_tokens);

    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
    c->flags = g->kind == QKV_LAYER_MLA ? QKV_CACHE_LATENT : 0;
    c->n_layers = g->n_layers;
    c->n_kv_heads = g->n_kv_heads;
    c->head_dim = g->head_dim;
    c->head_dim_v = g->head_dim_v;
    c->k_format = s->k_format;
    c->v_format = s->v_format;
    c->k_group = s->k_group;
    c->v_group = s->v_group;
    c->k_scale = s->k_scale;
    c->v_scale = c->flags & QKV_CACHE_LATENT ? QKV_SCALE_TOKEN : s->v_scale;
    c->float_type = s->float_type;
    c->page_tokens = s->page_tokens;
    t->over |= pages > INT32_MAX;
    c->n_pages = (int32_t)qkv_min_u64(pages, INT32_MAX);
    c->n_open_pages = s->k_format == QKV_FORMAT_INT8_CHANNEL
                          ? (int32_t)qkv_min_u64(open, (uint64_t)c->n_pages)
                          : 0;
    c->max_seqs = (int32_t)s->batch;
    c->max_tokens = (int64_t)(of_sequence * (uint64_t)s->page_tokens);
    c->window_left = g->window > 0 ? g->window - 1 : QKV_UNBOUNDED;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static void add_state(qkv_size_group *g, const qkv_size_setup *s, qkv_tally *t)
{
    const int32_t type = g->reserved != QKV_NONE ? g->reserved : s->float_type;
    const uint64_t one = qkv_tally_mul(t, g->elements, qkv_type_size((qkv_type)type));
    const uint64_t n = (uint64_t)g->n_layers * (uint64_t)s->batch;

    g->reserved = 0;
    g->payload = qkv_tally_mul(t, one, n);
    g->allocated = qkv_tally_mul(t, qkv_tally_mul(t, qkv_up(one, 64), 64), n);
}

/* Bytes that the last `tokens` of `length` tokens of one sequence take in one layer. */
static uint64_t payload_of(const qkv_size_rows *r, uint64_t length, uint64_t tokens, uint64_t page,
                           qkv_tally *t)
{
    const uint64_t first = (length - tokens) / page; /* page of the oldest */
    const uint64_t rest = r->open_page > 0 ? qkv_min_u64(length % page, tokens) : 0;
    const uint64_t pages = tokens > rest ? qkv_up(length - rest, page) - first : 0;
    const uint64_t open = rest > 0 ? rest * r->open_token + r->open_once : 0;

    return qkv_tally_add(t,
                         qkv_tally_add(t, qkv_tally_mul(t, tokens - rest, r->token),
                                       qkv_tally_mul(t, pages, r->once)),
                         open);
}

static qkv_status add_rows(qkv_size_cache *cache, qkv_size_group *g, const qkv_size_setup *s,
                           qkv_tally *t, qkv_say say)
{
    const uint64_t layers = (uint64_t)g->n_layers;
    const qkv_status status = qkv_size_check_formats(s, g, say);
    qkv_cache_config config;
    qkv_size_rows rows;

    if (status != QKV_OK)
        return status;
    g->tokens = tokens_of(g, s);
    if (layers == 0) /* all of them use the cache of a layer of another shape */
        return QKV_OK;
    qkv_size_rows_of(g, s, t, &rows);
    config_of(g, s, &config, t);
    g->pages = (uint64_t)config.n_pages;
    g->page_bytes = qkv_tally_mul(t, rows.page, layers);
    g->token_bytes = qkv_tally_mul(t, rows.token, layers);
    const uint64_t one = payload_of(&rows, (uint64_t)(g->cross ? s->memory_tokens : s->context),
                                    g->tokens, (uint64_t)s->page_tokens, t);
    g->payload = qkv_tally_mul3(t, one, layers, (uint64_t)s->batch);
    g->allocated = cache->not_cached ? 0 : qkv_size_cache_bytes(&config, &rows, t);
    if (!g->cross) {
        cache->elements = qkv_tally_add(t, cache->elements, g->elements * layers);
        cache->token_bytes = qkv_tally_add(t, cache->token_bytes, g->token_bytes);
    }
    return QKV_OK;
}

qkv_status qkv_size_cache_find(const qkv_model *model, const qkv_size_setup *setup,
                               qkv_size_cache *cache, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_size_setup full;
    qkv_tally t = {0};
    qkv_status status = qkv_size_resolve(model, setup, &full, say);

    if (status == QKV_OK && !cache)
        REFUSE("cache is NULL");
    if (status == QKV_OK)
        status = qkv_size_find_groups(model, &full, cache, say);
    for (int32_t i = 0; status == QKV_OK && i < cache->n_groups; i++) {
        qkv_size_group *g = &cache->group[i];
        if (g->kind == QKV_LAYER_STATE) {
            add_state(g, &full, &t);
            cache->state = qkv_tally_add(&t, cache->state, g->payload);
        } else {
            status = add_rows(cache, g, &full, &t, say);
        }
        cache->payload = qkv_tally_add(&t, cache->payload, g->payload);
        cache->allocated = qkv_tally_add(&t, cache->allocated, g->allocated);
    }
    if (status != QKV_OK)
        return status;
    if (cache->not_cached)
        cache->allocated = 0;
    return t.over ? qkv_size_refuse_over(&full, say) : qkv_accept(say);
}

qkv_status qkv_size_cache_config(const qkv_model *model, const qkv_size_setup *setup, int32_t index,
                                 qkv_cache_config *config, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_size_cache cache;
    qkv_size_setup full;
    qkv_tally t = {0};
    qkv_status status = qkv_size_cache_find(model, setup, &cache, text, bytes);

    if (status == QKV_OK)
        status = qkv_size_resolve(model, setup, &full, say);
    if (status != QKV_OK)
        return status;
    if (!config)
        REFUSE("config is NULL");
    if (index < 0 || index >= cache.n_groups || cache.group[index].kind == QKV_LAYER_STATE ||
        cache.group[index].n_layers == 0)
        REFUSE("index is %d; accepted are groups with keys and values, of %d", index,
               cache.n_groups);
    if (cache.not_cached)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "k_format and v_format are %s and %s; a qkv_cache does not store these",
                          qkv_size_format_name(full.k_format), qkv_size_format_name(full.v_format));
    config_of(&cache.group[index], &full, config, &t);
    return qkv_accept(say);
}
