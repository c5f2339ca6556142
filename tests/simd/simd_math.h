/*
 * simd_math.h - v_exp and v_tanh against libm with more bits.  Part of simd_tmpl.h.
 *
 * Floats are walked through in steps of 997 in the order of their bits, or one by one if the
 * environment has QKV_TEST_EVERY_FLOAT=1; doubles are drawn at random.
 */
typedef struct error_found {
    double normal, subnormal; /* largest, in ulp */
    real at;                  /* of the normal one */
} error_found;

/* |got - want| in units of the last place of want. */
static void note_error(error_found *worst, real x, real got, wide want)
{
    const int exponent = want == 0 ? LOWEST : WIDE(ilogb)(want);
    const int normal = exponent >= LOWEST;
    const wide ulp = WIDE(ldexp)(1, (normal ? exponent : LOWEST) - FRACTION);
    const double error = (double)(WIDE(fabs)((wide)got - want) / ulp);

    if (!normal || want == 0) {
        worst->subnormal = error > worst->subnormal ? error : worst->subnormal;
    } else if (!(error <= worst->normal)) {
        worst->normal = error;
        worst->at = x;
    }
}

static void check_exp_row(const real *x, error_found *worst)
{
    real y[ROW];

    for (int i = 0; i < ROW; i += VL)
        v_store(y + i, v_exp(v_load(x + i)));
    for (int i = 0; i < ROW; i++) {
        t_check(y[i] >= 0 && y[i] <= 1, "exp(%a) is %a", (double)x[i], (double)y[i]);
        note_error(worst, x[i], y[i], wide_exp((wide)x[i]));
    }
}

static void check_tanh_row(const real *x, error_found *worst)
{
    real y[ROW], opposite[ROW];

    for (int i = 0; i < ROW; i += VL) {
        const vf a = v_load(x + i);
        v_store(y + i, v_tanh(a));
        v_store(opposite + i, v_tanh(v_sub(v_zero(), a)));
    }
    for (int i = 0; i < ROW; i++) {
        t_check(SIMD(fabs)(y[i]) <= 1 && signbit(y[i]) == signbit(x[i]), "tanh(%a) is %a",
                (double)x[i], (double)y[i]);
        t_check(y[i] == -opposite[i], "tanh(%a) is %a, but that of its opposite %a", (double)x[i],
                (double)y[i], (double)opposite[i]);
        note_error(worst, x[i], y[i], wide_tanh((wide)x[i]));
    }
}

static void judge(const char *what, const error_found *worst, double allowed)
{
    printf("%s: %s is off by at most %.3f ulp (at %a), %.3f where the result is subnormal\n",
           SIMD_PROGRAM, what, worst->normal, (double)worst->at, worst->subnormal);
    t_check(worst->normal < allowed, "%s is off by %.3f ulp at %a; less than %g is promised", what,
            worst->normal, (double)worst->at, allowed);
    t_check(worst->subnormal < allowed, "%s is off by %.3f of the smallest subnormal", what,
            worst->subnormal);
}

/* Every step'th number whose bits lie in first .. last. */
static void walk(bits_t first, bits_t last, bits_t step, void (*check)(const real *, error_found *),
                 error_found *worst)
{
    real x[ROW];
    int n = 0;

    for (bits_t b = first;; b += step) {
        x[n++] = of_bits(b);
        const int at_end = last - b < step;
        while (at_end && n < ROW) /* the end itself, and the row filled up with it */
            x[n++] = of_bits(last);
        if (n == ROW)
            check(x, worst);
        n %= ROW;
        if (at_end)
            return;
    }
}

static bits_t step_of_walk(void)
{
    const char *every = getenv("QKV_TEST_EVERY_FLOAT");
    return every && strcmp(every, "1") == 0 ? 1 : 997;
}

/* `rows` rows of numbers up to `largest`, half of them uniform and half with a uniform exponent. */
static void draw(real largest, int rows, void (*check)(const real *, error_found *), error_found *worst)
{
    t_rng rng = t_rng_of(t_seed());
    real x[ROW];

    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < ROW; i++) {
            const real u = (real)t_uniform(&rng);
            const bits_t range = bits_of(SIMD(fabs)(largest)) + 1;
            const real any_exponent = of_bits((bits_t)(t_bits(&rng) % range));
            x[i] = r % 2 ? largest * u : SIMD(copysign)(any_exponent, largest);
        }
        check(x, worst);
    }
}

static real exp_of(real x)
{
    real y[VL];
    v_store(y, v_exp(v_set1(x)));
    return y[VL - 1];
}

static real tanh_of(real x)
{
    real y[VL];
    v_store(y, v_tanh(v_set1(x)));
    return y[VL - 1];
}

static void test_exp(void)
{
    const real floor = EXP_FLOOR;
    error_found worst = {0};

    if (t_case("ends"))
        for (int sign = 0; sign < 2; sign++) {
            const real zero = sign ? -(real)0 : (real)0;
            t_check(bits_of(exp_of(zero)) == bits_of(1), "exp(%g) is not 1", (double)zero);
            t_check(isnan(exp_of(SIMD(copysign)(QUIET_NAN, zero))), "a NaN is lost");
            t_check(isnan(exp_of(SIMD(copysign)(SIGNALLING_NAN, zero))), "a signalling NaN is lost");
        }
    if (t_case("exactly 0 far below"))
        for (bits_t b = bits_of(floor); b <= bits_of(-INFINITE); b += bits_of(1) / 4096) {
            const real x = of_bits(b);
            t_check(bits_of(exp_of(x)) == 0, "exp(%a) is %a", (double)x, (double)exp_of(x));
        }
    if (t_case("exactly 0 at -infinity"))
        t_check(bits_of(exp_of(-INFINITE)) == 0, "exp(-inf) is %a", (double)exp_of(-INFINITE));
    if (t_case("error")) {
        if (SIMD_F32)
            walk(bits_of(-0.0f), bits_of(floor), step_of_walk(), check_exp_row, &worst);
        draw(floor, t_times(4000), check_exp_row, &worst);
        draw(-1, t_times(1000), check_exp_row, &worst);
        judge("exp", &worst, 2);
    }
}

/* Their error grows with |x| (docs/numerics.md, weights), twice where a multiply-add rounds twice; below
 * the normal numbers they may be 0. */
static void check_weight_row(const real *x, error_found *unused)
{
    const wide least = WIDE(ldexp)(1, LOWEST), u = WIDE(ldexp)(1, -FRACTION - 1);
    real y[ROW];

    (void)unused;
    for (int i = 0; i < ROW; i += VL)
        v_store(y + i, v_exp_weight(v_load(x + i)));
    for (int i = 0; i < ROW; i++) {
        const wide want = wide_exp((wide)x[i]), off = WIDE(fabs)((wide)y[i] - want);
        t_check(y[i] >= 0 && y[i] <= 1, "the weight of %a is %a", (double)x[i], (double)y[i]);
        t_check(off <= 2 * u * (4 + WIDE(fabs)((wide)x[i])) * want || (want < least && y[i] == 0) ||
                    off <= least * u * 64,
                "the weight of %a is %a", (double)x[i], (double)y[i]);
    }
}

static void test_weight(void)
{
    const real low[] = {-INFINITE, -1000000, -800, -746};
    real y[VL];

    if (t_case("ends")) {
        for (int i = 0; i < 4; i++) {
            v_store(y, v_exp_weight(v_set1(low[i])));
            t_check(bits_of(y[0]) == 0, "the weight of %g is %a", (double)low[i], (double)y[0]);
        }
        v_store(y, v_exp_weight(v_zero()));
        t_check(y[0] == 1, "the weight of 0 is %a", (double)y[0]);
        v_store(y, v_exp_weight(v_set1(QUIET_NAN)));
        t_check(isnan(y[0]), "a NaN is lost");
        for (int n = 0; SIMD_F32 && n < 200; n++) { /* powers of 2 are exact, or 0 */
            v_store(y, exp2_f32(v_set1((real)-n)));
            const real want = SIMD(ldexp)(1, -n);
            t_check(y[0] == want || (n > 126 && y[0] == 0), "2^-%d is %a", n, (double)y[0]);
        }
        v_store(y, exp2_f32(v_set1(IS_F32 ? -INFINITE : 0)));
        t_check(y[0] == (IS_F32 ? 0 : 1), "2^-infinity is %a", (double)y[0]);
    }
    if (t_case("error")) {
        draw(EXP_FLOOR, t_times(4000), check_weight_row, NULL);
        draw(-1, t_times(1000), check_weight_row, NULL);
    }
}

static void test_tanh(void)
{
    error_found worst = {0};

    for (int sign = 0; sign < 2; sign++) {
        const real one = sign ? -(real)1 : (real)1;
        if (t_case("ends %+d", (int)one)) {
            const real zero = 0 * one, infinite = one * INFINITE;
            t_check(bits_of(tanh_of(zero)) == bits_of(zero), "tanh(%g) is not itself", (double)zero);
            t_check(tanh_of(infinite) == one, "tanh(%g) is %a", (double)infinite,
                    (double)tanh_of(infinite));
            t_check(isnan(tanh_of(SIMD(copysign)(QUIET_NAN, one))), "a NaN is lost");
            t_check(isnan(tanh_of(SIMD(copysign)(SIGNALLING_NAN, one))), "a signalling NaN is lost");
        }
    }
    if (t_case("error")) {
        if (SIMD_F32)
            walk(0, bits_of(INFINITE), step_of_walk(), check_tanh_row, &worst);
        draw(24, t_times(2000), check_tanh_row, &worst);
        draw(-1, t_times(2000), check_tanh_row, &worst);
        draw(of_bits(bits_of(INFINITE) - 1), t_times(1000), check_tanh_row, &worst);
        judge("tanh", &worst, 4);
    }
}
