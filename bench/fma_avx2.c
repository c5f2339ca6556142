/* fma_avx2.c - the multiply-add rate of 256-bit vectors. */
#include "ceilings.h"

#define FMA_NAME fma_flops_avx2
#define READ_NAME read_sum_avx2
#define FMA_BYTES 32
#define FMA_CHAINS 12
#include "fma_tmpl.h"
