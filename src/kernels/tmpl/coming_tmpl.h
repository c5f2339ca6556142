/*
 * tmpl/coming_tmpl.h - rows of K and V that are read soon, asked for while a product runs.
 *
 * Products with queries in lanes read the rows of a tile side by side and come back to each row of
 * V for every few channels, which hardware prefetchers do not follow.  With many tiles over keys
 * and values that fit the second cache level nobody waits, and asking costs 1 to 5 %.  With few
 * tiles, or more keys (qkv_tile.streams), they come from memory or the third level, and a block of
 * them took as long as arithmetic and reading one after the other.
 *
 * While scores are computed the values of the same block are asked for, while values are summed
 * the keys of the next.  Asked for evenly, PACE steps of a product at a time: the core can wait
 * for some two dozen lines, and more at once keep the product's own loads waiting.  Measured on
 * Zen 4 (f32, D = 128, 16,384 keys from memory, one thread, ms for 16 / 48 queries a head):
 * nothing asked for 20.2 / 38.7, the rows of a tile of keys at once 16.5 / 34.5, evenly 12.2 /
 * 31.3.
 *
 * Parameters: none.
 */
enum { PACE = 16 };

typedef struct coming {
    const qkv_kv *kv;
    const char *base; /* row of key 0; with pages, row 0 of page 0 */
    int64_t stride, page, size; /* as qkv_kv has them, and bytes of an element */
    int64_t from, end; /* keys */
    int bytes; /* of a row */
} coming;

static coming coming_rows(const qkv_kv *kv, const void *base, int type, int64_t stride,
                          int64_t page, int channels, int64_t from, int64_t end)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const int elements = type == QKV_U4 ? (channels + 1) / 2 : channels;

    return (coming){kv, base, stride, page, size, from, end, elements * (int)size};
}

/* Asks for those whose turn it is between the steps `from` and `to` of a product that has `all`. */
static inline void ask_rows(const coming *x, int64_t from, int64_t to, int64_t all)
{
    const int64_t n = x->end - x->from, end = x->from + n * to / all;

    for (int64_t j = x->from + n * from / all; j < end; j++) {
        const char *row = x->base + qkv_kv_offset(x->kv, x->stride, x->page, j) * x->size;
        for (int at = 0; at < x->bytes; at += 64)
            __builtin_prefetch(row + at, 0, 2);
    }
}
