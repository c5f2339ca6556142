/* sizing_test.h - models and setups that the tests of sizing share. */
#ifndef SIZING_TEST_H
#define SIZING_TEST_H

#include "qkv/sizing.h"
#include "t.h"

#define TEXT text, sizeof text

/* A model of equal layers with heads; Dv is D. */
qkv_model heads_model(int32_t layers, int32_t d_model, int32_t q, int32_t kv, int32_t dim);
/* DeepSeek-V3's attention. */
qkv_model latent_model(void);
/* Defaults at this context. */
qkv_size_setup setup_of(int64_t context, int64_t batch);

/* The work of a QKV_STEP_. */
qkv_size_work work_of(const qkv_model *m, const qkv_size_setup *s, int32_t which);

void test_facts(void);
void test_vectors(void);
void test_pages(void);
void test_real_caches(void);
void test_windows(void);
void test_pairs(void);
void test_parameters(void);
void test_work(void);
void test_time(void);
void test_ranks(void);
void test_solve(void);
void test_variants(void);
void test_words(void);
void test_refusals(void);

#endif
