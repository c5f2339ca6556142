/* oracle.c - rotary embedding by its formulas, in long double, one number at a time. */
#include <math.h>

#include "rope_test.h"

static const long double pi = 3.14159265358979323846264338327950288L;

int oracle_rotary_dim(const qkv_rope *r)
{
    if (r->type == QKV_ROPE_NONE)
        return 0;
    return r->rotary_dim == QKV_ROPE_AUTO ? r->head_dim - r->rotary_offset : r->rotary_dim;
}

static long double original(const qkv_rope *r)
{
    return r->original_max_positions ? r->original_max_positions : r->max_positions;
}

static long double factor(const qkv_rope *r)
{
    if (!isnan(r->factor))
        return r->factor;
    if (r->type == QKV_ROPE_YARN || r->type == QKV_ROPE_LONGROPE)
        return r->max_positions / original(r);
    return 1;
}

static long double yarn_g(long double s, long double m)
{
    return s <= 1 ? 1 : 0.1L * m * logl(s) + 1;
}

long double oracle_factor(const qkv_rope *r)
{
    if (!isnan(r->attention_factor))
        return r->attention_factor;
    if (r->type == QKV_ROPE_YARN) {
        if (r->mscale != 0 && r->mscale_all_dim != 0)
            return yarn_g(factor(r), r->mscale) / yarn_g(factor(r), r->mscale_all_dim);
        return yarn_g(factor(r), 1);
    }
    if (r->type == QKV_ROPE_LONGROPE)
        return factor(r) <= 1 ? 1 : sqrtl(1 + logl(factor(r)) / logl(original(r)));
    return 1;
}

static long double plain(long double theta, int i, long double dim)
{
    return powl(theta, -2 * i / dim);
}

static long double yarn(const qkv_rope *r, int i, int dim)
{
    long double edge[2];
    const double beta[2] = {r->beta_fast, r->beta_slow};
    for (int k = 0; k < 2; k++) {
        edge[k] = dim * logl(original(r) / (beta[k] * 2 * pi)) / (2 * logl(r->theta));
        if (r->truncate)
            edge[k] = k ? ceill(edge[k]) : floorl(edge[k]);
    }
    const long double low = fmaxl(edge[0], 0);
    long double high = fminl(edge[1], dim - 1);
    if (low == high)
        high += 0.001L;
    const long double ramp = fminl(fmaxl((i - low) / (high - low), 0), 1);
    const long double f = plain(r->theta, i, dim);
    return f / factor(r) * ramp + f * (1 - ramp);
}

static long double llama3(const qkv_rope *r, long double f)
{
    const long double wave = 2 * pi / f, orig = original(r);
    if (wave < orig / r->high_freq_factor)
        return f;
    if (wave > orig / r->low_freq_factor)
        return f / factor(r);
    const long double s =
        (orig / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - s) * f / factor(r) + s * f;
}

long double oracle_frequency(const qkv_rope *r, int64_t seq_len, int i)
{
    const int dim = oracle_rotary_dim(r);
    const long double power = dim / (dim - 2.0L), max = r->max_positions;
    const long double length = seq_len > r->max_positions ? seq_len : max;

    switch (r->type) {
    case QKV_ROPE_LINEAR:
        return plain(r->theta, i, dim) / factor(r);
    case QKV_ROPE_NTK:
        return plain(r->theta * powl(factor(r), power), i, dim);
    case QKV_ROPE_DYNAMIC:
        return plain(r->theta * powl(factor(r) * length / max - (factor(r) - 1), power), i, dim);
    case QKV_ROPE_YARN:
        return yarn(r, i, dim);
    case QKV_ROPE_LONGROPE:
        return plain(r->theta, i, dim) /
               (seq_len > original(r) ? r->long_factor : r->short_factor)[i];
    case QKV_ROPE_LLAMA3:
        return llama3(r, plain(r->theta, i, dim));
    case QKV_ROPE_PROPORTIONAL:
        return plain(r->theta, i, r->head_dim - r->rotary_offset) / factor(r);
    default:
        return plain(r->theta, i, dim);
    }
}

long double oracle_slack(const qkv_rope *r)
{
    const int mixes = r->type == QKV_ROPE_YARN || r->type == QKV_ROPE_LLAMA3;
    return 4e-15L * (mixes ? fmaxl(factor(r), 1 / factor(r)) : 1);
}

void oracle_pair(const qkv_rope *r, int i, int *first, int *second)
{
    if (r->pairing == QKV_ROPE_INTERLEAVED) {
        *first = r->rotary_offset + 2 * i;
        *second = *first + 1;
        return;
    }
    *first = r->rotary_offset + i;
    *second = *first + (r->type == QKV_ROPE_PROPORTIONAL ? (r->head_dim - r->rotary_offset) / 2
                                                         : oracle_rotary_dim(r) / 2);
}

void oracle_row(const qkv_rope *r, int64_t seq_len, int64_t p, int inverse, const double *x,
                long double *y)
{
    const long double a = oracle_factor(r);

    for (int c = 0; c < r->head_dim; c++)
        y[c] = x[c];
    for (int i = 0; i < oracle_rotary_dim(r) / 2; i++) {
        int first, second;
        oracle_pair(r, i, &first, &second);
        const long double angle = (inverse ? -1 : 1) * p * oracle_frequency(r, seq_len, i);
        y[first] = a * (cosl(angle) * x[first] - sinl(angle) * x[second]);
        y[second] = a * (sinl(angle) * x[first] + cosl(angle) * x[second]);
    }
}
