/* vec_128.c - multiply-adds and reads of the baseline instruction set, 128 bits wide. */
#include "loops.h"

#define LOOP_FMA     loop_fma_128
#define LOOP_READ    read_128
#define LOOP_ELEMENT float
#define LOOP_BYTES   16
#if defined(__x86_64__)
#define LOOP_CHAINS 12 /* of 16 registers */
#else
#define LOOP_CHAINS 24 /* of 32; four units of latency 4 need 16 */
#endif
#include "fma_tmpl.h"
#include "read_tmpl.h"
