/*
 * layers/gemm.c - matrix products on BLAS.
 *
 * A product is cut into pieces of fixed size that a parallel loop spreads; sizes do not follow from
 * the number of workers, so neither does the result (if BLAS itself uses one thread).  A piece of
 * 512 x 512 repacks what it shares with its neighbours, which is a copy against 512 FMAs.
 *
 * A few rows are products with vectors: BLAS then reads the weights as they lie, where its matrix
 * kernels would copy them first.  Rows take turns at blocks of weights that stay in a core's cache,
 * so that memory is read once; a row's bits are those that it has alone.
 */
#include <cblas.h>

#include "layers/internal.h"

enum { PIECE = 512, PIECE_OF_FEW_ROWS = 256, FEW_ROWS = 8, COLS_A_TURN = 64 };

typedef struct product_job {
    const qkv_product *p;
    int64_t row_pieces, col_pieces, cols_a_piece;
} product_job;

static void add_bias(float *y, int64_t ldy, int64_t rows, int64_t cols, const float *bias)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            y[r * ldy + c] += bias[c];
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void vector_turn(const qkv_product *p, const float *x, const float *w, float *y, int64_t cols)
{
    if (p->w_transposed)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)cols, (int)p->inner, 1, w, (int)p->ldw, x, 1,
                    0, y, 1);
    else
        cblas_sgemv(CblasRowMajor, CblasTrans, (int)p->inner, (int)cols, 1, w, (int)p->ldw, x, 1, 0,
                    y, 1);
}

static void vectors_piece(const qkv_product *p, const float *x, const float *w, float *y,
                          int64_t cols)
{
    for (int64_t c = 0; c < cols; c += COLS_A_TURN)
        for (int64_t r = 0; r < p->rows; r++)
            vector_turn(p, x + r * p->ldx, w + (p->w_transposed ? c * p->ldw : c),
                        y + r * p->ldy + c, least(COLS_A_TURN, cols - c));
}

static void product_piece(void *arg, int64_t task, int32_t worker)
{
    const product_job *j = arg;
    const qkv_product *p = j->p;
    const int64_t i = task / (j->row_pieces * j->col_pieces);
    const int64_t r0 = task / j->col_pieces % j->row_pieces * PIECE;
    const int64_t c0 = task % j->col_pieces * j->cols_a_piece;
    const int64_t rows = least(PIECE, p->rows - r0), cols = least(j->cols_a_piece, p->cols - c0);
    const float *x = p->x + i * p->x_step + r0 * p->ldx;
    const float *w = p->w + i * p->w_step + (p->w_transposed ? c0 * p->ldw : c0);
    float *y = p->y + i * p->y_step + r0 * p->ldy + c0;

    (void)worker;
    if (p->rows <= FEW_ROWS)
        vectors_piece(p, x, w, y, cols);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, p->w_transposed ? CblasTrans : CblasNoTrans,
                    (int)rows, (int)cols, (int)p->inner, 1, x, (int)p->ldx, w, (int)p->ldw, 0, y,
                    (int)p->ldy);
    if (p->bias)
        add_bias(y, p->ldy, rows, cols, p->bias + c0);
}

void qkv_each(const qkv_parallel *parallel, int64_t n,
              void (*fn)(void *arg, int64_t i, int32_t worker), void *arg)
{
    if (parallel && n > 1) {
        parallel->parallel_for(parallel->ctx, n, fn, arg);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        fn(arg, i, 0);
}

void qkv_product_run(const qkv_product *p, const qkv_parallel *parallel)
{
    product_job job = {p, (p->rows + PIECE - 1) / PIECE, 0, PIECE};

    if (p->rows <= FEW_ROWS)
        job.cols_a_piece = PIECE_OF_FEW_ROWS;
    job.col_pieces = (p->cols + job.cols_a_piece - 1) / job.cols_a_piece;
    qkv_each(parallel, p->n * job.row_pieces * job.col_pieces, product_piece, &job);
}

void qkv_project(const qkv_matrix *m, const float *x, int64_t ldx, float *y, int64_t ldy,
                 int64_t rows, const qkv_parallel *parallel)
{
    const qkv_product p = {x,      m->w, m->bias, y,   rows, m->rows, m->cols,
                           ldx, m->cols, ldy,     1,   1,    0,       0,       0};
    qkv_product_run(&p, parallel);
}

int32_t qkv_layers_blas_threads(int32_t n)
{
#ifdef QKV_OPENBLAS
    const int32_t before = openblas_get_num_threads();
    if (n >= 1)
        openblas_set_num_threads(n);
    return before;
#else
    (void)n;
    return 0;
#endif
}
