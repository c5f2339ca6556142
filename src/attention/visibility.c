/* attention/visibility.c - see visibility.h.  The one place where positions are compared. */
#include "attention/visibility.h"

#include "qkv/attention.h"

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Positions and lengths fit 33 bits and windows are cut to that by the caller, so nothing here
 * overflows. */
qkv_range qkv_visible_range(const qkv_rules *rules, const qkv_span *span, int64_t i)
{
    const int64_t p = span->q_offset + i;
    qkv_range range = {span->kv_start, span->kv_len - 1};

    if (rules->causal == QKV_CAUSAL_INCLUSIVE)
        range.hi = smaller(range.hi, p);
    if (rules->causal == QKV_CAUSAL_STRICT)
        range.hi = smaller(range.hi, p - 1);
    if (rules->window_left >= 0)
        range.lo = larger(range.lo, p - rules->window_left);
    if (rules->window_right >= 0)
        range.hi = smaller(range.hi, p + rules->window_right);
    return range;
}
