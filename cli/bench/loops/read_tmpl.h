/*
 * read_tmpl.h - how fast a core reads memory that no cache holds.
 *
 * Parameters: LOOP_READ the function, LOOP_BYTES the bytes of a vector.
 *
 * One stream in ascending order.  What was tried on Zen 4, 1 GiB in huge pages, best of five: no
 * prefetch 27 GB/s; into the second level 1, 2, 4, 8, 16 KiB ahead 30, 30, 29, 26, 27; two or four
 * streams at once 13 and 10.
 */
enum { READ_AHEAD = 2048 / sizeof(float) };

typedef float read_vec __attribute__((vector_size(LOOP_BYTES)));

float LOOP_READ(const float *p, size_t n)
{
    enum { LANES = LOOP_BYTES / sizeof(float), SUMS = 8, LINE = 64 / sizeof(float) };
    read_vec sum[SUMS] = {{0}};
    float all = 0;

    for (size_t i = 0; i + SUMS * LANES <= n; i += SUMS * LANES) {
        LOOP_UNROLL
        for (int line = 0; line < SUMS * LANES; line += LINE)
            __builtin_prefetch(p + i + line + READ_AHEAD, 0, 2);
        LOOP_UNROLL
        for (int c = 0; c < SUMS; c++)
            sum[c] += ((const read_vec *)(const void *)(p + i))[c];
    }
    LOOP_UNROLL
    for (int c = 0; c < SUMS; c++)
        all += sum[c][0];
    return all;
}
