/* sharing.c - pages in two tables are copied when one sequence writes, and not before. */
#include <string.h>

#include "cache_test.h"

static void write_one(qkv_cache *cache, int32_t seq, float x, qkv_status want)
{
    float rows[2 * 8];
    qkv_cache_rows r;

    for (int i = 0; i < 16; i++)
        rows[i] = x;
    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.k = r.v = rows;
    r.k_stride[1] = r.v_stride[1] = 8;
    const int32_t one = 1;
    r.counts = &one;
    for (int layer = 0; layer < 2; layer++)
        expect(qkv_cache_write(cache, layer, &r, TEXT), want);
}

static float last_key(qkv_cache *cache, int32_t seq)
{
    float k[16];
    const int64_t stride[2] = {8, 8};
    expect(qkv_cache_read(cache, 1, seq, qkv_cache_length(cache, seq) - 1, 1, QKV_F32, k, stride,
                          NULL, NULL, TEXT),
           QKV_OK);
    return k[0];
}

static void fork_copies(void)
{
    const qkv_cache_config c = small_config();
    qkv_cache_stats s;
    int32_t a = 0, b = 0;

    qkv_cache *cache = make_cache(&c);
    qkv_cache_add(cache, &a, NULL, 0);
    qkv_cache_reserve(cache, 1, &a, NULL, NULL, 0);
    write_one(cache, a, 1, QKV_OK);
    qkv_cache_fork(cache, a, &b, NULL, 0);
    qkv_cache_stats_get(cache, &s);
    t_check(s.used_pages == 1 && s.copied == 0 && s.shared_pages == 1, "a fork took a page");
    qkv_cache_reserve(cache, 1, &b, NULL, NULL, 0);
    write_one(cache, b, 2, QKV_OK);
    qkv_cache_stats_get(cache, &s);
    t_check(s.used_pages == 2 && s.copied == 1 && s.shared_pages == 0, "%d pages, %d copies",
            s.used_pages, (int)s.copied);
    t_check(last_key(cache, a) == 1 && last_key(cache, b) == 2, "values");
    qkv_cache_reserve(cache, 1, &a, NULL, NULL, 0); /* alone now */
    qkv_cache_stats_get(cache, &s);
    t_check(s.copied == 1, "a second copy");
    qkv_cache_destroy(cache);
}

static void fork_too_early(void)
{
    const qkv_cache_config c = small_config();
    int32_t a = 0, b = 0;

    qkv_cache *cache = make_cache(&c);
    qkv_cache_add(cache, &a, NULL, 0);
    qkv_cache_reserve(cache, 1, &a, NULL, NULL, 0);
    qkv_cache_fork(cache, a, &b, NULL, 0);
    write_one(cache, a, 1, QKV_ERR_ARGUMENT);
    write_one(cache, b, 1, QKV_ERR_ARGUMENT);
    qkv_cache_release(cache, b);
    write_one(cache, a, 1, QKV_OK);
    qkv_cache_destroy(cache);
}

/* Two owners of a full open page close it once, and both read the same codes. */
static void closed_once(void)
{
    qkv_cache_config c = small_config();
    qkv_cache_stats s;
    int32_t a = 0, b = 0;

    c.k_format = QKV_FORMAT_INT8_CHANNEL;
    qkv_cache *cache = make_cache(&c);
    qkv_cache_add(cache, &a, NULL, 0);
    for (int i = 0; i < 16; i++) {
        qkv_cache_reserve(cache, 1, &a, NULL, NULL, 0);
        write_one(cache, a, (float)i, QKV_OK);
    }
    qkv_cache_fork(cache, a, &b, NULL, 0);
    expect(qkv_cache_commit(cache, 1, &a, NULL, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &b, NULL, TEXT), QKV_OK);
    qkv_cache_stats_get(cache, &s);
    t_check(s.closed == 1 && s.used_pages == 1 && s.used_open_pages == 0, "%d closed, %d open",
            (int)s.closed, s.used_open_pages);
    t_check(last_key(cache, a) == last_key(cache, b), "%g and %g", (double)last_key(cache, a),
            (double)last_key(cache, b));
    qkv_cache_destroy(cache);
}

static void short_stats(void)
{
    const qkv_cache_config c = small_config();
    qkv_cache_stats s;

    qkv_cache *cache = make_cache(&c);
    memset(&s, 0x77, sizeof s);
    expect(qkv_cache_stats_get_sized(cache, &s, 8), QKV_OK);
    t_check(s.n_seqs == 0 && s.pages == 8 && s.used_pages == 0x77777777, "fields past 8 bytes");
    qkv_cache_destroy(cache);
}

void test_sharing(void)
{
    if (t_case("a fork copies when it is written to"))
        fork_copies();
    if (t_case("a fork between reserve and write"))
        fork_too_early();
    if (t_case("a page with two owners closes once"))
        closed_once();
    if (t_case("stats of another size"))
        short_stats();
}
