/* layers/distance.c - what is added to scores by distance: ALiBi's slopes, T5's buckets. */
#include <math.h>

#include "layers/internal.h"

/* Slopes of Press et al. (2022): 2^(-m (h + 1) / n), m = 8, for a power of two n; otherwise those of
 * the largest power of two below, and then every other one of twice as many. */
void qkv_alibi_slopes(float *slopes, int32_t n_heads, double max_bias)
{
    int32_t whole = 1;

    while (2 * whole <= n_heads)
        whole *= 2;
    for (int32_t h = 0; h < n_heads; h++)
        slopes[h] = (float)(h < whole ? exp2(-max_bias * (h + 1) / whole)
                                      : exp2(-max_bias / 2 * (2 * (h - whole) + 1) / whole));
}

/*
 * T5 (Raffel et al., 2020): distance is key - query.  Half of the buckets are for one distance
 * each, the others grow with its logarithm up to max_distance.  Computed in float with its own
 * rounding, as the models were trained: where the logarithm meets an integer exactly, double would
 * take another bucket.
 */
int32_t qkv_relative_bucket(int64_t distance, int32_t bidirectional, int32_t buckets,
                            int32_t max_distance)
{
    int32_t first = 0;
    int64_t n = -distance;

    if (bidirectional) {
        buckets /= 2;
        first = n < 0 ? buckets : 0;
        n = n < 0 ? -n : n;
    } else if (n < 0) {
        n = 0;
    }
    const int32_t exact = buckets / 2;
    if (n < exact)
        return first + (int32_t)n;
    const float ratio = logf((float)n / (float)exact);
    const float whole = (float)log((double)max_distance / exact);
    const float step = ratio / whole * (float)(buckets - exact);
    const int64_t large = exact + (step < (float)buckets ? (int64_t)step : buckets);
    return first + (int32_t)(large < buckets - 1 ? large : buckets - 1);
}
