/* oracle.c - a layer by its formulas, in double, one sequence, one query at a time. */
#include <math.h>
#include <string.h>

#include "layers_test.h"

static double *doubles(int64_t n) { return t_scratch((size_t)(n + 1) * sizeof(double)); }

/* y = W x + b for each row. */
static double *apply(const sample *s, int role, const double *x, int64_t rows, int64_t n_out,
                     int64_t n_in)
{
    double *y = doubles(rows * n_out);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t o = 0; o < n_out; o++) {
            double sum = s->bias[role] ? s->bias[role][o] : 0;
            for (int64_t i = 0; i < n_in; i++)
                sum += s->matrix[role][o * n_in + i] * x[t * n_in + i];
            y[t * n_out + o] = sum;
        }
    return y;
}

static void norm(double *x, int64_t n, const float *w, int32_t kind, double eps)
{
    double mean = 0, squares = 0;
    if (kind == QKV_NORM_NONE)
        return;
    for (int64_t i = 0; i < n; i++)
        mean += kind == QKV_NORM_LAYER ? x[i] / (double)n : 0;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrt(squares + eps) *
               (w[i] + (kind == QKV_NORM_RMS_PLUS_ONE ? 1.0 : 0.0));
}

/* Rotates one vector of rope.head_dim channels. */
static void rotate(const qkv_rope *rope, double *x, int64_t position, int64_t length)
{
    double f[512], a = 1;
    const int pairs = rope->type == QKV_ROPE_NONE ? 0 : qkv_rope_pairs(rope);

    if (pairs == 0)
        return;
    qkv_rope_frequencies(rope, length, f, &a, NULL, 0);
    for (int i = 0; i < pairs; i++) {
        const int one = rope->rotary_offset +
                        (rope->pairing == QKV_ROPE_INTERLEAVED ? 2 * i : i);
        const int two = one + (rope->pairing == QKV_ROPE_INTERLEAVED ? 1 : pairs);
        const double c = a * cos((double)position * f[i]), d = a * sin((double)position * f[i]);
        const double x1 = x[one], x2 = x[two];
        x[one] = c * x1 - d * x2;
        x[two] = d * x1 + c * x2;
    }
}

/* Slopes as ALiBi's authors wrote them, head by head. */
static double slope(const qkv_layer_desc *d, int h)
{
    int whole = 1;
    while (whole * 2 <= d->n_q_heads)
        whole *= 2;
    const double step = d->alibi_max_bias / whole;
    return h < whole ? pow(2, -step * (h + 1)) : pow(2, -step * (h - whole + 0.5));
}

/* T5's bucket, as its paper says it. */
static int bucket(const qkv_layer_desc *d, int64_t distance)
{
    int buckets = d->relative_buckets, first = 0;
    int64_t n = distance < 0 ? -distance : 0;
    if (d->relative_bidirectional) {
        buckets /= 2;
        n = distance < 0 ? -distance : distance;
        first = distance > 0 ? buckets : 0;
    }
    if (n < buckets / 2)
        return first + (int)n;
    const int far = buckets / 2 + (int)(log((double)n / (buckets / 2)) /
                                        log((double)d->relative_max_distance / (buckets / 2)) *
                                        (buckets - buckets / 2));
    return first + (far < buckets ? far : buckets - 1);
}

static int visible(const qkv_layer_desc *d, int64_t p, int64_t j, int64_t first)
{
    if (j < first || (d->causal && j > p))
        return 0;
    if (d->window_left >= 0 && j < p - d->window_left)
        return 0;
    if (!d->causal && d->window_right >= 0 && j > p + d->window_right)
        return 0;
    return !d->chunk_tokens || (j - first) / d->chunk_tokens == (p - first) / d->chunk_tokens;
}

typedef struct heads {
    double *q, *k, *v; /* [tokens][Hq][D], [keys][Hkv][D], [keys][Hkv][Dv] */
    int64_t n_keys;
} heads;

static double score(const sample *s, const heads *h, int head, int64_t p, int64_t j)
{
    const qkv_layer_desc *d = &s->desc;
    const int kv = head / (d->n_q_heads / d->n_kv_heads);
    const double *q = h->q + (p * d->n_q_heads + head) * d->head_dim;
    const double *k = h->k + (j * d->n_kv_heads + kv) * d->head_dim;
    const double scale = qkv_layer_scale(d), away = (double)(p < j ? j - p : p - j);
    double x = 0;
    for (int i = 0; i < d->head_dim; i++)
        x += q[i] * k[i];
    x *= scale;
    if (d->softcap > 0)
        x = d->softcap * tanh(x / d->softcap);
    if (d->alibi)
        x -= slope(d, head) * away * (d->alibi == QKV_ALIBI_SCALED ? scale : 1);
    if (d->relative_buckets)
        x += s->matrix[QKV_ROLE_RELATIVE_BIAS][bucket(d, j - p) * d->n_q_heads + head];
    return x;
}

/* One head of one query. */
static void attend(const sample *s, const heads *h, int head, int64_t p, int64_t first, double *o)
{
    const qkv_layer_desc *d = &s->desc;
    const int kv = head / (d->n_q_heads / d->n_kv_heads);
    double sum = d->sinks ? exp(s->matrix[QKV_ROLE_SINKS][head]) : 0;

    memset(o, 0, (size_t)d->head_dim_v * sizeof *o);
    for (int64_t j = 0; j < h->n_keys; j++) {
        if (!visible(d, p, j, first))
            continue;
        const double w = exp(score(s, h, head, p, j));
        sum += w;
        for (int i = 0; i < d->head_dim_v; i++)
            o[i] += w * h->v[(j * d->n_kv_heads + kv) * d->head_dim_v + i];
    }
    for (int i = 0; i < d->head_dim_v && sum > 0; i++)
        o[i] /= sum;
}

static heads project(const sample *s, const double *x, int64_t tokens, const double *memory,
                     int64_t n_keys, const int64_t *positions, int64_t length)
{
    const qkv_layer_desc *d = &s->desc;
    const int64_t in = d->cross ? width_of_memory(d) : d->d_model;
    heads h = {apply(s, QKV_ROLE_Q, x, tokens, (int64_t)d->n_q_heads * d->head_dim, d->d_model),
               apply(s, QKV_ROLE_K, memory, n_keys, (int64_t)d->n_kv_heads * d->head_dim, in),
               apply(s, QKV_ROLE_V, memory, n_keys, (int64_t)d->n_kv_heads * d->head_dim_v, in),
               n_keys};
    for (int64_t i = 0; i < tokens * d->n_q_heads; i++) {
        norm(h.q + i * d->head_dim, d->head_dim, s->matrix[QKV_ROLE_Q_NORM], d->qk_norm,
             d->norm_eps);
        rotate(&d->rope, h.q + i * d->head_dim, positions[i / d->n_q_heads], length);
    }
    for (int64_t i = 0; i < n_keys * d->n_kv_heads; i++) {
        norm(h.k + i * d->head_dim, d->head_dim, s->matrix[QKV_ROLE_K_NORM], d->qk_norm,
             d->norm_eps);
        if (!d->cross)
            rotate(&d->rope, h.k + i * d->head_dim, positions[i / d->n_kv_heads], length);
    }
    return h;
}

static void copy(double *to, const double *from, int64_t n)
{
    memcpy(to, from, (size_t)n * sizeof *to);
}

static heads project_mla(const sample *s, const double *x, int64_t tokens, const int64_t *positions,
                         int64_t length)
{
    const qkv_layer_desc *d = &s->desc;
    const int64_t H = d->n_q_heads, D = d->head_dim, c = d->kv_lora_rank, r = d->rope_dim;
    const int64_t n = D - r, v = d->head_dim_v;
    heads h = {NULL, doubles(tokens * H * D), doubles(tokens * H * v), tokens};

    if (d->q_lora_rank) {
        double *a = apply(s, QKV_ROLE_Q_A, x, tokens, d->q_lora_rank, d->d_model);
        for (int64_t t = 0; t < tokens; t++)
            norm(a + t * d->q_lora_rank, d->q_lora_rank, s->matrix[QKV_ROLE_Q_A_NORM],
                 d->latent_norm, d->norm_eps);
        h.q = apply(s, QKV_ROLE_Q_B, a, tokens, H * D, d->q_lora_rank);
    } else {
        h.q = apply(s, QKV_ROLE_Q, x, tokens, H * D, d->d_model);
    }
    double *a = apply(s, QKV_ROLE_KV_A, x, tokens, c + r, d->d_model);
    for (int64_t t = 0; t < tokens; t++) {
        norm(a + t * (c + r), c, s->matrix[QKV_ROLE_KV_A_NORM], d->latent_norm, d->norm_eps);
        rotate(&d->rope, a + t * (c + r) + c, positions[t], length);
        double *up = apply(s, QKV_ROLE_KV_B, a + t * (c + r), 1, H * (n + v), c);
        for (int64_t i = 0; i < H; i++) {
            rotate(&d->rope, h.q + (t * H + i) * D + n, positions[t], length);
            copy(h.k + (t * H + i) * D, up + i * (n + v), n);
            copy(h.k + (t * H + i) * D + n, a + t * (c + r) + c, r);
            copy(h.v + (t * H + i) * v, up + i * (n + v) + n, v);
        }
    }
    return h;
}

static double *widen(const float *x, int64_t n)
{
    double *y = doubles(n);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
    return y;
}

void oracle(const sample *s, const float *x, int64_t tokens, const float *memory, int64_t n_memory,
            const int64_t *positions, int64_t first, double *out)
{
    const qkv_layer_desc *d = &s->desc;
    const int64_t width = (int64_t)d->n_q_heads * d->head_dim_v;
    double *hidden = widen(x, tokens * d->d_model), *o = doubles(tokens * width);
    int64_t *numbers = t_scratch((size_t)(tokens + 1) * sizeof *numbers), length = 0;
    heads h;

    for (int64_t t = 0; t < tokens; t++) {
        numbers[t] = positions ? positions[t] : t;
        length = numbers[t] >= length ? numbers[t] + 1 : length;
    }
    if (d->kind == QKV_LAYER_MLA)
        h = project_mla(s, hidden, tokens, numbers, length);
    else if (d->cross)
        h = project(s, hidden, tokens, widen(memory, n_memory * width_of_memory(d)), n_memory,
                    numbers, length);
    else
        h = project(s, hidden, tokens, hidden, tokens, numbers, length);
    for (int64_t t = 0; t < tokens; t++)
        for (int i = 0; i < d->n_q_heads; i++)
            attend(s, &h, i, t, first, o + t * width + i * d->head_dim_v);
    double *mixed = apply(s, QKV_ROLE_O, o, tokens, d->d_model, width);
    copy(out, mixed, tokens * d->d_model);
}
