/* sample.c - random weights for a layer, and steps on poisoned memory. */
#include <math.h>
#include <string.h>

#include "layers_test.h"

float *random_floats(t_rng *rng, int64_t n)
{
    float *x = t_scratch((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)t_normal(rng);
    return x;
}

int64_t width_of_memory(const qkv_layer_desc *d) { return d->d_memory ? d->d_memory : d->d_model; }

/* rows and columns of a weight; 0 rows if there is none. */
static void shape_of(const qkv_layer_desc *d, int role, int64_t *rows, int64_t *cols, int *bias)
{
    const int mla = d->kind == QKV_LAYER_MLA, q_a = d->q_lora_rank > 0;
    const int64_t q = (int64_t)d->n_q_heads * d->head_dim, n = d->head_dim - d->rope_dim;
    const int64_t in = d->cross ? width_of_memory(d) : d->d_model;
    const int norm = !mla && d->qk_norm != QKV_NORM_NONE;
    const int latent_norm = mla && d->latent_norm != QKV_NORM_NONE;
    const struct {
        int there;
        int64_t rows, cols;
        int bias;
    } all[QKV_ROLE_COUNT] = {
        [QKV_ROLE_Q] = {!mla || !q_a, q, d->d_model, !mla && d->q_bias},
        [QKV_ROLE_K] = {!mla, (int64_t)d->n_kv_heads * d->head_dim, in, d->k_bias},
        [QKV_ROLE_V] = {!mla, (int64_t)d->n_kv_heads * d->head_dim_v, in, d->v_bias},
        [QKV_ROLE_O] = {1, d->d_model, (int64_t)d->n_q_heads * d->head_dim_v, d->o_bias},
        [QKV_ROLE_Q_NORM] = {norm, d->head_dim, 1, 0},
        [QKV_ROLE_K_NORM] = {norm, d->head_dim, 1, 0},
        [QKV_ROLE_SINKS] = {d->sinks, d->n_q_heads, 1, 0},
        [QKV_ROLE_Q_A] = {mla && q_a, d->q_lora_rank, d->d_model, d->q_bias},
        [QKV_ROLE_Q_A_NORM] = {q_a && latent_norm, d->q_lora_rank, 1, 0},
        [QKV_ROLE_Q_B] = {mla && q_a, q, d->q_lora_rank, 0},
        [QKV_ROLE_KV_A] = {mla, d->kv_lora_rank + d->rope_dim, d->d_model, d->q_bias},
        [QKV_ROLE_KV_A_NORM] = {latent_norm, d->kv_lora_rank, 1, 0},
        [QKV_ROLE_KV_B] = {mla, d->n_q_heads * (n + d->head_dim_v), d->kv_lora_rank, 0},
        [QKV_ROLE_RELATIVE_BIAS] = {d->relative_buckets > 0, d->relative_buckets, d->n_q_heads, 0},
    };
    *rows = all[role].there ? all[role].rows : 0;
    *cols = all[role].cols;
    *bias = all[role].there && all[role].bias;
}

sample sample_weights(const qkv_layer_desc *d, t_rng *rng)
{
    sample s;
    memset(&s, 0, sizeof s);
    s.desc = *d;
    for (int role = 0; role < QKV_ROLE_COUNT; role++) {
        int64_t rows, cols;
        int bias;
        shape_of(d, role, &rows, &cols, &bias);
        if (rows == 0)
            continue;
        s.matrix[role] = random_floats(rng, rows * cols);
        s.bias[role] = bias ? random_floats(rng, rows) : NULL;
        for (int64_t i = 0; i < rows * cols; i++)
            s.matrix[role][i] *= cols > 1 && !d->relative_buckets ? 1 / sqrtf((float)cols) : 0.6f;
        s.weights[role] =
            qkv_layer_weight_dense(s.matrix[role], s.bias[role], QKV_F32, cols);
    }
    return s;
}

/* A row as codes of 8 bits would have it, in the arithmetic of the library. */
static void round_to_int8(float *w, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    for (int64_t i = 0; i < n && most > 0; i++)
        w[i] = rintf(w[i] * (127 / most)) * (most / 127);
}

static void round_matrices(sample *s)
{
    static const int roles[] = {QKV_ROLE_Q, QKV_ROLE_K,   QKV_ROLE_V,   QKV_ROLE_O,
                                QKV_ROLE_Q_A, QKV_ROLE_Q_B, QKV_ROLE_KV_A};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        int64_t rows, cols;
        int bias;
        shape_of(&s->desc, roles[i], &rows, &cols, &bias);
        float *w = s->matrix[roles[i]];
        uint16_t *half = t_scratch((size_t)(rows * cols + 1) * sizeof *half);
        if (rows && s->desc.weights == QKV_WEIGHTS_BF16) {
            qkv_convert(half, QKV_BF16, w, QKV_F32, (size_t)(rows * cols));
            qkv_convert(w, QKV_F32, half, QKV_BF16, (size_t)(rows * cols));
        }
        for (int64_t r = 0; s->desc.weights == QKV_WEIGHTS_INT8 && r < rows; r++)
            round_to_int8(w + r * cols, cols);
    }
}

sample sample_of(const qkv_layer_desc *d, t_rng *rng)
{
    char text[256];
    sample s = sample_weights(d, rng);
    const qkv_status status =
        qkv_layer_create(d, s.weights, NULL, &s.layer, text, sizeof text);
    t_check(status == QKV_OK, "qkv_layer_create: %s", text);
    round_matrices(&s);
    return s;
}

void sample_end(sample *s) { qkv_layer_destroy(s->layer); }

double difference(const float *out, const double *wanted, int64_t n)
{
    double largest = 1e-30, off = 0;
    for (int64_t i = 0; i < n; i++) {
        const double e = fabs(out[i] - wanted[i]);
        largest = fabs(wanted[i]) > largest ? fabs(wanted[i]) : largest;
        if (isnan(e))
            return INFINITY;
        off = e > off ? e : off;
    }
    return off / largest;
}

qkv_status run_step(const sample *s, const qkv_layer_step *step, const float *x,
                    const float *memory, float *out, const qkv_parallel *parallel, char text[256])
{
    qkv_layer_plan *plan = NULL;
    qkv_layer_args args;
    qkv_status status = qkv_layer_plan_create(s->layer, step, NULL, &plan, text, 256);

    if (status != QKV_OK)
        return status;
    qkv_layer_args_init(&args);
    args.x = x;
    args.memory = memory;
    args.out = out;
    args.workspace_bytes = qkv_layer_workspace_size(plan, parallel ? parallel->n_workers : 1);
    args.workspace = t_alloc(args.workspace_bytes, 64, T_END, 0xff); /* NaN in every float */
    status = qkv_layer_run(plan, s->layer, &args, parallel, text, 256);
    qkv_layer_plan_destroy(plan);
    return status;
}
