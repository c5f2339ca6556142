/* int8_256.c - dot products of bytes in 256-bit vectors (AVX-VNNI, of CPUs without AVX-512). */
#include <immintrin.h>

#include "loops.h"

#define LOOP_DOT    loop_dot_int8_256
#define LOOP_BYTES  32
#define LOOP_CHAINS 12
#define int_vec     __m256i
#define int_zero    _mm256_setzero_si256
#define int_set1    _mm256_set1_epi8
#define int_dot     _mm256_dpbusd_avx_epi32
#include "int8_tmpl.h"
