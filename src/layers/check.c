/* layers/check.c - what a step must be. */
#include "layers/internal.h"

#define FEW 2147483647 /* rows and keys that attention counts in 32 bits */

static qkv_status check_lens(const int32_t *lens, int32_t n, int64_t low, int64_t high,
                             const char *name, qkv_say say)
{
    for (int32_t i = 0; lens && i < n; i++)
        if (lens[i] < low || lens[i] > high)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s[%d] is %d; it must be %lld .. %lld", name,
                              i, lens[i], (long long)low, (long long)high);
    return QKV_OK;
}

static qkv_status check_packed(const qkv_layer_step *s, qkv_say say)
{
    if (s->q_lens || s->kv_starts || (s->kv_lens && s->form == QKV_FORM_WHOLE && !s->memory_len))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "q_lens, kv_lens or kv_starts with cu_seqlens, which says the lengths "
                          "itself");
    if (s->cu_seqlens[0] != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "cu_seqlens[0] is %d; it must be 0",
                          s->cu_seqlens[0]);
    for (int32_t i = 0; i < s->n_seqs; i++)
        if (s->cu_seqlens[i + 1] < s->cu_seqlens[i])
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "cu_seqlens[%d] is %d and the next %d; they must ascend", i,
                              s->cu_seqlens[i], s->cu_seqlens[i + 1]);
    return QKV_OK;
}

static qkv_status check_sizes(const qkv_layer_step *s, qkv_say say)
{
    if (s->form < QKV_FORM_WHOLE || s->form > QKV_FORM_MEMORY)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "form is %d; it must be a QKV_FORM_", s->form);
    if (s->mla < QKV_MLA_AUTO || s->mla > QKV_MLA_ABSORBED)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "mla is %d; it must be a QKV_MLA_", s->mla);
    if (s->n_seqs < 1)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "n_seqs is %d; it must be at least 1", s->n_seqs);
    if (s->q_len < 0 || s->q_len > FEW / s->n_seqs)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "q_len is %lld; it must be 0 .. %d / n_seqs",
                          (long long)s->q_len, FEW);
    if (s->memory_len < 0 || s->memory_len > FEW / s->n_seqs)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "memory_len is %lld; it must be 0 .. %d / n_seqs",
                          (long long)s->memory_len, FEW);
    if (s->rope_len < QKV_ROPE_AUTO || s->rope_len == 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rope_len is %lld; it must be QKV_ROPE_AUTO or at least 1",
                          (long long)s->rope_len);
    if (s->cu_seqlens)
        return check_packed(s, say);
    return check_lens(s->q_lens, s->n_seqs, 0, s->q_len, "q_lens", say);
}

/* The form against the kind of layer, and what goes with the form. */
static qkv_status check_form(const qkv_layer_desc *d, const qkv_layer_step *s, qkv_say say)
{
    const int64_t keys = d->cross ? s->memory_len : s->q_len;
    qkv_status status;

    if (s->form == QKV_FORM_MEMORY && !d->cross)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "form is QKV_FORM_MEMORY and cross is 0; only "
                                                 "cross-attention has a memory");
    if (s->form == QKV_FORM_CACHED && !d->cross && !d->causal)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "causal is 0: a layer whose tokens see later ones cannot run from a "
                          "cache");
    if ((s->form != QKV_FORM_WHOLE) != (s->cache && s->seqs))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "cache and seqs must be given with QKV_FORM_CACHED and QKV_FORM_MEMORY, "
                          "and not with QKV_FORM_WHOLE");
    if (s->memory_len > 0 && (!d->cross || s->form == QKV_FORM_CACHED))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "memory_len is %lld; it is for cross-attention, WHOLE and MEMORY",
                          (long long)s->memory_len);
    if (s->form == QKV_FORM_CACHED && (s->kv_lens || s->kv_starts))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "kv_lens or kv_starts with QKV_FORM_CACHED; the cache has its lengths");
    if (s->form == QKV_FORM_MEMORY && s->kv_starts)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "kv_starts with QKV_FORM_MEMORY");
    status = check_lens(s->kv_lens, s->n_seqs, 0, keys, "kv_lens", say);
    return status != QKV_OK ? status
                            : check_lens(s->kv_starts, s->n_seqs, 0, keys, "kv_starts", say);
}

static qkv_status check_cache(const qkv_layer *layer, const qkv_layer_step *s, qkv_say say)
{
    qkv_cache_config is, fit;

    qkv_cache_config_get(s->cache, &is);
    fit = is;
    qkv_layer_cache_config(layer, &fit);
    if (is.n_kv_heads != fit.n_kv_heads || is.head_dim != fit.head_dim ||
        is.head_dim_v != fit.head_dim_v || is.flags != fit.flags)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "cache has %d heads of %d and %d channels%s; this layer needs %d of %d "
                          "and %d%s",
                          is.n_kv_heads, is.head_dim, is.head_dim_v,
                          is.flags & QKV_CACHE_LATENT ? ", latent" : "", fit.n_kv_heads,
                          fit.head_dim, fit.head_dim_v,
                          fit.flags & QKV_CACHE_LATENT ? ", latent" : "");
    if (is.window_left != fit.window_left)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "window_left of the cache is %lld and that of the layer %lld; they must "
                          "agree",
                          (long long)is.window_left, (long long)fit.window_left);
    return QKV_OK;
}

qkv_status qkv_step_check(const qkv_layer *layer, const qkv_layer_step *step, qkv_say say)
{
    qkv_status status;

    if (!layer || !step || step->struct_size != sizeof *step)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "layer or step is NULL, or step was not set up by qkv_layer_step_init");
    status = check_sizes(step, say);
    if (status == QKV_OK)
        status = check_form(&layer->desc, step, say);
    if (status == QKV_OK && step->cache)
        status = check_cache(layer, step, say);
    return status;
}
