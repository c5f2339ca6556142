/* store.c - see store.h. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "memory.h"

enum { LINE = 64, LAYER_SHIFT = 64 * 1021 };

/* ---- memory ------------------------------------------------------------------------------- */

/* The cache's blocks come from one piece of memory, so that the read rate can be measured over the
 * very memory that is read. */
static void *take(void *ctx, size_t bytes)
{
    bench_store *s = ctx;
    const size_t at = (s->used + LINE - 1) / LINE * LINE;

    if (bytes > s->arena_bytes || at > s->arena_bytes - bytes)
        return NULL;
    s->used = at + bytes;
    return s->arena + at;
}

static void keep(void *ctx, void *memory)
{
    (void)ctx;
    (void)memory;
}

/* ---- what kind of cache ------------------------------------------------------------------- */

static int64_t pages_for(const bench_shape *shape)
{
    const int64_t tokens = shape->page_tokens;
    int64_t pages = 0;

    if (tokens == 0)
        return shape->B;
    if (shape->use == BENCH_SHARED || shape->use == BENCH_CASCADE)
        return (shape->Tk - BENCH_OWN) / tokens + shape->B * (BENCH_OWN / tokens);
    for (int32_t b = 0; b < shape->B; b++)
        pages += (bench_shape_length(shape, b) + tokens - 1) / tokens;
    return pages;
}

static qkv_cache_config config_of(const bench_shape *shape)
{
    const int32_t wide = shape->format <= QKV_FORMAT_BF16;
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.n_kv_heads = shape->Hkv;
    c.head_dim = shape->D;
    c.head_dim_v = shape->Dv;
    c.k_format = c.v_format = shape->format;
    c.k_group = shape->latent && !wide && shape->Dv >= 128 ? 128 : 0;
    c.page_tokens = shape->page_tokens > 0 ? shape->page_tokens : (int32_t)shape->Tk;
    c.flags = (shape->latent ? QKV_CACHE_LATENT : 0) |
              (shape->page_tokens == 0 ? QKV_CACHE_CONTIGUOUS : 0);
    c.n_pages = (int32_t)pages_for(shape);
    c.max_seqs = c.n_pages > shape->B ? c.n_pages : shape->B + 1;
    return c;
}

static int create(bench_store *s, size_t cold_bytes)
{
    const qkv_allocator allocator = {take, keep, s};
    qkv_cache_config c = config_of(s->shape);
    qkv_cache_bytes needs;
    char text[CLI_TEXT];

    if (qkv_cache_config_check(&c, &needs, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->shape->name, text);
    const size_t layer = (size_t)needs.page * (size_t)c.n_pages;
    c.n_layers = s->n_layers = s->shape->cold ? (int32_t)((cold_bytes - 1) / layer) + 1 : 1;
    if (s->shape->use == BENCH_APPEND)
        c.n_layers = s->n_layers = 1;
    if (qkv_cache_config_check(&c, &needs, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->shape->name, text);
    s->token_bytes = (double)needs.token / c.n_layers;
    s->arena_bytes = (size_t)needs.allocated + ((size_t)c.n_layers + 8) * LINE;
    s->arena = bench_alloc(s->arena_bytes);
    if (s->arena == NULL)
        return cli_complain_memory(s->shape->name, s->arena_bytes);
    if (qkv_cache_create(&c, &allocator, &s->cache, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->shape->name, text);
    return CLI_DONE;
}

/* ---- a cache that was used ---------------------------------------------------------------- */

/* Pages of a new cache follow one another.  Here each was taken by a sequence of its own, and all
 * were freed in a random order. */
static int use_before(bench_store *s)
{
    const int32_t n = s->shape->page_tokens > 0 ? (int32_t)pages_for(s->shape) : 0, one = 1;
    int32_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
    char text[CLI_TEXT];
    uint64_t seed = 3;

    if (ids == NULL)
        return cli_complain_memory("page numbers", (size_t)n * sizeof *ids);
    for (int32_t i = 0; i < n; i++)
        if (qkv_cache_add(s->cache, &ids[i], text, sizeof text) != QKV_OK ||
            qkv_cache_reserve(s->cache, 1, &ids[i], &one, text, sizeof text) != QKV_OK) {
            free(ids);
            return cli_complain("%s: %s", s->shape->name, text);
        }
    for (int32_t left = n; left > 0; left--) {
        const int32_t i = (int32_t)(bench_random(&seed) % (uint64_t)left);
        (void)qkv_cache_release(s->cache, ids[i]);
        ids[i] = ids[left - 1];
    }
    free(ids);
    return CLI_DONE;
}

/* ---- filling ------------------------------------------------------------------------------ */

static int64_t row_of(const bench_shape *shape) { return (int64_t)shape->Hkv * shape->D; }
static int64_t v_row_of(const bench_shape *shape) { return (int64_t)shape->Hkv * shape->Dv; }

static int make_source(bench_store *s)
{
    const size_t size = qkv_type_size(s->shape->type), rows = BENCH_SOURCE_TOKENS;
    const size_t k = BENCH_PERIOD + rows * (size_t)row_of(s->shape);
    const size_t v = BENCH_PERIOD + rows * (size_t)v_row_of(s->shape);

    s->source_v = k * size;
    s->source = bench_alloc((k + v) * size);
    s->seqs = calloc((size_t)s->shape->B, sizeof *s->seqs);
    if (s->source == NULL || s->seqs == NULL)
        return cli_complain_memory("rows for the cache", (k + v) * size);
    bench_fill(s->source, s->shape->type, (int64_t)k, 2);
    bench_fill(s->source + s->source_v, s->shape->type, (int64_t)v, 5);
    return CLI_DONE;
}

void bench_store_rows(const bench_store *s, int32_t layer, int64_t first, const int32_t *seq,
                      const int64_t *start, const int32_t *count, qkv_cache_rows *rows)
{
    const bench_shape *shape = s->shape;
    const int64_t size = (int64_t)qkv_type_size(shape->type);
    const int64_t moved = (int64_t)layer * LAYER_SHIFT;

    qkv_cache_rows_init(rows);
    rows->type = (int32_t)shape->type;
    rows->seqs = seq;
    rows->starts = start;
    rows->counts = count;
    rows->k = s->source + (moved + first * row_of(shape)) % BENCH_PERIOD * size;
    if (!shape->latent)
        rows->v =
            s->source + s->source_v + (moved + first * v_row_of(shape)) % BENCH_PERIOD * size;
    rows->k_stride[1] = shape->D;
    rows->k_stride[2] = row_of(shape);
    rows->v_stride[1] = shape->Dv;
    rows->v_stride[2] = v_row_of(shape);
}

static qkv_status write_layers(bench_store *s, int32_t seq, int64_t at, int64_t n, char *text)
{
    qkv_status status = QKV_OK;

    for (int32_t layer = 0; layer < s->n_layers; layer++)
        for (int64_t done = 0; status == QKV_OK && done < n; done += BENCH_SOURCE_TOKENS) {
            const int64_t start = at + done, left = n - done;
            const int32_t count = left < BENCH_SOURCE_TOKENS ? (int32_t)left : BENCH_SOURCE_TOKENS;
            qkv_cache_rows rows;
            bench_store_rows(s, layer, s->tokens + done, &seq, &start, &count, &rows);
            status = qkv_cache_write(s->cache, layer, &rows, text, CLI_TEXT);
        }
    return status;
}

/* n more tokens, of which the last `open` stay uncommitted: a view's queries. */
static int append(bench_store *s, int32_t seq, int64_t n, int64_t open)
{
    const int64_t at = qkv_cache_length(s->cache, seq), committed = at + n - open;
    const int32_t count = (int32_t)n;
    char text[CLI_TEXT];

    if (qkv_cache_reserve(s->cache, 1, &seq, &count, text, sizeof text) != QKV_OK ||
        write_layers(s, seq, at, n, text) != QKV_OK ||
        qkv_cache_commit(s->cache, 1, &seq, &committed, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->shape->name, text);
    s->tokens += n;
    return CLI_DONE;
}

static int fill_alone(bench_store *s)
{
    char text[CLI_TEXT];
    int code = CLI_DONE;

    for (int32_t b = 0; code == CLI_DONE && b < s->shape->B; b++) {
        if (qkv_cache_add(s->cache, &s->seqs[b], text, sizeof text) != QKV_OK)
            return cli_complain("%s: %s", s->shape->name, text);
        code = append(s, s->seqs[b], bench_shape_length(s->shape, b), s->shape->Tq);
    }
    return code;
}

static int fill_shared(bench_store *s)
{
    char text[CLI_TEXT];
    int32_t parent;

    if (qkv_cache_add(s->cache, &parent, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->shape->name, text);
    int code = append(s, parent, s->shape->Tk - BENCH_OWN, 0);
    for (int32_t b = 0; code == CLI_DONE && b < s->shape->B; b++) {
        if (qkv_cache_fork(s->cache, parent, &s->seqs[b], text, sizeof text) != QKV_OK)
            return cli_complain("%s: %s", s->shape->name, text);
        code = append(s, s->seqs[b], BENCH_OWN, s->shape->Tq);
    }
    (void)qkv_cache_release(s->cache, parent);
    return code;
}

int bench_store_make(bench_store *s, const bench_shape *shape, size_t cold_bytes)
{
    const int shared = shape->use == BENCH_SHARED || shape->use == BENCH_CASCADE;
    qkv_cache_stats stats;

    memset(s, 0, sizeof *s);
    s->shape = shape;
    int code = create(s, cold_bytes);
    if (code == CLI_DONE)
        code = use_before(s);
    if (code == CLI_DONE)
        code = make_source(s);
    if (code == CLI_DONE)
        code = shared ? fill_shared(s) : fill_alone(s);
    if (code == CLI_DONE && qkv_cache_stats_get(s->cache, &stats) == QKV_OK)
        s->layer_bytes = (double)stats.payload / s->n_layers;
    return code;
}

void bench_store_free(bench_store *s)
{
    qkv_cache_destroy(s->cache);
    free(s->arena);
    free(s->source);
    free(s->seqs);
}
