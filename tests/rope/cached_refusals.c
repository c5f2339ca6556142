/* cached_refusals.c - what qkv_cache_write_rotated refuses. */
#include <string.h>

#include "qkv/cache.h"
#include "rope_test.h"

static void refused(const char *name, qkv_cache *cache, const qkv_cache_rows *rows,
                    const qkv_rope *rope, const qkv_rope_args *args, const char *sentence)
{
    char text[300] = "";

    if (!t_case("%s", name))
        return;
    t_check(qkv_cache_write_rotated(cache, 0, rows, rope, args, text, sizeof text) ==
                    QKV_ERR_ARGUMENT &&
                strstr(text, sentence),
            "%s", text);
}

static void refuse_all(qkv_cache *cache, int32_t seq)
{
    static float k[64];
    static const int64_t far = (int64_t)1 << 60, here = 3;
    qkv_cache_rows rows;
    qkv_rope_args args;
    qkv_rope rope;

    qkv_rope_init(&rope);
    rope.head_dim = 64;
    rope.rotary_offset = 32;
    qkv_rope_args_init(&args);
    args.positions = &here;
    qkv_cache_rows_init(&rows);
    rows.seqs = &seq;
    rows.k = k;
    refused("no_rows", cache, NULL, &rope, &args, "rows is NULL");
    refused("no_rope", cache, &rows, NULL, &args, "rope is NULL");
    refused("no_args", cache, &rows, &rope, NULL, "args is NULL");
    args.positions = &far;
    refused("position", cache, &rows, &rope, &args, "position 0 of sequence 0 is 11529215046068");
    args.positions = NULL;
    refused("no_angles", cache, &rows, &rope, &args, "positions is NULL and so are cos and sin");
    args.positions = &here;
    rope.rotary_offset = 16;
    refused("latent", cache, &rows, &rope, &args, "rope.rotary_offset is 16; in a latent cache");
    rope.head_dim = 32;
    refused("head_dim", cache, &rows, &rope, &args, "rope.head_dim is 32; it must be that of the");
}

void test_refused_writes(void)
{
    qkv_cache_config config;
    qkv_cache *cache;
    int32_t seq;

    qkv_cache_config_init(&config);
    config.flags = QKV_CACHE_LATENT;
    config.head_dim = 64;
    config.head_dim_v = 32;
    config.n_pages = 1;
    qkv_cache_create(&config, NULL, &cache, NULL, 0);
    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_reserve(cache, 1, &seq, NULL, NULL, 0);
    refuse_all(cache, seq);
    qkv_cache_destroy(cache);
}
