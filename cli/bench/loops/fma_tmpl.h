/*
 * fma_tmpl.h - how many multiply-adds a core does from registers.
 *
 * Parameters: LOOP_FMA the function, LOOP_ELEMENT and LOOP_BYTES the elements and bytes of a
 * vector, LOOP_CHAINS independent sums, at least latency times units.  Compiled with
 * -ffp-contract=fast: the two operations below become one instruction wherever there is one.
 */
#if defined(__x86_64__)
#define LOOP_STEP(sum, a, b) ((sum) * (a) + (b))
#else
/* Arm's instruction overwrites the addend; the other form would cost a move a round. */
#define LOOP_STEP(sum, a, b) ((sum) + (a) * (b))
#endif

typedef LOOP_ELEMENT loop_vec __attribute__((vector_size(LOOP_BYTES)));

double LOOP_FMA(long rounds, float *keep)
{
    enum { LANES = LOOP_BYTES / sizeof(LOOP_ELEMENT) };
    const loop_vec zero = {0};
    loop_vec sum[LOOP_CHAINS], a = zero + (LOOP_ELEMENT)0.5f, b = zero + (LOOP_ELEMENT)0.25f;

    LOOP_UNROLL
    for (int c = 0; c < LOOP_CHAINS; c++)
        sum[c] = b;
    for (long r = 0; r < rounds; r++) {
        LOOP_UNROLL
        for (int c = 0; c < LOOP_CHAINS; c++) {
            LOOP_KEEP(a); /* on Arm a * b would be computed once, before the loop */
            sum[c] = LOOP_STEP(sum[c], a, b);
            LOOP_KEEP(sum[c]);
        }
    }
    LOOP_UNROLL
    for (int c = 0; c < LOOP_CHAINS; c++)
        *keep += (float)sum[c][0];
    return (double)rounds * LOOP_CHAINS * LANES * 2;
}
#undef LOOP_STEP
