/*
 * simd_ops.h - every lane-by-lane operation against its plain definition.  Part of simd_tmpl.h.
 *
 * An operation is two functions of up to three operands: `run` on arrays of ROW elements with the
 * vocabulary, `plain` on single elements.  Masks are looked at through v_select.
 */
enum { ROW = 256 }; /* a multiple of every VL */

typedef enum sameness {
    SAME_BITS,  /* NaNs with their payload too */
    SAME_VALUE, /* any NaN for a NaN; zeros with their sign */
    SAME_NUMBER /* any NaN for a NaN, any zero for a zero */
} sameness;

typedef struct operation {
    const char *name;
    int operands;
    sameness same;
    void (*run)(real *const in[3], real *out);
    real (*plain)(real a, real b, real c);
    int (*allows)(real a, real b); /* NULL: everything */
} operation;

#define OPERATION(name, vector, scalar)                                                            \
    static void run_##name(real *const in[3], real *out)                                           \
    {                                                                                              \
        for (int i = 0; i < ROW; i += VL) {                                                        \
            const vf a = v_load(in[0] + i), b = v_load(in[1] + i), c = v_load(in[2] + i);          \
            (void)a, (void)b, (void)c;                                                             \
            v_store(out + i, vector);                                                              \
        }                                                                                          \
    }                                                                                              \
    static real plain_##name(real a, real b, real c)                                               \
    {                                                                                              \
        (void)a, (void)b, (void)c;                                                                 \
        return scalar;                                                                             \
    }
#define ONE_IF(mask) v_select(mask, v_set1(1), v_zero())

OPERATION(zero, v_zero(), 0)
OPERATION(load_store, a, a)
OPERATION(add, v_add(a, b), a + b)
OPERATION(sub, v_sub(a, b), a - b)
OPERATION(mul, v_mul(a, b), a * b)
OPERATION(div, v_div(a, b), a / b)
#if SIMD_TWO_ROUNDINGS
OPERATION(fma, v_fma(a, b, c), a *b + c)
OPERATION(fms, v_fms(a, b, c), a *b - c)
#else
OPERATION(fma, v_fma(a, b, c), SIMD(fma)(a, b, c))
OPERATION(fms, v_fms(a, b, c), SIMD(fma)(a, b, -c))
#endif
OPERATION(max, v_max(a, b), a > b ? a : b)
OPERATION(abs, v_abs(a), of_bits(bits_of(a) << 1 >> 1))
OPERATION(sign_of, v_sign_of(a, b), of_bits((bits_of(a) << 1 >> 1) | (bits_of(b) & bits_of(-0.0f))))
OPERATION(round, v_round(a), SIMD(nearbyint)(a))
OPERATION(scale2, v_scale2(a, b), isnan(b) ? b : SIMD(scalbn)(a, (int)b))
OPERATION(le, ONE_IF(v_le(a, b)), a <= b ? 1 : 0)
OPERATION(eq, ONE_IF(v_eq(a, b)), a == b ? 1 : 0)
OPERATION(and, ONE_IF(v_and(v_le(a, b), v_le(b, c))), a <= b && b <= c ? 1 : 0)
OPERATION(or, ONE_IF(v_or(v_le(a, b), v_le(b, c))), a <= b || b <= c ? 1 : 0)
OPERATION(select, v_select(v_le(c, v_zero()), a, b), c <= 0 ? a : b)

/* One element spread over all lanes; a lane that differs shows as a NaN of no other origin. */
static void run_set1(real *const in[3], real *out)
{
    for (int i = 0; i < ROW; i++) {
        real lanes[VL];
        v_store(lanes, v_set1(in[0][i]));
        out[i] = lanes[i % VL];
        for (int j = 0; j < VL; j++)
            if (bits_of(lanes[j]) != bits_of(out[i]))
                out[i] = of_bits((bits_t)-2);
    }
}

static int allows_round(real a, real b)
{
    (void)b;
    return isnan(a) || SIMD(fabs)(a) < 1048576;
}

static int allows_scale2(real a, real b)
{
    const real lowest = SIMD_F32 ? -250 : -1200;
    return (isnan(a) || (a >= (real)0.25 && a <= 4)) &&
           (isnan(b) || (b >= lowest && b <= 0 && b == SIMD(nearbyint)(b)));
}

static const operation operations[] = {
    {"v_zero", 1, SAME_BITS, run_zero, plain_zero, NULL},
    {"v_set1", 1, SAME_BITS, run_set1, plain_load_store, NULL},
    {"v_load v_store", 1, SAME_BITS, run_load_store, plain_load_store, NULL},
    {"v_add", 2, SAME_VALUE, run_add, plain_add, NULL},
    {"v_sub", 2, SAME_VALUE, run_sub, plain_sub, NULL},
    {"v_mul", 2, SAME_VALUE, run_mul, plain_mul, NULL},
    {"v_div", 2, SAME_VALUE, run_div, plain_div, NULL},
    {"v_fma", 3, SAME_VALUE, run_fma, plain_fma, NULL},
    {"v_fms", 3, SAME_VALUE, run_fms, plain_fms, NULL},
    {"v_max", 2, SAME_BITS, run_max, plain_max, NULL},
    {"v_abs", 1, SAME_BITS, run_abs, plain_abs, NULL},
    {"v_sign_of", 2, SAME_BITS, run_sign_of, plain_sign_of, NULL},
    {"v_round", 1, SAME_NUMBER, run_round, plain_round, allows_round},
    {"v_scale2", 2, SAME_VALUE, run_scale2, plain_scale2, allows_scale2},
    {"v_le", 2, SAME_BITS, run_le, plain_le, NULL},
    {"v_eq", 2, SAME_BITS, run_eq, plain_eq, NULL},
    {"v_and", 3, SAME_BITS, run_and, plain_and, NULL},
    {"v_or", 3, SAME_BITS, run_or, plain_or, NULL},
    {"v_select", 3, SAME_BITS, run_select, plain_select, NULL},
};

#define TINY of_bits(1)                                        /* the smallest subnormal */
#define LARGEST_SUBNORMAL of_bits(((bits_t)1 << FRACTION) - 1)
#define INFINITE of_bits((bits_t)(SIMD_F32 ? 255 : 2047) << FRACTION)
#define QUIET_NAN of_bits(bits_of(INFINITE) | (bits_t)1 << (FRACTION - 1) | 5)
#define SIGNALLING_NAN of_bits(bits_of(INFINITE) | 3)

/* Numbers where something changes, and their opposites. */
enum { N_SPECIALS = 32 };
static void fill_specials(real x[N_SPECIALS])
{
    const real positive[N_SPECIALS / 2] = {
        0, TINY, LARGEST_SUBNORMAL, SIMD_F32 ? (real)FLT_MIN : (real)DBL_MIN,
        SIMD_F32 ? (real)FLT_EPSILON : (real)DBL_EPSILON, (real)0.5,
        of_bits(bits_of((real)0.5) - 1), 1, of_bits(bits_of(1) + 1), (real)1.5, (real)2.5, 3,
        SIMD_F32 ? (real)FLT_MAX : (real)DBL_MAX, INFINITE, QUIET_NAN, SIGNALLING_NAN};
    for (int i = 0; i < N_SPECIALS / 2; i++) {
        x[2 * i] = positive[i];
        x[2 * i + 1] = of_bits(bits_of(positive[i]) ^ bits_of(-0.0f));
    }
}

/* Random bits; or a number near 1, whose sums cancel; or one in the domains of v_round and
 * v_scale2, which random bits seldom hit. */
static real random_real(t_rng *rng)
{
    switch (t_below(rng, 4)) {
    case 0:
        return (real)t_normal(rng);
    case 1:
        return (real)(0.5 * (double)t_between(rng, -2097151, 2097151));
    case 2:
        return (real)-t_below(rng, SIMD_F32 ? 251 : 1201);
    default:
        return of_bits((bits_t)t_bits(rng));
    }
}

static int is_same(sameness same, real got, real want)
{
    if (same == SAME_BITS || (same == SAME_VALUE && !isnan(want)))
        return bits_of(got) == bits_of(want);
    return isnan(want) ? isnan(got) : got == want;
}

/* Runs one row and checks it; elements outside the domain must have been replaced. */
static void check_row(const operation *op, real *const in[3])
{
    real out[ROW];

    op->run(in, out);
    for (int i = 0; i < ROW; i++) {
        const real a = in[0][i], b = in[1][i], c = in[2][i], want = op->plain(a, b, c);
        t_check(is_same(op->same, out[i], want),
                "lane %d of (%a, %a, %a) gives %a (%llx), not %a (%llx)", i % VL, (double)a,
                (double)b, (double)c, (double)out[i], (unsigned long long)bits_of(out[i]),
                (double)want, (unsigned long long)bits_of(want));
    }
}

/* Collects operands into rows of ROW and checks each full one. */
typedef struct row_of_operands {
    const operation *op;
    int n;
    real x[3][ROW];
} row_of_operands;

static void check_operands(row_of_operands *row, real a, real b, real c)
{
    real *const in[3] = {row->x[0], row->x[1], row->x[2]};

    if (row->op->allows && !row->op->allows(a, b))
        return;
    in[0][row->n] = a;
    in[1][row->n] = b;
    in[2][row->n] = c;
    if (++row->n == ROW) {
        check_row(row->op, in);
        row->n = 0;
    }
}

static void test_operations(void)
{
    real specials[N_SPECIALS];

    fill_specials(specials);
    for (size_t o = 0; o < sizeof operations / sizeof operations[0]; o++) {
        const operation *op = &operations[o];
        if (!t_case("%s", op->name))
            continue;
        row_of_operands row = {.op = op};
        const int nb = op->operands > 1 ? N_SPECIALS : 1, nc = op->operands > 2 ? N_SPECIALS : 1;
        for (int i = 0; i < N_SPECIALS * nb * nc; i++)
            check_operands(&row, specials[i % N_SPECIALS], specials[i / N_SPECIALS % nb],
                           specials[i / N_SPECIALS / nb]);
        t_rng rng = t_rng_of(t_seed() + o);
        const int times = t_times(400000);
        for (int i = 0; i < times; i++) {
            const real b = random_real(&rng), c = random_real(&rng);
            const int near_one = op->allows == allows_scale2 && i % 16 != 0;
            check_operands(&row, near_one ? (real)(0.25 + 3.75 * t_uniform(&rng)) : random_real(&rng),
                           b, c);
        }
        while (row.n > 0) /* the last row, filled up */
            check_operands(&row, 1, 0, -1);
    }
}

static void test_any(void)
{
    real x[VL];

    if (t_case("none"))
        t_check(!v_any(v_le(v_set1(1), v_zero())), "v_any of an empty mask is not 0");
    if (t_case("all"))
        t_check(v_any(v_le(v_zero(), v_set1(1))), "v_any of a full mask is 0");
    for (int i = 0; i < VL; i++)
        if (t_case("lane %d", i)) {
            for (int j = 0; j < VL; j++)
                x[j] = j == i ? 1 : 0;
            t_check(v_any(v_eq(v_load(x), v_set1(1))), "v_any of lane %d alone is 0", i);
        }
}
