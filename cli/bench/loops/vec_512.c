/* vec_512.c - multiply-adds and reads of 512-bit vectors. */
#include "loops.h"

#define LOOP_FMA     loop_fma_512
#define LOOP_READ    read_512
#define LOOP_ELEMENT float
#define LOOP_BYTES   64
#define LOOP_CHAINS  24
#include "fma_tmpl.h"
#include "read_tmpl.h"
