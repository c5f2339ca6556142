/* rope/table.c - cosines and sines of positions. */
#include <math.h>

#include "core/convert.h"
#include "rope/internal.h"

void qkv_rope_angle(const qkv_rope_numbers *n, int64_t position, int32_t i, double *c, double *s)
{
    if (n->f32) {
        const float angle = (float)position * (float)n->frequency[i], a = (float)n->a;
        *c = (double)((float)cos((double)angle) * a);
        *s = (double)((float)sin((double)angle) * a);
    } else {
        const double angle = (double)position * n->frequency[i];
        *c = n->a * cos(angle);
        *s = n->a * sin(angle);
    }
}

size_t qkv_rope_table_bytes(const qkv_rope *rope, int64_t n, qkv_type type)
{
    const int32_t pairs = qkv_rope_pairs(rope);
    size_t bytes;

    if (!qkv_type_is_float(type) || n < 0 ||
        __builtin_mul_overflow((size_t)n, (size_t)pairs * qkv_type_size(type), &bytes))
        return 0;
    return bytes;
}

static qkv_status check(int64_t seq_len, const int64_t *positions, int64_t n, int pairs,
                        qkv_type type, const void *c, const void *s, qkv_say say)
{
#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
    if (seq_len < QKV_ROPE_AUTO || seq_len > QKV_ROPE_MAX_POSITION + 1)
        REFUSE("seq_len is %lld; it must be 0 .. 2^53 + 1, or QKV_ROPE_AUTO", (long long)seq_len);
    if (n < 0)
        REFUSE("n is %lld; it must be 0 or more", (long long)n);
    if (!qkv_type_is_float(type))
        REFUSE("type is %d (%s); it must be f64, f32, f16 or bf16", (int)type, qkv_type_name(type));
    if (n > 0 && pairs > 0 && (!positions || !c || !s))
        REFUSE("positions is %p, cos %p, sin %p; none may be NULL", (const void *)positions, c, s);
    for (int64_t t = 0; positions && t < n; t++)
        if (positions[t] < -QKV_ROPE_MAX_POSITION || positions[t] > QKV_ROPE_MAX_POSITION)
            REFUSE("positions[%lld] is %lld; its magnitude must be at most 2^53", (long long)t,
                   (long long)positions[t]);
    return QKV_OK;
#undef REFUSE
}

qkv_status qkv_rope_table(const qkv_rope *rope, int64_t seq_len, const int64_t *positions,
                          int64_t n, qkv_type type, void *cosines, void *sines, char *text,
                          size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_rope full;
    qkv_rope_numbers numbers;
    qkv_status status = qkv_rope_load(rope, &full, say);

    if (status == QKV_OK)
        status = check(seq_len, positions, n, full.rotary_dim / 2, type, cosines, sines, say);
    if (status != QKV_OK)
        return status;
    if (seq_len == QKV_ROPE_AUTO) {
        seq_len = 0;
        for (int64_t t = 0; positions && t < n; t++)
            seq_len = positions[t] >= seq_len ? positions[t] + 1 : seq_len;
    }
    qkv_rope_find(&full, seq_len, &numbers);
    for (int64_t t = 0; numbers.pairs > 0 && t < n; t++)
        for (int32_t i = 0; i < numbers.pairs; i++) {
            double c, s;
            qkv_rope_angle(&numbers, positions[t], i, &c, &s);
            qkv_store_f64(cosines, (int)type, t * numbers.pairs + i, c);
            qkv_store_f64(sines, (int)type, t * numbers.pairs + i, s);
        }
    return qkv_accept(say);
}
