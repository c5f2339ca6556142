/* simd_sum.h - v_sum4 adds up the right lanes, each vector alone.  Part of simd_tmpl.h. */
static void sum4_of(real x[4][VL], real out[4])
{
    const vf a[4] = {v_load(x[0]), v_load(x[1]), v_load(x[2]), v_load(x[3])};
    v_sum4(a, out);
}

static void call_sum4(void *p)
{
    const vf a[4] = {v_set1(1), v_set1(1), v_set1(1), v_set1(1)};
    v_sum4(a, (real *)p);
}

static void test_sum4(void)
{
    t_rng rng = t_rng_of(t_seed());
    real x[4][VL], out[4];

    if (t_case("whole numbers, exact in any order"))
        for (int n = 0; n < t_times(20000); n++) {
            real want[4] = {0};
            for (int i = 0; i < 4 * VL; i++)
                want[i / VL] += x[i / VL][i % VL] = (real)t_between(&rng, -65535, 65535);
            sum4_of(x, out);
            for (int i = 0; i < 4; i++)
                t_check(out[i] == want[i], "sum %d is %a, not %a", i, (double)out[i],
                        (double)want[i]);
        }
    if (t_case("the same bits in each place"))
        for (int n = 0; n < t_times(20000); n++) {
            for (int i = 0; i < 4 * VL; i++)
                x[i / VL][i % VL] = i < VL ? random_real(&rng) : x[0][i % VL];
            sum4_of(x, out);
            for (int i = 1; i < 4; i++)
                t_check(is_same(SAME_VALUE, out[i], out[0]), "sum %d is %a, sum 0 is %a", i,
                        (double)out[i], (double)out[0]);
        }
    if (t_case("a NaN stays in its sum"))
        for (int at = 0; at < 4 * VL; at++) {
            for (int i = 0; i < 4 * VL; i++)
                x[i / VL][i % VL] = i == at ? QUIET_NAN : 1;
            sum4_of(x, out);
            for (int i = 0; i < 4; i++)
                t_check(i == at / VL ? isnan(out[i]) : out[i] == VL, "element %d is NaN: sum %d is %a",
                        at, i, (double)out[i]);
        }
    if (t_case("writes four elements"))
        t_call(call_sum4, t_alloc(4 * sizeof(real), sizeof(real), T_END, 0x5a));
}
