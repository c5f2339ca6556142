/* refusals.c - calls that are refused and change nothing. */
#include <math.h>
#include <string.h>

#include "cache_test.h"

static void refuse_write(qkv_cache *cache, int32_t seq)
{
    float x[2 * 8 * 4] = {0};
    qkv_cache_rows r;

    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.k = r.v = x;
    expect(qkv_cache_write(cache, 2, &r, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_write(cache, -1, &r, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_write(cache, 0, NULL, TEXT), QKV_ERR_ARGUMENT);
    r.type = QKV_F64;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.type = QKV_F32;
    const int32_t two = 2, minus = -1;
    const int64_t early = -1;
    r.counts = &two; /* one is reserved */
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.counts = &minus;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.counts = NULL;
    r.starts = &early;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.starts = NULL;
    r.k_rope = x;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.k_rope = NULL;
    r.v = NULL;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
    r.v = x;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &seq, NULL, TEXT), QKV_OK);
    const int64_t zero = 0;
    const int32_t one = 1;
    r.starts = &zero; /* committed */
    r.counts = &one;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_ERR_ARGUMENT);
}

static void refuse_read(qkv_cache *cache, int32_t seq)
{
    float x[64];
    const int64_t stride[2] = {8, 8};

    expect(qkv_cache_read(cache, 0, seq, 0, 2, QKV_F32, x, stride, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_cache_read(cache, 0, seq, -1, 1, QKV_F32, x, stride, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_cache_read(cache, 9, seq, 0, 1, QKV_F32, x, stride, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_cache_read(cache, 0, seq, 0, 1, QKV_I32, x, stride, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_cache_read(cache, 0, seq, 0, 1, QKV_F32, x, NULL, NULL, NULL, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_cache_read(cache, 0, seq, 0, 1, QKV_F32, NULL, NULL, NULL, NULL, TEXT), QKV_OK);
}

static void refuse_lists(qkv_cache *cache, int32_t seq)
{
    const int32_t twice[2] = {seq, seq}, wrong[2] = {seq, 77}, parents[2] = {0, 2};
    const int64_t lengths[1] = {5};

    expect(qkv_cache_reserve(cache, 2, twice, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reserve(cache, 2, wrong, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reserve(cache, -1, &seq, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reserve(cache, 1, NULL, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_commit(cache, 1, &seq, lengths, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_commit(cache, 2, twice, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reorder(cache, 1, &seq, parents + 1, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reorder(cache, 1, &seq, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_truncate(cache, seq, 2, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_truncate(cache, seq, -1, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_truncate(cache, 0, 0, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_evict(cache, seq, 2, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_evict(cache, 1 << 30, 0, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_fork(cache, -5, &(int32_t){0}, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_fork(cache, seq, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_add(cache, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_reset(cache, 3), QKV_ERR_ARGUMENT);
    const int32_t much = INT32_MAX;
    expect(qkv_cache_reserve(cache, 1, &seq, &much, TEXT), QKV_ERR_ARGUMENT);
    const int32_t minus = -1;
    expect(qkv_cache_reserve(cache, 1, &seq, &minus, TEXT), QKV_ERR_ARGUMENT);
}

static void refuse_scales(qkv_cache *cache)
{
    const float good[2] = {1, 2}, bad[2] = {1, NAN}, zero[2] = {0, 1};
    qkv_cache_config c = small_config();

    expect(qkv_cache_set_scales(cache, 0, good, NULL, TEXT), QKV_ERR_ARGUMENT);
    c.k_format = QKV_FORMAT_E4M3;
    c.k_scale = QKV_SCALE_HEAD;
    qkv_cache *other = make_cache(&c);
    expect(qkv_cache_set_scales(other, 0, good, NULL, TEXT), QKV_OK);
    expect(qkv_cache_set_scales(other, 2, good, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_set_scales(other, 0, bad, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_set_scales(other, 0, zero, NULL, TEXT), QKV_ERR_ARGUMENT);
    expect(qkv_cache_set_scales(other, 0, good, good, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(other);
}

static void full(void)
{
    const qkv_cache_config c = small_config();
    const int32_t many = 8 * 16 + 1, most = 8 * 16 - 5;
    qkv_cache *cache = make_cache(&c);
    int32_t seq = 0, other = 0;
    char text[128];

    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_add(cache, &other, NULL, 0);
    t_check(qkv_cache_reserve(cache, 1, &seq, &many, text, sizeof text) == QKV_ERR_FULL &&
                strstr(text, "max_tokens is 128"),
            "%s", text);
    expect(qkv_cache_reserve(cache, 1, &seq, &most, TEXT), QKV_OK);
    t_check(qkv_cache_reserve(cache, 1, &other, NULL, text, sizeof text) == QKV_ERR_FULL &&
                strcmp(text, "full: 1 pages needed, 0 free") == 0,
            "%s", text);
    t_check(qkv_cache_length(cache, other) == 0 && qkv_cache_length(cache, seq) == most, "lengths");
    qkv_cache_destroy(cache);
}

static void old_ids(void)
{
    const qkv_cache_config c = small_config();
    qkv_cache *cache = make_cache(&c);
    int32_t ids[100];

    for (int i = 0; i < 100; i++) {
        expect(qkv_cache_add(cache, &ids[i], TEXT), QKV_OK);
        for (int k = 0; k < i; k++)
            t_check(qkv_cache_length(cache, ids[k]) == -1, "id %d lives again as %d", ids[k],
                    ids[i]);
        expect(qkv_cache_release(cache, ids[i]), QKV_OK);
    }
    qkv_cache_destroy(cache);
}

void test_refusals(void)
{
    const qkv_cache_config c = small_config();
    int32_t seq = 0;

    if (t_case("calls")) {
        qkv_cache *cache = make_cache(&c);
        expect(qkv_cache_add(cache, &seq, TEXT), QKV_OK);
        t_check(seq > 0, "id %d", seq);
        expect(qkv_cache_reserve(cache, 1, &seq, NULL, TEXT), QKV_OK);
        refuse_write(cache, seq);
        refuse_read(cache, seq);
        refuse_lists(cache, seq);
        refuse_scales(cache);
        qkv_cache_destroy(cache);
    }
    if (t_case("full, in numbers"))
        full();
    if (t_case("ids of the past"))
        old_ids();
    if (t_case("destroy NULL"))
        qkv_cache_destroy(NULL);
}
