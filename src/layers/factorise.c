/*
 * layers/factorise.c - MLA from key/value heads.
 *
 * The stacked matrix M = [W_K; W_V] is U S V^T.  The first `rank` columns of V make the latent
 * c = V^T x, and U S its keys and values, which is the nearest matrix of that rank (Eckart and
 * Young, 1936).  Biases are one more column: a latent channel that is always 1.
 *
 * MLA's queries have no bias of their own; where the layer's have one, W_Q gives their "latent",
 * with the bias, and the second matrix is the identity.
 */
#include <string.h>

#include "layers/internal.h"

#ifdef QKV_LAPACK

/* Singular value decomposition of A (m x n, columns together): A = u diag(s) vt. */
extern void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda,
                    double *s, double *u, const int *ldu, double *vt, const int *ldvt, double *work,
                    const int *lwork, int *iwork, int *info);

typedef struct svd {
    int rows, cols, least;   /* of M, which LAPACK reads as its transpose */
    double *m, *s, *u, *vt;  /* u: columns of `cols` numbers; vt: [rows] of `least` */
    double *work;
    int *iwork, lwork;
} svd;

/* Everything that is needed, in one block. */
typedef struct factors {
    svd svd;
    float *kv_a, *kv_a_bias, *kv_b, *q_b;
    int64_t rank, latent; /* latent: with the channel of biases */
    int biased;
} factors;

static int work_size(const svd *d)
{
    double best = 0;
    int query = -1, unused = 0;
    dgesdd_("S", &d->cols, &d->rows, NULL, &d->cols, NULL, NULL, &d->cols, NULL, &d->least, &best,
            &query, &unused, &unused);
    return (int)best;
}

static size_t carve_factors(qkv_carver c, const qkv_layer_desc *d, factors *f)
{
    svd *s = &f->svd;
    const size_t rows = (size_t)s->rows, cols = (size_t)s->cols, least = (size_t)s->least;
    const size_t latent = (size_t)f->latent, q = (size_t)d->n_q_heads * (size_t)d->head_dim;
    const size_t up = (size_t)d->n_q_heads * (size_t)(d->head_dim + d->head_dim_v);

    s->m = qkv_carve(&c, rows * cols * sizeof(double));
    s->s = qkv_carve(&c, least * sizeof(double));
    s->u = qkv_carve(&c, cols * least * sizeof(double));
    s->vt = qkv_carve(&c, least * rows * sizeof(double));
    s->work = qkv_carve(&c, (size_t)s->lwork * sizeof(double));
    s->iwork = qkv_carve(&c, 8 * least * sizeof(int));
    f->kv_a = qkv_carve(&c, latent * cols * sizeof(float));
    f->kv_a_bias = qkv_carve(&c, latent * sizeof(float));
    f->kv_b = qkv_carve(&c, up * latent * sizeof(float));
    f->q_b = d->q_bias ? qkv_carve(&c, q * q * sizeof(float)) : NULL;
    return c.used;
}

/* M's rows, keys' first, from the layer's own stack. */
static const float *stack_of(const qkv_layer *l, const float **bias)
{
    const int64_t q = (int64_t)l->desc.n_q_heads * l->desc.head_dim;
    *bias = l->in.bias ? l->in.bias + q : NULL;
    return l->in.w + q * l->in.cols;
}

static int decompose(svd *d, const float *stack)
{
    int info = 0;
    for (int64_t i = 0; i < (int64_t)d->rows * d->cols; i++)
        d->m[i] = stack[i];
    dgesdd_("S", &d->cols, &d->rows, d->m, &d->cols, d->s, d->u, &d->cols, d->vt, &d->least,
            d->work, &d->lwork, d->iwork, &info);
    return info;
}

/* Row r of M as numbers of the latent. */
static void expand_row(const factors *f, int64_t r, const float *bias, float *to)
{
    for (int64_t k = 0; k < f->rank; k++)
        to[k] = (float)(f->svd.s[k] * f->svd.vt[r * f->svd.least + k]);
    if (f->biased)
        to[f->rank] = bias ? bias[r] : 0;
}

static void fill(const qkv_layer *l, factors *f)
{
    const qkv_layer_desc *d = &l->desc;
    const int64_t cols = f->svd.cols, q = (int64_t)d->n_q_heads * d->head_dim;
    const int64_t D = d->head_dim, v = d->head_dim_v, group = d->n_q_heads / d->n_kv_heads;
    const float *bias;

    stack_of(l, &bias);
    for (int64_t i = 0; i < f->rank * cols; i++)
        f->kv_a[i] = (float)f->svd.u[i];
    for (int64_t i = f->rank * cols; i < f->latent * cols; i++)
        f->kv_a[i] = 0;
    for (int64_t k = 0; k < f->latent; k++)
        f->kv_a_bias[k] = k >= f->rank;
    for (int64_t h = 0; h < d->n_q_heads; h++)
        for (int64_t i = 0; i < D + v; i++) {
            const int64_t kv = h / group;
            const int64_t r = i < D ? kv * D + i : d->n_kv_heads * D + kv * v + i - D;
            expand_row(f, r, bias, f->kv_b + (h * (D + v) + i) * f->latent);
        }
    for (int64_t i = 0; f->q_b && i < q * q; i++)
        f->q_b[i] = i / q == i % q;
}

/* The description and weights of the new layer. */
static void describe(qkv_conversion *c, const factors *f)
{
    qkv_layer_desc *d = &c->desc;
    qkv_layer_weight *w = c->weights;
    const int64_t q = (int64_t)d->n_q_heads * d->head_dim;

    if (d->q_bias) {
        w[QKV_ROLE_Q_A] = w[QKV_ROLE_Q];
        w[QKV_ROLE_Q_B] = qkv_layer_weight_dense(f->q_b, NULL, QKV_F32, q);
        memset(&w[QKV_ROLE_Q], 0, sizeof *w);
        d->q_lora_rank = (int32_t)q;
    }
    memset(&w[QKV_ROLE_K], 0, sizeof *w);
    memset(&w[QKV_ROLE_V], 0, sizeof *w);
    d->q_bias = d->q_bias || f->biased;
    w[QKV_ROLE_KV_A] = qkv_layer_weight_dense(f->kv_a, d->q_bias ? f->kv_a_bias : NULL, QKV_F32,
                                              f->svd.cols);
    w[QKV_ROLE_KV_B] = qkv_layer_weight_dense(f->kv_b, NULL, QKV_F32, f->latent);
    d->kind = QKV_LAYER_MLA;
    d->n_kv_heads = d->n_q_heads;
    d->kv_lora_rank = (int32_t)f->latent;
    d->rope_dim = 0;
    d->k_bias = d->v_bias = 0;
    d->latent_norm = QKV_NORM_NONE;
}

static qkv_status check(const qkv_layer *layer, int32_t rank, int64_t most, qkv_say say)
{
    const qkv_layer_desc *d = &layer->desc;

    if (d->kind == QKV_LAYER_MLA || d->cross || d->rope.type != QKV_ROPE_NONE ||
        d->qk_norm != QKV_NORM_NONE || d->sinks || d->relative_buckets)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "the layer is MLA or cross, or has rope, qk_norm, sinks or relative "
                          "buckets; keys of such a layer are no products of a latent");
    if (rank < 1 || rank > most)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "rank is %d; accepted are 1 to %lld", rank,
                          (long long)most);
    return QKV_OK;
}

static qkv_status convert(const qkv_layer *layer, factors *f, const qkv_allocator *allocator,
                          qkv_layer **made, qkv_say say)
{
    const float *bias;
    qkv_conversion c;
    const int info = decompose(&f->svd, stack_of(layer, &bias));

    if (info != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "the singular values of the weights were not found (dgesdd says %d); are "
                          "all finite?",
                          info);
    fill(layer, f);
    qkv_conversion_begin(&c, layer);
    describe(&c, f);
    return qkv_layer_create(&c.desc, c.weights, allocator, made, say.text, say.bytes);
}

qkv_status qkv_layer_factorise(const qkv_layer *layer, int32_t rank,
                               const qkv_allocator *allocator, qkv_layer **made, char *text,
                               size_t bytes)
{
    const qkv_say say = {text, bytes};
    const qkv_carver counting = {NULL, 0};
    qkv_allocator a;
    factors f;

    if (made)
        *made = NULL;
    if (!layer || !made || !qkv_allocator_of(allocator, &a))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "layer or made is NULL, or allocator lacks a function");
    const qkv_layer_desc *d = &layer->desc;
    const int64_t rows = (int64_t)d->n_kv_heads * (d->head_dim + d->head_dim_v);
    const int64_t most = rows < d->d_model ? rows : d->d_model;
    qkv_status status = qkv_conversion_check(layer, say);
    if (status == QKV_OK)
        status = check(layer, rank, most, say);
    if (status != QKV_OK)
        return status;
    memset(&f, 0, sizeof f);
    f.svd = (svd){.rows = (int)rows, .cols = d->d_model, .least = (int)most};
    f.svd.lwork = work_size(&f.svd);
    f.rank = rank;
    f.biased = d->k_bias || d->v_bias;
    f.latent = rank + f.biased;
    const size_t need = carve_factors(counting, d, &f);
    void *memory = a.alloc(a.ctx, need);
    if (!memory)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for factors of %zu bytes", need);
    carve_factors((qkv_carver){memory, 0}, d, &f);
    status = convert(layer, &f, allocator, made, say);
    a.free(a.ctx, memory);
    return status;
}

#else

qkv_status qkv_layer_factorise(const qkv_layer *layer, int32_t rank,
                               const qkv_allocator *allocator, qkv_layer **made, char *text,
                               size_t bytes)
{
    (void)layer, (void)rank, (void)allocator, (void)made;
    return qkv_refuse((qkv_say){text, bytes}, QKV_ERR_UNSUPPORTED,
                      "the BLAS of this build has no LAPACK, which the factors are found with");
}

#endif
