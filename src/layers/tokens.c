/* layers/tokens.c - which tokens a step has: rows, numbers, positions, and what they see. */
#include "layers/internal.h"

static int32_t count_of(const qkv_layer_step *s, int32_t b)
{
    if (s->form == QKV_FORM_MEMORY)
        return s->kv_lens ? s->kv_lens[b] : (int32_t)s->memory_len;
    if (s->cu_seqlens)
        return s->cu_seqlens[b + 1] - s->cu_seqlens[b];
    return s->q_lens ? s->q_lens[b] : (int32_t)s->q_len;
}

/* The sequence's tokens in the cache, of which the step's are the newest. */
static qkv_status look_up(const qkv_layer_step *s, int32_t b, int32_t count, int own,
                          int64_t *length, qkv_say say)
{
    qkv_cache_seq_info info;

    if (qkv_cache_seq_info_get(s->cache, s->seqs[b], &info) != QKV_OK)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "seqs[%d] is %d, which is no sequence of the cache",
                          b, s->seqs[b]);
    if (own && info.length - info.committed < count)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "sequence %d has %lld reserved tokens and the step %d of it", s->seqs[b],
                          (long long)(info.length - info.committed), count);
    *length = info.length;
    return QKV_OK;
}

/* Token numbers where no positions are given; 0 for rows past the tokens of a sequence. */
static void place_rows(const qkv_layer_step *s, const qkv_layer_plan *plan, int32_t b,
                       int64_t *positions)
{
    const int64_t rows = plan->packed ? plan->counts[b] : plan->q_len;

    for (int64_t t = 0; t < rows; t++) {
        const int64_t row = plan->first_rows[b] + t;
        positions[row] = t >= plan->counts[b] ? 0
                         : s->positions       ? s->positions[row]
                                              : plan->offsets[b] + t;
    }
}

qkv_status qkv_step_tokens(const qkv_layer *layer, const qkv_layer_step *s, qkv_layer_plan *plan,
                           int64_t *positions, qkv_say say)
{
    const int cross = layer->desc.cross;
    const int64_t step = s->form == QKV_FORM_MEMORY ? s->memory_len : s->q_len;

    for (int32_t b = 0; b < s->n_seqs; b++) {
        int64_t length = 0;
        plan->counts[b] = count_of(s, b);
        plan->starts[b] = s->kv_starts ? s->kv_starts[b] : 0;
        plan->first_rows[b] = s->cu_seqlens ? s->cu_seqlens[b] : (int32_t)(b * step);
        plan->seqs[b] = s->seqs ? s->seqs[b] : 0;
        if (s->cache) {
            const int own = s->form == QKV_FORM_MEMORY || !cross;
            const qkv_status status = look_up(s, b, plan->counts[b], own, &length, say);
            if (status != QKV_OK)
                return status;
        }
        plan->offsets[b] = s->cache && !cross ? length - plan->counts[b] : 0;
        if (s->form != QKV_FORM_MEMORY)
            place_rows(s, plan, b, positions);
    }
    plan->q_lens = s->q_lens ? plan->counts : NULL;
    if (!plan->cosines)
        return QKV_OK;
    return qkv_rope_table(&layer->desc.rope, s->rope_len, positions, plan->rows, QKV_F32,
                          plan->cosines, plan->sines, say.text, say.bytes);
}

int64_t qkv_step_keys(const qkv_layer_plan *plan, const qkv_layer_step *s, int32_t b)
{
    if (plan->cache && plan->desc.cross)
        return qkv_cache_length(plan->cache, plan->seqs[b]);
    if (plan->cache)
        return plan->offsets[b] + plan->counts[b];
    if (s->kv_lens)
        return s->kv_lens[b];
    return plan->desc.cross ? s->memory_len : plan->packed ? plan->counts[b] : plan->q_len;
}

int64_t qkv_step_pairs(const qkv_layer_desc *d, const qkv_layer_step *s, const qkv_layer_plan *plan)
{
    int64_t pairs = 0;

    for (int32_t b = 0; b < plan->n_seqs; b++) {
        const int64_t keys = qkv_step_keys(plan, s, b);
        for (int64_t t = 0; t < plan->counts[b]; t++) {
            const int64_t p = plan->offsets[b] + t;
            int64_t low = plan->starts[b], high = keys - 1;
            if (d->window_left >= 0 && p - d->window_left > low)
                low = p - d->window_left;
            const int64_t in_chunk = p < plan->starts[b] || !d->chunk_tokens
                                         ? p
                                         : (p - plan->starts[b]) % d->chunk_tokens;
            if (p - in_chunk > low)
                low = p - in_chunk;
            if (d->causal && p < high)
                high = p;
            if (!d->causal && d->window_right >= 0 && p + d->window_right < high)
                high = p + d->window_right;
            pairs += high >= low ? high - low + 1 : 0;
        }
    }
    return pairs;
}
