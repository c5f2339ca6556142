/* rope/args.c - what is to be turned and by which angles: defaults and checks. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/convert.h"
#include "rope/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const qkv_status try_status = (call);                                                      \
        if (try_status != QKV_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

void qkv_rope_args_init_sized(qkv_rope_args *args, size_t struct_size)
{
    qkv_rope_args a;

    memset(&a, 0, sizeof a);
    a.struct_size = (uint32_t)struct_size;
    a.n_seqs = a.n_heads = 1;
    a.x_layout.type = QKV_F32;
    a.x_layout.stride[3] = 1;
    a.position_stride[1] = 1;
    a.seq_len = QKV_ROPE_AUTO;
    a.table_type = QKV_F32;
    a.table_stride[1] = QKV_ROPE_DENSE;
    memset(args, 0, struct_size);
    memcpy(args, &a, struct_size < sizeof a ? struct_size : sizeof a);
}

void qkv_rope_args_dense(qkv_rope_args *args, const qkv_rope *rope, qkv_type type, int32_t order)
{
    const int64_t dim = rope->head_dim, heads = args->n_heads, tokens = args->n_tokens;
    const int by_token = order == QKV_BTHD;
    const qkv_layout dense = {(int32_t)type,
                              0,
                              {heads * tokens * dim, by_token ? dim : tokens * dim,
                               by_token ? heads * dim : dim, 1}};

    args->x_layout = dense;
}

void qkv_rope_args_resolve(const qkv_rope *rope, const qkv_rope_args *in, qkv_rope_args *a)
{
    qkv_rope_args_init(a);
    memcpy(a, in, in->struct_size < sizeof *a ? in->struct_size : sizeof *a);
    a->struct_size = sizeof *a;
    if (a->y_layout.type == QKV_NONE)
        a->y_layout = a->x_layout;
    if (a->table_stride[1] == QKV_ROPE_DENSE)
        a->table_stride[1] = rope->rotary_dim / 2;
}

static qkv_status load(const qkv_rope *rope, const qkv_rope_args *in, qkv_rope_args *a, qkv_say say)
{
    if (!in || in->struct_size != sizeof *in)
        REFUSE("args is NULL or was not set up by qkv_rope_args_init");
    qkv_rope_args_resolve(rope, in, a);
    return QKV_OK;
}

static qkv_status check_int(qkv_say say, const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        REFUSE("%s is %lld; it must be %lld .. %lld", name, (long long)value, (long long)low,
               (long long)high);
    return QKV_OK;
}

/* ---- angles ------------------------------------------------------------------------------- */

static qkv_status check_angles(const qkv_rope *rope, const qkv_rope_args *a, qkv_say say)
{
    TRY(check_int(say, "inverse", a->inverse, 0, 1));
    if (rope->type == QKV_ROPE_NONE)
        return QKV_OK;
    if (a->seq_len < QKV_ROPE_AUTO || a->seq_len > QKV_ROPE_MAX_POSITION + 1)
        REFUSE("seq_len is %lld; it must be 0 .. 2^53 + 1, or QKV_ROPE_AUTO",
               (long long)a->seq_len);
    if (!a->cos != !a->sin)
        REFUSE("cos is %p and sin %p; give both or neither", a->cos, a->sin);
    if (!a->cos && !a->positions)
        REFUSE("positions is NULL and so are cos and sin; angles need one or the other");
    if ((uintptr_t)a->positions % sizeof(int64_t) != 0)
        REFUSE("positions is at %p; it must be aligned to 8 bytes", (const void *)a->positions);
    if (!a->cos)
        return QKV_OK;
    if (!qkv_type_is_float(a->table_type))
        REFUSE("table_type is %d (%s); it must be f64, f32, f16 or bf16", a->table_type,
               qkv_type_name((qkv_type)a->table_type));
    return check_int(say, "table_rows", a->table_rows, 0, INT64_MAX >> 5);
}

qkv_status qkv_rope_angles_check(const qkv_rope_args *a, int64_t seq, int64_t from, int64_t count,
                                 qkv_say say)
{
    const int64_t low = a->cos ? 0 : -QKV_ROPE_MAX_POSITION;
    const int64_t high = a->cos ? a->table_rows - 1 : QKV_ROPE_MAX_POSITION;

    if (!a->positions && count > 0 && from + count > a->table_rows)
        REFUSE("table_rows is %lld; without positions tokens up to %lld need %lld",
               (long long)a->table_rows, (long long)(from + count - 1), (long long)(from + count));
    for (int64_t t = from; a->positions && t < from + count; t++) {
        const int64_t p = a->positions[seq * a->position_stride[0] + t * a->position_stride[1]];
        if (p < low || p > high)
            REFUSE("position %lld of sequence %lld is %lld; it must be %lld .. %lld%s",
                   (long long)t, (long long)seq, (long long)p, (long long)low, (long long)high,
                   a->cos ? ", a row of the table" : "");
    }
    return QKV_OK;
}

/* Where positions and tables of n sequences of t tokens lie. */
static qkv_status check_angle_memory(const qkv_rope *rope, const qkv_rope_args *a, int64_t n,
                                     int64_t t, qkv_say say)
{
    const int64_t tokens[2] = {n, t};
    const int64_t rows[3] = {n, a->table_rows, rope->rotary_dim / 2};
    const int64_t strides[3] = {a->table_stride[0], a->table_stride[1], 1};

    if (a->positions)
        TRY(qkv_rope_check_memory("positions", a->positions, QKV_I64, tokens, a->position_stride, 2,
                                  NULL, say));
    if (a->cos && a->table_rows > 0) {
        TRY(qkv_rope_check_memory("cos", a->cos, a->table_type, rows, strides, 3, NULL, say));
        TRY(qkv_rope_check_memory("sin", a->sin, a->table_type, rows, strides, 3, NULL, say));
    }
    return QKV_OK;
}

qkv_status qkv_rope_angles_load(const qkv_rope *in, const qkv_rope_args *in_args, qkv_rope *rope,
                                qkv_rope_args *args, qkv_say say)
{
    TRY(qkv_rope_load(in, rope, say));
    TRY(load(rope, in_args, args, say));
    TRY(check_angles(rope, args, say));
    return check_angle_memory(rope, args, 1, 1, say);
}

/* ---- all of it ---------------------------------------------------------------------------- */

qkv_status qkv_rope_args_load(const qkv_rope *rope, const qkv_rope_args *in, qkv_rope_args *a,
                              qkv_say say)
{
    TRY(load(rope, in, a, say));
    TRY(check_int(say, "n_seqs", a->n_seqs, 0, INT32_MAX));
    TRY(check_int(say, "n_heads", a->n_heads, 0, INT32_MAX));
    TRY(check_int(say, "n_tokens", a->n_tokens, 0, INT32_MAX));
    TRY(qkv_rope_check_types(a, rope->head_dim, say));
    TRY(check_angles(rope, a, say));
    if (a->n_seqs == 0 || a->n_heads == 0 || a->n_tokens == 0)
        return QKV_OK;
    TRY(qkv_rope_check_tensors(a, rope->head_dim, say));
    if (rope->type == QKV_ROPE_NONE)
        return QKV_OK;
    TRY(check_angle_memory(rope, a, a->n_seqs, a->n_tokens, say));
    for (int64_t b = 0; b < (a->position_stride[0] == 0 ? 1 : a->n_seqs); b++)
        TRY(qkv_rope_angles_check(a, b, 0, a->n_tokens, say));
    return QKV_OK;
}

qkv_status qkv_rope_args_check(const qkv_rope *rope, const qkv_rope_args *args, char *text,
                               size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_rope full;
    qkv_rope_args resolved;
    qkv_status status = qkv_rope_load(rope, &full, say);

    if (status == QKV_OK)
        status = qkv_rope_args_load(&full, args, &resolved, say);
    return status == QKV_OK ? qkv_accept(say) : status;
}
