/* layers/rows.c - norms, row by row. */
#include <math.h>

#include "layers/internal.h"

enum { ROWS_A_TASK = 16 };

typedef struct norm_job {
    float *x;
    int64_t ldx, rows, n_heads, width;
    const float *weight;
    int32_t kind;
    double eps;
} norm_job;

/* Squares are summed in double: no order of f32 additions would be right for every width. */
static void norm_vector(const norm_job *j, float *x)
{
    double sum = 0, mean = 0;

    for (int64_t i = 0; j->kind == QKV_NORM_LAYER && i < j->width; i++)
        mean += x[i];
    mean /= (double)j->width;
    for (int64_t i = 0; i < j->width; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    const double factor = 1 / sqrt(sum / (double)j->width + j->eps);
    const float one = j->kind == QKV_NORM_RMS_PLUS_ONE ? 1 : 0;
    for (int64_t i = 0; i < j->width; i++)
        x[i] = (float)((x[i] - mean) * factor) * (one + j->weight[i]);
}

static void norm_task(void *arg, int64_t task, int32_t worker)
{
    const norm_job *j = arg;
    (void)worker;
    for (int64_t r = task * ROWS_A_TASK; r < (task + 1) * ROWS_A_TASK && r < j->rows; r++)
        for (int64_t h = 0; h < j->n_heads; h++)
            norm_vector(j, j->x + r * j->ldx + h * j->width);
}

void qkv_norm_rows(float *x, int64_t ldx, int64_t rows, int64_t n_heads, int64_t width,
                   const float *weight, int32_t kind, double eps, const qkv_parallel *parallel)
{
    norm_job job = {x, ldx, rows, n_heads, width, weight, kind, eps};

    if (kind != QKV_NORM_NONE)
        qkv_each(parallel, (rows + ROWS_A_TASK - 1) / ROWS_A_TASK, norm_task, &job);
}
