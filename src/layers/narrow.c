/* layers/narrow.c - products with matrices kept in 16 or 8 bits, piece by piece. */
#include <string.h>

#include "layers/internal.h"
#include "layers/onednn.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static size_t aligned(size_t bytes)
{
    return (bytes + QKV_LAYERS_ALIGN - 1) / QKV_LAYERS_ALIGN * QKV_LAYERS_ALIGN;
}

/* ---- layouts ---------------------------------------------------------------------------- */

size_t qkv_narrow_bytes(const qkv_narrow *n, int64_t rows)
{
    const size_t whole = (size_t)(rows / QKV_NARROW_COLS);
    return whole * n->bytes[0] + (rows % QKV_NARROW_COLS ? n->bytes[1] : 0);
}

qkv_status qkv_narrow_layouts(qkv_narrow *n, int32_t format, int64_t rows, int64_t cols)
{
    const int64_t outputs[2] = {rows >= QKV_NARROW_COLS ? QKV_NARROW_COLS : 0,
                                rows % QKV_NARROW_COLS};
    qkv_status status = QKV_OK;

    n->format = format;
    for (int i = 0; i < 2 && status == QKV_OK; i++)
        if (outputs[i]) {
            status = qkv_onednn_layout(format, outputs[i], cols, &n->layouts[i], &n->bytes[i]);
            n->bytes[i] = aligned(n->bytes[i]);
        }
    return status;
}

void qkv_narrow_end(qkv_narrow *n)
{
    qkv_onednn_layout_end(n->layouts[0]);
    qkv_onednn_layout_end(n->layouts[1]);
    n->layouts[0] = n->layouts[1] = NULL;
}

/* ---- plans ------------------------------------------------------------------------------ */

qkv_status qkv_narrow_plan(const qkv_matrix *m, int64_t rows, qkv_narrow_product *p)
{
    const qkv_narrow *n = &m->narrow;
    const int bytes = n->format == QKV_WEIGHTS_INT8;
    qkv_status status = QKV_OK;

    if (n->format == QKV_WEIGHTS_F32 || rows == 0)
        return QKV_OK;
    p->rows = rows;
    p->rows_a_piece = bytes ? QKV_NARROW_ROWS_INT8 : QKV_NARROW_ROWS;
    const int64_t whole = rows >= p->rows_a_piece ? p->rows_a_piece : 0;
    const int64_t last = rows % p->rows_a_piece;
    for (int r = 0; r < 2; r++) {
        const int64_t given = r ? last : whole;
        const int64_t made = bytes ? 2 * given : rows < QKV_NARROW_FEW ? QKV_NARROW_FEW : given;
        for (int c = 0; c < 2 && given && status == QKV_OK; c++)
            if (n->layouts[c])
                status = qkv_onednn_product(n->layouts[c], made, &p->products[r][c], &p->scratch);
    }
    return status;
}

void qkv_narrow_plan_end(qkv_narrow_product *p)
{
    for (int i = 0; i < 4; i++) {
        qkv_onednn_product_end(p->products[i / 2][i % 2]);
        p->products[i / 2][i % 2] = NULL;
    }
}

/* Bytes of a row of x as codes. */
static size_t bytes_of_row(const qkv_matrix *m)
{
    return (size_t)m->cols * (m->narrow.format == QKV_WEIGHTS_F32_PACKED ? sizeof(float) : 2);
}

/* x as codes, then a scale of each row. */
static size_t bytes_of_codes(const qkv_matrix *m, int64_t rows)
{
    return aligned((size_t)(rows < QKV_NARROW_FEW ? QKV_NARROW_FEW : rows) * bytes_of_row(m));
}

size_t qkv_narrow_shared_bytes(const qkv_matrix *m, int64_t rows)
{
    if (m->narrow.format == QKV_WEIGHTS_F32 || rows == 0)
        return 0;
    return bytes_of_codes(m, rows) + aligned((size_t)rows * sizeof(float));
}

/* A piece of y, in int8 two. */
static size_t bytes_of_stage(const qkv_narrow_product *p)
{
    const int64_t rows = least(p->rows, p->rows_a_piece);
    return (size_t)(2 * rows + QKV_NARROW_FEW) * QKV_NARROW_COLS * sizeof(float);
}

size_t qkv_narrow_worker_bytes(const qkv_narrow_product *p)
{
    return p->rows ? bytes_of_stage(p) + aligned(p->scratch) : 0;
}

/* ---- a run ------------------------------------------------------------------------------ */

typedef struct narrow_job {
    const qkv_matrix *m;
    const qkv_narrow_product *p;
    const float *x;
    float *y;
    int64_t ldx, row_pieces;
    unsigned char *codes, *workers;
    float *scales;
    size_t worker_bytes;
    int32_t status; /* the first failure of a piece; written by any thread */
} narrow_job;

enum { ROWS_A_TASK = 16 };

static void narrow_rows(void *arg, int64_t task, int32_t worker)
{
    const narrow_job *j = arg;
    const int64_t n = j->m->cols, end = least((task + 1) * ROWS_A_TASK, j->p->rows);

    (void)worker;
    for (int64_t t = task * ROWS_A_TASK; t < end; t++) {
        unsigned char *to = j->codes + (size_t)t * bytes_of_row(j->m);
        const float *x = j->x + t * j->ldx;
        if (j->m->narrow.format == QKV_WEIGHTS_INT8)
            qkv_row_to_bytes(x, n, to, to + n, &j->scales[t]);
        else if (j->m->narrow.format == QKV_WEIGHTS_BF16)
            qkv_convert(to, QKV_BF16, x, QKV_F32, (size_t)n);
        else
            memcpy(to, x, (size_t)n * sizeof *x);
    }
}

/* From the stage into y. */
static void unstage(const narrow_job *j, const void *stage, int64_t r0, int64_t rows, int64_t c0,
                    int64_t cols)
{
    const qkv_narrow *n = &j->m->narrow;
    const float *bias = j->m->bias ? j->m->bias + c0 : NULL;

    for (int64_t r = 0; r < rows; r++) {
        float *y = j->y + (r0 + r) * j->m->rows + c0;
        if (n->format == QKV_WEIGHTS_INT8) {
            const int32_t *high = (const int32_t *)stage + 2 * r * cols;
            qkv_row_of_sums(y, high, high + cols, cols, j->scales[r0 + r], n->scales + c0,
                            n->sums + c0);
        } else {
            memcpy(y, (const float *)stage + r * cols, (size_t)cols * sizeof *y);
        }
        for (int64_t c = 0; bias && c < cols; c++)
            y[c] += bias[c];
    }
}

static void product_piece(void *arg, int64_t task, int32_t worker)
{
    narrow_job *j = arg;
    const qkv_matrix *m = j->m;
    const qkv_narrow_product *p = j->p;
    const int64_t r0 = task % j->row_pieces * p->rows_a_piece, piece = task / j->row_pieces;
    const int64_t rows = least(p->rows_a_piece, p->rows - r0);
    const int64_t c0 = piece * QKV_NARROW_COLS, cols = least(QKV_NARROW_COLS, m->rows - c0);
    unsigned char *stage = j->workers + (size_t)worker * j->worker_bytes;
    const void *product = p->products[rows < p->rows_a_piece][cols < QKV_NARROW_COLS];

    const qkv_status status = qkv_onednn_run(
        product, j->codes + (size_t)r0 * bytes_of_row(m), m->narrow.codes + (size_t)piece * m->narrow.bytes[0],
        stage, stage + bytes_of_stage(p));
    if (status == QKV_OK)
        unstage(j, stage, r0, rows, c0, cols);
    else
        __atomic_store_n(&j->status, status, __ATOMIC_RELAXED);
}

qkv_status qkv_narrow_run(const qkv_matrix *m, const qkv_narrow_product *p, const float *x,
                          int64_t ldx, float *y, const qkv_parallel *parallel, void *shared,
                          unsigned char *workers, size_t worker_bytes)
{
    narrow_job j = {.m = m, .p = p, .x = x, .y = y, .ldx = ldx, .codes = shared,
                    .workers = workers, .worker_bytes = worker_bytes, .status = QKV_OK};

    j.scales = (float *)(void *)(j.codes + bytes_of_codes(m, p->rows));
    j.row_pieces = (p->rows + p->rows_a_piece - 1) / p->rows_a_piece;
    if (p->rows < QKV_NARROW_FEW)
        memset(j.codes, 0, bytes_of_codes(m, p->rows));
    qkv_each(parallel, (p->rows + ROWS_A_TASK - 1) / ROWS_A_TASK, narrow_rows, &j);
    qkv_each(parallel, j.row_pieces * qkv_narrow_pieces(m->rows), product_piece, &j);
    return (qkv_status)j.status;
}
