/*
 * narrow.c - layers that keep their matrices in bf16, int8 or another order.
 *
 * Forms are compared with the oracle over the weights as they are kept (sample_of rounds them), so
 * what is left is the rounding of hidden states.  What rounding the weights costs has a bound of
 * its own, element by element, against the weights as they were given.
 */
#include <math.h>
#include <string.h>

#include "layers/narrow.h"
#include "layers_test.h"

static const struct {
    const char *name;
    int32_t weights;
} formats[] = {{"bf16", QKV_WEIGHTS_BF16}, {"int8", QKV_WEIGHTS_INT8}, {"packed", QKV_WEIGHTS_F32_PACKED}};
enum { FORMATS = 3 };

int can_keep(int32_t weights)
{
    qkv_layer_desc d = desc_of(&variants[0]);
    t_rng rng = t_rng_of(1);
    const sample s = sample_weights(&d, &rng);
    qkv_layer *layer = NULL;
    char text[256];

    d.weights = weights;
    const qkv_status status = qkv_layer_create(&d, s.weights, NULL, &layer, text, sizeof text);
    qkv_layer_destroy(layer);
    if (status == QKV_OK)
        return 1;
    t_check(status == QKV_ERR_UNSUPPORTED && strstr(text, "oneDNN") && strstr(text, "f32"), "%s",
            text);
    return 0;
}

/* ---- forms ------------------------------------------------------------------------------ */

/* All forms of all variants, and failing allocators; the cases inside are those of other files. */
void test_narrow_forms(void)
{
    void (*const forms[])(void) = {test_whole, test_ragged, test_cached, test_cross,
                                   test_failing_memory};
    for (int f = 0; f < FORMATS; f++) {
        if (!can_keep(formats[f].weights))
            continue;
        kept_as = formats[f].weights;
        for (int i = 0; i < 5; i++)
            forms[i]();
        kept_as = QKV_WEIGHTS_F32;
    }
}

/* ---- pieces ----------------------------------------------------------------------------- */

/* A layer of more outputs than a piece has, 300 inputs, 5 heads of 64. */
static qkv_layer_desc wide_desc(int32_t weights)
{
    qkv_layer_desc d;

    qkv_layer_desc_init(&d);
    d.d_model = 300;
    d.n_q_heads = d.n_kv_heads = 5;
    d.head_dim = d.head_dim_v = 64;
    d.q_bias = d.o_bias = 1;
    d.weights = weights;
    return d;
}

/* Some of the sequences against the oracle, all on two workers against one. */
static void pieces(const sample *s, int32_t n_seqs, int64_t tokens, double most)
{
    const int64_t d = 300, n = n_seqs * tokens * d;
    t_rng rng = t_rng_of(t_seed() + 600);
    float *x = random_floats(&rng, n), *out = t_scratch((size_t)n * 4);
    float *two = t_scratch((size_t)n * 4);
    double *wanted = t_scratch((size_t)(tokens * d) * sizeof *wanted);
    qkv_pool *pool = NULL;
    qkv_layer_step step;
    char text[256];

    qkv_pool_create(2, NULL, &pool);
    const qkv_parallel parallel = qkv_pool_parallel(pool);
    qkv_layer_step_init(&step);
    step.n_seqs = n_seqs;
    step.q_len = tokens;
    t_check(run_step(s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    t_check(run_step(s, &step, x, NULL, two, &parallel, text) == QKV_OK, "%s", text);
    t_check(memcmp(out, two, (size_t)n * 4) == 0, "two workers, other bits");
    for (int64_t b = 0; b < n_seqs; b += n_seqs > 4 ? (n_seqs - 1) / 4 : 1) {
        oracle(s, x + b * tokens * d, tokens, NULL, 0, NULL, 0, wanted);
        const double e = difference(out + b * tokens * d, wanted, tokens * d);
        t_check(e <= most, "sequence %d: off by %.2g", (int)b, e);
    }
    qkv_pool_destroy(pool);
}

void test_narrow_pieces(void)
{
    static const struct {
        int32_t n_seqs;
        int64_t tokens;
    } shapes[] = {{1, 1}, {1, 2}, {3, 1}, {1, 4}, {127, 1}, {64, 2}, {129, 1}, {103, 5}};
    for (int f = 0; f < FORMATS; f++)
        for (size_t i = 0; can_keep(formats[f].weights) && i < sizeof shapes / sizeof *shapes; i++)
            if (t_case("%s/%d x %d", formats[f].name, shapes[i].n_seqs, (int)shapes[i].tokens)) {
                t_rng rng = t_rng_of(t_seed() + 601);
                const qkv_layer_desc d = wide_desc(formats[f].weights);
                sample s = sample_of(&d, &rng);
                pieces(&s, shapes[i].n_seqs, shapes[i].tokens,
                       d.weights == QKV_WEIGHTS_BF16   ? 1e-2
                       : d.weights == QKV_WEIGHTS_INT8 ? 1e-4
                                                       : 5e-6);
                sample_end(&s);
            }
}

/* ---- bounds ----------------------------------------------------------------------------- */

/* A layer whose output is its values: one token a sequence sees itself, and W_O copies. */
static sample values_of(int32_t weights, t_rng *rng)
{
    qkv_layer_desc d = wide_desc(weights);

    d.d_model = 320;
    d.q_bias = d.o_bias = 0;
    sample s = sample_weights(&d, rng);
    for (int64_t i = 0; i < 320 * 320; i++)
        s.matrix[QKV_ROLE_O][i] = i / 320 == i % 320;
    t_check(qkv_layer_create(&d, s.weights, NULL, &s.layer, NULL, 0) == QKV_OK, "no layer");
    return s;
}

static double largest(const float *x, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return most;
}

/* How far value v of a row x may be from the product with the weights that were given.  int8: codes
 * are within half a step of the channel, x within half a step of 16 bits.  bf16: both within 2^-9 of
 * themselves.  Then the value is rounded once more, as the input of W_O. */
static double bound_of(int32_t weights, const float *x, const float *w, int64_t n, double v,
                       double largest_value)
{
    const double step_w = largest(w, n) / 127, step_x = largest(x, n) / 32767;
    double of_w = 0, of_x = 0, both = 0;

    for (int64_t i = 0; i < n; i++) {
        of_w += fabs(x[i]) * step_w / 2;
        of_x += fabs((double)w[i]) * step_x / 2;
        both += fabs((double)x[i] * w[i]);
    }
    const double sums = both * (double)n * 0x1p-24;
    if (weights == QKV_WEIGHTS_INT8)
        return 1.001 * (of_w + of_x + step_w * step_x * (double)n / 4) + sums +
               largest_value / 32767 / 2 * 1.1;
    if (weights == QKV_WEIGHTS_F32_PACKED)
        return sums;
    return both * (2 * 0x1p-9 + 0x1p-18) + sums + 1.01 * 0x1p-9 * fabs(v);
}

static void bounds(int32_t weights, double scale)
{
    enum { ROWS = 130, N = 320 };
    t_rng rng = t_rng_of(t_seed() + 602);
    sample s = values_of(weights, &rng);
    float *x = random_floats(&rng, ROWS * N), *out = t_scratch(ROWS * N * 4);
    double share = 0;
    qkv_layer_step step;
    char text[256];

    for (int64_t i = 0; i < ROWS * N; i++)
        x[i] = (float)(x[i] * scale * (i % 37 == 0 ? 20 : 1)); /* some channels stand out */
    qkv_layer_step_init(&step);
    step.n_seqs = ROWS;
    step.q_len = 1;
    t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    for (int64_t t = 0; t < ROWS; t++)
        for (int64_t c = 0; c < N; c++) {
            const float *w = s.matrix[QKV_ROLE_V] + c * N, *row = x + t * N;
            double v = 0;
            for (int64_t i = 0; i < N; i++)
                v += (double)w[i] * row[i];
            const double most = bound_of(weights, row, w, N, v, largest(out + t * N, N));
            const double e = fabs(out[t * N + c] - v) / most;
            share = e > share || isnan(e) ? e : share;
        }
    t_check(share <= 1, "%.3g of the bound", share);
    t_check(share > (weights == QKV_WEIGHTS_F32_PACKED ? 0 : 0.05), "only %.3g of the bound: it says nothing", share);
    sample_end(&s);
}

void test_narrow_bounds(void)
{
    for (int f = 0; f < FORMATS; f++)
        for (int i = -2; i <= 1 && can_keep(formats[f].weights); i++)
            if (t_case("%s/1e%d", formats[f].name, 15 * i))
                bounds(formats[f].weights, pow(10, 15 * i));
}

/* ---- numbers ---------------------------------------------------------------------------- */

/* Rows that are not finite, zero or at the edges of f32: only they are touched, and NaN shows. */
static void odd_rows(int32_t weights)
{
    enum { ROWS = 6, N = 320 };
    t_rng rng = t_rng_of(t_seed() + 603);
    sample s = values_of(weights, &rng);
    float *x = random_floats(&rng, ROWS * N), *out = t_scratch(ROWS * N * 4);
    qkv_layer_step step;
    char text[256];

    x[7] = NAN;
    x[N + 9] = -INFINITY;
    memset(x + 2 * N, 0, N * 4);
    for (int64_t i = 0; i < N; i++)
        x[3 * N + i] *= 1e-42f;
    for (int64_t i = 0; i < N; i++)
        x[4 * N + i] *= 1e17f; /* scores are squares of it */
    qkv_layer_step_init(&step);
    step.n_seqs = ROWS;
    step.q_len = 1;
    t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    for (int64_t c = 0; c < N; c++) {
        t_check(isnan(out[c]), "NaN gave %g", out[c]);
        t_check(!isfinite(out[N + c]), "infinity gave %g", out[N + c]);
        t_check(out[2 * N + c] == 0, "zeros gave %g", out[2 * N + c]);
        t_check(fabsf(out[3 * N + c]) < 1e-40f, "1e-42 gave %g", out[3 * N + c]);
        t_check(isfinite(out[4 * N + c]), "1e17 gave %g", out[4 * N + c]);
        t_check(isfinite(out[5 * N + c]), "the row after gave %g", out[5 * N + c]);
    }
    sample_end(&s);
}

/* A channel of weights that is not finite is NaN alone; one of zeros is zero. */
static void odd_weights(int32_t weights)
{
    enum { N = 320 };
    t_rng rng = t_rng_of(t_seed() + 604);
    sample s = values_of(weights, &rng);
    float *x = random_floats(&rng, N), out[N];
    qkv_layer_step step;
    char text[256];

    qkv_layer_destroy(s.layer);
    s.matrix[QKV_ROLE_V][3 * N + 5] = NAN;
    memset(s.matrix[QKV_ROLE_V] + 300 * N, 0, N * 4);
    memset(s.matrix[QKV_ROLE_O], 0, 20 * N * 4); /* what is not finite goes no further */
    s.matrix[QKV_ROLE_O][0] = NAN;
    t_check(qkv_layer_create(&s.desc, s.weights, NULL, &s.layer, text, sizeof text) == QKV_OK, "%s",
            text);
    for (int64_t i = 0; i < N; i++)
        s.matrix[QKV_ROLE_V][3 * N + i] = 0;
    qkv_layer_step_init(&step);
    step.q_len = 1;
    t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    for (int64_t c = 0; c < N; c++)
        t_check(isnan(out[c]), "channel %d is %g", (int)c, out[c]);
    qkv_layer_destroy(s.layer);
    t_check(qkv_layer_create(&s.desc, s.weights, NULL, &s.layer, text, sizeof text) == QKV_OK, "%s",
            text);
    t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
    for (int64_t c = 0; c < N; c++)
        t_check(c == 0 ? isnan(out[c]) : (c < 20 || c == 300) ? out[c] == 0 : isfinite(out[c]),
                "channel %d is %g", (int)c, out[c]);
    sample_end(&s);
}

/* Codes of 16 bits: the ends of the range, halves to even, and back. */
static void codes(void)
{
    const float x[5] = {32767, -32767, 0.5f, 1.5f, -258};
    uint8_t high[5], low[5];
    int8_t eight[5];
    int32_t sum;
    float scale;

    qkv_row_to_bytes(x, 5, high, low, &scale);
    t_check(scale == 1, "scale %g", scale);
    static const int wanted[5] = {32767, -32767, 0, 2, -258};
    for (int i = 0; i < 5; i++)
        t_check(256 * (high[i] - 128) + low[i] == wanted[i], "%g is %d and %d", x[i], high[i],
                low[i]);
    qkv_weights_to_codes(x, 5, eight, &scale, &sum);
    t_check(eight[0] == 127 && eight[1] == -127 && eight[2] == 0 && eight[4] == -1 && sum == -128,
            "codes %d %d %d %d, sum %d", eight[0], eight[1], eight[2], eight[4], sum);
}

void test_narrow_numbers(void)
{
    if (t_case("codes"))
        codes();
    for (int f = 0; f < FORMATS; f++) {
        if (!can_keep(formats[f].weights))
            continue;
        if (t_case("%s/rows", formats[f].name))
            odd_rows(formats[f].weights);
        if (t_case("%s/weights", formats[f].name))
            odd_weights(formats[f].weights);
    }
}

/* ---- refusals --------------------------------------------------------------------------- */

static void refuse_conversions(int32_t weights)
{
    t_rng rng = t_rng_of(t_seed() + 605);
    qkv_layer_desc d = desc_of(&variants[6]); /* rope */
    d.weights = weights;
    sample s = sample_of(&d, &rng);
    qkv_layer *made = NULL;
    qkv_layer_weight w;
    int64_t rows, cols;
    char text[256];

    t_check(qkv_layer_pool_heads(s.layer, 1, NULL, &made, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED && strstr(text, "as f32") && !made, "%s", text);
    t_check(qkv_layer_pair(s.layer, QKV_ROPE_INTERLEAVED, NULL, &made, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED && strstr(text, "as f32") && !made, "%s", text);
    t_check(qkv_layer_factorise(s.layer, 4, NULL, &made, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED && !made, "%s", text);
    t_check(qkv_layer_weight_of(s.layer, QKV_ROLE_Q, &w, &rows, &cols) == QKV_ERR_UNSUPPORTED,
            "a weight as f32");
    t_check(qkv_layer_weight_of(s.layer, QKV_ROLE_SINKS, &w, &rows, &cols) == QKV_OK && rows == 0,
            "a weight that is not there");
    sample_end(&s);
}

/* A plan is for layers that keep their weights alike. */
static void refuse_other_plans(int32_t weights)
{
    t_rng rng = t_rng_of(t_seed() + 606);
    const qkv_layer_desc d = wide_desc(QKV_WEIGHTS_F32);
    sample wide = sample_of(&d, &rng), narrow = wide;
    float x[600] = {0}, out[600];
    qkv_layer_step step;
    qkv_layer_plan *plan = NULL;
    qkv_layer_args args;
    char text[256];

    narrow.desc.weights = weights;
    qkv_layer_create(&narrow.desc, narrow.weights, NULL, &narrow.layer, text, sizeof text);
    if (weights != QKV_WEIGHTS_F32_PACKED)
        t_check(qkv_layer_bytes(narrow.layer) < qkv_layer_bytes(wide.layer), "as large as f32");
    qkv_layer_step_init(&step);
    step.q_len = 2;
    qkv_layer_plan_create(wide.layer, &step, NULL, &plan, text, sizeof text);
    qkv_layer_args_init(&args);
    args.x = x;
    args.out = out;
    args.workspace_bytes = qkv_layer_workspace_size(plan, 1);
    args.workspace = t_alloc(args.workspace_bytes, 64, T_END, 0);
    t_check(qkv_layer_run(plan, narrow.layer, &args, NULL, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "another description"), "%s", text);
    qkv_layer_plan_destroy(plan);
    sample_end(&wide);
    sample_end(&narrow);
}

/* Sums of so many products of bytes need not fit 32 bits. */
static void refuse_inputs(void)
{
    t_rng rng = t_rng_of(t_seed() + 607);
    qkv_layer_desc d;
    qkv_layer *layer = NULL;
    char text[256];

    qkv_layer_desc_init(&d);
    d.d_model = 66001;
    d.n_q_heads = d.n_kv_heads = d.head_dim = d.head_dim_v = 1;
    d.weights = QKV_WEIGHTS_INT8;
    const sample s = sample_weights(&d, &rng);
    t_check(qkv_layer_create(&d, s.weights, NULL, &layer, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED && strstr(text, "66000") && !layer, "%s", text);
    d.weights = QKV_WEIGHTS_BF16;
    t_check(!can_keep(d.weights) ||
                qkv_layer_create(&d, s.weights, NULL, &layer, text, sizeof text) == QKV_OK,
            "%s", text);
    qkv_layer_destroy(layer);
}

/* The largest sum there is: every byte at its end, as many as are accepted. */
static void largest_sum(void)
{
    enum { N = 66000 };
    t_rng rng = t_rng_of(t_seed() + 608);
    qkv_layer_desc d;
    qkv_layer_step step;
    float *x = t_scratch(N * sizeof *x), *out = t_scratch(N * sizeof *out);
    char text[256];

    qkv_layer_desc_init(&d);
    d.d_model = N;
    d.n_q_heads = d.n_kv_heads = d.head_dim = d.head_dim_v = 1;
    d.weights = QKV_WEIGHTS_INT8;
    sample s = sample_weights(&d, &rng);
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int64_t i = 0; i < N; i++) {
            x[i] = 1;
            s.matrix[QKV_ROLE_V][i] = (float)sign;
            s.matrix[QKV_ROLE_O][i] = 1;
        }
        qkv_layer_create(&d, s.weights, NULL, &s.layer, text, sizeof text);
        qkv_layer_step_init(&step);
        step.q_len = 1;
        t_check(run_step(&s, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
        t_check(fabs(out[7] - sign * (double)N) < 0.01, "%d ones gave %g", N, out[7]);
        qkv_layer_destroy(s.layer);
    }
}

void test_narrow_refusals(void)
{
    if (t_case("inputs") && can_keep(QKV_WEIGHTS_INT8))
        refuse_inputs();
    if (t_case("largest sum") && can_keep(QKV_WEIGHTS_INT8))
        largest_sum();
    if (t_case("no format")) {
        t_rng rng = t_rng_of(1);
        qkv_layer_desc d = desc_of(&variants[0]);
        const sample s = sample_weights(&d, &rng);
        qkv_layer *layer = NULL;
        char text[256];
        d.weights = 4;
        t_check(qkv_layer_create(&d, s.weights, NULL, &layer, text, sizeof text) ==
                        QKV_ERR_ARGUMENT && strstr(text, "weights is 4"), "%s", text);
    }
    for (int f = 0; f < FORMATS; f++) {
        if (!can_keep(formats[f].weights))
            continue;
        if (t_case("%s/conversions", formats[f].name))
            refuse_conversions(formats[f].weights);
        if (t_case("%s/plans", formats[f].name))
            refuse_other_plans(formats[f].weights);
    }
}
