/* configs.c - what a cache may be, and the sentences about what it may not. */
#include <string.h>

#include "cache_test.h"

qkv_cache_config small_config(void)
{
    qkv_cache_config c;
    qkv_cache_config_init(&c);
    c.flags = QKV_CACHE_POISON;
    c.n_layers = c.n_kv_heads = 2;
    c.head_dim = c.head_dim_v = 8;
    c.k_format = c.v_format = QKV_FORMAT_F32;
    c.page_tokens = 16;
    c.n_pages = 8;
    c.max_seqs = 4;
    return c;
}

qkv_cache *make_cache(const qkv_cache_config *config)
{
    qkv_cache *cache = NULL;
    expect(qkv_cache_create(config, NULL, &cache, TEXT), QKV_OK);
    return cache;
}

/* What the sentence must contain, and the change that provokes it. */
// clang-format off
#define BAD_CONFIGS(X)                                                                             \
    X("flags is 0x20", c.flags = 32)                                                               \
    X("n_layers is 0", c.n_layers = 0)                                                             \
    X("n_kv_heads is -1", c.n_kv_heads = -1)                                                       \
    X("head_dim is 1025; it must be 1 .. 1024", c.head_dim = 1025)                                 \
    X("head_dim_v is 0", c.head_dim_v = 0)                                                         \
    X("k_format is 9", c.k_format = 9)                                                             \
    X("v_format is 0", c.v_format = 0)                                                             \
    X("v_format is int8_channel; that is for keys", c.v_format = QKV_FORMAT_INT8_CHANNEL)          \
    X("k_group is 16; it must be 0, 32, 64 or 128", c.k_group = 16)                                \
    X("k_group is 32; it must be 0 with f32", c.k_group = 32)                                      \
    X("v_group is 32; it must be at most the 8 channels",                                          \
      (c.v_format = QKV_FORMAT_INT8, c.v_group = 32))                                              \
    X("v_group is 32; it must be 0 with e4m3 and QKV_SCALE_HEAD",                                  \
      (c.v_format = QKV_FORMAT_E4M3, c.v_group = 32, c.v_scale = QKV_SCALE_HEAD))                  \
    X("k_scale is 2", c.k_scale = 2)                                                               \
    X("k_scale is QKV_SCALE_HEAD with f32", c.k_scale = QKV_SCALE_HEAD)                            \
    X("float_type is 1 (f64)", c.float_type = QKV_F64)                                             \
    X("page_tokens is 15; it must be 16 .. 256", c.page_tokens = 15)                               \
    X("page_tokens is 24; it must be a multiple of 16", c.page_tokens = 24)                        \
    X("n_pages is 0", c.n_pages = 0)                                                               \
    X("n_open_pages is -2", c.n_open_pages = -2)                                                   \
    X("both must be at least 1", (c.k_format = QKV_FORMAT_INT8_CHANNEL, c.n_open_pages = 0))       \
    X("max_seqs is 65536", c.max_seqs = 65536)                                                     \
    X("max_tokens is -2", c.max_tokens = -2)                                                       \
    X("both must be at least 1", c.max_tokens = 0)                                                 \
    X("sink_tokens is -1", c.sink_tokens = -1)                                                     \
    X("window_left is -2", c.window_left = -2)                                                     \
    X("n_kv_heads is 2; it must be 1 with QKV_CACHE_LATENT", c.flags = QKV_CACHE_LATENT)           \
    X("head_dim_v is 9; with QKV_CACHE_LATENT",                                                    \
      (c.flags = QKV_CACHE_LATENT, c.n_kv_heads = 1, c.head_dim_v = 9))                            \
    X("more than 2^60 bytes", (c.n_layers = 65536, c.n_kv_heads = 65536, c.n_pages = INT32_MAX))   \
    X("config is NULL or was not set up", c.struct_size = 4)

#define UNSUPPORTED_CONFIGS(X)                                                                     \
    X("k_format is int8_channel with QKV_CACHE_CONTIGUOUS",                                        \
      (c.k_format = QKV_FORMAT_INT8_CHANNEL, c.flags = QKV_CACHE_CONTIGUOUS))                      \
    X("window_left is 5 with QKV_CACHE_CONTIGUOUS",                                                \
      (c.window_left = 5, c.flags = QKV_CACHE_CONTIGUOUS))
// clang-format on

static void check_config(const qkv_cache_config *c, qkv_status want, const char *sentence)
{
    char text[256] = "";
    qkv_cache *cache = (qkv_cache *)(void *)text;

    t_check(qkv_cache_config_check(c, NULL, text, sizeof text) == want && strstr(text, sentence),
            "\"%s\" instead of \"%s\"", text, sentence);
    memset(text, 0, sizeof text);
    t_check(qkv_cache_create(c, NULL, &cache, text, sizeof text) == want && strstr(text, sentence),
            "create: \"%s\"", text);
    t_check(cache == NULL, "a handle after a refusal");
}

static void defaults_resolved(void)
{
    qkv_cache_config c = small_config();
    c.k_format = QKV_FORMAT_INT8_CHANNEL;
    c.n_pages = 1000;
    qkv_cache *cache = make_cache(&c);
    qkv_cache_config_get(cache, &c);
    t_check(c.max_tokens == 16000 && c.n_open_pages == 2 * 4 + 2048 / 16, "max_tokens %d, open %d",
            (int)c.max_tokens, c.n_open_pages);
    qkv_cache_destroy(cache);
}

void test_config(void)
{
#define TRY(sentence, change)                                                                      \
    if (t_case("%s", sentence)) {                                                                  \
        qkv_cache_config c = small_config();                                                       \
        change;                                                                                    \
        check_config(&c, WANT, sentence);                                                          \
    }
#define WANT QKV_ERR_ARGUMENT
    BAD_CONFIGS(TRY)
#undef WANT
#define WANT QKV_ERR_UNSUPPORTED
    UNSUPPORTED_CONFIGS(TRY)
#undef WANT
#undef TRY
    if (t_case("NULL"))
        check_config(NULL, QKV_ERR_ARGUMENT, "config is NULL");
    if (t_case("defaults resolved"))
        defaults_resolved();
    if (t_case("a struct of an older program")) {
        unsigned char older[sizeof(qkv_cache_config)];
        memset(older, 0x77, sizeof older);
        qkv_cache_config_init_sized((qkv_cache_config *)(void *)older, sizeof older - 8);
        for (size_t i = sizeof older - 8; i < sizeof older; i++)
            t_check(older[i] == 0x77, "byte %zu past the older struct was written", i);
    }
    if (t_case("names")) {
        t_check(strcmp(qkv_format_name(QKV_FORMAT_INT8_CHANNEL), "int8_channel") == 0 &&
                    strcmp(qkv_format_name(QKV_FORMAT_E5M2), "e5m2") == 0 &&
                    strcmp(qkv_format_name(0), "?") == 0 && strcmp(qkv_format_name(9), "?") == 0,
                "names");
    }
}
