/* amx_tests.h - what the files of the program simd_amx_tiles share: the model and its helpers. */
#ifndef AMX_TESTS_H
#define AMX_TESTS_H

/* The model is what is tested, also where the library's kernels run on instructions. */
#ifdef QKV_AMX_MODEL
#define AMX_TIER_IS_MODEL 1
#else
#define AMX_TIER_IS_MODEL 0
#define QKV_AMX_MODEL
#endif
#include "amx_real.h"
#include "t.h"

/* The bytes of one tile, whatever they mean. */
typedef union amx_data {
    uint8_t u8[16][64];
    int8_t i8[16][64];
    uint16_t bf16[16][32];
    uint32_t u32[16][16];
    int32_t i32[16][16];
    float f32[16][16];
} amx_data;

/* C of m rows and n numbers, A of m rows and k groups of 4 bytes, B of k rows and n groups: tiles 0, 1
 * and 2.  The others are not configured. */
tile_config amx_shape(int m, int k, int n);

/* C += A B by the model, on memory as amx_real_dot has it. */
void amx_model_dot(const tile_config *config, int op, amx_data *c, const amx_data *a,
                   const amx_data *b);

/* The same bits, or both NaN. */
int amx_same(uint32_t x, uint32_t y);

void test_amx_random(void);
void test_amx_bytes(void);
void test_amx_fma(void);
void test_amx_real(void);

#endif
