/*
 * simd_wide.h - exp and tanh with more bits than `real`, to measure v_exp and v_tanh by.  Part of
 * simd_tmpl.h.
 *
 * Floats have libm's in double, doubles libm's in long double.  musl has a long double of 113 bits
 * on AArch64, but its expl and tanhl go through double; there both are made of e^x - 1 instead, from
 * its series near 0 and (1 + E)^2 = 1 + E (E + 2) away from it.
 */
#if SIMD_F32 || defined(__GLIBC__)

static wide wide_exp(wide x) { return WIDE(exp)(x); }
static wide wide_tanh(wide x) { return WIDE(tanh)(x); }

#else

/* e^x - 1 for abs(x) up to 2^7, to some 104 of 113 bits: libm with as many agrees to that. */
static wide wide_expm1(wide x)
{
    wide sum = 0;

    for (int n = 16; n > 0; n--) /* x + x^2/2! + ... of x / 2^16, below 2^-8 */
        sum = (sum + 1) * (x / 65536) / n;
    for (int i = 0; i < 16; i++)
        sum *= sum + 2;
    return sum;
}

static wide wide_exp(wide x)
{
    const wide ln2 = 0.693147180559945309417232121458176568L;
    const wide n = isfinite(x) ? roundl(x / ln2) : 0;
    if (!isfinite(x))
        return isnan(x) || x > 0 ? x : 0;
    return ldexpl(1 + wide_expm1(x - n * ln2), (int)n);
}

static wide wide_tanh(wide x)
{
    const wide e = wide_expm1(-2 * fminl(fabsl(x), 64)); /* 1 - tanh(64) is 2^-183 */
    return isnan(x) ? x : copysignl(-e / (2 + e), x);
}

#endif
