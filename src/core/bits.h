/*
 * core/bits.h - f32 as bits, and what the codecs do with them lane by lane.
 *
 * Written without branches and without calls, so that the compiler makes vectors of the loops
 * around them on every instruction set; comparisons are of signed integers for the same reason.
 */
#ifndef QKV_CORE_BITS_H
#define QKV_CORE_BITS_H

#include <stdint.h>
#include <string.h>

enum {
    QKV_BITS_ABS = 0x7fffffff,
    QKV_BITS_INF = 0x7f800000,
    QKV_BITS_QUIET_NAN = 0x7fc00000,
    QKV_BITS_MIN_NORMAL = 0x00800000
};

static inline int32_t qkv_bits_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float qkv_of_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The bits of max |x|: at least QKV_BITS_INF if one of them is infinite or NaN. */
static inline int32_t qkv_bits_max_abs(const float *x, int64_t n)
{
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = qkv_bits_of(x[i]) & QKV_BITS_ABS;
        top = a > top ? a : top;
    }
    return top;
}

/* x to the nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves it in the low
 * bits of the sum. */
static inline int32_t qkv_bits_round(float x) { return qkv_bits_of(x + 12582912.0f) - 0x4b400000; }

/* yes where condition is 1, no where it is 0.  Not the ternary operator: gcc turns that into a
 * branch around a floating-point operation, which may trap, and then makes no vectors of the loop.
 */
static inline int32_t qkv_bits_select(int32_t condition, int32_t yes, int32_t no)
{
    return (yes & -condition) | (no & (condition - 1));
}

/* How many groups a row of n has. */
static inline int64_t qkv_groups_of(int64_t n, int32_t group)
{
    return n == 0 ? 0 : group == 0 ? 1 : (n + group - 1) / group;
}

#endif
