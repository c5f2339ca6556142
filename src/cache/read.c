/* cache/read.c - rows out of pages, decoded. */
#include "core/convert_rows.h"
#include "cache/internal.h"

/* Where one side of a token goes. */
typedef struct sink {
    unsigned char *base;
    int64_t head, token; /* bytes */
    int32_t type;
} sink;

static sink sink_of(void *base, const int64_t stride[2], int32_t type)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    const sink s = {base, base ? stride[0] * size : 0, base ? stride[1] * size : 0, type};
    return s;
}

static void put_out(const sink *to, int64_t head, int64_t row, const float *x, int64_t n)
{
    if (to->base)
        qkv_row_convert(to->base + head * to->head + row * to->token, to->type, x, QKV_F32, n);
}

static void read_token(qkv_cache *cache, int32_t layer, const qkv_cache_state *s, int64_t token,
                       int64_t row, const sink *k, const sink *v)
{
    const int latent = cache->config.flags & QKV_CACHE_LATENT;
    const int64_t at = token % cache->config.page_tokens;
    float x[QKV_CACHE_MAX_DIM];
    qkv_page_set *set;
    const int32_t number = qkv_cache_locate(cache, s, token, &set);
    unsigned char *page = qkv_page_at(set, layer, number);

    for (int64_t h = 0; h < set->map.heads; h++) {
        if (k->base || latent) {
            qkv_cache_get_key(&set->map, page, h, at, x);
            put_out(k, h, row, x, cache->config.head_dim);
        }
        if (v->base && !latent)
            qkv_cache_get(&set->map, QKV_SIDE_V, page, h, at, x);
        put_out(v, h, row, x, cache->config.head_dim_v);
    }
}

static qkv_status check(qkv_cache *cache, int32_t layer, int32_t id, int64_t start, int64_t count,
                        int32_t type, qkv_say say)
{
    const qkv_cache_seq *seq = qkv_cache_find(cache, id);

    if (layer < 0 || layer >= cache->config.n_layers)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is %d; it must be 0 .. %d", layer,
                          cache->config.n_layers - 1);
    if (!seq)
        return qkv_cache_refuse_id(id, say);
    if (type != QKV_F32 && type != QKV_F16 && type != QKV_BF16)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "type is %d (%s); it must be f32, f16 or bf16",
                          type, qkv_type_name((qkv_type)type));
    if (start < 0 || count < 0 || start > seq->now.length - count)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "tokens %lld .. %lld; sequence %d has %d",
                          (long long)start, (long long)(start + count - 1), id, seq->now.length);
    const int64_t from = qkv_cache_kept_from(cache, &seq->now);
    const int64_t sinks = cache->config.sink_tokens;
    if (count > 0 && start < from && start + count > sinks)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "tokens %lld .. %lld; of sequence %d tokens %lld .. %lld were evicted",
                          (long long)start, (long long)(start + count - 1), id, (long long)sinks,
                          (long long)(from - 1));
    return QKV_OK;
}

qkv_status qkv_cache_read(qkv_cache *cache, int32_t layer, int32_t seq, int64_t start,
                          int64_t count, qkv_type type, void *k, const int64_t k_stride[2], void *v,
                          const int64_t v_stride[2], char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = check(cache, layer, seq, start, count, (int32_t)type, say);

    if (status != QKV_OK)
        return status;
    if ((k && !k_stride) || (v && !v_stride))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "k_stride or v_stride is NULL");
    const sink to_k = sink_of(k, k_stride, (int32_t)type),
               to_v = sink_of(v, v_stride, (int32_t)type);
    const qkv_cache_state *s = &qkv_cache_find(cache, seq)->now;
    for (int64_t t = 0; t < count; t++)
        read_token(cache, layer, s, start + t, t, &to_k, &to_v);
    return qkv_accept(say);
}
