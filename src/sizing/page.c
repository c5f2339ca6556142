/*
 * sizing/page.c - bytes of pages and caches, as cache/map.c and cache/create.c lay them out.
 *
 * Written a second time and not called, for three reasons: sums here notice that they overflow,
 * bookkeeping is that of 64-bit machines also where this code runs on 32 bits (WebAssembly), and
 * sizes of formats that a qkv_cache does not store are wanted too.  tests/sizing compares both over
 * random configurations, and with caches that were made.
 */
#include "sizing/internal.h"

/* Sizes of qkv_cache and qkv_cache_seq in cache/internal.h, in steps of 64 bytes, and how many
 * numbers there are for each page of a set. */
enum { ALIGN = 64, CACHE_STRUCT = 1024, SEQ_STRUCT = 96, PAGE_NUMBERS = 3, POINTER = 8 };

static uint64_t aligned(qkv_tally *t, uint64_t bytes)
{
    return qkv_tally_mul(t, qkv_up(bytes, ALIGN), ALIGN);
}

/* ---- rows --------------------------------------------------------------------------------- */

static uint64_t float_bytes(int32_t format)
{
    return format == QKV_FORMAT_F32                                ? 4
           : format == QKV_FORMAT_F16 || format == QKV_FORMAT_BF16 ? 2
                                                                   : 0;
}

/* One kind of rows: dim channels of one head. */
typedef struct side {
    int32_t format, group, scale;
    uint64_t dim;
} side;

/* Bytes of a row of codes, of each array of scales (one or two), and whether a page has these
 * once. */
static void row_bytes(const side *s, uint64_t *codes, uint64_t *scales, int *arrays, int *once)
{
    const uint64_t group = s->group > 0 ? (uint64_t)s->group : s->dim,
                   wide = float_bytes(s->format);
    const uint64_t groups = qkv_up(s->dim, group);

    *scales = 0;
    *arrays = *once = 0;
    *codes = wide > 0 ? wide * s->dim : s->dim;
    if (wide > 0)
        return;
    if (s->format == QKV_SIZE_Q8_0 || s->format == QKV_SIZE_Q4_0) {
        *codes = qkv_up(s->dim, QKV_GGML_BLOCK) *
                 (s->format == QKV_SIZE_Q8_0 ? QKV_Q8_0_BYTES : QKV_Q4_0_BYTES);
        return;
    }
    *arrays = 1;
    *scales = 4 * groups;
    if (s->format == QKV_FORMAT_INT4) {
        *codes = qkv_up(s->dim, 2);
        *arrays = 2;
        *scales = 2 * groups;
    } else if (s->format == QKV_FORMAT_INT8_CHANNEL) {
        *scales = 4 * s->dim;
        *once = 1;
    } else if (s->scale == QKV_SCALE_HEAD) {
        *scales = 4;
        *once = 1;
    }
}

typedef struct page {
    uint64_t token, once, bytes;
} page;

static void add_side(const side *s, uint64_t heads, uint64_t tokens, qkv_tally *t, page *p)
{
    uint64_t codes, scales;
    int arrays, once;

    if (s->dim == 0)
        return;
    row_bytes(s, &codes, &scales, &arrays, &once);
    p->token += codes * heads;
    p->bytes = qkv_tally_add(t, p->bytes, aligned(t, qkv_tally_mul3(t, codes, heads, tokens)));
    for (int i = 0; i < arrays; i++) {
        *(once ? &p->once : &p->token) += scales * heads;
        p->bytes = qkv_tally_add(t, p->bytes,
                                 aligned(t, qkv_tally_mul3(t, scales, heads, once ? 1 : tokens)));
    }
}

static int32_t format_of_type(int32_t type)
{
    return type == QKV_F32 ? QKV_FORMAT_F32 : type == QKV_F16 ? QKV_FORMAT_F16 : QKV_FORMAT_BF16;
}

static page page_of(const qkv_size_group *g, const qkv_size_setup *s, int open, qkv_tally *t,
                    uint64_t *keys)
{
    const int latent = g->kind == QKV_LAYER_MLA;
    const int32_t k_format = open ? format_of_type(s->float_type) : s->k_format;
    /* Rotary channels of a latent in codes stay wide. */
    const int split = latent && float_bytes(s->k_format) == 0;
    const uint64_t dim = (uint64_t)(split ? g->head_dim_v : g->head_dim);
    const side k = {k_format, s->k_group, s->k_scale, dim};
    const side v = {s->v_format, s->v_group, s->v_scale, latent ? 0 : (uint64_t)g->head_dim_v};
    const side r = {format_of_type(s->float_type), 0, QKV_SCALE_TOKEN, (uint64_t)g->head_dim - dim};
    const uint64_t heads = (uint64_t)g->n_kv_heads, tokens = (uint64_t)s->page_tokens;
    page p = {0, 0, 0};

    add_side(&k, heads, tokens, t, &p);
    *keys = p.token;
    add_side(&v, heads, tokens, t, &p);
    add_side(&r, heads, tokens, t, &p);
    *keys = latent ? p.token : *keys;
    return p;
}

void qkv_size_rows_of(const qkv_size_group *group, const qkv_size_setup *setup, qkv_tally *t,
                      qkv_size_rows *rows)
{
    uint64_t keys, open_keys;
    const page p = page_of(group, setup, 0, t, &keys);
    const qkv_size_rows r = {p.token, p.once, p.bytes, 0, 0, 0, keys};

    *rows = r;
    if (setup->k_format == QKV_FORMAT_INT8_CHANNEL) {
        const page open = page_of(group, setup, 1, t, &open_keys);
        rows->open_token = open.token;
        rows->open_once = open.once;
        rows->open_page = open.bytes;
    }
}

/* ---- the whole cache ---------------------------------------------------------------------- */

/* Bookkeeping of n pages of one kind. */
static uint64_t set_bytes(qkv_tally *t, uint64_t n, uint64_t layers)
{
    return qkv_tally_add(t, qkv_tally_mul(t, PAGE_NUMBERS, aligned(t, qkv_tally_mul(t, n, 4))),
                         aligned(t, layers * POINTER));
}

uint64_t qkv_size_cache_bytes(const qkv_cache_config *c, const qkv_size_rows *rows, qkv_tally *t)
{
    const uint64_t layers = (uint64_t)c->n_layers, seqs = (uint64_t)c->max_seqs;
    const uint64_t pages = (uint64_t)c->n_pages, open = (uint64_t)c->n_open_pages;
    const uint64_t table =
        qkv_min_u64(qkv_up((uint64_t)c->max_tokens, (uint64_t)c->page_tokens), pages);
    const int head = c->k_scale == QKV_SCALE_HEAD || c->v_scale == QKV_SCALE_HEAD;
    const uint64_t given = head ? layers * (uint64_t)c->n_kv_heads * 4 : 0;
    const uint64_t scratch = open > 0 ? (uint64_t)c->page_tokens * (uint64_t)c->head_dim * 4 : 0;
    const uint64_t one_layer =
        qkv_tally_add(t, qkv_tally_add(t, qkv_tally_mul(t, rows->page, pages), ALIGN),
                      qkv_tally_mul(t, rows->open_page, open));
    const uint64_t parts[] = {CACHE_STRUCT,
                              aligned(t, seqs * SEQ_STRUCT),
                              aligned(t, seqs * 4),
                              aligned(t, layers * POINTER),
                              aligned(t, pages),
                              2 * aligned(t, given),
                              aligned(t, scratch),
                              set_bytes(t, pages, layers),
                              set_bytes(t, open, layers),
                              aligned(t, qkv_tally_mul3(t, 8, seqs, table)),
                              aligned(t, qkv_tally_mul3(t, 8, seqs, open)),
                              qkv_tally_mul(t, layers, one_layer)};
    uint64_t all = 0;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        all = qkv_tally_add(t, all, parts[i]);
    return all;
}
