/* sizing/pairs.c - how many keys queries see, in closed form. */
#include "sizing/internal.h"

/* 1 + 2 + .. + n; n is below 2^32. */
static uint64_t triangle(uint64_t n) { return n % 2 == 0 ? n / 2 * (n + 1) : (n + 1) / 2 * n; }

/* Pairs of the first n queries of a sequence, each with the keys up to itself, at most `window`. */
static uint64_t causal(uint64_t n, uint64_t window, qkv_tally *t)
{
    if (window == 0 || n <= window)
        return triangle(n);
    return qkv_tally_add(t, triangle(window), qkv_tally_mul(t, n - window, window));
}

/* The same where a query sees its own chunk only. */
static uint64_t chunked(uint64_t n, uint64_t chunk, uint64_t window, qkv_tally *t)
{
    if (chunk == 0)
        return causal(n, window, t);
    return qkv_tally_add(t, qkv_tally_mul(t, n / chunk, causal(chunk, window, t)),
                         causal(n % chunk, window, t));
}

/* Sum of min(i, reach) for i in [0, n): keys on one side of queries that see both. */
static uint64_t one_side(uint64_t n, int64_t reach, qkv_tally *t)
{
    if (n == 0)
        return 0;
    if (reach == QKV_UNBOUNDED || (uint64_t)reach >= n - 1)
        return triangle(n - 1);
    return qkv_tally_add(t, triangle((uint64_t)reach),
                         qkv_tally_mul(t, n - 1 - (uint64_t)reach, (uint64_t)reach));
}

static uint64_t plain_window(const qkv_layer_desc *l)
{
    return l->window_left == QKV_UNBOUNDED ? 0 : (uint64_t)l->window_left + 1;
}

uint64_t qkv_size_pairs(const qkv_layer_desc *l, uint64_t past, uint64_t n, uint64_t memory,
                        int32_t how, qkv_tally *t)
{
    const uint64_t chunk = (uint64_t)l->chunk_tokens, window = plain_window(l);

    if (l->cross)
        return qkv_tally_mul(t, n, memory);
    if (how == QKV_COUNT_SQUARE)
        return qkv_tally_mul(t, n, past + n);
    if (l->causal)
        return chunked(past + n, chunk, window, t) - chunked(past, chunk, window, t);
    if (past > 0)
        return qkv_tally_mul(t, n, past + n);
    return qkv_tally_add(
        t, n, qkv_tally_add(t, one_side(n, l->window_left, t), one_side(n, l->window_right, t)));
}

uint64_t qkv_size_keys(const qkv_layer_desc *l, uint64_t past, uint64_t n, uint64_t memory,
                       int32_t how)
{
    const uint64_t window = plain_window(l), chunk = (uint64_t)l->chunk_tokens;
    uint64_t keys = past + n;

    if (l->cross)
        return memory;
    if (how == QKV_COUNT_SQUARE || !l->causal)
        return keys;
    if (window > 0)
        keys = qkv_min_u64(keys, window - 1 + n);
    return chunk > 0 ? qkv_min_u64(keys, past % chunk + n) : keys;
}
