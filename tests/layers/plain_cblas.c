/*
 * plain_cblas.c - the BLAS that layers call, as plain loops.
 *
 * A race detector sees only what was compiled for it, and the system's BLAS was not: what it reads and
 * writes for several workers at once would go unseen.  The test program of a build with the thread
 * sanitizer has these functions in itself, so the linker takes them before those of the library.
 */
#include <cblas.h>

static float element(const float *m, int ld, int transposed, int row, int col)
{
    return transposed ? m[(long)col * ld + row] : m[(long)row * ld + col];
}

void cblas_sgemm(const enum CBLAS_ORDER order, const enum CBLAS_TRANSPOSE ta,
                 const enum CBLAS_TRANSPOSE tb, const blasint m, const blasint n, const blasint k,
                 const float alpha, const float *a, const blasint lda, const float *b,
                 const blasint ldb, const float beta, float *c, const blasint ldc)
{
    (void)order; /* rows first, which is all that layers use */
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int l = 0; l < k; l++)
                sum += element(a, lda, ta == CblasTrans, i, l) *
                       element(b, ldb, tb == CblasTrans, l, j);
            float *to = &c[(long)i * ldc + j];
            *to = alpha * sum + (beta != 0 ? beta * *to : 0);
        }
}

void cblas_sgemv(const enum CBLAS_ORDER order, const enum CBLAS_TRANSPOSE trans, const blasint m,
                 const blasint n, const float alpha, const float *a, const blasint lda,
                 const float *x, const blasint incx, const float beta, float *y,
                 const blasint incy)
{
    const int transposed = trans == CblasTrans;
    const int rows = transposed ? n : m, cols = transposed ? m : n;

    (void)order;
    for (int i = 0; i < rows; i++) {
        float sum = 0;
        for (int l = 0; l < cols; l++)
            sum += element(a, lda, transposed, i, l) * x[(long)l * incx];
        float *to = &y[(long)i * incy];
        *to = alpha * sum + (beta != 0 ? beta * *to : 0);
    }
}
