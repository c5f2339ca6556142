/* cache/load_header.c - the header of a saved cache: is it one, and does it fit this cache? */
#include <string.h>

#include "cache/load.h"

static int sizes_are_sound(const qkv_cache_header *h)
{
    const int64_t limit = (int64_t)1 << 60;
    int64_t pages, open;

    if (h->n_layers < 1 || h->n_seqs < 0 || h->n_pages < 0 || h->n_open < 0 || h->longest < 0 ||
        h->longest > h->n_pages || h->page_bytes < 0 || h->page_bytes > limit / h->n_layers ||
        h->open_bytes < 0 || h->open_bytes > limit / h->n_layers)
        return 0;
    if (h->table_bytes < 0 || h->table_bytes % 4 != 0 ||
        h->table_bytes > (int64_t)h->n_seqs * ((int64_t)sizeof(qkv_cache_record) +
                                               4 * ((int64_t)h->longest + h->n_open)))
        return 0;
    return !__builtin_mul_overflow(h->n_pages, qkv_cache_stored_page(h, h->page_bytes), &pages) &&
           !__builtin_mul_overflow(h->n_open, qkv_cache_stored_page(h, h->open_bytes), &open) &&
           pages < limit && open < limit &&
           h->bytes == (int64_t)sizeof *h + h->table_bytes + 4 + pages + open;
}

qkv_status qkv_cache_read_header(const qkv_cache_reader *reader, qkv_crc32c *tables,
                                 qkv_cache_header *h, qkv_say say)
{
    if (!reader || !reader->read)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "reader or reader.read is NULL");
    if (!qkv_cache_little_endian())
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "caches are loaded on little-endian machines only");
    memset(h, 0, sizeof *h);
    if (reader->read(reader->ctx, h->magic, sizeof h->magic) != 0)
        return qkv_refuse(say, QKV_ERR_FORMAT, "not a saved cache: it is shorter than 8 bytes");
    if (memcmp(h->magic, QKV_CACHE_MAGIC, sizeof h->magic) != 0)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "not a saved cache: it does not begin with " QKV_CACHE_MAGIC);
    if (reader->read(reader->ctx, &h->version, sizeof *h - sizeof h->magic) != 0)
        return qkv_refuse(say, QKV_ERR_SYSTEM, "reading failed, or the file ends, in the header");
    if (h->byte_order == QKV_CACHE_BYTE_ORDER && h->version != QKV_CACHE_VERSION)
        return qkv_refuse(say, QKV_ERR_FORMAT, "version is %d; this library reads version %d",
                          h->version, QKV_CACHE_VERSION);
    qkv_crc32c_make(tables);
    if (h->crc != qkv_cache_header_crc(tables, h))
        return qkv_refuse(say, QKV_ERR_FORMAT, "the file is damaged: wrong checksum in the header");
    if (h->byte_order != QKV_CACHE_BYTE_ORDER || h->version != QKV_CACHE_VERSION ||
        h->reserved != 0 || !sizes_are_sound(h))
        return qkv_refuse(say, QKV_ERR_FORMAT, "the header contradicts itself");
    return QKV_OK;
}

/* The config that a header stands for, with room for exactly what is in the file. */
static qkv_cache_config config_of(const qkv_cache_header *h)
{
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = h->flags;
    c.n_layers = h->n_layers;
    c.n_kv_heads = h->n_kv_heads;
    c.head_dim = h->head_dim;
    c.head_dim_v = h->head_dim_v;
    c.k_format = h->k_format;
    c.v_format = h->v_format;
    c.k_group = h->k_group;
    c.v_group = h->v_group;
    c.k_scale = h->k_scale;
    c.v_scale = h->v_scale;
    c.float_type = h->float_type;
    c.page_tokens = h->page_tokens;
    c.sink_tokens = h->sink_tokens;
    c.window_left = h->window_left;
    c.n_pages = h->n_pages > 0 ? h->n_pages : 1;
    c.max_seqs = h->n_seqs > 0 ? h->n_seqs : 1;
    if (qkv_cache_has_open(&c))
        c.n_open_pages = h->n_open > 0 ? h->n_open : 1;
    if (c.page_tokens > 256 || c.page_tokens % 16 != 0)
        c.flags |= QKV_CACHE_CONTIGUOUS;
    return c;
}

qkv_status qkv_cache_inspect_sized(const qkv_cache_reader *reader, qkv_cache_file_info *out,
                                   size_t struct_size, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_cache_header h;
    qkv_crc32c tables;
    qkv_cache_config config;
    qkv_cache_file_info info;

    if (!out)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "info is NULL");
    qkv_status status = qkv_cache_read_header(reader, &tables, &h, say);
    if (status != QKV_OK)
        return status;
    config = config_of(&h);
    if (qkv_cache_config_check(&config, NULL, NULL, 0) != QKV_OK)
        return qkv_refuse(say, QKV_ERR_FORMAT, "the header describes no cache that there can be");
    memset(&info, 0, sizeof info);
    info.config = config;
    info.version = h.version;
    info.n_seqs = h.n_seqs;
    info.n_pages = h.n_pages;
    info.n_open_pages = h.n_open;
    info.tokens = h.tokens;
    info.bytes = (uint64_t)h.bytes;
    memset(out, 0, struct_size);
    memcpy(out, &info, struct_size < sizeof info ? struct_size : sizeof info);
    return qkv_accept(say);
}

/* Does the file belong to a cache like this one? */
static qkv_status check_config(const loading *l)
{
    const qkv_cache_config *c = &l->cache->config;
    const qkv_cache_header *h = &l->header;

#define SAME(field)                                                                                \
    if (h->field != c->field)                                                                      \
    return qkv_refuse(l->say, QKV_ERR_ARGUMENT,                                                    \
                      #field " is %lld in the file and %lld in this cache", (long long)h->field,   \
                      (long long)c->field)
    SAME(n_layers);
    SAME(n_kv_heads);
    SAME(head_dim);
    SAME(head_dim_v);
    SAME(k_format);
    SAME(v_format);
    SAME(k_group);
    SAME(v_group);
    SAME(k_scale);
    SAME(v_scale);
    SAME(float_type);
    SAME(page_tokens);
    SAME(sink_tokens);
    SAME(window_left);
#undef SAME
    if (h->flags != (c->flags & QKV_CACHE_STORED_FLAGS))
        return qkv_refuse(l->say, QKV_ERR_ARGUMENT,
                          "flags are %#x in the file and %#x in this cache", (unsigned)h->flags,
                          (unsigned)(c->flags & QKV_CACHE_STORED_FLAGS));
    if (h->page_bytes != l->cache->pages.map.bytes ||
        h->open_bytes != (l->cache->has_open ? l->cache->open.map.bytes : 0))
        return qkv_refuse(l->say, QKV_ERR_FORMAT, "the header contradicts itself");
    if (h->longest > l->cache->table_pages)
        return qkv_refuse(l->say, QKV_ERR_FULL,
                          "a sequence of the file has %d pages; max_tokens of this cache is %lld",
                          h->longest, (long long)c->max_tokens);
    return QKV_OK;
}

/* Scratch for a header that was checked: its sizes are at most those of the cache's own tables. */
static qkv_status load(loading *l, unsigned char *scratch)
{
    l->pages = (void *)scratch;
    l->open = l->pages + l->header.n_pages;
    l->tables = l->open + l->header.n_open;
    l->seen = (void *)(l->tables + l->header.table_bytes / 4);
    return qkv_cache_load_body(l);
}

qkv_status qkv_cache_load(qkv_cache *cache, const qkv_cache_reader *reader, int32_t max_seqs,
                          int32_t *seqs, int32_t *n, char *text, size_t bytes)
{
    const qkv_allocator *a = &cache->allocator;
    qkv_crc32c tables;
    loading l = {
        .cache = cache, .reader = reader, .say = {text, bytes}, .crc = &tables, .seqs = seqs};

    if (!n || (!seqs && max_seqs > 0) || max_seqs < 0)
        return qkv_refuse(l.say, QKV_ERR_ARGUMENT, "max_seqs is %d, seqs %p, n %p", max_seqs,
                          (void *)seqs, (void *)n);
    *n = 0;
    qkv_status status = qkv_cache_read_header(reader, &tables, &l.header, l.say);
    if (status == QKV_OK)
        status = check_config(&l);
    if (status != QKV_OK)
        return status;
    if (l.header.n_seqs > max_seqs)
        return qkv_refuse(l.say, QKV_ERR_ARGUMENT, "max_seqs is %d; the file has %d sequences",
                          max_seqs, l.header.n_seqs);
    const int64_t numbers = (int64_t)l.header.n_pages + l.header.n_open;
    const size_t scratch = (size_t)(5 * numbers + l.header.table_bytes) + 1;
    unsigned char *memory = a->alloc(a->ctx, scratch);
    if (!memory)
        return qkv_refuse(l.say, QKV_ERR_MEMORY, "no memory for %zu bytes of scratch", scratch);
    status = load(&l, memory);
    a->free(a->ctx, memory);
    if (status != QKV_OK)
        return status;
    *n = l.header.n_seqs;
    return qkv_accept(l.say);
}
