/*
 * rope/frequencies.c - f_i and a of each type; docs/semantics.md has the formulas, with sources.
 *
 * Written once for both precisions: each result of an operation passes through to(), which rounds
 * it to f32 for QKV_ROPE_F32.  Since double has more than twice the digits of f32, rounding a sum,
 * product or quotient of f32 numbers through double gives what f32 arithmetic gives.  The order of
 * operations is that of PyTorch models, including quotients as products with a reciprocal, so that
 * only powers may differ, in the last bit.
 */
#include <math.h>

#include "rope/internal.h"

static double to(int f32, double x) { return f32 ? (double)(float)x : x; }

/* x / y as PyTorch computes a number over a tensor. */
static double over(int f32, double x, double y) { return to(f32, to(f32, x) * to(f32, 1 / y)); }

/* theta^(2i/width), whose reciprocal is a frequency. */
static double power(int f32, double theta, int32_t i, int32_t width)
{
    return to(f32, pow(to(f32, theta), to(f32, 2.0 * i / width)));
}

static double factor_of(const qkv_rope *r)
{
    if (!isnan(r->factor))
        return r->factor;
    if (r->type == QKV_ROPE_YARN || r->type == QKV_ROPE_LONGROPE)
        return (double)r->max_positions / (double)r->original_max_positions;
    return 1;
}

/* NTK and DYNAMIC stretch the lowest frequency by `stretch` and leave the highest. */
static double grown_theta(const qkv_rope *r, double stretch)
{
    return r->theta * pow(stretch, r->rotary_dim / (r->rotary_dim - 2.0));
}

static double theta_of(const qkv_rope *r, int64_t seq_len)
{
    if (r->type == QKV_ROPE_NTK)
        return grown_theta(r, r->factor);
    if (r->type == QKV_ROPE_DYNAMIC) {
        const double length = (double)(seq_len > r->max_positions ? seq_len : r->max_positions);
        return grown_theta(r, r->factor * length / (double)r->max_positions - (r->factor - 1));
    }
    return r->theta;
}

/* ---- a ------------------------------------------------------------------------------------ */

static double yarn_scale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static double attention_factor(const qkv_rope *r)
{
    const double factor = factor_of(r);

    if (r->type == QKV_ROPE_NONE)
        return 1;
    if (!isnan(r->attention_factor))
        return r->attention_factor;
    if (r->type == QKV_ROPE_YARN && r->mscale > 0 && r->mscale_all_dim > 0)
        return yarn_scale(factor, r->mscale) / yarn_scale(factor, r->mscale_all_dim);
    if (r->type == QKV_ROPE_YARN)
        return yarn_scale(factor, 1);
    if (r->type == QKV_ROPE_LONGROPE && factor > 1)
        return sqrt(1 + log(factor) / log((double)r->original_max_positions));
    return 1;
}

/* ---- f ------------------------------------------------------------------------------------ */

/* The pair that turns `turns` times over the original length, a real number. */
static double yarn_pair(const qkv_rope *r, double turns)
{
    const double pi = 3.14159265358979323846;
    return r->rotary_dim * log((double)r->original_max_positions / (turns * 2 * pi)) /
           (2 * log(r->theta));
}

/* Between these pairs frequencies go over from as they were to divided by factor. */
static void yarn_range(const qkv_rope *r, double *low, double *high)
{
    *low = yarn_pair(r, r->beta_fast);
    *high = yarn_pair(r, r->beta_slow);
    if (r->truncate) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = *low > 0 ? *low : 0;
    *high = *high < r->rotary_dim - 1 ? *high : r->rotary_dim - 1;
    if (*low == *high)
        *high += 0.001;
}

static double yarn(const qkv_rope *r, double p, int32_t i, double low, double high)
{
    const int f = r->precision == QKV_ROPE_F32;
    double ramp = to(f, to(f, i - to(f, low)) / to(f, high - low));

    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    const double kept = to(f, 1 - ramp); /* share of the frequency as it was */
    const double slow = to(f, 1 / to(f, to(f, factor_of(r)) * p));
    return to(f, to(f, slow * to(f, 1 - kept)) + to(f, to(f, 1 / p) * kept));
}

static double llama3(const qkv_rope *r, double p)
{
    const int f = r->precision == QKV_ROPE_F32;
    const double two_pi = 2 * 3.14159265358979323846, original = (double)r->original_max_positions;
    const double frequency = to(f, 1 / p), wave = over(f, two_pi, frequency);
    const double low = r->low_freq_factor, high = r->high_freq_factor, factor = to(f, r->factor);

    if (wave < to(f, original / high))
        return frequency;
    if (wave > to(f, original / low))
        return to(f, frequency / factor);
    const double share = to(f, to(f, over(f, original, wave) - to(f, low)) / to(f, high - low));
    return to(f, to(f, to(f, to(f, 1 - share) * frequency) / factor) + to(f, share * frequency));
}

void qkv_rope_find(const qkv_rope *r, int64_t seq_len, qkv_rope_numbers *n)
{
    const int f = n->f32 = r->precision == QKV_ROPE_F32;
    const double theta = theta_of(r, seq_len), factor = to(f, factor_of(r));
    const double *ext = seq_len > r->original_max_positions ? r->long_factor : r->short_factor;
    double low = 0, high = 0;

    n->pairs = r->rotary_dim / 2;
    n->a = attention_factor(r);
    if (r->type == QKV_ROPE_YARN)
        yarn_range(r, &low, &high);
    for (int32_t i = 0; i < n->pairs; i++) {
        const double p = power(f, theta, i, qkv_rope_width(r));
        double *to_i = &n->frequency[i];
        if (r->type == QKV_ROPE_LINEAR || r->type == QKV_ROPE_PROPORTIONAL)
            *to_i = to(f, to(f, 1 / p) / factor);
        else if (r->type == QKV_ROPE_YARN)
            *to_i = yarn(r, p, i, low, high);
        else if (r->type == QKV_ROPE_LONGROPE)
            *to_i = to(f, 1 / to(f, to(f, ext[i]) * p));
        else if (r->type == QKV_ROPE_LLAMA3)
            *to_i = llama3(r, p);
        else
            *to_i = to(f, 1 / p);
    }
}

qkv_status qkv_rope_frequencies(const qkv_rope *rope, int64_t seq_len, double *frequencies,
                                double *factor, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_rope full;
    qkv_rope_numbers n;
    const qkv_status status = qkv_rope_load(rope, &full, say);

    if (status != QKV_OK)
        return status;
    if (seq_len < 0 || seq_len > QKV_ROPE_MAX_POSITION + 1)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "seq_len is %lld; it must be 0 .. 2^53 + 1",
                          (long long)seq_len);
    qkv_rope_find(&full, seq_len, &n);
    if (n.pairs > 0 && !frequencies)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "frequencies is NULL; %d numbers need a place",
                          n.pairs);
    for (int32_t i = 0; i < n.pairs; i++)
        frequencies[i] = n.frequency[i];
    if (factor)
        *factor = n.a;
    return qkv_accept(say);
}
