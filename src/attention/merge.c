/*
 * attention/merge.c - partial results of disjoint key sets made one.
 *
 * Weights are formed in double: a merge is a few numbers a row, and double keeps it associative
 * to one rounding of the output type.
 */
#include <math.h>
#include <string.h>

#include "attention/internal.h"
#include "core/convert.h"

enum { MAX_DV = 1024 }; /* one row of double on the stack: 8 KiB */

void qkv_merge_init_sized(qkv_merge_args *args, size_t struct_size)
{
    qkv_merge_args a;

    memset(&a, 0, sizeof a);
    a.struct_size = (uint32_t)struct_size;
    a.type = QKV_F32;
    a.n_seqs = a.n_heads = 1;
    memset(args, 0, struct_size);
    memcpy(args, &a, struct_size < sizeof a ? struct_size : sizeof a);
}

static qkv_status check(const qkv_merge_args *a, qkv_say say)
{
#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
    if (!a || a->struct_size != sizeof *a)
        REFUSE("args is NULL or was not set up by qkv_merge_init");
    if (a->type != QKV_F32 && a->type != QKV_F64)
        REFUSE("type is %d (%s); it must be f32 or f64", a->type, qkv_type_name((qkv_type)a->type));
    if (a->n_parts < 0 || a->n_seqs < 0 || a->n_heads < 0 || a->n_tokens < 0)
        REFUSE("n_parts, n_seqs, n_heads, n_tokens are %d, %d, %d, %lld; all must be 0 or more",
               a->n_parts, a->n_seqs, a->n_heads, (long long)a->n_tokens);
    if (a->head_dim_v < 1 || a->head_dim_v > MAX_DV)
        REFUSE("head_dim_v is %d; it must be 1 .. %d", a->head_dim_v, MAX_DV);
    if (a->n_seqs == 0 || a->n_heads == 0 || a->n_tokens == 0)
        return qkv_accept(say);
    if (!a->o)
        REFUSE("o is NULL");
    if (a->n_parts > 0 && (!a->o_parts || !a->lse_parts))
        REFUSE("o_parts or lse_parts is NULL with n_parts %d", a->n_parts);
    for (int32_t n = 0; n < a->n_parts; n++)
        if (!a->o_parts[n] || !a->lse_parts[n])
            REFUSE("o_parts[%d] or lse_parts[%d] is NULL", n, n);
    return qkv_accept(say);
#undef REFUSE
}

static int64_t offset(const int64_t stride[3], int64_t b, int64_t h, int64_t t)
{
    return b * stride[0] + h * stride[1] + t * stride[2];
}

static void merge_row(const qkv_merge_args *a, int64_t b, int64_t h, int64_t t)
{
    const int64_t lse_at = offset(a->lse_part_stride, b, h, t);
    const int64_t o_at = offset(a->o_part_stride, b, h, t);
    const int64_t out_at = offset(a->o_stride, b, h, t);
    const double sink = a->sinks ? qkv_load_f64(a->sinks, a->type, h) : -INFINITY;
    double acc[MAX_DV];
    double top = sink, sum = 0;
    int empty = 1;

    for (int32_t n = 0; n < a->n_parts; n++) {
        const double lse = qkv_load_f64(a->lse_parts[n], a->type, lse_at);
        top = lse > top ? lse : top;
    }
    sum = sink == -INFINITY ? 0 : exp(sink - top);
    memset(acc, 0, (size_t)a->head_dim_v * sizeof *acc);
    for (int32_t n = 0; n < a->n_parts; n++) {
        const double lse = qkv_load_f64(a->lse_parts[n], a->type, lse_at);
        if (lse == -INFINITY)
            continue;
        const double w = exp(lse - top);
        empty = 0;
        sum += w;
        for (int32_t c = 0; c < a->head_dim_v; c++)
            acc[c] += w * qkv_load_f64(a->o_parts[n], a->type, o_at + c);
    }
    for (int32_t c = 0; c < a->head_dim_v; c++)
        qkv_store_f64(a->o, a->type, out_at + c, empty ? 0 : acc[c] / sum);
    if (a->lse)
        qkv_store_f64(a->lse, a->type, offset(a->lse_stride, b, h, t),
                      empty ? sink : top + log(sum));
}

qkv_status qkv_merge(const qkv_merge_args *args, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_status status = check(args, say);

    if (status != QKV_OK)
        return status;
    for (int64_t b = 0; b < args->n_seqs; b++)
        for (int64_t h = 0; h < args->n_heads; h++)
            for (int64_t t = 0; t < args->n_tokens; t++)
                merge_row(args, b, h, t);
    return QKV_OK;
}
