/* cache/prefix.c - which sequences begin with the same pages. */
#include "cache/view.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Full, closed and committed pages of tokens that are there, counted from token 0. */
static int64_t shareable(const qkv_cache *cache, const qkv_cache_state *s)
{
    int64_t n = s->committed / cache->config.page_tokens;

    if (qkv_cache_kept_from(cache, s) > 0)
        n = least(n, cache->config.sink_tokens / cache->config.page_tokens);
    return least(n, s->n_closed);
}

/* How many of the first `limit` pages two sequences have in common. */
static int64_t common_pages(const qkv_cache *cache, const qkv_cache_state *a,
                            const qkv_cache_state *b, int64_t limit)
{
    int64_t n = 0;
    while (n < limit && *qkv_cache_entry(cache, a, n) == *qkv_cache_entry(cache, b, n))
        n++;
    return n;
}

static int64_t common_tokens(const qkv_cache *cache, int32_t a, int32_t b)
{
    const qkv_cache_state *x = &qkv_cache_find(cache, a)->now, *y = &qkv_cache_find(cache, b)->now;
    return common_pages(cache, x, y, least(shareable(cache, x), shareable(cache, y))) *
           cache->config.page_tokens;
}

static qkv_status shared_prefix(qkv_cache *cache, int32_t n, const int32_t *seqs, int64_t *tokens,
                                qkv_say say)
{
    const qkv_status status = qkv_cache_check_list(cache, n, seqs, say);
    if (status != QKV_OK)
        return status;
    *tokens = n == 0 ? 0 : INT64_MAX;
    for (int32_t i = 0; i < n; i++)
        *tokens = least(*tokens, common_tokens(cache, seqs[0], seqs[i]));
    return qkv_accept(say);
}

qkv_status qkv_cache_shared_prefix(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                   int64_t *tokens, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (!tokens)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "tokens is NULL");
    qkv_cache_lock(cache);
    const qkv_status status = shared_prefix(cache, n, seqs, tokens, say);
    qkv_cache_unlock(cache);
    return status;
}

/* Puts position i of the list behind the last member of group g: everything after moves up. */
static void insert(int32_t *order, int32_t placed, const int32_t *sizes, int32_t g, int32_t i)
{
    int32_t at = 0;
    for (int32_t k = 0; k <= g; k++)
        at += sizes[k];
    for (int32_t k = placed; k > at; k--)
        order[k] = order[k - 1];
    order[at] = i;
}

static void group(const qkv_cache *cache, int32_t n, const int32_t *seqs, int64_t min_tokens,
                  int32_t *order, int32_t *sizes, int64_t *tokens, int32_t *n_groups)
{
    for (int32_t i = 0; i < n; i++) {
        int64_t common = 0;
        int32_t g = 0;
        for (int32_t first = 0; g < *n_groups; first += sizes[g++]) {
            common = common_tokens(cache, seqs[order[first]], seqs[i]);
            if (common >= min_tokens)
                break;
        }
        if (g == *n_groups) {
            sizes[g] = 0;
            tokens[g] = INT64_MAX;
            common = INT64_MAX;
            ++*n_groups;
        }
        insert(order, i, sizes, g, i);
        sizes[g]++;
        tokens[g] = least(tokens[g], common);
    }
    for (int32_t g = 0; g < *n_groups; g++)
        tokens[g] = sizes[g] > 1 ? tokens[g] : 0;
}

qkv_status qkv_cache_group(qkv_cache *cache, int32_t n, const int32_t *seqs, int64_t min_tokens,
                           int32_t *order, int32_t *sizes, int64_t *tokens, int32_t *n_groups,
                           char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (min_tokens < 1 || !n_groups || (n > 0 && (!order || !sizes || !tokens)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "min_tokens is %lld; it must be 1 or more, and no output NULL",
                          (long long)min_tokens);
    qkv_cache_lock(cache);
    const qkv_status status = qkv_cache_check_list(cache, n, seqs, say);
    if (status == QKV_OK) {
        *n_groups = 0;
        group(cache, n, seqs, min_tokens, order, sizes, tokens, n_groups);
    }
    qkv_cache_unlock(cache);
    return status == QKV_OK ? qkv_accept(say) : status;
}
