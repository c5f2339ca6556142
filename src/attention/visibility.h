/* attention/visibility.h - which keys a query sees by lengths, causality and windows. */
#ifndef QKV_ATTENTION_VISIBILITY_H
#define QKV_ATTENTION_VISIBILITY_H

#include <stdint.h>

/* What holds for every sequence of a plan. */
typedef struct qkv_rules {
    int32_t causal;                    /* QKV_CAUSAL_ */
    int64_t window_left, window_right; /* -1: unbounded */
} qkv_rules;

/* One sequence's own sizes.  Key j exists if kv_start <= j < kv_len; query i is at q_offset + i. */
typedef struct qkv_span {
    int64_t q_len, kv_start, kv_len, q_offset;
} qkv_span;

/* Keys lo .. hi; none if hi < lo. */
typedef struct qkv_range {
    int64_t lo, hi;
} qkv_range;

/* The keys query i sees, before masks.  lo and hi never fall as i grows, so the keys of several
 * neighbouring queries lie between the first one's lo and the last one's hi. */
qkv_range qkv_visible_range(const qkv_rules *rules, const qkv_span *span, int64_t i);

#endif
