/* f16_512.c - multiply-adds of 512-bit vectors of f16 (AVX512-FP16). */
#include "loops.h"

#define LOOP_FMA     loop_fma_f16_512
#define LOOP_ELEMENT _Float16
#define LOOP_BYTES   64
#define LOOP_CHAINS  24
#include "fma_tmpl.h"
