/* bf16_512.c - dot products of bf16 pairs, summed in f32: vdpbf16ps (AVX512-BF16). */
#include <immintrin.h>

#include "loops.h"

enum { CHAINS = 24, OPERATIONS = 16 * 2 * 2 /* lanes, pairs, multiply and add */ };

double loop_dot_bf16_512(long rounds, float *keep)
{
    __m512 sum[CHAINS];
    __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80);       /* 1 */
    const __m512bh b = (__m512bh)_mm512_set1_epi16(0x3c00); /* 2^-7 */

    LOOP_UNROLL
    for (int c = 0; c < CHAINS; c++)
        sum[c] = _mm512_setzero_ps();
    for (long r = 0; r < rounds; r++) {
        LOOP_UNROLL
        for (int c = 0; c < CHAINS; c++) {
            LOOP_KEEP(a);
            sum[c] = _mm512_dpbf16_ps(sum[c], a, b);
            LOOP_KEEP(sum[c]);
        }
    }
    LOOP_UNROLL
    for (int c = 0; c < CHAINS; c++)
        *keep += sum[c][0];
    return (double)rounds * CHAINS * OPERATIONS;
}
