/* vec_256.c - multiply-adds and reads of 256-bit vectors. */
#include "loops.h"

#define LOOP_FMA     loop_fma_256
#define LOOP_READ    read_256
#define LOOP_ELEMENT float
#define LOOP_BYTES   32
#define LOOP_CHAINS  12
#include "fma_tmpl.h"
#include "read_tmpl.h"
