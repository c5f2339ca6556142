/* fma_base.c - the multiply-add rate of the baseline instruction set, 128 bits wide. */
#include "ceilings.h"

#define FMA_NAME fma_flops_base
#define READ_NAME read_sum_base
#define FMA_BYTES 16
#define FMA_CHAINS 10
#include "fma_tmpl.h"
