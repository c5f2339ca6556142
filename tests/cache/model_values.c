/* model_values.c - what is written and what must be read back. */
#include <math.h>
#include <string.h>

#include "model.h"

float *m_at(const model *m, const m_seq *s, int token, int layer, int head)
{
    const int per_head = m->c.head_dim + m->c.head_dim_v;
    return s->values +
           (((int64_t)token * m->c.n_layers + layer) * m->c.n_kv_heads + head) * per_head;
}

/* ---- rounding, by the public codecs ----------------------------------------------------- */

static void round_float(float *x, int n, qkv_type type)
{
    uint16_t half[M_DIM];
    if (type == QKV_F32)
        return;
    qkv_convert(half, type, x, QKV_F32, (size_t)n);
    qkv_convert(x, QKV_F32, half, type, (size_t)n);
}

static void round_row(float *x, int n, int32_t format, int32_t group, int32_t per, float head_scale)
{
    const int32_t kind = format == QKV_FORMAT_E4M3 ? QKV_FP8_E4M3 : QKV_FP8_E5M2;
    int8_t i8[M_DIM];
    uint8_t u8[M_DIM];
    float scales[M_DIM];
    uint16_t steps[M_DIM], mins[M_DIM];

    switch (format) {
    case QKV_FORMAT_F32:
        break;
    case QKV_FORMAT_F16:
        round_float(x, n, QKV_F16);
        break;
    case QKV_FORMAT_BF16:
        round_float(x, n, QKV_BF16);
        break;
    case QKV_FORMAT_INT8:
        qkv_int8_encode(x, n, group, i8, scales);
        qkv_int8_decode(i8, scales, n, group, x);
        break;
    case QKV_FORMAT_INT4:
        qkv_int4_encode(x, n, group, u8, steps, mins);
        qkv_int4_decode(u8, steps, mins, n, group, x);
        break;
    default:
        if (per == QKV_SCALE_HEAD) {
            qkv_fp8_encode_scaled(x, n, head_scale, kind, u8);
            qkv_fp8_decode(u8, &head_scale, n, 0, kind, x);
        } else {
            qkv_fp8_encode(x, n, group, kind, u8, scales);
            qkv_fp8_decode(u8, scales, n, group, kind, x);
        }
    }
}

static int is_float(int32_t format) { return format <= QKV_FORMAT_BF16; }

/* Channels of a key that are coded: not the rotary ones of a latent row. */
static int coded(const model *m)
{
    return m->c.flags & QKV_CACHE_LATENT ? m->c.head_dim_v : m->c.head_dim;
}

/* The values of a latent row are channels of its key. */
static void copy_latent(const model *m, float *x)
{
    if (m->c.flags & QKV_CACHE_LATENT)
        memcpy(x + m->c.head_dim, x, (size_t)m->c.head_dim_v * sizeof *x);
}

/* A key of D and a value of Dv channels as the cache returns them. */
static void round_token(const model *m, m_seq *s, int layer, int head, float *x)
{
    const int latent = m->c.flags & QKV_CACHE_LATENT;
    const int narrow = latent && !is_float(m->c.k_format);
    const int codes = narrow ? m->c.head_dim_v : m->c.head_dim;

    if (m_has_open(m)) {
        round_float(x, m->c.head_dim, (qkv_type)m->c.float_type);
    } else {
        round_row(x, codes, m->c.k_format, m->c.k_group, m->c.k_scale, s->scale[0][layer][head]);
        round_float(x + codes, m->c.head_dim - codes, narrow ? (qkv_type)m->c.float_type : QKV_F32);
    }
    copy_latent(m, x);
    if (!latent)
        round_row(x + m->c.head_dim, m->c.head_dim_v, m->c.v_format, m->c.v_group, m->c.v_scale,
                  s->scale[1][layer][head]);
}

/* The scales of a sequence whose token 0 is among these `count` tokens; x holds what was given. */
static void find_scales(const model *m, m_seq *s, int count)
{
    const int latent = m->c.flags & QKV_CACHE_LATENT;
    const int dims[2] = {latent ? m->c.head_dim_v : m->c.head_dim, m->c.head_dim_v};
    const int32_t formats[2] = {m->c.k_format, m->c.v_format};

    for (int side = 0; side < 2; side++)
        for (int layer = 0; layer < m->c.n_layers; layer++)
            for (int head = 0; head < m->c.n_kv_heads; head++) {
                float top = 0;
                for (int t = 0; t < count; t++) {
                    const float *x = m_at(m, s, t, layer, head) + side * m->c.head_dim;
                    for (int c = 0; c < dims[side]; c++)
                        top = fmaxf(top, fabsf(x[c]));
                }
                const float largest = formats[side] == QKV_FORMAT_E4M3 ? 448 : 57344;
                s->scale[side][layer][head] = top > 0 ? top / largest : 1;
                if (m->given && layer == 0)
                    s->scale[side][layer][head] = 0.25f * (float)(head + 1);
            }
}

void m_close_values(const model *m, m_seq *s, int page)
{
    const int p = m->c.page_tokens, d = coded(m);
    static float x[256 * M_DIM];
    static int8_t codes[256 * M_DIM];
    float scales[M_DIM];

    for (int layer = 0; layer < m->c.n_layers; layer++)
        for (int head = 0; head < m->c.n_kv_heads; head++) {
            for (int t = 0; t < p; t++)
                memcpy(x + t * d, m_at(m, s, page * p + t, layer, head), (size_t)d * sizeof *x);
            qkv_int8_channel_encode(x, p, d, codes, scales);
            qkv_int8_channel_decode(codes, scales, p, d, x);
            for (int t = 0; t < p; t++) {
                float *to = m_at(m, s, page * p + t, layer, head);
                memcpy(to, x + t * d, (size_t)d * sizeof *x);
                copy_latent(m, to);
            }
        }
}

void m_open_values(const model *m, m_seq *s, int page, int n)
{
    for (int t = 0; t < n; t++)
        for (int layer = 0; layer < m->c.n_layers; layer++)
            for (int head = 0; head < m->c.n_kv_heads; head++) {
                float *x = m_at(m, s, page * m->c.page_tokens + t, layer, head);
                round_float(x, coded(m), (qkv_type)m->c.float_type);
                copy_latent(m, x);
            }
}

/* ---- writing ---------------------------------------------------------------------------- */

/* Where rows are put for qkv_cache_write: one array for keys, values and rotary parts. */
typedef struct rows {
    qkv_cache_rows r;
    float *x;
    int64_t n;
    int32_t ids[M_SEQS], counts[M_SEQS], first[M_SEQS];
    int64_t starts[M_SEQS];
} rows;

static void put(rows *w, int64_t base, const int64_t stride[3], int i, int head, int t,
                const float *from, int n)
{
    const int64_t at = base + i * stride[0] + head * stride[1] +
                       (w->r.first_rows ? w->first[i] + t : t) * stride[2];
    memcpy(w->x + at, from, (size_t)n * sizeof *from);
}

/* Strides of [tokens][heads][dim], packed, or of [seqs][heads][tokens][dim]. */
static int64_t lay_out(rows *w, int64_t stride[3], int packed, int n, int heads, int most,
                       int total, int dim)
{
    const int64_t base = w->n;
    stride[0] = packed ? 0 : (int64_t)heads * most * dim;
    stride[1] = packed ? dim : (int64_t)most * dim;
    stride[2] = packed ? heads * dim : dim;
    w->n += packed ? (int64_t)total * heads * dim : (int64_t)n * heads * most * dim;
    return base;
}

static void draw(model *m, int n, m_seq **seqs, const int *starts, const int *counts, int type)
{
    for (int i = 0; i < n; i++)
        for (int t = starts[i]; t < starts[i] + counts[i]; t++)
            for (int layer = 0; layer < m->c.n_layers; layer++)
                for (int head = 0; head < m->c.n_kv_heads; head++) {
                    float *x = m_at(m, seqs[i], t, layer, head);
                    for (int c = 0; c < m->c.head_dim + m->c.head_dim_v; c++)
                        x[c] = (float)(t_normal(&m->rng) * (1 + c % 5));
                    round_float(x, m->c.head_dim, (qkv_type)type);
                    round_float(x + m->c.head_dim, m->c.head_dim_v, (qkv_type)type);
                }
}

static const void *in_type(const rows *w, int64_t at, int type)
{
    const size_t size = qkv_type_size((qkv_type)type);
    unsigned char *memory = t_scratch((size_t)w->n * size);
    qkv_convert(memory, (qkv_type)type, w->x, QKV_F32, (size_t)w->n);
    return memory + (size_t)at * size;
}

static void write_layer(model *m, int layer, int n, m_seq **seqs, const int *starts,
                        const int *counts, int type)
{
    const int latent = m->c.flags & QKV_CACHE_LATENT, apart = latent && t_chance(&m->rng, 50);
    const int packed = t_chance(&m->rng, 50), heads = m->c.n_kv_heads;
    const int c = m->c.head_dim_v, d = m->c.head_dim;
    rows w;
    int most = 0, total = 0;

    memset(&w, 0, sizeof w);
    qkv_cache_rows_init(&w.r);
    for (int i = 0; i < n; i++) {
        w.ids[i] = seqs[i]->id;
        w.starts[i] = starts[i];
        w.counts[i] = counts[i];
        w.first[i] = total;
        total += counts[i];
        most = counts[i] > most ? counts[i] : most;
    }
    w.r.first_rows = packed ? w.first : NULL;
    const int64_t k = lay_out(&w, w.r.k_stride, packed, n, heads, most, total, apart ? c : d);
    const int64_t v = lay_out(&w, w.r.v_stride, packed, n, heads, most, total, c);
    const int64_t rope =
        lay_out(&w, w.r.k_rope_stride, packed, n, heads, most, total, d - c > 0 ? d - c : 0);
    w.x = t_scratch((size_t)w.n * sizeof *w.x);
    for (int64_t i = 0; i < w.n; i++)
        w.x[i] = NAN;
    for (int i = 0; i < n; i++)
        for (int head = 0; head < heads; head++)
            for (int t = 0; t < counts[i]; t++) {
                const float *x = m_at(m, seqs[i], starts[i] + t, layer, head);
                put(&w, k, w.r.k_stride, i, head, t, x, apart ? c : d);
                put(&w, v, w.r.v_stride, i, head, t, x + d, c);
                if (apart)
                    put(&w, rope, w.r.k_rope_stride, i, head, t, x + c, d - c);
            }
    w.r.type = type;
    w.r.n_seqs = n;
    w.r.seqs = w.ids;
    w.r.starts = w.starts;
    w.r.counts = w.counts;
    w.r.k = in_type(&w, k, type);
    w.r.v = latent ? NULL : in_type(&w, v, type);
    w.r.k_rope = apart ? in_type(&w, rope, type) : NULL;
    expect(qkv_cache_write(m->cache, layer, &w.r, TEXT), QKV_OK);
}

void m_write(model *m, int n, m_seq **seqs, const int *starts, const int *counts)
{
    const int type = t_chance(&m->rng, 40) ? QKV_F32 : t_chance(&m->rng, 50) ? QKV_F16 : QKV_BF16;

    draw(m, n, seqs, starts, counts, type);
    for (int layer = 0; layer < m->c.n_layers; layer++)
        write_layer(m, layer, n, seqs, starts, counts, type);
    for (int i = 0; i < n; i++) {
        if (starts[i] == 0)
            find_scales(m, seqs[i], counts[i]);
        for (int t = starts[i]; t < starts[i] + counts[i]; t++)
            for (int layer = 0; layer < m->c.n_layers; layer++)
                for (int head = 0; head < m->c.n_kv_heads; head++)
                    round_token(m, seqs[i], layer, head, m_at(m, seqs[i], t, layer, head));
    }
}
