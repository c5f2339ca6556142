/*
 * rope_test.h - what the tests of rope share: an oracle in long double, random ropes and tensors.
 */
#ifndef ROPE_TEST_H
#define ROPE_TEST_H

#include "qkv/rope.h"
#include "t.h"

enum { MAX_DIM = 1024, N_FACTORS = 512 };

/* ---- oracle.c: written from the formulas, not from the library ----------------------------- */

/* Frequency of pair i and the factor a. */
long double oracle_frequency(const qkv_rope *r, int64_t seq_len, int i);
long double oracle_factor(const qkv_rope *r);
/* Relative error that double may leave in an angle: where frequencies are mixed of f and f/factor
 * the share of f, itself a difference, counts up to `factor` times. */
long double oracle_slack(const qkv_rope *r);
/* Channels of pair i. */
void oracle_pair(const qkv_rope *r, int i, int *first, int *second);
/* r, resolved. */
int oracle_rotary_dim(const qkv_rope *r);
/* A row of x turned by position p. */
void oracle_row(const qkv_rope *r, int64_t seq_len, int64_t p, int inverse, const double *x,
                long double *y);

/* ---- random.c ------------------------------------------------------------------------------ */

/* Any type that is not NONE with parameters of the size that models have; factors holds two lists
 * for LONGROPE. */
void random_rope(t_rng *rng, qkv_rope *r, double factors[2][N_FACTORS]);

/* Memory of a tensor with random layout, numbers and guards; the last byte or the first lies beside
 * an unreadable page. */
typedef struct tensor {
    qkv_layout layout;
    int64_t n[4];
    void *base;   /* of element 0 */
    void *memory; /* from t_alloc */
    size_t bytes;
} tensor;

/* order: 0 [B][H][T][D], 1 [B][T][H][D], 2 [T][B][H][D] with gaps, tokens reversed. */
void make_tensor(t_rng *rng, tensor *t, int32_t type, const int64_t n[4], int order, int where);
int64_t tensor_at(const tensor *t, int64_t b, int64_t h, int64_t i, int64_t c);
double tensor_get(const tensor *t, int64_t b, int64_t h, int64_t i, int64_t c);

/* ---- tests --------------------------------------------------------------------------------- */

void test_frequencies(void);
void test_known(void);
void test_tables(void);
void test_tables_f32(void);
void test_rotation(void);
void test_same_bits(void);
void test_gradient(void);
void test_untouched(void);
void test_empty(void);
void test_cached(void);
void test_refused_writes(void);
void test_refused_ropes(void);
void test_refused_args(void);

#endif
