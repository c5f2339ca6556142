/*
 * fma_tmpl.h - how many multiply-adds a second one core does from registers, and how fast it reads.
 *
 * Parameters: FMA_NAME and READ_NAME the functions, FMA_BYTES bytes of a vector, FMA_CHAINS
 * independent sums.
 * Included with the flags of the instruction set; the compiler fuses x * a + b there
 * (-ffp-contract=fast for these files only).
 */
#if defined(__AVX512F__)
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#elif defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+x"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

typedef float vec __attribute__((vector_size(FMA_BYTES)));

/* Floating-point operations done in `rounds` rounds; the sum keeps the loop alive. */
double FMA_NAME(long rounds, float *keep)
{
    vec sum[FMA_CHAINS], a, b;

    for (unsigned i = 0; i < FMA_BYTES / sizeof(float); i++) {
        a[i] = 0.999f;
        b[i] = 1e-3f * (float)i;
    }
    /* Every loop over sums is unrolled, or they live in memory and not in registers. */
#pragma GCC unroll 32
    for (int c = 0; c < FMA_CHAINS; c++)
        sum[c] = b;
    for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 32
        for (int c = 0; c < FMA_CHAINS; c++) {
            sum[c] = sum[c] * a + b;
            KEEP(sum[c]); /* keeps chains apart and in registers */
        }
    }
#pragma GCC unroll 32
    for (int c = 0; c < FMA_CHAINS; c++)
        *keep += sum[c][0];
    return (double)rounds * FMA_CHAINS * (FMA_BYTES / sizeof(float)) * 2;
}

/* The sum of n floats (a multiple of 8 vectors is read), aligned to a vector. */
float READ_NAME(const float *p, size_t n)
{
    enum { STEP = 8 * FMA_BYTES / sizeof(float) };
    vec sum[8] = {{0}};
    float all = 0;

    for (size_t i = 0; i + STEP <= n; i += STEP) {
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            sum[c] += ((const vec *)(const void *)(p + i))[c];
    }
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++)
        all += sum[c][0];
    return all;
}
