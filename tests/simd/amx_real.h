/* amx_real.h - what test_amx_tiles.c compares its model with: instructions of this CPU, if it has them. */
#ifndef AMX_REAL_H
#define AMX_REAL_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/simd/amx_tiles.h"

enum { AMX_BF16, AMX_I8, AMX_I8U8, AMX_U8I8, AMX_U8, AMX_N_OPS };

/* Loads C, A and B (rows `stride` bytes apart), multiplies, stores C.  Needs QKV_CPU_AMX. */
void amx_real_dot(const tile_config *config, int op, void *c, const void *a, const void *b,
                  int64_t stride);

/* out[i] = a[i] b[i] + c[i] by the FMA instruction, which takes subnormal operands as 0 and makes
 * subnormal results 0 here (MXCSR is restored).  Needs QKV_CPU_AVX2. */
void amx_real_fma(const float *a, const float *b, const float *c, float *out, size_t n);

#endif
