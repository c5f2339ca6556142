/* random.c - ropes and tensors that any seed makes. */
#include <math.h>
#include <string.h>

#include "rope_test.h"

static void random_channels(t_rng *rng, qkv_rope *r)
{
    static const int32_t dims[] = {4, 8, 16, 20, 64, 80, 96, 128, 192, 256, 576, 1024};

    r->head_dim = dims[t_below(rng, 12)];
    r->pairing = (int32_t)t_below(rng, 2);
    if (t_chance(rng, 40)) /* the last channels, as of a latent row; at least 4 */
        r->rotary_offset = 2 * (int32_t)t_below(rng, r->head_dim / 2 - 1);
    if (t_chance(rng, 50))
        r->rotary_dim = 2 * (int32_t)t_between(rng, 2, (r->head_dim - r->rotary_offset) / 2);
    if (t_chance(rng, 10) && r->rotary_dim != QKV_ROPE_AUTO && r->type != QKV_ROPE_PROPORTIONAL)
        r->head_dim += r->head_dim < MAX_DIM; /* odd heads need not turn whole */
}

void random_rope(t_rng *rng, qkv_rope *r, double factors[2][N_FACTORS])
{
    static const double thetas[] = {10000, 500000, 1e6, 25.5, 150000};

    qkv_rope_init(r);
    r->type = (int32_t)t_between(rng, QKV_ROPE_DEFAULT, QKV_ROPE_PROPORTIONAL);
    random_channels(rng, r);
    r->theta = thetas[t_below(rng, 5)];
    if (r->type != QKV_ROPE_DEFAULT && !(r->type == QKV_ROPE_PROPORTIONAL && t_chance(rng, 50)))
        r->factor = 1 + (double)t_below(rng, 64) / (t_chance(rng, 50) ? 1 : 3);
    r->max_positions = t_between(rng, 16, 5000);
    if (t_chance(rng, 50))
        r->original_max_positions = t_between(rng, 8, 4000);
    if (r->type == QKV_ROPE_YARN || r->type == QKV_ROPE_LONGROPE) {
        if (t_chance(rng, 40))
            r->factor = NAN;
        if (t_chance(rng, 30))
            r->attention_factor = 0.5 + t_uniform(rng);
    }
    r->truncate = (int32_t)t_below(rng, 2);
    if (t_chance(rng, 50)) {
        r->mscale = 1;
        r->mscale_all_dim = t_uniform(rng) + 0.1;
        r->beta_fast = 10 + 30 * t_uniform(rng);
        r->low_freq_factor = 0.5 + t_uniform(rng);
        r->high_freq_factor = 2 + 5 * t_uniform(rng);
    }
    r->n_factors = oracle_rotary_dim(r) / 2;
    for (int i = 0; i < r->n_factors; i++)
        for (int k = 0; k < 2; k++)
            factors[k][i] = 1 + (k + 1) * 10 * t_uniform(rng);
    r->short_factor = factors[0];
    r->long_factor = factors[1];
}

static int64_t size_of(const tensor *t) { return (int64_t)qkv_type_size((qkv_type)t->layout.type); }

void make_tensor(t_rng *rng, tensor *t, int32_t type, const int64_t n[4], int order, int where)
{
    const int64_t b = n[0], h = n[1], i = n[2], c = n[3];
    const int64_t gap = order == 2 ? t_below(rng, 3) : 0;
    const int64_t strides[3][4] = {{h * i * c, i * c, c, 1},
                                   {h * i * c, c, h * c, 1},
                                   {h * (c + gap), c + gap, -b * h * (c + gap), 1}};

    memcpy(t->layout.stride, strides[order], sizeof t->layout.stride);
    memcpy(t->n, n, sizeof t->n);
    t->layout.type = type;
    t->layout.reserved = 0;
    const int64_t all = b * h * i * (c + gap);
    const int64_t elements = order == 2 && all > 0 ? all - gap : all;
    t->bytes = (size_t)(elements * size_of(t));
    t->memory = t_alloc(t->bytes, (size_t)size_of(t), where, 0xa5);
    t->base = order == 2 && i > 0 ? (char *)t->memory + (i - 1) * b * h * (c + gap) * size_of(t)
                                  : (char *)t->memory;
    for (int64_t k = 0; k < elements; k++) {
        const double x = t_normal(rng);
        qkv_convert((char *)t->memory + k * size_of(t), (qkv_type)type, &x, QKV_F64, 1);
    }
}

int64_t tensor_at(const tensor *t, int64_t b, int64_t h, int64_t i, int64_t c)
{
    const int64_t *s = t->layout.stride;
    return (b * s[0] + h * s[1] + i * s[2] + c * s[3]) * size_of(t);
}

double tensor_get(const tensor *t, int64_t b, int64_t h, int64_t i, int64_t c)
{
    double x;
    qkv_convert(&x, QKV_F64, (char *)t->base + tensor_at(t, b, h, i, c),
                (qkv_type)t->layout.type, 1);
    return x;
}
