/* check_compare.c - the outputs of a run against the oracle.  See check.h and qkv/ref.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* ---- the oracle --------------------------------------------------------------------------- */

int cli_truth_make(cli_truth *truth, const qkv_desc *desc, const qkv_args *args, int weights)
{
    memset(truth, 0, sizeof *truth);
    char text[CLI_TEXT];
    if (qkv_explain(desc, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    const size_t rows = (size_t)desc->n_seqs * (size_t)desc->n_q_heads * (size_t)desc->q_len;
    const size_t n_o = rows * (size_t)desc->head_dim_v;
    const size_t n_w = weights ? rows * (size_t)desc->kv_len : 0;
    const size_t bytes = (2 * n_o + 2 * rows + n_w) * sizeof(double) + 8;
    const size_t scratch_bytes = qkv_ref_scratch_size(desc);
    truth->memory = malloc(bytes);
    void *scratch = malloc(scratch_bytes + 8);
    int code = CLI_DONE;
    if (truth->memory == NULL || scratch == NULL) {
        code = cli_complain_memory("the oracle", bytes + scratch_bytes);
    } else {
        double *p = truth->memory;
        truth->out.o = p;
        truth->out.o_budget = p + n_o;
        truth->out.lse = p + 2 * n_o;
        truth->out.lse_budget = p + 2 * n_o + rows;
        truth->out.weights = weights ? p + 2 * n_o + 2 * rows : NULL;
        const qkv_status status = qkv_ref_attention(desc, args, &truth->out, scratch);
        if (status != QKV_OK)
            code = cli_complain("the oracle refused: %s", qkv_status_text(status));
    }
    free(scratch);
    if (code != CLI_DONE)
        cli_truth_free(truth);
    return code;
}

void cli_truth_free(cli_truth *truth)
{
    free(truth->memory);
    memset(truth, 0, sizeof *truth);
}

/* ---- elements ----------------------------------------------------------------------------- */

static double element(const void *base, const qkv_layout *l, int64_t at)
{
    double x = 0;
    (void)qkv_convert(&x, QKV_F64,
                      (const char *)base + at * (int64_t)qkv_type_size((qkv_type)l->type),
                      (qkv_type)l->type, 1);
    return x;
}

typedef struct place {
    const char *tensor;
    int64_t b, h, i, c;
} place;

static void record(cli_worst *worst, double ratio, double error, double budget, place at)
{
    /* The first element too, so that a perfect run has a place. */
    if (worst->tensor != NULL && !(ratio > worst->ratio))
        return;
    *worst = (cli_worst){ratio, error, budget, at.tensor, {at.b, at.h, at.i, at.c}};
}

static void compare_element(cli_worst *worst, double got, double want, double budget, place at)
{
    const double error = fabs(got - want);
    if (isinf(budget) || (isnan(want) && isnan(got)) || got == want)
        record(worst, 0, 0, budget, at);
    else if (isnan(error) || isinf(error) || isnan(budget))
        record(worst, INFINITY, error, budget, at);
    else
        record(worst, budget > 0 ? error / budget : INFINITY, error, budget, at);
}

/* What is hidden is exact: weight 0, biased score -infinity.  Nothing else of the weights has a
 * budget of its own. */
static void compare_hidden(cli_worst *worst, int32_t stage, double got, double want, place at)
{
    int ok = 1;
    if (stage == QKV_STAGE_WEIGHTS)
        ok = want != 0 || got == 0;
    else if (stage == QKV_STAGE_BIASED)
        ok = (want == -INFINITY) == (got == -INFINITY);
    if (!ok)
        record(worst, INFINITY, fabs(got - want), 0, at);
}

/* Where one query of one head is in each output, in elements. */
typedef struct row {
    int64_t b, h, i;
    int64_t o, lse, weights; /* in args */
    int64_t truth;           /* the row in the oracle's arrays */
    int64_t n_keys;
} row;

static row locate(const qkv_desc *d, int64_t b, int64_t h, int64_t i)
{
    const int64_t *cu_q = d->cu_seqlens_q, *cu_k = d->cu_seqlens_k;
    const int64_t token = cu_q != NULL ? cu_q[b] + i : i, seq = cu_q != NULL ? 0 : b;
    const int64_t *o = d->o.stride, *lse = d->lse.stride, *w = d->weights.stride;
    return (row){b,
                 h,
                 i,
                 seq * o[0] + h * o[1] + token * o[2],
                 seq * lse[0] + h * lse[1] + token * lse[2],
                 b * w[0] + h * w[1] + i * w[2],
                 (b * d->n_q_heads + h) * d->q_len + i,
                 cu_k != NULL ? cu_k[b + 1] - cu_k[b] : d->kv_len};
}

static void compare_row(const qkv_desc *d, const qkv_args *a, const qkv_ref_out *t, row r,
                        cli_worst *worst)
{
    for (int64_t c = 0; c < d->head_dim_v; c++)
        compare_element(worst, element(a->o, &d->o, r.o + c), t->o[r.truth * d->head_dim_v + c],
                        t->o_budget[r.truth * d->head_dim_v + c], (place){"o", r.b, r.h, r.i, c});
    if (d->lse.type != QKV_NONE)
        compare_element(worst, element(a->lse, &d->lse, r.lse), t->lse[r.truth],
                        t->lse_budget[r.truth], (place){"lse", r.b, r.h, r.i, 0});
    if (d->weights.type == QKV_NONE || t->weights == NULL)
        return;
    for (int64_t j = 0; j < r.n_keys; j++)
        compare_hidden(worst, d->stage,
                       element(a->weights, &d->weights, r.weights + j * d->weights.stride[3]),
                       t->weights[r.truth * d->kv_len + j], (place){"weights", r.b, r.h, r.i, j});
}

static void poison(void *base, const qkv_layout *l, int64_t at, int64_t n)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)l->type);
    memset((char *)base + at * size, 0xff, (size_t)(n * size));
}

static void poison_row(const qkv_desc *d, const qkv_args *a, row r)
{
    poison(a->o, &d->o, r.o, d->head_dim_v);
    if (d->lse.type != QKV_NONE)
        poison(a->lse, &d->lse, r.lse, 1);
    for (int64_t j = 0; d->weights.type != QKV_NONE && j < r.n_keys; j++)
        poison(a->weights, &d->weights, r.weights + j * d->weights.stride[3], 1);
}

static int64_t queries_of(const qkv_desc *d, int64_t b)
{
    const int64_t *cu = d->cu_seqlens_q;
    return cu != NULL ? cu[b + 1] - cu[b] : d->q_len;
}

void cli_poison_outputs(const qkv_desc *desc, const qkv_args *args)
{
    for (int64_t b = 0; b < desc->n_seqs; b++)
        for (int64_t h = 0; h < desc->n_q_heads; h++)
            for (int64_t i = 0; i < queries_of(desc, b); i++)
                poison_row(desc, args, locate(desc, b, h, i));
}

void cli_compare(const qkv_desc *desc, const qkv_args *args, const cli_truth *truth,
                 cli_worst *worst)
{
    memset(worst, 0, sizeof *worst);
    for (int64_t b = 0; b < desc->n_seqs; b++)
        for (int64_t h = 0; h < desc->n_q_heads; h++)
            for (int64_t i = 0; i < queries_of(desc, b); i++)
                compare_row(desc, args, &truth->out, locate(desc, b, h, i), worst);
}
