/* layers/pack.c - stacks of weights as the matrices of a layer, in f32 or narrow. */
#include "layers/pack.h"

#include <string.h>

#include "layers/onednn.h"

/* Rows first .. first + count of a stack, as f32. */
static void gather(const qkv_packer *p, const qkv_slab *slabs, int n, int64_t first, int64_t count,
                   int64_t cols, float *to)
{
    int64_t begin = 0;

    for (int i = 0; i < n; begin += slabs[i++].rows) {
        const int64_t from = first > begin ? first : begin;
        const int64_t end = begin + slabs[i].rows < first + count ? begin + slabs[i].rows
                                                                  : first + count;
        if (from < end)
            qkv_weight_copy(to + (from - first) * cols, &p->weights[slabs[i].role], from - begin,
                            end - from, cols, slabs[i].head_rows);
    }
}

static void copy_biases(const qkv_packer *p, qkv_matrix *m, const qkv_slab *slabs, int n)
{
    int64_t row = 0;

    for (int i = 0; i < n; row += slabs[i++].rows) {
        const qkv_layer_weight *w = &p->weights[slabs[i].role];
        if (w->bias)
            qkv_bias_copy(m->bias + row, w, slabs[i].rows, slabs[i].head_rows);
        else
            memset(m->bias + row, 0, (size_t)slabs[i].rows * sizeof(float));
    }
}

/* `count` rows of numbers as codes, by rows. */
static void encode(qkv_matrix *m, int64_t first, int64_t count, const float *rows, void *codes)
{
    if (m->narrow.format == QKV_WEIGHTS_F32_PACKED)
        memcpy(codes, rows, (size_t)(count * m->cols) * sizeof *rows);
    else if (m->narrow.format == QKV_WEIGHTS_BF16)
        qkv_convert(codes, QKV_BF16, rows, QKV_F32, (size_t)(count * m->cols));
    else
        for (int64_t r = 0; r < count; r++)
            qkv_weights_to_codes(rows + r * m->cols, m->cols, (int8_t *)codes + r * m->cols,
                                 &m->narrow.scales[first + r], &m->narrow.sums[first + r]);
}

static void fill_narrow(qkv_packer *p, qkv_matrix *m, const qkv_slab *slabs, int n)
{
    const qkv_narrow *narrow = &m->narrow;
    float *rows = p->scratch;
    void *codes = rows + QKV_NARROW_COLS * m->cols;

    for (int64_t first = 0; first < m->rows && p->status == QKV_OK; first += QKV_NARROW_COLS) {
        const int64_t left = m->rows - first;
        const int64_t count = left < QKV_NARROW_COLS ? left : QKV_NARROW_COLS;
        const size_t piece = (size_t)(first / QKV_NARROW_COLS);
        gather(p, slabs, n, first, count, m->cols, rows);
        encode(m, first, count, rows, codes);
        p->status = qkv_onednn_place(narrow->layouts[count < QKV_NARROW_COLS], codes,
                                     narrow->codes + piece * narrow->bytes[0]);
    }
}

static void pack_narrow(qkv_packer *p, qkv_matrix *m, int32_t format, const qkv_slab *slabs, int n)
{
    const size_t scratch = (size_t)m->cols * QKV_NARROW_COLS * 2 * sizeof(float);
    qkv_narrow *narrow = &m->narrow;

    if (!p->carver.memory && p->status == QKV_OK)
        p->status = qkv_narrow_layouts(narrow, format, m->rows, m->cols);
    p->scratch_bytes = scratch > p->scratch_bytes ? scratch : p->scratch_bytes;
    narrow->codes = qkv_carve(&p->carver, qkv_narrow_bytes(narrow, m->rows));
    if (format == QKV_WEIGHTS_INT8) {
        narrow->scales = qkv_carve(&p->carver, (size_t)m->rows * sizeof(float));
        narrow->sums = qkv_carve(&p->carver, (size_t)m->rows * sizeof(int32_t));
    }
    if (p->carver.memory)
        fill_narrow(p, m, slabs, n);
}

void qkv_pack_matrix(qkv_packer *p, qkv_matrix *m, int32_t format, const qkv_slab *slabs, int n,
                     int64_t cols)
{
    int biases = 0;

    m->rows = 0;
    m->cols = cols;
    for (int i = 0; i < n; i++) {
        m->rows += slabs[i].rows;
        biases += p->weights[slabs[i].role].bias != NULL;
    }
    if (format != QKV_WEIGHTS_F32) {
        pack_narrow(p, m, format, slabs, n);
    } else {
        m->w = qkv_carve(&p->carver, (size_t)(m->rows * cols) * sizeof(float));
        if (m->w)
            gather(p, slabs, n, 0, m->rows, cols, m->w);
    }
    m->bias = biases ? qkv_carve(&p->carver, (size_t)m->rows * sizeof(float)) : NULL;
    if (m->bias)
        copy_biases(p, m, slabs, n);
}
