/*
 * pages_fill.c - what lies in pages: encoded, decoded, and made junk where no query looks.
 *
 * Decoding is written here from the formulas in qkv/attention.h and the OCP 8-bit floating point
 * specification (1.0, 2023); nothing is shared with the library or its oracle.
 */
#include <math.h>
#include <string.h>

#include "pages.h"

static int coded(int32_t type) { return type >= QKV_I8 && type <= QKV_E5M2; }

static char *at(const t_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (char *)t->first + t_offset(t, i0, i1, i2, i3);
}

static double read_float(const t_tensor *t, pages_place to, int64_t h, int64_t i)
{
    double x;
    qkv_convert(&x, QKV_F64, at(t, to.outer, h, to.row, i), (qkv_type)t->layout->type, 1);
    return x;
}

static void write_float(const t_tensor *t, pages_place to, int64_t h, int64_t i, double x)
{
    qkv_convert(at(t, to.outer, h, to.row, i), (qkv_type)t->layout->type, &x, QKV_F64, 1);
}

/* Calls fn for every key that exists, of every sequence and head. */
typedef void key_fn(paged *x, int32_t b, int32_t h, int64_t j, void *arg);
static void each_key(paged *x, key_fn *fn, void *arg)
{
    for (int32_t b = 0; b < x->p.desc.n_seqs; b++) {
        const t_span s = t_span_of(&x->p.desc, b);
        for (int32_t h = 0; h < x->p.desc.n_kv_heads; h++)
            for (int64_t j = s.kv_start; j < s.kv_len; j++)
                fn(x, b, h, j, arg);
    }
}

/* Element c of the dense copy's row for this key, T_K or T_V. */
static double *dense(paged *x, int tensor, int32_t b, int32_t h, int64_t j, int64_t c)
{
    const qkv_desc *d = &x->p.desc;
    const t_tensor *t = &x->p.tensor[tensor];
    return (double *)(void *)at(t, d->cu_seqlens_k ? 0 : b, h, t_span_of(d, b).k_row + j, c);
}

/* ---- encode ---- */

/* Any finite code. */
static uint8_t any_code(t_rng *rng, int32_t type)
{
    for (;;) {
        const uint8_t code = (uint8_t)t_below(rng, 256);
        const int magnitude = code & 0x7f;
        if (!(type == QKV_E4M3 && magnitude == 0x7f) && !(type == QKV_E5M2 && magnitude >= 0x7c))
            return code;
    }
}

/* A scale that makes the largest code about as large as x, or now and then anything. */
static double scale_for(t_rng *rng, int32_t type, double x)
{
    const double most = type == QKV_I8 ? 127 : type == QKV_U4 ? 7 : type == QKV_E4M3 ? 448 : 57344;
    const double odd = t_chance(rng, 1) ? exp2((double)t_between(rng, -120, 120)) : 1;
    return x * (0.5 + t_uniform(rng)) / most * odd;
}

static void encode_row(paged *x, const pages_side *s, pages_place to, int32_t h, const double *row)
{
    const int32_t type = s->data.layout->type;
    t_rng *rng = &x->p.rng;

    for (int64_t c = 0; c < s->data.n[3]; c++)
        if (coded(type))
            *(uint8_t *)at(&s->data, to.outer, h, to.row, c) = any_code(rng, type);
        else
            write_float(&s->data, to, h, c, row[c]);
    for (int64_t g = 0; coded(type) && g < s->scale.n[3]; g++) {
        const double scale = scale_for(rng, type, row[g * ((s->dim - 1) / s->scale.n[3])]);
        write_float(&s->scale, to, h, g, scale);
        if (type == QKV_U4)
            write_float(&s->min, to, h, g, scale * (double)t_between(rng, -10, -5));
    }
}

static void encode_key(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const pages_place to = pages_find(x, b, h, j);

    (void)arg;
    encode_row(x, &x->k, to, h, dense(x, T_K, b, h, j, 0));
    if (!x->latent)
        encode_row(x, &x->v, to, h, dense(x, T_V, b, h, j, 0));
    for (int32_t c = 0; c < x->p.desc.rope_dim; c++)
        write_float(&x->rope, to, h, c, *dense(x, T_K, b, h, j, x->k.dim + c));
}

void pages_encode(paged *x) { each_key(x, encode_key, NULL); }

/* ---- decode ---- */

/* Sign, exponent, fraction; specials are the callers' matter. */
static double small_float(unsigned code, int fraction_bits, int bias)
{
    const unsigned units = 1u << fraction_bits;
    const unsigned fraction = code & (units - 1), exponent = (code & 0x7f) >> fraction_bits;
    const double significand = (double)(exponent ? units + fraction : fraction) / units;
    const double x = significand * exp2((exponent ? (int)exponent : 1) - bias);
    return code & 0x80 ? -x : x;
}

static double code_value(int32_t type, const uint8_t *row, int64_t c)
{
    switch (type) {
    case QKV_I8:
        return row[c] < 128 ? row[c] : row[c] - 256.0;
    case QKV_U4:
        return row[c / 2] >> (c % 2 ? 4 : 0) & 15;
    case QKV_E4M3:
        return (row[c] & 0x7f) == 0x7f ? (double)NAN : small_float(row[c], 3, 7);
    default:
        if ((row[c] & 0x7f) == 0x7c)
            return row[c] & 0x80 ? -(double)INFINITY : (double)INFINITY;
        return (row[c] & 0x7f) > 0x7c ? (double)NAN : small_float(row[c], 2, 15);
    }
}

/* error receives what rounding to f32 on the way may cost. */
static double value_of(const pages_side *s, int32_t group, pages_place from, int32_t h, int64_t c,
                       double *error)
{
    const int32_t type = s->data.layout->type;
    const int64_t g = group > 0 ? c / group : 0;

    *error = 0;
    if (!coded(type))
        return read_float(&s->data, from, h, c);
    const uint8_t *row = (const uint8_t *)at(&s->data, from.outer, h, from.row, 0);
    const double scale = read_float(&s->scale, from, h, g);
    const double product = code_value(type, row, c) * scale;
    const double x = type == QKV_U4 ? read_float(&s->min, from, h, g) + product : product;
    *error = 0x1p-22 * (fabs(product) + fabs(x)) + 0x1p-126;
    if (isinf(scale) || fabs(product) > 0x1.fffffep127 || fabs(x) > 0x1.fffffep127)
        *error = INFINITY; /* the range of f32 may be left */
    return x;
}

static void gather_key(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const qkv_desc *d = &x->p.desc;
    const pages_place from = pages_find(x, b, h, j);
    const int64_t first = dense(x, T_K, b, h, j, 0) - (double *)x->p.tensor[T_K].first;
    double unused;

    (void)arg;
    for (int64_t c = 0; c < x->k.dim; c++)
        *dense(x, T_K, b, h, j, c) = value_of(&x->k, d->k_group, from, h, c, &x->k_error[first + c]);
    for (int64_t c = 0; c < d->rope_dim; c++)
        *dense(x, T_K, b, h, j, x->k.dim + c) = read_float(&x->rope, from, h, c);
    for (int64_t c = 0; c < x->v.dim; c++)
        *dense(x, T_V, b, h, j, c) = value_of(&x->v, d->v_group, from, h, c, &unused);
}

void pages_gather(paged *x) { each_key(x, gather_key, NULL); }

/* ---- junk ---- */

typedef struct spoiling {
    const uint8_t *seen;
    uint8_t *used[PAGES_TENSORS]; /* a byte for each byte of memory, set at an element's first */
} spoiling;

static int key_is_seen(const paged *x, const uint8_t *seen, int32_t b, int32_t kv_head, int64_t j)
{
    const qkv_desc *d = &x->p.desc;
    const int32_t group = d->n_q_heads / d->n_kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        for (int64_t i = 0; i < d->q_len; i++)
            if (seen[(((int64_t)b * d->n_q_heads + h) * d->q_len + i) * d->kv_len + j])
                return 1;
    return 0;
}

static uint8_t *mark_of(const t_tensor *t, uint8_t *used, int64_t i0, int64_t i1, int64_t i2,
                        int64_t i3)
{
    return used + (at(t, i0, i1, i2, i3) - (char *)t->memory);
}

static void mark_key(paged *x, int32_t b, int32_t h, int64_t j, void *arg)
{
    const spoiling *s = arg;
    const pages_place to = pages_find(x, b, h, j);

    if (!key_is_seen(x, s->seen, b, h, j))
        return;
    for (int i = 0; i < PAGES_TENSORS; i++) {
        const t_tensor *t = pages_tensor(x, i);
        for (int64_t c = 0; pages_has(x, t) && c < t->n[3]; c++)
            *mark_of(t, s->used[i], to.outer, h, to.row, c) = 1;
    }
}

static void spoil_element(paged *x, const t_tensor *t, char *element)
{
    static const double junk[] = {NAN, INFINITY, -INFINITY, NAN};
    static const uint8_t codes[] = {0x7f, 0xff, 0x7c, 0xfc, 0x80, 0};

    if (coded(t->layout->type))
        *element = (char)codes[t_below(&x->p.rng, 6)];
    else
        qkv_convert(element, (qkv_type)t->layout->type, &junk[t_below(&x->p.rng, 4)], QKV_F64, 1);
}

static void spoil_tensor(paged *x, const t_tensor *t, uint8_t *used)
{
    for (int64_t i0 = 0; i0 < t->n[0]; i0++)
        for (int64_t i1 = 0; i1 < t->n[1]; i1++)
            for (int64_t i2 = 0; i2 < t->n[2]; i2++)
                for (int64_t i3 = 0; i3 < t->n[3]; i3++)
                    if (!*mark_of(t, used, i0, i1, i2, i3))
                        spoil_element(x, t, at(t, i0, i1, i2, i3));
}

/* One of the elements that are seen becomes NaN. */
static void put_nan(paged *x, const t_tensor *t, const uint8_t *used)
{
    const double nan_value = NAN;
    size_t n = 0;

    for (size_t i = 0; i < t->bytes; i++)
        n += used[i];
    n = n ? 1 + (size_t)t_below(&x->p.rng, (int64_t)n) : 0;
    for (size_t i = 0; n > 0 && i < t->bytes; i++) {
        char *element = (char *)t->memory + i;
        if (!used[i] || --n > 0)
            continue;
        if (coded(t->layout->type))
            *element = 0x7f; /* of e4m3 and e5m2 */
        else
            qkv_convert(element, (qkv_type)t->layout->type, &nan_value, QKV_F64, 1);
    }
}

/* The keys whose entries the library may look at, as qkv/attention.h has it. */
static void looked_at(const qkv_desc *d, int32_t b, int64_t *lo, int64_t *hi)
{
    const t_span s = t_span_of(d, b);
    const int raw = d->weights.type != QKV_NONE && d->stage <= QKV_STAGE_CAPPED;
    const int64_t wide = (int64_t)1 << 40, last = s.q_offset + s.q_len - 1;
    int64_t end = s.kv_len - 1;

    *lo = s.kv_start;
    if (!raw && d->window_left >= 0 && d->window_left < wide && s.q_offset - d->window_left > *lo)
        *lo = s.q_offset - d->window_left;
    if (!raw && d->window_right >= 0 && d->window_right < wide && last + d->window_right < end)
        end = last + d->window_right;
    if (!raw && d->causal != QKV_CAUSAL_NONE && last - (d->causal == QKV_CAUSAL_STRICT) < end)
        end = last - (d->causal == QKV_CAUSAL_STRICT);
    *hi = s.q_len > 0 ? end : -1;
}

static void spoil_table(paged *x)
{
    const qkv_desc *d = &x->p.desc;
    uint8_t *used = t_scratch((size_t)x->n_entries);
    t_rng *rng = &x->p.rng;

    memset(used, 0, (size_t)x->n_entries);
    for (int32_t b = 0; b < d->n_seqs; b++)
        for (int32_t h = 0; h < d->n_kv_heads; h++) {
            const int64_t row = b * d->block_table_stride[0] + h * d->block_table_stride[1];
            int64_t lo, hi;
            looked_at(d, b, &lo, &hi);
            for (int64_t n = lo / d->page_tokens; lo <= hi && n <= hi / d->page_tokens; n++)
                used[row + n] = 1;
        }
    for (int64_t i = 0; i < x->n_entries; i++) {
        const int32_t junk[] = {-1, INT32_MIN, INT32_MAX, d->n_pages, (int32_t)t_bits(rng)};
        if (!used[i])
            x->table[i] = junk[t_below(rng, 5)];
    }
}

void pages_spoil(paged *x, const uint8_t *seen)
{
    spoiling s = {.seen = seen};

    for (int i = 0; i < PAGES_TENSORS; i++) {
        const t_tensor *t = pages_tensor(x, i);
        s.used[i] = t_scratch(t->bytes);
        memset(s.used[i], 0, t->bytes);
    }
    each_key(x, mark_key, &s);
    for (int i = 0; i < PAGES_TENSORS; i++)
        if (pages_has(x, pages_tensor(x, i)))
            spoil_tensor(x, pages_tensor(x, i), s.used[i]);
    if (x->nan_in)
        put_nan(x, pages_tensor(x, x->nan_in - 1), s.used[x->nan_in - 1]);
    /* A few elements that may be seen, too. */
    for (int n = x->p.limits.strange && t_chance(&x->p.rng, 15) ? 3 : 0; n > 0; n--) {
        const t_tensor *t = pages_tensor(x, (int)t_below(&x->p.rng, PAGES_TENSORS));
        if (pages_has(x, t) && t->bytes > 0 && !(t->n[0] * t->n[1] * t->n[2] * t->n[3] == 0))
            spoil_element(x, t, at(t, t_below(&x->p.rng, t->n[0]), t_below(&x->p.rng, t->n[1]),
                                   t_below(&x->p.rng, t->n[2]), t_below(&x->p.rng, t->n[3])));
    }
    if (x->p.desc.page_tokens > 0)
        spoil_table(x);
}
