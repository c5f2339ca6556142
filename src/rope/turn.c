/*
 * rope/turn.c - see turn.h.
 *
 * The loops are written so that the compiler makes vectors of them: in place and elsewhere are two
 * functions, because to one that serves both the arrays overlap.  Rows of 16 bits are widened into
 * scratch, turned there and rounded once on the way out.
 */
#include <string.h>

#include "core/convert_rows.h"
#include "core/convert.h"
#include "rope/internal.h"

/* ---- pairs ------------------------------------------------------------------------------- */

/* Two runs of n channels, partners side by side in them; and one run of 2n, partners in a row. */
#define TURN(real)                                                                                 \
    static void halves_here_##real(real *restrict a, real *restrict b, const real *restrict c,     \
                                   const real *restrict s, int32_t n)                              \
    {                                                                                              \
        for (int32_t i = 0; i < n; i++) {                                                          \
            const real x1 = a[i], x2 = b[i];                                                       \
            a[i] = c[i] * x1 - s[i] * x2;                                                          \
            b[i] = s[i] * x1 + c[i] * x2;                                                          \
        }                                                                                          \
    }                                                                                              \
    static void halves_##real(real *restrict ya, real *restrict yb, const real *restrict xa,       \
                              const real *restrict xb, const real *restrict c,                     \
                              const real *restrict s, int32_t n)                                   \
    {                                                                                              \
        for (int32_t i = 0; i < n; i++) {                                                          \
            ya[i] = c[i] * xa[i] - s[i] * xb[i];                                                   \
            yb[i] = s[i] * xa[i] + c[i] * xb[i];                                                   \
        }                                                                                          \
    }                                                                                              \
    static void couples_here_##real(real *restrict x, const real *restrict c,                      \
                                    const real *restrict s, int32_t n)                             \
    {                                                                                              \
        for (int32_t i = 0; i < n; i++) {                                                          \
            const real x1 = x[2 * i], x2 = x[2 * i + 1];                                           \
            x[2 * i] = c[i] * x1 - s[i] * x2;                                                      \
            x[2 * i + 1] = s[i] * x1 + c[i] * x2;                                                  \
        }                                                                                          \
    }                                                                                              \
    static void couples_##real(real *restrict y, const real *restrict x, const real *restrict c,   \
                               const real *restrict s, int32_t n)                                  \
    {                                                                                              \
        for (int32_t i = 0; i < n; i++) {                                                          \
            const real x1 = x[2 * i], x2 = x[2 * i + 1];                                           \
            y[2 * i] = c[i] * x1 - s[i] * x2;                                                      \
            y[2 * i + 1] = s[i] * x1 + c[i] * x2;                                                  \
        }                                                                                          \
    }                                                                                              \
    static void turn_##real(const qkv_rope_places *p, const real *c, const real *s, real *y,       \
                            const real *x)                                                         \
    {                                                                                              \
        real *to = y + p->first;                                                                   \
        const real *from = x + p->first;                                                           \
        if (p->step == 1 && y == x)                                                                \
            halves_here_##real(to, to + p->apart, c, s, p->pairs);                                 \
        else if (p->step == 1)                                                                     \
            halves_##real(to, to + p->apart, from, from + p->apart, c, s, p->pairs);               \
        else if (y == x)                                                                           \
            couples_here_##real(to, c, s, p->pairs);                                               \
        else                                                                                       \
            couples_##real(to, from, c, s, p->pairs);                                              \
    }
TURN(float)
TURN(double)

/* ---- rows -------------------------------------------------------------------------------- */

/* Channels from .. end-1 as they are, or in the other type. */
static void pass(void *y, int32_t y_type, const void *x, int32_t x_type, int32_t from, int32_t end)
{
    const int64_t y_size = (int64_t)qkv_type_size((qkv_type)y_type);
    const int64_t x_size = (int64_t)qkv_type_size((qkv_type)x_type);

    if (end <= from || (y == x && y_type == x_type))
        return;
    if (y_type == x_type)
        memcpy((char *)y + from * y_size, (const char *)x + from * x_size,
               (size_t)((end - from) * x_size));
    else
        qkv_row_convert((char *)y + from * y_size, y_type, (const char *)x + from * x_size, x_type,
                        end - from);
}

/* Types that are not both f32: the one or two runs of channels that turn pass through scratch. */
static void turn_wide(const qkv_rope_places *p, const float *c, const float *s, void *y,
                      int32_t y_type, const void *x, int32_t x_type)
{
    const int64_t y_size = (int64_t)qkv_type_size((qkv_type)y_type);
    const int64_t x_size = (int64_t)qkv_type_size((qkv_type)x_type);
    const int32_t runs = p->step == 1 ? 2 : 1, n = p->pairs * p->step;
    const qkv_rope_places packed = {p->pairs, 0, p->step, p->step == 1 ? p->pairs : 1, 0};
    float wide[2 * QKV_ROPE_MAX_PAIRS];

    for (int32_t k = 0; k < runs; k++)
        qkv_row_convert(wide + k * n, QKV_F32,
                        (const char *)x + (p->first + k * p->apart) * x_size, x_type, n);
    turn_float(&packed, c, s, wide, wide);
    for (int32_t k = 0; k < runs; k++)
        qkv_row_convert((char *)y + (p->first + k * p->apart) * y_size, y_type, wide + k * n,
                        QKV_F32, n);
}

void qkv_rope_turn_row(const qkv_rope_places *p, const void *c, const void *s, void *y,
                       int32_t y_type, const void *x, int32_t x_type)
{
    const int32_t run = p->pairs * p->step, first_end = p->first + run;

    pass(y, y_type, x, x_type, 0, p->first);
    if (p->step == 1) {
        pass(y, y_type, x, x_type, first_end, p->first + p->apart);
        pass(y, y_type, x, x_type, p->first + p->apart + run, p->dim);
    } else {
        pass(y, y_type, x, x_type, first_end, p->dim);
    }
    if (x_type == QKV_F64)
        turn_double(p, c, s, y, x);
    else if (x_type == QKV_F32 && y_type == QKV_F32)
        turn_float(p, c, s, y, x);
    else
        turn_wide(p, c, s, y, y_type, x, x_type);
}

qkv_rope_places qkv_rope_places_of(const qkv_rope *r)
{
    const int couples = r->pairing == QKV_ROPE_INTERLEAVED;
    const qkv_rope_places p = {r->rotary_dim / 2, r->rotary_offset, couples ? 2 : 1,
                               couples ? 1 : qkv_rope_width(r) / 2, r->head_dim};
    return p;
}

/* ---- angles ------------------------------------------------------------------------------ */

void qkv_rope_turner_init(qkv_rope_turner *t, const qkv_rope *rope, const qkv_rope_args *args,
                          int32_t compute)
{
    t->rope = rope;
    t->args = args;
    t->places = qkv_rope_places_of(rope);
    t->seq = t->token = t->length = -1;
    t->cos = t->sin = NULL;
    t->compute = compute;
}

int64_t qkv_rope_longest(const qkv_rope_args *args, int64_t seq, int64_t from, int64_t count)
{
    int64_t longest = 0;

    for (int64_t t = from; t < from + count; t++) {
        const int64_t p =
            args->positions[seq * args->position_stride[0] + t * args->position_stride[1]];
        longest = p >= longest ? p + 1 : longest;
    }
    return longest;
}

static void set_sequence(qkv_rope_turner *t, int64_t seq)
{
    int64_t length = 0;

    t->seq = seq;
    t->token = -1;
    if (t->args->cos)
        return;
    if (qkv_rope_has_length(t->rope))
        length = t->args->seq_len == QKV_ROPE_AUTO
                     ? qkv_rope_longest(t->args, seq, 0, t->args->n_tokens)
                     : t->args->seq_len;
    if (length != t->length)
        qkv_rope_find(t->rope, length, &t->numbers);
    t->length = length;
}

static void put(qkv_rope_turner *t, int32_t i, double c, double s)
{
    const double turned = t->args->inverse ? -s : s;

    if (t->compute == QKV_F64) {
        t->angles.f64[0][i] = c;
        t->angles.f64[1][i] = turned;
    } else {
        t->angles.f32[0][i] = (float)c;
        t->angles.f32[1][i] = (float)turned;
    }
}

/* Row `row` of a table, as it lies if that will do. */
static void set_from_table(qkv_rope_turner *t, int64_t row)
{
    const qkv_rope_args *a = t->args;
    const int64_t at = t->seq * a->table_stride[0] + row * a->table_stride[1];

    if (a->table_type == t->compute && !a->inverse) {
        const int64_t skip = at * (int64_t)qkv_type_size((qkv_type)a->table_type);
        t->cos = (const char *)a->cos + skip;
        t->sin = (const char *)a->sin + skip;
        return;
    }
    for (int32_t i = 0; i < t->places.pairs; i++)
        put(t, i, qkv_load_f64(a->cos, a->table_type, at + i),
            qkv_load_f64(a->sin, a->table_type, at + i));
}

static void set_token(qkv_rope_turner *t, int64_t token)
{
    const qkv_rope_args *a = t->args;
    int64_t p = token;

    t->token = token;
    if (a->positions)
        p = a->positions[t->seq * a->position_stride[0] + token * a->position_stride[1]];
    t->cos = t->compute == QKV_F64 ? (const void *)t->angles.f64[0] : t->angles.f32[0];
    t->sin = t->compute == QKV_F64 ? (const void *)t->angles.f64[1] : t->angles.f32[1];
    if (a->cos) {
        set_from_table(t, p);
        return;
    }
    for (int32_t i = 0; i < t->places.pairs; i++) {
        double c, s;
        qkv_rope_angle(&t->numbers, p, i, &c, &s);
        put(t, i, c, s);
    }
}

void qkv_rope_turner_row(qkv_rope_turner *t, int64_t seq, int64_t token, void *y, int32_t y_type,
                         const void *x, int32_t x_type)
{
    if (t->places.pairs > 0 && seq != t->seq)
        set_sequence(t, seq);
    if (t->places.pairs > 0 && token != t->token)
        set_token(t, token);
    qkv_rope_turn_row(&t->places, t->cos, t->sin, y, y_type, x, x_type);
}
