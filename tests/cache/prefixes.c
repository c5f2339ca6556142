/* prefixes.c - which sequences share their first pages, as forks made them. */
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

/* A sequence of `length` tokens, all committed; its values do not matter. */
static int32_t grown(qkv_cache *cache, int32_t seq, int32_t count)
{
    if (seq == 0)
        expect(qkv_cache_add(cache, &seq, TEXT), QKV_OK);
    expect(qkv_cache_reserve(cache, 1, &seq, &count, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &seq, NULL, TEXT), QKV_OK);
    return seq;
}

static int32_t forked(qkv_cache *cache, int32_t parent, int64_t length, int32_t count)
{
    int32_t seq = 0;
    expect(qkv_cache_fork(cache, parent, &seq, TEXT), QKV_OK);
    expect(qkv_cache_truncate(cache, seq, length, TEXT), QKV_OK);
    return grown(cache, seq, count);
}

static qkv_cache *wide_cache(int32_t k_format)
{
    qkv_cache_config c = small_config();
    c.k_format = k_format;
    c.n_pages = c.n_open_pages = 60;
    c.max_seqs = 10;
    return make_cache(&c);
}

static void shared(int32_t k_format)
{
    qkv_cache *cache = wide_cache(k_format);
    int64_t tokens = -1;
    int32_t seq[4];

    seq[0] = grown(cache, 0, 100);          /* pages 0 .. 5 full */
    seq[1] = forked(cache, seq[0], 100, 3); /* shares 6 full pages; its own 7th */
    seq[2] = forked(cache, seq[0], 70, 40); /* shares 4 */
    seq[3] = grown(cache, 0, 100);
    expect(qkv_cache_shared_prefix(cache, 1, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 96, "alone: %d", (int)tokens);
    expect(qkv_cache_shared_prefix(cache, 2, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 96, "two: %d", (int)tokens);
    expect(qkv_cache_shared_prefix(cache, 3, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 64, "three: %d", (int)tokens);
    expect(qkv_cache_shared_prefix(cache, 4, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 0, "four: %d", (int)tokens);
    expect(qkv_cache_shared_prefix(cache, 0, NULL, &tokens, TEXT), QKV_OK);
    t_check(tokens == 0, "none: %d", (int)tokens);
    seq[3] = seq[0];
    expect(qkv_cache_shared_prefix(cache, 4, seq, &tokens, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_evict(cache, seq[0], 20, TEXT), QKV_OK);
    expect(qkv_cache_shared_prefix(cache, 2, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 0, "without its first tokens: %d", (int)tokens);
    qkv_cache_destroy(cache);
}

static void speculative(void)
{
    qkv_cache *cache = wide_cache(QKV_FORMAT_F32);
    const int32_t count = 40;
    int64_t tokens = -1;
    int32_t seq[2];

    expect(qkv_cache_add(cache, &seq[0], TEXT), QKV_OK);
    expect(qkv_cache_reserve(cache, 1, seq, &count, TEXT), QKV_OK);
    expect(qkv_cache_fork(cache, seq[0], &seq[1], TEXT), QKV_OK);
    expect(qkv_cache_shared_prefix(cache, 2, seq, &tokens, TEXT), QKV_OK);
    t_check(tokens == 0, "%d tokens that are not final", (int)tokens);
    qkv_cache_destroy(cache);
}

static void groups(void)
{
    qkv_cache *cache = wide_cache(QKV_FORMAT_F32);
    int32_t a[3], b[2], list[6], order[6], sizes[6], n = 0;
    int64_t tokens[6];

    a[0] = grown(cache, 0, 80);
    b[0] = grown(cache, 0, 33);
    a[1] = forked(cache, a[0], 64, 20);
    b[1] = forked(cache, b[0], 33, 5);
    a[2] = forked(cache, a[0], 40, 20);
    list[0] = a[0];
    list[1] = b[0];
    list[2] = grown(cache, 0, 50);
    list[3] = a[1];
    list[4] = b[1];
    list[5] = a[2];
    expect(qkv_cache_group(cache, 6, list, 16, order, sizes, tokens, &n, TEXT), QKV_OK);
    static const int32_t want[] = {0, 3, 5, 1, 4, 2};
    t_check(n == 3 && memcmp(order, want, sizeof want) == 0, "%d groups: %d %d %d %d %d %d", n,
            order[0], order[1], order[2], order[3], order[4], order[5]);
    t_check(sizes[0] == 3 && sizes[1] == 2 && sizes[2] == 1, "sizes %d %d %d", sizes[0], sizes[1],
            sizes[2]);
    t_check(tokens[0] == 32 && tokens[1] == 32 && tokens[2] == 0, "tokens %d %d %d", (int)tokens[0],
            (int)tokens[1], (int)tokens[2]);
    expect(qkv_cache_group(cache, 6, list, 40, order, sizes, tokens, &n, TEXT), QKV_OK);
    t_check(n == 5 && sizes[0] == 2 && tokens[0] == 64, "%d groups of 40, the first of %d with %d",
            n, sizes[0], (int)tokens[0]);
    expect(qkv_cache_group(cache, 0, NULL, 1, order, sizes, tokens, &n, TEXT), QKV_OK);
    t_check(n == 0, "%d groups of nothing", n);
    expect(qkv_cache_group(cache, 6, list, 0, order, sizes, tokens, &n, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(cache);
}

void test_prefixes(void)
{
    if (t_case("shared"))
        shared(QKV_FORMAT_F32);
    if (t_case("shared, closed pages"))
        shared(QKV_FORMAT_INT8_CHANNEL);
    if (t_case("speculative"))
        speculative();
    if (t_case("groups"))
        groups();
}
