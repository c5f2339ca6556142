/* fma_avx512.c - the multiply-add rate of 512-bit vectors. */
#include "ceilings.h"

#define FMA_NAME fma_flops_avx512
#define READ_NAME read_sum_avx512
#define FMA_BYTES 64
#define FMA_CHAINS 24
#include "fma_tmpl.h"
