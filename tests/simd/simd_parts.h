/*
 * simd_parts.h - parts of vectors (v_load_n, v_widen_*_n), masks from bytes (v_test), interleaving
 * (v_zip_*) and narrowing (v_narrow_*).  Part of simd_tmpl.h.
 */

/* What a watched call works on. */
typedef struct part {
    const void *from;
    int n;
    vf (*load)(const void *p, int n);
    real (*element)(const void *p, int i); /* what lane i < n must hold */
} part;

static vf load_reals(const void *p, int n) { return v_load_n((const real *)p, n); }
static real element_of_reals(const void *p, int i) { return ((const real *)p)[i]; }

static void call_part(void *arg)
{
    const part *job = arg;
    real lanes[VL];

    v_store(lanes, job->load(job->from, job->n));
    for (int i = 0; i < VL; i++) {
        const bits_t want = i < job->n ? bits_of(job->element(job->from, i)) : 0;
        t_check(bits_of(lanes[i]) == want, "lane %d of the first %d is %a", i, job->n,
                (double)lanes[i]);
    }
}

/* The first n of some elements, which end (or begin) where memory does. */
static void check_parts(const char *name, size_t size, part job)
{
    t_rng rng = t_rng_of(t_seed());

    for (int where = T_END; where <= T_START; where++)
        for (int n = 0; n < VL; n++) {
            if (!t_case("%s %d, %s a guard page", name, n, where == T_END ? "before" : "after"))
                continue;
            unsigned char *bytes = t_alloc((size_t)n * size, size, where, 0);
            for (size_t i = 0; i < (size_t)n * size; i++)
                bytes[i] = (unsigned char)(1 + t_below(&rng, 63)); /* no NaN in any format */
            t_protect(bytes);
            job.from = bytes;
            job.n = n;
            t_call(call_part, &job);
        }
}

#if SIMD_F32
static vf load_bf16(const void *p, int n) { return v_widen_bf16_n((const uint16_t *)p, n); }
static vf load_f16(const void *p, int n) { return v_widen_f16_n((const uint16_t *)p, n); }
static real element_of_bf16(const void *p, int i)
{
    return of_bits((bits_t)((const uint16_t *)p)[i] << 16);
}
static real element_of_f16(const void *p, int i) { return plain_f16(((const uint16_t *)p)[i]); }
#endif

static void call_test(void *p)
{
    const uint8_t *bytes = p;
    real lanes[VL];

    v_store(lanes, v_select(v_test(bytes), v_set1(1), v_zero()));
    for (int i = 0; i < VL; i++)
        t_check(lanes[i] == (bytes[i] != 0), "byte %d is %d, its lane %a", i, bytes[i],
                (double)lanes[i]);
}

static void test_parts(void)
{
    static const uint8_t bytes[] = {0, 1, 0, 2, 128, 0, 255, 0};
    t_rng rng = t_rng_of(t_seed());

    check_parts("v_load_n", sizeof(real), (part){NULL, 0, load_reals, element_of_reals});
#if SIMD_F32
    check_parts("v_widen_bf16_n", 2, (part){NULL, 0, load_bf16, element_of_bf16});
    check_parts("v_widen_f16_n", 2, (part){NULL, 0, load_f16, element_of_f16});
#endif
    for (int where = T_END; where <= T_START; where++)
        if (t_case("v_test %s a guard page", where == T_END ? "before" : "after")) {
            uint8_t *memory = t_alloc(VL, 1, where, 0);
            for (int n = 0; n < 200; n++) {
                for (int i = 0; i < VL; i++)
                    memory[i] = bytes[t_below(&rng, 8)];
                t_call(call_test, memory);
            }
        }
}

/* A vector of one is never interleaved. */
static void test_zip(void)
{
    t_rng rng = t_rng_of(t_seed());
    real x[2][VL], out[2 * VL];

    if (VL == 1 || !t_case("any bits"))
        return;
    for (int n = 0; n < 100; n++) {
        for (int i = 0; i < 2 * VL; i++)
            x[i / VL][i % VL] = of_bits((bits_t)t_bits(&rng));
        v_store(out, v_zip_lo(v_load(x[0]), v_load(x[1])));
        v_store(out + VL, v_zip_hi(v_load(x[0]), v_load(x[1])));
        for (int i = 0; i < 2 * VL; i++)
            t_check(bits_of(out[i]) == bits_of(x[i % 2][i / 2]), "element %d is another", i);
    }
}

#if SIMD_F32
static void call_narrow(void *p)
{
    v_narrow_bf16((uint16_t *)p, v_set1(1));
    v_narrow_f16((uint16_t *)p, v_set1(1));
}

/* Rounds one row to both formats; qkv_convert is tested by itself. */
static void check_narrow_row(const real *x)
{
    uint16_t got[ROW], want[ROW];

    for (int f16 = 0; f16 < 2; f16++) {
        for (int i = 0; i < ROW; i += VL) {
            if (f16)
                v_narrow_f16(got + i, v_load(x + i));
            else
                v_narrow_bf16(got + i, v_load(x + i));
        }
        qkv_convert(want, f16 ? QKV_F16 : QKV_BF16, x, QKV_F32, ROW);
        const int infinity = f16 ? 0x7c00 : 0x7f80;
        for (int i = 0; i < ROW; i++) {
            const int is_nan = (got[i] & 0x7fff) > infinity;
            t_check(isnan(x[i]) ? is_nan : got[i] == want[i], "%a becomes %04x as %s, not %04x",
                    (double)x[i], got[i], f16 ? "f16" : "bf16", want[i]);
        }
    }
}

static void check_near(real middle, real row[ROW], int *n)
{
    for (int step = -1; step <= 1; step++) {
        row[(*n)++] = of_bits(bits_of(middle) + (bits_t)step);
        if (*n == ROW) {
            check_narrow_row(row);
            *n = 0;
        }
    }
}

static void test_narrow(void)
{
    t_rng rng = t_rng_of(t_seed());
    real row[ROW] = {0};
    int n = 0;

    if (t_case("16-bit numbers, the middles between them, and their neighbours"))
        for (uint32_t h = 1; h < 65535; h++) {
            const real bf16 = of_bits((bits_t)h << 16), f16 = plain_f16((uint16_t)h);
            check_near(bf16, row, &n);
            check_near(f16, row, &n);
            check_near(of_bits((bits_t)h << 16 | 0x8000), row, &n);
            check_near((f16 + plain_f16((uint16_t)(h + 1))) / 2, row, &n);
        }
    if (t_case("the largest f16, and where infinity begins")) {
        const real ends[] = {65504, 65520, 65536};
        for (int i = 0; i < 6; i++)
            check_near(i % 2 ? -ends[i / 2] : ends[i / 2], row, &n);
        check_narrow_row(row);
    }
    if (t_case("any bits"))
        for (int i = 0; i < t_times(2000); i++) {
            for (int j = 0; j < ROW; j++)
                row[j] = random_real(&rng);
            check_narrow_row(row);
        }
    if (t_case("writes VL elements"))
        t_call(call_narrow, t_alloc(VL * sizeof(uint16_t), sizeof(uint16_t), T_END, 0x5a));
}
#endif
