/*
 * decode_cache.c - a small model writes text with a cache: a prompt first, then one token a step.
 *
 * Two layers of grouped-query attention, 4 query heads on 2 key/value heads, with weights out of
 * thin air.  Each step reserves room for its tokens, makes one view and one plan for all layers,
 * and layer by layer stores keys and values and attends.  At the end the last step is computed
 * again from all keys and values by the formula, and the two must agree.
 */
#include <math.h>
#include <stdio.h>

#include <qkv/cache_view.h>

enum { LAYERS = 2, HQ = 4, HKV = 2, D = 32, WIDTH = HQ * D };
enum { PROMPT = 5, STEPS = 40, T = PROMPT + STEPS };
static float x[PROMPT][WIDTH], q[PROMPT][HQ][D], o[PROMPT][HQ][D];
static float k[LAYERS][T][HKV][D], v[LAYERS][T][HKV][D]; /* all there were, for the check */
static int length;                                       /* tokens so far */
static _Alignas(64) char memory[4096], plan_memory[16384], workspace[1 << 18];

/* Numbers that look random, the same ones each time, of size 1. */
static float weight(int what, int i, int j)
{
    const float s = sinf((float)(what * 7919 + i * 131 + j * 17 + 1)) * 43758.5453f;
    return 3.4f * (s - floorf(s) - 0.5f);
}

static void embed(float row[WIDTH], int token)
{
    for (int i = 0; i < WIDTH; i++)
        row[i] = weight(0, token, i);
}

static void multiply(float *out, const float in[WIDTH], int n, int what)
{
    for (int j = 0; j < n; j++) {
        out[j] = 0;
        for (int i = 0; i < WIDTH; i++)
            out[j] += in[i] * weight(what, i, j) / sqrtf(WIDTH);
    }
}

/* q of n new tokens, and their k and v behind the others. */
static void project(int layer, int n, qkv_cache_rows *rows)
{
    for (int t = 0; t < n; t++) {
        multiply(&q[t][0][0], x[t], WIDTH, 1 + 3 * layer);
        multiply(&k[layer][length + t][0][0], x[t], HKV * D, 2 + 3 * layer);
        multiply(&v[layer][length + t][0][0], x[t], HKV * D, 3 + 3 * layer);
    }
    rows->k = k[layer][length];
    rows->v = v[layer][length];
}

static void add_outputs(int n)
{
    for (int t = 0; t < n; t++)
        for (int i = 0; i < WIDTH; i++)
            x[t][i] += o[t][i / D][i % D];
}

/* The next token follows from the last row; it is what the next step is about. */
static void next_token(int n)
{
    int best = 0;
    for (int i = 1; i < WIDTH; i++)
        best = x[n - 1][i] > x[n - 1][best] ? i : best;
    embed(x[0], best);
    length += n;
}

/* The last query in the last layer, by the formula. */
static double worst_error(void)
{
    double worst = 0;
    for (int h = 0; h < HQ; h++) {
        double sum = 0, out[D] = {0};
        for (int j = 0; j < length; j++) {
            double s = 0;
            for (int c = 0; c < D; c++)
                s += (double)q[0][h][c] * k[LAYERS - 1][j][h / (HQ / HKV)][c];
            const double w = exp(s / sqrt(D));
            sum += w;
            for (int c = 0; c < D; c++)
                out[c] += w * v[LAYERS - 1][j][h / (HQ / HKV)][c];
        }
        for (int c = 0; c < D; c++)
            worst = fmax(worst, fabs(o[0][h][c] - out[c] / sum));
    }
    return worst;
}

#define TRY(call)                                                                                  \
    if ((call) != QKV_OK)                                                                          \
    return 0

/* What stays the same from step to step: layouts, pointers, room to work in. */
static void prepare(qkv_desc *desc, qkv_args *args, qkv_cache_rows *rows, qkv_cache_select *select,
                    const int32_t *seq)
{
    qkv_desc_init(desc);
    desc->n_q_heads = HQ;
    desc->q.stride[1] = desc->o.stride[1] = D;
    desc->q.stride[2] = desc->o.stride[2] = WIDTH;
    desc->q.stride[3] = desc->o.stride[3] = 1;
    qkv_args_init(args);
    args->q = q;
    args->o = o;
    args->workspace = workspace;
    args->workspace_bytes = sizeof workspace;
    qkv_cache_rows_init(rows);
    rows->k_stride[1] = rows->v_stride[1] = D;
    rows->k_stride[2] = rows->v_stride[2] = HKV * D;
    qkv_cache_select_init(select);
    rows->seqs = select->seqs = seq;
}

/* 1, or 0 and why. */
static int generate(qkv_cache *cache, int32_t seq, char *why, size_t bytes)
{
    int32_t n = PROMPT;
    qkv_desc desc;
    qkv_args args;
    qkv_cache_rows rows;
    qkv_cache_select select;
    const qkv_cache_view *view;
    const qkv_plan *plan;
    prepare(&desc, &args, &rows, &select, &seq);
    for (int t = 0; t < PROMPT; t++)
        embed(x[t], t);

    for (int step = 0; step < STEPS; step++, n = 1) {
        TRY(qkv_cache_reserve(cache, 1, &seq, &n, why, bytes));
        TRY(qkv_cache_view_init(memory, sizeof memory, cache, &select, &view, why, bytes));
        qkv_cache_view_desc(view, 0, &desc);
        TRY(qkv_plan_init(plan_memory, sizeof plan_memory, &desc, &plan));
        for (int layer = 0; layer < LAYERS; layer++) {
            project(layer, n, &rows);
            TRY(qkv_cache_write(cache, layer, &rows, why, bytes));
            qkv_cache_view_args(view, 0, layer, &args);
            qkv_run(plan, &args);
            add_outputs(n);
        }
        TRY(qkv_cache_commit(cache, 1, &seq, NULL, why, bytes));
        next_token(n);
    }
    return 1;
}

int main(void)
{
    char why[256] = "no plan";
    qkv_cache_config config;
    qkv_cache_config_init(&config);
    config.n_layers = LAYERS;
    config.n_kv_heads = HKV;
    config.head_dim = config.head_dim_v = D;
    config.k_format = config.v_format = QKV_FORMAT_F32; /* the default is bf16 */
    config.n_pages = 4;                                 /* of 64 tokens */
    qkv_cache *cache = NULL;
    int32_t seq;
    if (qkv_cache_create(&config, NULL, &cache, why, sizeof why) != QKV_OK ||
        qkv_cache_add(cache, &seq, why, sizeof why) != QKV_OK ||
        !generate(cache, seq, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        qkv_cache_destroy(cache);
        return 1;
    }
    const double worst = worst_error();
    printf("decode_cache: %lld tokens cached, largest error of the last step %.1e\n",
           (long long)qkv_cache_length(cache, seq), worst);
    qkv_cache_destroy(cache);
    return !(worst <= 1e-5);
}
