/*
 * int8_tmpl.h - dot products of four bytes, summed in 32-bit integers: vpdpbusd.
 *
 * Parameters: LOOP_DOT the function, LOOP_BYTES the bytes of a vector, LOOP_CHAINS independent
 * sums, and the intrinsics int_vec, int_zero, int_set1 and int_dot.
 */
double LOOP_DOT(long rounds, float *keep)
{
    int_vec sum[LOOP_CHAINS], a = int_set1(1);
    const int_vec b = int_set1(1);

    LOOP_UNROLL
    for (int c = 0; c < LOOP_CHAINS; c++)
        sum[c] = int_zero();
    for (long r = 0; r < rounds; r++) {
        LOOP_UNROLL
        for (int c = 0; c < LOOP_CHAINS; c++) {
            LOOP_KEEP(a);
            sum[c] = int_dot(sum[c], a, b);
            LOOP_KEEP(sum[c]);
        }
    }
    LOOP_UNROLL
    for (int c = 0; c < LOOP_CHAINS; c++)
        *keep += (float)sum[c][0];
    return (double)rounds * LOOP_CHAINS * LOOP_BYTES * 2;
}
