/*
 * layers/narrow.h - matrices kept in 16 or 8 bits, or packed, and their products.
 *
 * The output channels of a matrix are cut into pieces, each a matrix of its own in the layout that
 * oneDNN wants, so that a product is cut as those of gemm.c are, and its pieces are any thread's.
 * A piece of y is made in scratch, 256 KiB, and goes into y with its scales and bias.
 *
 *     bf16   x and w are rounded to bf16, the products of a channel are summed in f32.
 *     int8   w is codes -127 .. 127 times a scale of the output channel.  A row of x is 16-bit
 *            integers times a scale of the row, which are two rows of bytes; their products with
 *            the codes are exact.  So x is as good as given, and rounding w is what it costs:
 *            one row of bytes would be as fast again and would add as much error as the codes have.
 *     f32_packed   as they are, in the order that a product reads them.
 *
 * In int8 a row of x that is not finite gives NaN in all channels, a row of w that is not finite
 * gives NaN in its channel.
 */
#ifndef QKV_LAYERS_NARROW_H
#define QKV_LAYERS_NARROW_H

#include <stddef.h>
#include <stdint.h>

#include "core/say.h"

enum {
    QKV_NARROW_COLS = 256,      /* output channels of a piece */
    QKV_NARROW_ROWS = 256, /* rows of x in a piece */
    QKV_NARROW_ROWS_INT8 = 128,
    QKV_NARROW_FEW = 4 /* fewer rows of floats take longer than so many */
};

/* A matrix [rows][cols] as codes; format QKV_WEIGHTS_F32: it is not kept so. */
typedef struct qkv_narrow {
    int32_t format;
    void *layouts[2];    /* of a whole piece, and of the last if that is smaller */
    size_t bytes[2];
    unsigned char *codes;
    float *scales;       /* int8: of each row */
    int32_t *sums;       /* int8: 128 times the sum of each row's codes */
} qkv_narrow;

/* A product of a matrix with so many rows of x; rows 0: there is none. */
typedef struct qkv_narrow_product {
    int64_t rows, rows_a_piece;
    void *products[2][2]; /* [of the last rows][of the last columns] */
    size_t scratch;       /* bytes of oneDNN, a worker */
} qkv_narrow_product;

struct qkv_matrix;
struct qkv_parallel;

static inline int64_t qkv_narrow_pieces(int64_t rows)
{
    return (rows + QKV_NARROW_COLS - 1) / QKV_NARROW_COLS;
}

/* ---- narrow.c: products ----------------------------------------------------------------- */

/* Bytes of all codes of a matrix whose layouts are known. */
size_t qkv_narrow_bytes(const qkv_narrow *n, int64_t rows);
qkv_status qkv_narrow_layouts(qkv_narrow *n, int32_t format, int64_t rows, int64_t cols);
void qkv_narrow_end(qkv_narrow *n);

qkv_status qkv_narrow_plan(const struct qkv_matrix *m, int64_t rows, qkv_narrow_product *p);
void qkv_narrow_plan_end(qkv_narrow_product *p);
/* Bytes of workspace: of x as codes, and for each worker. */
size_t qkv_narrow_shared_bytes(const struct qkv_matrix *m, int64_t rows);
size_t qkv_narrow_worker_bytes(const qkv_narrow_product *p);

/* y = x m^T + bias, rows of x ldx apart, those of y m->rows. */
qkv_status qkv_narrow_run(const struct qkv_matrix *m, const qkv_narrow_product *p, const float *x,
                          int64_t ldx, float *y, const struct qkv_parallel *parallel, void *shared,
                          unsigned char *workers, size_t worker_bytes);

/* ---- narrow_rows.c: numbers to codes and back -------------------------------------------- */

/* n weights as codes; *sum is 128 times the sum of them. */
void qkv_weights_to_codes(const float *w, int64_t n, int8_t *codes, float *scale, int32_t *sum);
/* n numbers as 16-bit integers: 256 (high - 128) + low, times *scale. */
void qkv_row_to_bytes(const float *x, int64_t n, uint8_t *high, uint8_t *low, float *scale);
/* y = scale * scales * (256 (high - sums) + low), the sums of products of those. */
void qkv_row_of_sums(float *y, const int32_t *high, const int32_t *low, int64_t n, float scale,
                     const float *scales, const int32_t *sums);

#endif
