/* pages_spoil.c - junk where no query looks: in rows, scales and tables; and a few visible oddities. */
#include <math.h>
#include <string.h>

#include "pages.h"

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
    return used + (pages_at(t, i0, i1, i2, i3) - (char *)t->memory);
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

    if (pages_coded(t->layout->type))
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
                        spoil_element(x, t, pages_at(t, i0, i1, i2, i3));
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
        if (pages_coded(t->layout->type))
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
    pages_each_key(x, mark_key, &s);
    for (int i = 0; i < PAGES_TENSORS; i++)
        if (pages_has(x, pages_tensor(x, i)))
            spoil_tensor(x, pages_tensor(x, i), s.used[i]);
    if (x->nan_in)
        put_nan(x, pages_tensor(x, x->nan_in - 1), s.used[x->nan_in - 1]);
    /* A few elements that may be seen, too. */
    for (int n = x->p.limits.strange && t_chance(&x->p.rng, 15) ? 3 : 0; n > 0; n--) {
        const t_tensor *t = pages_tensor(x, (int)t_below(&x->p.rng, PAGES_TENSORS));
        if (pages_has(x, t) && t->bytes > 0 && !(t->n[0] * t->n[1] * t->n[2] * t->n[3] == 0))
            spoil_element(x, t, pages_at(t, t_below(&x->p.rng, t->n[0]), t_below(&x->p.rng, t->n[1]),
                                   t_below(&x->p.rng, t->n[2]), t_below(&x->p.rng, t->n[3])));
    }
    if (x->p.desc.page_tokens > 0)
        spoil_table(x);
}
