/* layers_test.h - what the tests of layers share: variants, weights, an oracle in double. */
#ifndef LAYERS_TEST_H
#define LAYERS_TEST_H

#include "qkv/layers.h"
#include "t.h"

/* A kind of layer, small, with one thing about it. */
typedef struct variant {
    const char *name;
    void (*set)(qkv_layer_desc *d); /* on a causal layer of 6 query heads on 2, D = 8, d_model 20 */
} variant;

extern const variant variants[];
extern const int n_variants;
extern int32_t kept_as; /* QKV_WEIGHTS_ of what desc_of describes */
const char *kept(void); /* in front of the names of cases: "", "bf16/" ... */

/* A layer with random weights, and the weights as the oracle reads them. */
typedef struct sample {
    qkv_layer_desc desc;
    float *matrix[QKV_ROLE_COUNT], *bias[QKV_ROLE_COUNT];
    qkv_layer_weight weights[QKV_ROLE_COUNT];
    qkv_layer *layer;
} sample;

qkv_layer_desc desc_of(const variant *v);
/* Weights only; free nothing, all is t_scratch. */
sample sample_weights(const qkv_layer_desc *d, t_rng *rng);
/* With the layer; destroy it with sample_end.  If that is narrow, the matrices become what it keeps:
 * the oracle computes with rounded weights. */
sample sample_of(const qkv_layer_desc *d, t_rng *rng);
void sample_end(sample *s);

float *random_floats(t_rng *rng, int64_t n);
int64_t width_of_memory(const qkv_layer_desc *d);

/* One sequence by the formulas, in double, from x [tokens][d_model] (cross: memory [n_memory]): out
 * [tokens][d_model].  Keys below first do not exist. */
void oracle(const sample *s, const float *x, int64_t tokens, const float *memory, int64_t n_memory,
            const int64_t *positions, int64_t first, double *out);

/* Whether layers can keep weights so here; 0 after having looked at the sentence that refuses. */
int can_keep(int32_t weights);

/* The largest difference of rows of out from the oracle's, as a share of the largest number. */
double difference(const float *out, const double *wanted, int64_t n);

/* Runs a step on a fresh workspace full of NaN. */
qkv_status run_step(const sample *s, const qkv_layer_step *step, const float *x,
                    const float *memory, float *out, const qkv_parallel *parallel, char text[256]);

void test_whole(void);
void test_ragged(void);
void test_cached(void);
void test_narrow_forms(void);
void test_narrow_pieces(void);
void test_narrow_bounds(void);
void test_narrow_numbers(void);
void test_narrow_refusals(void);
void test_cross(void);
void test_mla(void);
void test_plans(void);
void test_weights(void);
void test_refusals(void);
void test_failing_memory(void);
void test_conversions(void);
void test_threads(void);

#endif
