/* conversions.c - layers from layers: what must be equal, and what is known to differ how much. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers_test.h"

enum { T = 9 };

static const variant *named(const char *name)
{
    for (int i = 0; i < n_variants; i++)
        if (strcmp(variants[i].name, name) == 0)
            return &variants[i];
    t_fail("no variant %s", name);
    return variants;
}

/* out of another layer than the sample's own. */
static void run(const sample *s, qkv_layer *layer, const float *x, float *out)
{
    sample other = *s;
    qkv_layer_step step;
    char text[256] = "no layer";

    other.layer = layer;
    qkv_layer_step_init(&step);
    step.q_len = T;
    t_check(layer && run_step(&other, &step, x, NULL, out, NULL, text) == QKV_OK, "%s", text);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double *wanted = t_scratch((size_t)n * sizeof *wanted);
    for (int64_t i = 0; i < n; i++)
        wanted[i] = b[i];
    return difference(a, wanted, n);
}

static double changed(const sample *s, qkv_layer *made, t_rng *rng)
{
    float *x = random_floats(rng, T * 20), *before = t_scratch(T * 80), *after = t_scratch(T * 80);
    run(s, s->layer, x, before);
    run(s, made, x, after);
    return distance(after, before, T * 20);
}

/* Heads that are equal are their own mean; others are pooled as the formula says. */
static void pool(const char *name, int heads, int equal)
{
    t_rng rng = t_rng_of(t_seed() + 600);
    qkv_layer_desc d = desc_of(named(name));
    qkv_layer *made = NULL;
    char text[256];

    d.n_kv_heads = 6;
    sample s = sample_weights(&d, &rng);
    const int merged = 6 / heads;
    for (int role = QKV_ROLE_K; role <= QKV_ROLE_V; role++) {
        const int64_t rows = role == QKV_ROLE_K ? d.head_dim : d.head_dim_v;
        for (int h = 0; equal && h < 6; h++) {
            float *m = s.matrix[role], *b = s.bias[role];
            memcpy(m + h * rows * 20, m + h / merged * merged * rows * 20, (size_t)rows * 80);
            if (b)
                memcpy(b + h * rows, b + h / merged * merged * rows, (size_t)rows * 4);
        }
    }
    qkv_layer_create(&d, s.weights, NULL, &s.layer, text, sizeof text);
    t_check(qkv_layer_pool_heads(s.layer, heads, NULL, &made, text, sizeof text) == QKV_OK, "%s",
            text);
    if (made) {
        const double e = changed(&s, made, &rng);
        t_check(qkv_layer_desc_of(made)->n_kv_heads == heads, "other heads");
        t_check(equal ? e < 2e-6 : e > 1e-3, "%s heads, changed by %g", equal ? "equal" : "other",
                e);
    }
    qkv_layer_destroy(made);
    sample_end(&s);
}

static void mean_of_heads(void)
{
    t_rng rng = t_rng_of(t_seed() + 601);
    qkv_layer_desc d = desc_of(named("biases"));
    qkv_layer *made = NULL;
    qkv_layer_weight w;
    int64_t rows, cols;

    d.n_kv_heads = 6;
    sample s = sample_of(&d, &rng);
    qkv_layer_pool_heads(s.layer, 2, NULL, &made, NULL, 0);
    qkv_layer_weight_of(made, QKV_ROLE_V, &w, &rows, &cols);
    t_check(rows == 16 && cols == 20 && w.data && w.bias, "%lld rows", (long long)rows);
    for (int64_t r = 0; r < 16; r++) {
        const int64_t first = r / 8 * 3 * 8 + r % 8;
        const float *b = s.bias[QKV_ROLE_V], *m = s.matrix[QKV_ROLE_V];
        t_check(fabsf(((const float *)w.bias)[r] - (b[first] + b[first + 8] + b[first + 16]) / 3) <
                    1e-6f,
                "bias %lld", (long long)r);
        for (int64_t c = 0; c < 20; c++)
            t_check(fabsf(((const float *)w.data)[r * 20 + c] -
                          (m[first * 20 + c] + m[(first + 8) * 20 + c] + m[(first + 16) * 20 + c]) /
                              3) < 1e-6f,
                    "row %lld", (long long)r);
    }
    qkv_layer_destroy(made);
    sample_end(&s);
}

/* The change at each rank: rounding at full rank, and less the higher the rank. */
static void factorise(const char *name, int full)
{
    t_rng rng = t_rng_of(t_seed() + 602);
    const qkv_layer_desc d = desc_of(named(name));
    sample s = sample_of(&d, &rng);
    double last = INFINITY;
    char text[256];

    for (int rank = 4; rank <= full; rank += 4) {
        t_rng same = t_rng_of(t_seed() + 603);
        qkv_layer *made = NULL;
        t_check(qkv_layer_factorise(s.layer, rank, NULL, &made, text, sizeof text) == QKV_OK, "%s",
                text);
        if (!made)
            break;
        const double e = changed(&s, made, &same);
        t_check(qkv_layer_desc_of(made)->kind == QKV_LAYER_MLA, "it is no MLA");
        t_check(rank == full ? e < 2e-5 : e > 1e-3, "rank %d of %d: %g", rank, full, e);
        t_check(e < 1.5 * last, "rank %d: %g after %g", rank, e, last);
        last = e;
        qkv_layer_destroy(made);
    }
    sample_end(&s);
}

/* There and back is what it was, bit for bit; once is the same scores. */
static void turn(const char *name)
{
    t_rng rng = t_rng_of(t_seed() + 604);
    const qkv_layer_desc d = desc_of(named(name));
    sample s = sample_of(&d, &rng);
    qkv_layer *there = NULL, *back = NULL, *none = NULL;
    const int32_t to = d.rope.pairing == QKV_ROPE_INTERLEAVED ? QKV_ROPE_HALF_SPLIT
                                                             : QKV_ROPE_INTERLEAVED;
    char text[256];

    t_check(qkv_layer_pair(s.layer, to, NULL, &there, text, sizeof text) == QKV_OK, "%s", text);
    if (there) {
        t_check(qkv_layer_pair(there, d.rope.pairing, NULL, &back, text, sizeof text) == QKV_OK,
                "%s", text);
        t_check(changed(&s, there, &rng) < 2e-6, "other numbers");
        t_check(changed(&s, back, &rng) == 0, "there and back is not the same");
    }
    t_check(qkv_layer_pair(s.layer, d.rope.pairing, NULL, &none, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED &&
                !none,
            "%s", text);
    qkv_layer_destroy(there);
    qkv_layer_destroy(back);
    sample_end(&s);
}

static void refuse(void)
{
    t_rng rng = t_rng_of(t_seed() + 605);
    const qkv_layer_desc d = desc_of(named("gqa")), e = desc_of(named("mla")),
                         f = desc_of(named("rope"));
    sample s = sample_of(&d, &rng), m = sample_of(&e, &rng), r = sample_of(&f, &rng);
    qkv_layer *made = NULL;
    char text[256];

    t_check(qkv_layer_pool_heads(s.layer, 3, NULL, &made, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "n_kv_heads is 3"),
            "%s", text);
    t_check(qkv_layer_pool_heads(m.layer, 1, NULL, &made, text, sizeof text) == QKV_ERR_UNSUPPORTED,
            "%s", text);
    t_check(qkv_layer_factorise(s.layer, 21, NULL, &made, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "rank is 21"),
            "%s", text);
    t_check(qkv_layer_factorise(r.layer, 4, NULL, &made, text, sizeof text) ==
                    QKV_ERR_UNSUPPORTED &&
                strstr(text, "rope"),
            "%s", text);
    t_check(qkv_layer_pair(s.layer, QKV_ROPE_INTERLEAVED, NULL, &made, text, sizeof text) ==
                QKV_ERR_UNSUPPORTED,
            "%s", text);
    t_check(qkv_layer_pair(r.layer, 7, NULL, &made, text, sizeof text) == QKV_ERR_ARGUMENT, "%s",
            text);
    sample_end(&s);
    sample_end(&m);
    sample_end(&r);
}

/* ---- allocation ------------------------------------------------------------------------- */

static int left, live;

static void *few_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    if (left-- <= 0)
        return NULL;
    live++;
    return malloc(bytes);
}

static void few_free(void *ctx, void *memory)
{
    (void)ctx;
    live -= memory != NULL;
    free(memory);
}

/* Scratch and the layer: either may not be there. */
static void run_short(int kind, int allocations)
{
    t_rng rng = t_rng_of(t_seed() + 606);
    const qkv_layer_desc d = desc_of(named(kind == 2 ? "rope" : "mha"));
    sample s = sample_of(&d, &rng);
    qkv_layer *made = NULL;
    const qkv_allocator a = {few_alloc, few_free, NULL};
    qkv_status status;

    left = allocations;
    live = 0;
    if (kind == 0)
        status = qkv_layer_pool_heads(s.layer, 2, &a, &made, NULL, 0);
    else if (kind == 1)
        status = qkv_layer_factorise(s.layer, 5, &a, &made, NULL, 0);
    else
        status = qkv_layer_pair(s.layer, QKV_ROPE_INTERLEAVED, &a, &made, NULL, 0);
    t_check(status == (allocations < 2 ? QKV_ERR_MEMORY : QKV_OK), "%s", qkv_status_name(status));
    t_check((made != NULL) == (status == QKV_OK), "a layer in spite of an error, or none");
    t_check(live == (made != NULL), "%d allocations are left", live);
    qkv_layer_destroy(made);
    t_check(live == 0, "%d allocations are left", live);
    sample_end(&s);
}

void test_conversions(void)
{
    static const char *const pooled[] = {"gqa", "biases", "norm_plus_one", "window"};
    static const char *const factored[] = {"mha", "biases", "widths", "alibi", "encoder"};
    static const char *const turned[] = {"rope", "partial", "norm_plus_one", "mla", "mla_direct"};

    for (int i = 0; i < 4; i++)
        for (int heads = 1; heads <= 3; heads++)
            for (int equal = 0; equal < 2; equal++)
                if (t_case("pool/%s/%d/%d", pooled[i], heads, equal))
                    pool(pooled[i], heads, equal);
    if (t_case("mean"))
        mean_of_heads();
    for (int i = 0; i < 5; i++)
        if (t_case("factorise/%s", factored[i]))
            factorise(factored[i], 20);
    for (int i = 0; i < 5; i++)
        if (t_case("turn/%s", turned[i]))
            turn(turned[i]);
    for (int kind = 0; kind < 3; kind++)
        for (int n = 0; n < 3; n++)
            if (t_case("memory/%d/%d", kind, n))
                run_short(kind, n);
    if (t_case("refusals"))
        refuse();
}
