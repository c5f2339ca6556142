/* int8_512.c - dot products of bytes in 512-bit vectors (AVX512-VNNI). */
#include <immintrin.h>

#include "loops.h"

#define LOOP_DOT    loop_dot_int8_512
#define LOOP_BYTES  64
#define LOOP_CHAINS 24
#define int_vec     __m512i
#define int_zero    _mm512_setzero_si512
#define int_set1    _mm512_set1_epi8
#define int_dot     _mm512_dpbusd_epi32
#include "int8_tmpl.h"
