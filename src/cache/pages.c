/* cache/pages.c - pages of one kind: counted references and a free list. */
#include <string.h>

#include "cache/internal.h"

/* The number a poisoned byte has: it makes NaN of every float type, of fp8 and of the scales. */
enum { POISON = 0xff };

static void poison(const qkv_page_set *set, int32_t page)
{
    for (int32_t layer = 0; layer < set->n_layers; layer++)
        memset(qkv_page_at(set, layer, page), POISON, (size_t)set->map.bytes);
}

void qkv_pages_clear(qkv_page_set *set)
{
    set->n_free = set->n;
    for (int32_t i = 0; i < set->n; i++) {
        set->free[i] = set->n - 1 - i; /* page 0 first, so that early pages are neighbours */
        atomic_init(&set->refs[i], 0);
        set->pending[i] = 0;
        if (set->poison)
            poison(set, i);
    }
}

static void set_refs(qkv_page_set *set, int32_t page, int32_t refs)
{
    atomic_store_explicit(&set->refs[page], refs, memory_order_relaxed);
}

int32_t qkv_page_take(qkv_page_set *set)
{
    const int32_t page = set->free[--set->n_free];

    set_refs(set, page, 1);
    if (set->map.array[QKV_BOUNDS].row > 0)
        for (int32_t layer = 0; layer < set->n_layers; layer++)
            qkv_cache_bounds_clear(&set->map, qkv_page_at(set, layer, page));
    return page;
}

void qkv_page_share(qkv_page_set *set, int32_t page)
{
    set_refs(set, page, qkv_page_refs(set, page) + 1);
}

void qkv_page_drop(qkv_page_set *set, int32_t page)
{
    const int32_t refs = qkv_page_refs(set, page) - 1;

    set_refs(set, page, refs);
    if (refs > 0)
        return;
    if (set->poison)
        poison(set, page);
    set->free[set->n_free++] = page;
}

int32_t qkv_page_copy(qkv_page_set *set, int32_t page, int64_t n)
{
    const int32_t copy = qkv_page_take(set);

    for (int32_t layer = 0; layer < set->n_layers; layer++)
        qkv_cache_copy_tokens(&set->map, qkv_page_at(set, layer, copy),
                              qkv_page_at(set, layer, page), n);
    qkv_page_drop(set, page);
    return copy;
}
