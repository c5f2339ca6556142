/*
 * append.c - one token of one layer into a cache: room, keys and values, commit.
 *
 * Rows come from a few tokens that the nearest cache holds, as those of a projection do.  When the
 * cache is full its sequence begins again.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "case.h"

enum { HOT = 8 /* tokens that are appended in turn */ };

static qkv_status append(bench_case *c, char *text)
{
    bench_store *s = c->store;
    const int32_t *seq = s->seqs, one = 1;
    const int64_t at = qkv_cache_length(s->cache, *seq), hot = c->turn++ % HOT;
    qkv_cache_rows rows;
    qkv_status status = QKV_OK;

    if (at == c->shape.Tk)
        (void)qkv_cache_reset(s->cache, *seq);
    status = qkv_cache_reserve(s->cache, 1, seq, &one, text, CLI_TEXT);
    if (status != QKV_OK)
        return status;
    bench_store_rows(s, 0, hot, seq, NULL, &one, &rows);
    status = qkv_cache_write(s->cache, 0, &rows, text, CLI_TEXT);
    if (status != QKV_OK)
        return status;
    return qkv_cache_commit(s->cache, 1, seq, NULL, text, CLI_TEXT);
}

/* Refusals show in the error: nothing could be read back. */
void bench_append_run(bench_case *c)
{
    char text[CLI_TEXT];
    (void)append(c, text);
}

/* ---- what came of it ---------------------------------------------------------------------- */

typedef struct range {
    double low, high, top; /* top: the largest magnitude */
} range;

static range range_of(const float *x, int32_t n)
{
    range r = {(double)x[0], (double)x[0], 0};

    for (int32_t i = 0; i < n; i++) {
        r.low = fmin(r.low, (double)x[i]);
        r.high = fmax(r.high, (double)x[i]);
    }
    r.top = fmax(fabs(r.low), fabs(r.high));
    return r;
}

/* How far a format may be from x in a row of that range (include/qkv/formats.h): half a step, and a
 * little for the rounding of the scale itself.  f32 keeps what it is given. */
static double bound(int32_t format, const range *r, double x)
{
    switch (format) {
    case QKV_FORMAT_F16:
        return fabs(x) * 0x1p-11 + 0x1p-25;
    case QKV_FORMAT_BF16:
        return fabs(x) * 0x1p-8 + 0x1p-133;
    case QKV_FORMAT_INT8:
        return r->top / 127 * (0.5 + 0x1p-10);
    case QKV_FORMAT_INT4: /* minimum rounded down and step rounded up, both f16 */
        return (r->high - r->low + r->top * 0x1p-10) / 15 * (1 + 0x1p-9) * (0.5 + 0x1p-10);
    case QKV_FORMAT_E4M3:
        return fmax(fabs(x) * 0x1p-4, r->top / 448 * 0x1p-10) * (1 + 0x1p-10);
    case QKV_FORMAT_E5M2:
        return fmax(fabs(x) * 0x1p-3, r->top / 57344 * 0x1p-17) * (1 + 0x1p-10);
    default:
        return fabs(x) * (double)FLT_EPSILON;
    }
}

/* One row of `n` channels, as stored against as given. */
static void compare(const bench_case *c, const float *got, const void *given, int32_t n,
                    bench_error *error)
{
    float x[1024];

    (void)qkv_convert(x, QKV_F32, given, c->shape.type, (size_t)n);
    const range r = range_of(x, n);
    for (int32_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - (double)x[i]);
        const double share = e / fmax(bound(c->shape.format, &r, (double)x[i]), DBL_MIN);
        /* Written so that a NaN becomes the result. */
        error->largest = e <= error->largest ? error->largest : e;
        error->over_budget = share <= error->over_budget ? error->over_budget : share;
    }
}

/* A token is appended and read back: keys and values of all heads. */
int bench_append_error(bench_case *c, bench_error *error)
{
    const bench_shape *s = &c->shape;
    const int64_t stride[2] = {s->D, 0}, v_stride[2] = {s->Dv, 0};
    const int64_t size = (int64_t)qkv_type_size(s->type), hot = c->turn % HOT;
    const size_t bytes = (size_t)s->Hkv * (size_t)(s->D + s->Dv) * sizeof(float);
    float *k = malloc(bytes), *v = k + (int64_t)s->Hkv * s->D;
    qkv_cache_rows rows;
    char text[CLI_TEXT];

    *error = (bench_error){0, 0};
    if (k == NULL)
        return cli_complain_memory("a token", bytes);
    qkv_status status = append(c, text);
    const int64_t last = qkv_cache_length(c->store->cache, c->store->seqs[0]) - 1;
    if (status == QKV_OK)
        status = qkv_cache_read(c->store->cache, 0, c->store->seqs[0], last, 1, QKV_F32, k, stride,
                                v, v_stride, text, sizeof text);
    bench_store_rows(c->store, 0, hot, NULL, NULL, NULL, &rows);
    for (int64_t h = 0; status == QKV_OK && h < s->Hkv; h++) {
        compare(c, k + h * s->D, (const char *)rows.k + h * s->D * size, s->D, error);
        compare(c, v + h * s->Dv, (const char *)rows.v + h * s->Dv * size, s->Dv, error);
    }
    free(k);
    return status == QKV_OK ? CLI_DONE : cli_complain("%s: %s", s->name, text);
}
