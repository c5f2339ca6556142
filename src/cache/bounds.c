/*
 * cache/bounds.c - the range of each channel over the keys of a page.
 *
 * [head][2][D] in bf16, the lower ends first, rounded outwards: a bound may be loose, never
 * tight.  A channel that held a NaN has the range -infinity .. infinity.  Ranges only grow
 * while a page is in use, so after a truncation they may still include tokens that are gone.
 */
#include "core/bits.h"
#include "cache/internal.h"

enum { BF16_INF = 0x7f80, BF16_MINUS_INF = 0xff80 };

/* x to bf16 towards infinity (up 1) or minus infinity (up 0): cut, then one step away from zero if
 * that is the way and something was cut.  A step from the largest number gives infinity. */
static uint16_t outwards(float x, int32_t up)
{
    const int32_t bits = qkv_bits_of(x), negative = bits < 0;
    const int32_t away = (bits & 0xffff) != 0 && negative != up;
    return (uint16_t)((uint32_t)bits >> 16) + (uint16_t)away;
}

static float of_bf16(uint16_t h) { return qkv_of_bits((int32_t)((uint32_t)h << 16)); }

void qkv_cache_bounds_clear(const qkv_cache_map *map, unsigned char *page)
{
    const int64_t d = map->array[QKV_BOUNDS].row / 4;
    for (int64_t h = 0; h < map->heads; h++) {
        uint16_t *ends = (void *)qkv_cache_row(map, page, QKV_BOUNDS, h, 0);
        for (int64_t i = 0; i < d; i++) {
            ends[i] = BF16_INF;
            ends[d + i] = BF16_MINUS_INF;
        }
    }
}

void qkv_cache_bounds_add(const qkv_cache_map *map, unsigned char *page, int64_t head,
                          int64_t token)
{
    const int64_t d = map->array[QKV_BOUNDS].row / 4;
    uint16_t *ends = (void *)qkv_cache_row(map, page, QKV_BOUNDS, head, 0);
    float x[QKV_CACHE_MAX_DIM];

    qkv_cache_get_key(map, page, head, token, x);
    for (int64_t i = 0; i < d; i++) {
        const int nan = x[i] != x[i];
        if (nan || x[i] < of_bf16(ends[i]))
            ends[i] = nan ? BF16_MINUS_INF : outwards(x[i], 0);
        if (nan || x[i] > of_bf16(ends[d + i]))
            ends[d + i] = nan ? BF16_INF : outwards(x[i], 1);
    }
}

void qkv_cache_bounds_find(const qkv_cache_map *map, unsigned char *page, int64_t n)
{
    qkv_cache_bounds_clear(map, page);
    for (int64_t h = 0; h < map->heads; h++)
        for (int64_t t = 0; t < n; t++)
            qkv_cache_bounds_add(map, page, h, t);
}
