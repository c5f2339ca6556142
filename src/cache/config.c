/* cache/config.c - what a cache is: defaults, refusals, sizes. */
#include <string.h>

#include "cache/internal.h"

enum { IN_FLIGHT = 2048 /* tokens that the default number of open pages allows for */ };

void qkv_cache_config_init_sized(qkv_cache_config *config, size_t struct_size)
{
    qkv_cache_config c;

    memset(&c, 0, sizeof c);
    c.struct_size = (uint32_t)struct_size;
    c.n_layers = c.n_kv_heads = c.max_seqs = 1;
    c.k_format = c.v_format = QKV_FORMAT_BF16;
    c.k_scale = c.v_scale = QKV_SCALE_TOKEN;
    c.float_type = QKV_BF16;
    c.page_tokens = 64;
    c.n_open_pages = QKV_CACHE_AUTO;
    c.max_tokens = QKV_CACHE_AUTO;
    c.window_left = QKV_UNBOUNDED;
    memset(config, 0, struct_size);
    memcpy(config, &c, struct_size < sizeof c ? struct_size : sizeof c);
}

const char *qkv_format_name(int32_t format)
{
    static const char *const names[] = {"?",    "f32",  "f16", "bf16", "int8", "int8_channel",
                                        "int4", "e4m3", "e5m2"};
    return format > 0 && format <= QKV_FORMAT_E5M2 ? names[format] : "?";
}

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define IN_RANGE(field, low, high)                                                                 \
    if (c->field < (low) || c->field > (high))                                                     \
    REFUSE(#field " is %lld; it must be %lld .. %lld", (long long)c->field, (long long)(low),      \
           (long long)(high))

static qkv_status check_format(const char *side, int32_t format, int32_t group, int32_t scale_per,
                               int32_t dim, qkv_say say)
{
    if (format < QKV_FORMAT_F32 || format > QKV_FORMAT_E5M2)
        REFUSE("%s_format is %d; it must be one of QKV_FORMAT_", side, format);
    if (group != 0 && group != 32 && group != 64 && group != 128)
        REFUSE("%s_group is %d; it must be 0, 32, 64 or 128", side, group);
    if (scale_per != QKV_SCALE_TOKEN && scale_per != QKV_SCALE_HEAD)
        REFUSE("%s_scale is %d; it must be QKV_SCALE_TOKEN or QKV_SCALE_HEAD", side, scale_per);
    if (scale_per == QKV_SCALE_HEAD && qkv_cache_fp8_kind(format) < 0)
        REFUSE("%s_scale is QKV_SCALE_HEAD with %s; only e4m3 and e5m2 have it", side,
               qkv_format_name(format));
    if (group != 0 && (scale_per == QKV_SCALE_HEAD || format == QKV_FORMAT_INT8_CHANNEL ||
                       qkv_cache_float_type(format) != QKV_NONE))
        REFUSE("%s_group is %d; it must be 0 with %s%s", side, group, qkv_format_name(format),
               scale_per == QKV_SCALE_HEAD ? " and QKV_SCALE_HEAD" : "");
    if (group > dim)
        REFUSE("%s_group is %d; it must be at most the %d channels there are", side, group, dim);
    return QKV_OK;
}

static qkv_status check_sizes(const qkv_cache_config *c, qkv_say say)
{
    const int contiguous = c->flags & QKV_CACHE_CONTIGUOUS;
    const int32_t all_flags =
        QKV_CACHE_LATENT | QKV_CACHE_CONTIGUOUS | QKV_CACHE_KEY_BOUNDS | QKV_CACHE_POISON;

    if (c->flags & ~all_flags)
        REFUSE("flags is %#x; only QKV_CACHE_ flags are known, which are %#x together",
               (unsigned)c->flags, (unsigned)all_flags);
    IN_RANGE(n_layers, 1, 65536);
    IN_RANGE(n_kv_heads, 1, 65536);
    IN_RANGE(head_dim, 1, QKV_CACHE_MAX_DIM);
    IN_RANGE(head_dim_v, 1, QKV_CACHE_MAX_DIM);
    IN_RANGE(page_tokens, contiguous ? 1 : 16, contiguous ? INT32_MAX : 256);
    if (!contiguous && c->page_tokens % 16 != 0)
        REFUSE("page_tokens is %d; it must be a multiple of 16", c->page_tokens);
    IN_RANGE(n_pages, 1, INT32_MAX);
    IN_RANGE(n_open_pages, QKV_CACHE_AUTO, INT32_MAX);
    IN_RANGE(max_seqs, 1, 65535);
    IN_RANGE(sink_tokens, 0, INT32_MAX);
    IN_RANGE(max_tokens, QKV_CACHE_AUTO, INT64_MAX);
    IN_RANGE(window_left, QKV_UNBOUNDED, INT32_MAX);
    if (c->float_type != QKV_F32 && c->float_type != QKV_F16 && c->float_type != QKV_BF16)
        REFUSE("float_type is %d (%s); it must be f32, f16 or bf16", c->float_type,
               qkv_type_name((qkv_type)c->float_type));
    return QKV_OK;
}

static qkv_status check_kind(const qkv_cache_config *c, qkv_say say)
{
    const int latent = c->flags & QKV_CACHE_LATENT, channel = qkv_cache_has_open(c);
    qkv_status status = check_format("k", c->k_format, c->k_group, c->k_scale,
                                     latent ? c->head_dim_v : c->head_dim, say);

    if (status == QKV_OK && !latent)
        status = check_format("v", c->v_format, c->v_group, c->v_scale, c->head_dim_v, say);
    if (status != QKV_OK)
        return status;
    if (!latent && c->v_format == QKV_FORMAT_INT8_CHANNEL)
        REFUSE("v_format is int8_channel; that is for keys");
    if (latent && c->n_kv_heads != 1)
        REFUSE("n_kv_heads is %d; it must be 1 with QKV_CACHE_LATENT", c->n_kv_heads);
    if (latent && c->head_dim_v > c->head_dim)
        REFUSE("head_dim_v is %d; with QKV_CACHE_LATENT it must be at most head_dim, which is %d",
               c->head_dim_v, c->head_dim);
    if (channel && c->flags & QKV_CACHE_CONTIGUOUS)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "k_format is int8_channel with QKV_CACHE_CONTIGUOUS; scales are for full "
                          "pages, and such a page is the whole sequence");
    if (c->flags & QKV_CACHE_CONTIGUOUS && c->window_left != QKV_UNBOUNDED)
        return qkv_refuse(
            say, QKV_ERR_UNSUPPORTED,
            "window_left is %lld with QKV_CACHE_CONTIGUOUS; only pages can be evicted",
            (long long)c->window_left);
    return QKV_OK;
}

/* Replaces QKV_CACHE_AUTO. */
static void resolve(qkv_cache_config *c)
{
    const int64_t pages_hold = (int64_t)c->n_pages * c->page_tokens;
    const int64_t open =
        2 * (int64_t)c->max_seqs + (IN_FLIGHT + c->page_tokens - 1) / c->page_tokens;

    if (c->max_tokens == QKV_CACHE_AUTO || c->max_tokens > pages_hold)
        c->max_tokens = pages_hold;
    if (c->flags & QKV_CACHE_CONTIGUOUS && c->max_tokens > c->page_tokens)
        c->max_tokens = c->page_tokens;
    if (!qkv_cache_has_open(c))
        c->n_open_pages = 0;
    else if (c->n_open_pages == QKV_CACHE_AUTO || c->n_open_pages > c->n_pages)
        c->n_open_pages = (int32_t)(open < c->n_pages ? open : c->n_pages);
}

/* All sizes fit; the largest field, n_pages, times the largest page must. */
static qkv_status check_bytes(const qkv_cache_config *c, qkv_say say)
{
    qkv_cache_map map;
    uint64_t all;

    qkv_cache_map_of(c, 0, &map);
    if (__builtin_mul_overflow((uint64_t)map.bytes * 2, (uint64_t)c->n_pages, &all) ||
        __builtin_mul_overflow(all, (uint64_t)c->n_layers * 2, &all) || all > (uint64_t)1 << 60)
        REFUSE("n_pages is %d; pages of %lld bytes in %d layers are more than 2^60 bytes",
               c->n_pages, (long long)map.bytes, c->n_layers);
    if (c->max_tokens < 1 || (qkv_cache_has_open(c) && c->n_open_pages < 1))
        REFUSE("max_tokens and n_open_pages are %lld and %d; both must be at least 1 or "
               "QKV_CACHE_AUTO",
               (long long)c->max_tokens, c->n_open_pages);
    return QKV_OK;
}

qkv_status qkv_cache_config_resolve(const qkv_cache_config *in, qkv_cache_config *full, qkv_say say)
{
    if (!in || in->struct_size < offsetof(qkv_cache_config, n_layers) ||
        in->struct_size > sizeof *full)
        REFUSE("config is NULL or was not set up by qkv_cache_config_init");
    qkv_cache_config_init(full);
    memcpy(full, in, in->struct_size);
    full->struct_size = (uint32_t)sizeof *full;

    qkv_status status = check_sizes(full, say);
    if (status == QKV_OK)
        status = check_kind(full, say);
    if (status != QKV_OK)
        return status;
    resolve(full);
    return check_bytes(full, say);
}

qkv_status qkv_cache_config_check(const qkv_cache_config *config, qkv_cache_bytes *needs,
                                  char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_cache_config c;
    qkv_cache_map map;
    const qkv_status status = qkv_cache_config_resolve(config, &c, say);

    if (status != QKV_OK)
        return status;
    if (needs) {
        const uint64_t layers = (uint64_t)c.n_layers;
        qkv_cache_map_of(&c, 0, &map);
        needs->allocated = qkv_cache_carve(&c, NULL) + layers * qkv_cache_layer_bytes(&c);
        needs->page = layers * (uint64_t)map.bytes;
        needs->token = layers * (uint64_t)map.token_bytes;
        qkv_cache_map_of(&c, 1, &map);
        needs->open_page = qkv_cache_has_open(&c) ? layers * (uint64_t)map.bytes : 0;
    }
    return qkv_accept(say);
}
