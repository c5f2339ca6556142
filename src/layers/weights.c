/* layers/weights.c - tensors of any strides and float type, as packed f32. */
#include <string.h>

#include "layers/internal.h"

qkv_layer_weight qkv_layer_weight_dense(const void *data, const void *bias, qkv_type type,
                                        int64_t cols)
{
    qkv_layer_weight w;
    memset(&w, 0, sizeof w);
    w.data = data;
    w.bias = bias;
    w.type = w.bias_type = type;
    w.row_stride = cols;
    w.col_stride = 1;
    return w;
}

static int is_float(int32_t type)
{
    return type >= QKV_F64 && type <= QKV_BF16;
}

qkv_status qkv_weight_check(const qkv_layer_weight *w, int32_t role, int wanted, int bias,
                            qkv_say say)
{
    const char *name = qkv_role_name(role);

    if (!w->data != !wanted)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "weight %s is %s; the description %s", name,
                          w->data ? "given" : "absent",
                          wanted ? "asks for it" : "has no place for it");
    if (!w->bias != !bias)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "the bias of weight %s is %s; the description %s",
                          name, w->bias ? "given" : "absent",
                          bias ? "asks for it" : "has no place for it");
    if ((w->data && !is_float(w->type)) || (w->bias && !is_float(w->bias_type)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "weight %s has type %s and its bias %s; f64, f32, f16 and bf16 are accepted",
                          name, qkv_type_name((qkv_type)w->type),
                          w->bias ? qkv_type_name((qkv_type)w->bias_type) : "none");
    if (w->group_heads < 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "weight %s has group_heads %d; it must be 0 or more",
                          name, w->group_heads);
    return QKV_OK;
}

/* n elements at data + at * size, stride elements apart.  Copied out first, one by one, where they
 * are not aligned. */
static void copy_elements(float *dst, const void *data, int64_t at, int64_t stride, int32_t type,
                          int64_t n)
{
    const size_t size = qkv_type_size((qkv_type)type);
    const unsigned char *from = (const unsigned char *)data + at * (int64_t)size;
    unsigned char raw[8];

    if (stride == 1 && type == QKV_F32) {
        memcpy(dst, from, (size_t)n * size);
    } else if (stride == 1 && (uintptr_t)from % size == 0) {
        qkv_convert(dst, QKV_F32, from, (qkv_type)type, (size_t)n);
    } else {
        for (int64_t i = 0; i < n; i++) {
            memcpy(raw, from + i * stride * (int64_t)size, size);
            qkv_convert(dst + i, QKV_F32, raw, (qkv_type)type, 1);
        }
    }
}

static int64_t row_of(const qkv_layer_weight *w, int64_t r, int64_t head_rows)
{
    const int64_t head = r / head_rows, d = r % head_rows;

    if (w->group_heads == 0)
        return w->first + r;
    return w->first + head / w->group_heads * w->group_stride +
           head % w->group_heads * w->head_stride + d;
}

void qkv_weight_copy(float *dst, const qkv_layer_weight *w, int64_t first, int64_t rows,
                     int64_t cols, int64_t head_rows)
{
    for (int64_t r = 0; r < rows; r++)
        copy_elements(dst + r * cols, w->data, row_of(w, first + r, head_rows) * w->row_stride,
                      w->col_stride, w->type, cols);
}

void qkv_bias_copy(float *dst, const qkv_layer_weight *w, int64_t rows, int64_t head_rows)
{
    for (int64_t r = 0; r < rows; r++)
        copy_elements(dst + r, w->bias, row_of(w, r, head_rows), 1, w->bias_type, 1);
}
