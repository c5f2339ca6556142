/*
 * simd_memory.h - loads and stores touch their elements only, and widening is exact.  Part of simd_tmpl.h.
 */
static void call_load(void *p)
{
    real copy[VL];
    v_store(copy, v_load((const real *)p));
    for (int i = 0; i < VL; i++)
        t_check(bits_of(copy[i]) == bits_of(((const real *)p)[i]), "element %d was not loaded", i);
}

/* What lies around is compared by the harness when the case ends. */
static void call_store(void *p)
{
    v_store((real *)p, v_set1(3));
    for (int i = 0; i < VL; i++)
        t_check(((const real *)p)[i] == 3, "element %d was not stored", i);
}

#if SIMD_F32
static void call_widen(void *p)
{
    real out[VL];
    v_store(out, v_widen_bf16((const uint16_t *)p));
    t_check(out[VL - 1] == 1, "the last bf16 is %g, not 1", (double)out[VL - 1]);
    v_store(out, v_widen_f16((const uint16_t *)p));
    t_check(out[VL - 1] == (real)1.875, "the last f16 is %g, not 1.875", (double)out[VL - 1]);
}
#endif

static void test_memory(void)
{
    for (int where = T_END; where <= T_START; where++) {
        const char *beside = where == T_END ? "before" : "after";
        if (t_case("v_load %s a guard page", beside)) {
            void *memory = t_alloc(VL * sizeof(real), sizeof(real), where, 0x41);
            t_protect(memory);
            t_call(call_load, memory);
        }
        if (t_case("v_store %s a guard page", beside))
            t_call(call_store, t_alloc(VL * sizeof(real), sizeof(real), where, 0x5a));
        if (t_case("v_load %s a guard page, one element away", beside)) {
            real *memory = t_alloc((VL + 1) * sizeof(real), sizeof(real), where, 0x41);
            t_call(call_load, memory + (where == T_START));
        }
#if SIMD_F32
        if (t_case("v_widen %s a guard page", beside)) {
            uint16_t *memory = t_alloc(VL * sizeof *memory, sizeof *memory, where, 0);
            for (int i = 0; i < VL; i++)
                memory[i] = 0x3f80; /* 1 as bf16, 1.875 as f16 */
            t_protect(memory);
            t_call(call_widen, memory);
        }
#endif
    }
}

#if SIMD_F32
/* By the definition of binary16: a sign, 5 bits of exponent with bias 15, 10 of fraction. */
static real plain_f16(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const bits_t sign = (bits_t)(h & 0x8000) << 16;
    real x;

    if (exponent == 31 && fraction) /* quiet, with its payload */
        return of_bits(sign | 0x7fc00000u | (bits_t)fraction << 13);
    if (exponent == 31)
        x = INFINITE;
    else if (exponent == 0)
        x = ldexpf((real)fraction, -24);
    else
        x = ldexpf((real)(1024 + fraction), exponent - 25);
    return of_bits(bits_of(x) | sign);
}

static void test_widen(void)
{
    uint16_t in[VL];
    real out[VL];

    for (int f16 = 0; f16 < 2; f16++)
        if (t_case("%s, all 65,536", f16 ? "v_widen_f16" : "v_widen_bf16"))
            for (uint32_t h = 0; h < 65536; h += VL) {
                for (int i = 0; i < VL; i++)
                    in[i] = (uint16_t)(h + (uint32_t)i);
                v_store(out, f16 ? v_widen_f16(in) : v_widen_bf16(in));
                for (int i = 0; i < VL; i++) {
                    const bits_t want = f16 ? bits_of(plain_f16(in[i])) : (bits_t)in[i] << 16;
                    t_check(bits_of(out[i]) == want, "%04x becomes %08x, not %08x", in[i],
                            bits_of(out[i]), want);
                }
            }
}
#endif
