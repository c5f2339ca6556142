/*
 * test_amx_tiles.c - the model of the tile instructions against results worked out by hand.  What is
 * compared at random, also with real instructions, is in amx_random.c.
 */
#include "amx_tests.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAN_BITS 0x7fc00000u
#define BIG 0x1.fep127f /* the largest bf16 */

tile_config amx_shape(int m, int k, int n)
{
    const int rows[] = {m, m, k}, cols[] = {n, k, n};
    tile_config c = {.palette = 1};
    for (int t = 0; t < 3; t++) {
        c.rows[t] = (uint8_t)rows[t];
        c.colsb[t] = (uint16_t)(4 * cols[t]);
    }
    return c;
}

void amx_model_dot(const tile_config *config, int op, amx_data *c, const amx_data *a,
                   const amx_data *b)
{
    static tile_file file;

    t_configure(&file, config);
    t_load(&file, 0, c, 64);
    t_load(&file, 1, a, 64);
    t_load_once(&file, 2, b, 64);
    switch (op) {
    case AMX_BF16:
        t_dot_bf16(&file, 0, 1, 2);
        break;
    case AMX_I8:
        t_dot_i8(&file, 0, 1, 2);
        break;
    case AMX_I8U8:
        t_dot_i8u8(&file, 0, 1, 2);
        break;
    case AMX_U8I8:
        t_dot_u8i8(&file, 0, 1, 2);
        break;
    default:
        t_dot_u8(&file, 0, 1, 2);
        break;
    }
    t_store(&file, 0, c, 64);
    t_release(&file);
}

int amx_same(uint32_t x, uint32_t y)
{
    const float a = tile_f32(x), b = tile_f32(y);
    return x == y || (isnan(a) && isnan(b));
}

/* ---- one element, by hand ---------------------------------------------------------------------- */

static uint16_t bf16_of(float x) /* of a number that is one */
{
    const uint32_t bits = tile_bits(x);
    t_check((bits & 0xffff) == 0, "%a is not a bf16", (double)x);
    return (uint16_t)(bits >> 16);
}

#define F(x) 0, x
/* c + sum of a[i] b[i], i < n, as one element of a product. */
static const struct {
    const char *what;
    uint32_t bits; /* wanted; 0: those of `want` */
    float want, c;
    int n;
    float a[6], b[6];
} sums[] = {
    {"a pair", F(21), 10, 2, {1, 2}, {3, 4}},
    {"three pairs", F(91), 0, 6, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}},
    /* Even halves: 2^24 + 1 stays 2^24, twice.  Odd halves: 1 + 1.  In pairs it would be 2^24 + 4. */
    {"halves apart", F(0x1p24f + 2), 0, 6, {0x1p24f, 0, 1, 1, 1, 1}, {1, 0, 1, 1, 1, 1}},
    /* C comes last: begun at C = 2^24 both sums would lose their ones. */
    {"c at the end", F(0x1p24f + 2), 0x1p24f, 4, {1, 0, 1, 0}, {1, 0, 1, 0}},
    {"the halves meet first", F(0x1p24f + 4), 0x1p24f, 2, {1.5, 1.5}, {1, 1}},
    {"ascending k", F(1), 0, 6, {0x1p30f, 0, -0x1p30f, 0, 1, 0}, {1, 0, 1, 0, 1, 0}},
    {"ascending k, lost", F(0), 0, 6, {0x1p30f, 0, 1, 0, -0x1p30f, 0}, {1, 0, 1, 0, 1, 0}},
    {"tie to even, down", F(0x1p24f), 0, 4, {0x1p12f, 0, 1, 0}, {0x1p12f, 0, 1, 0}},
    {"tie to even, up", F(0x1p24f + 4), 0, 4, {0x1p24f, 0, 3, 0}, {1, 0, 1, 0}},
    {"past a tie", F(0x1p24f + 2), 0, 4, {0x1p24f, 0, 0x1.02p0f, 0}, {1, 0, 1, 0}},
    {"a part of a unit", F(-0x1p-1f - 0x1p-24f), 0, 4, {-0x1p-1f, 0, -0x1.02p-40f, 0},
     {1, 0, 0x1p15f, 0}},
    /* Not C + product in two steps: the product alone would be subnormal and become 0. */
    {"fused", F(0x1.0004p-126f), 0, 4, {0x1p-63f, 0, 0x1p-70f, 0}, {0x1p-63f, 0, 0x1p-70f, 0}},
    /* Tininess is judged after rounding with an unbounded exponent. */
    {"tiny by a quarter", F(0x1p-126f), 0, 4, {0x1p-63f, 0, -0x1p-75f, 0}, {0x1p-63f, 0, 0x1p-76f, 0}},
    {"tiny by a half", F(0), 0, 4, {0x1p-63f, 0, -0x1p-75f, 0}, {0x1p-63f, 0, 0x1p-75f, 0}},
    {"a subnormal product", F(0), 0, 2, {0x1p-70f, 0}, {0x1p-70f, 0}},
    {"its sign is lost in a sum from +0", F(0), 0, 2, {-0x1p-100f, 0}, {0x1p-100f, 0}},
    {"a sum that cancels to subnormal", F(0), 0, 4, {0x1p-63f, 0, -0x1.fep-64f, 0},
     {0x1p-63f, 0, 0x1p-63f, 0}},
    {"subnormal in A", F(0), 0, 2, {0x1p-127f, 0}, {0x1p127f, 0}},
    {"subnormal in B", F(0), 0, 2, {0x1p127f, 0}, {0x1p-133f, 0}},
    {"subnormal in C", F(0), 0x1p-127f, 2, {0, 0}, {0, 0}},
    {"subnormal in C beside a normal sum", F(0x1p-126f), 0x1p-127f, 2, {0x1p-63f, 0}, {0x1p-63f, 0}},
    {"the sum of the halves is flushed before C", F(0x1p-126f), 0x1p-126f, 2,
     {0x1.8p-63f, -0x1p-63f}, {0x1p-63f, 0x1p-63f}},
    {"normal C", F(0x1p-126f), 0x1p-126f, 2, {0x1p-127f, 0}, {1, 0}},
    {"the sum of the halves is subnormal", F(0), 0, 2, {0x1.8p-63f, -0x1p-63f}, {0x1p-63f, 0x1p-63f}},
    {"C cancels to subnormal", F(0), 0x1.8p-126f, 2, {-0x1p-63f, 0}, {0x1p-63f, 0}},
    {"a subnormal result keeps its sign", 0x80000000u, 0, -0x1.8p-126f, 2, {0x1p-63f, 0}, {0x1p-63f, 0}},
    {"-0 + +0", F(0), -0.0f, 2, {0, 0}, {0, 0}},
    {"overflow", F(INFINITY), 0, 2, {BIG, 0}, {BIG, 0}},
    {"beyond and not back", F(INFINITY), 0, 4, {BIG, 0, -BIG, 0}, {BIG, 0, BIG, 0}},
    {"not yet overflow", F(0x1.fffffep127f), 0x1.fffffep127f, 2, {0x1p100f, 0}, {1, 0}},
    {"overflow by half a unit", F(INFINITY), 0x1.fffffep127f, 2, {0x1p103f, 0}, {1, 0}},
    {"infinity", F(-INFINITY), 5, 2, {INFINITY, 1}, {-2, 1}},
    {"infinity times 0", NAN_BITS, 0, 0, 2, {INFINITY, 1}, {0, 1}},
    {"infinity times a subnormal", NAN_BITS, 0, 0, 2, {INFINITY, 1}, {0x1p-127f, 1}},
    {"infinity minus infinity", NAN_BITS, 0, 0, 2, {INFINITY, INFINITY}, {1, -1}},
    {"C infinity minus infinity", NAN_BITS, 0, INFINITY, 2, {INFINITY, 0}, {-1, 0}},
    {"NaN in A", NAN_BITS, 0, 0, 2, {1, NAN}, {1, 0}},
    {"NaN in B", NAN_BITS, 0, 0, 2, {0, 1}, {NAN, 1}},
    {"NaN in C", NAN_BITS, 0, NAN, 2, {1, 1}, {1, 1}},
};
#undef F

static void test_by_hand(void)
{
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++) {
        if (!t_case("%s", sums[i].what))
            continue;
        const int k = (sums[i].n + 1) / 2;
        const tile_config config = amx_shape(1, k, 1);
        const uint32_t want = sums[i].bits ? sums[i].bits : tile_bits(sums[i].want);
        amx_data a = {{{0}}}, b = {{{0}}}, c = {{{0}}};
        c.f32[0][0] = sums[i].c;
        for (int j = 0; j < sums[i].n; j++) {
            a.bf16[0][j] = bf16_of(sums[i].a[j]);
            b.bf16[j / 2][j % 2] = bf16_of(sums[i].b[j]);
        }
        amx_model_dot(&config, AMX_BF16, &c, &a, &b);
        t_check(amx_same(c.u32[0][0], want), "%a (%08x), not %a (%08x)", (double)c.f32[0][0],
                c.u32[0][0], (double)tile_f32(want), want);
    }
    if (t_case("every NaN is 7fc00000")) {
        const tile_config config = amx_shape(1, 1, 1);
        amx_data a = {{{0}}}, b = {{{0}}}, c = {{{0}}};
        a.bf16[0][0] = 0xff81; /* signalling, negative, with a payload */
        amx_model_dot(&config, AMX_BF16, &c, &a, &b);
        t_check(c.u32[0][0] == NAN_BITS, "%08x", c.u32[0][0]);
    }
}

/* A row of bytes ff 80 02 01 times a column of 01 03 80 ff, to 7: the first are -1 and -128 where
 * they are signed and 255 and 128 where not. */
static void test_bytes_by_hand(void)
{
    static const struct {
        const char *what;
        int op;
        int32_t want;
    } cases[] = {
        {"i8 i8", AMX_I8, 7 + -1 * 1 + -128 * 3 + 2 * -128 + 1 * -1},
        {"i8 u8", AMX_I8U8, 7 + -1 * 1 + -128 * 3 + 2 * 128 + 1 * 255},
        {"u8 i8", AMX_U8I8, 7 + 255 * 1 + 128 * 3 + 2 * -128 + 1 * -1},
        {"u8 u8", AMX_U8, 7 + 255 * 1 + 128 * 3 + 2 * 128 + 1 * 255},
    };
    const tile_config config = amx_shape(1, 1, 1);
    const amx_data a = {{{0xff, 0x80, 2, 1}}}, b = {{{1, 3, 0x80, 0xff}}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (t_case("%s", cases[i].what)) {
            amx_data c = {{{7}}};
            amx_model_dot(&config, cases[i].op, &c, &a, &b);
            t_check(c.i32[0][0] == cases[i].want, "%d, not %d", c.i32[0][0], cases[i].want);
        }
    if (t_case("sums wrap")) {
        amx_data c = {{{0}}};
        c.u32[0][0] = 0x7fffffff;
        amx_model_dot(&config, AMX_U8, &c, &a, &b);
        t_check(c.u32[0][0] == 0x7fffffffu + 255 + 384 + 256 + 255, "%08x", c.u32[0][0]);
    }
}

/* ---- tiles and memory -------------------------------------------------------------------------- */

enum { ROWS = 5, BYTES = 12, STEP = 20 }; /* a part of a tile, and rows apart from one another */

typedef struct move {
    uint8_t *memory;
    int64_t stride;
    tile_file file;
} move;

static void call_load(void *arg)
{
    move *m = arg;
    t_load(&m->file, 3, m->memory, m->stride);
}

static void call_store(void *arg)
{
    move *m = arg;
    t_store(&m->file, 3, m->memory, m->stride);
}

static void configure_part(move *m)
{
    tile_config config = {.palette = 1};
    config.rows[3] = ROWS;
    config.colsb[3] = BYTES;
    t_configure(&m->file, &config);
}

static void test_memory(void)
{
    static move m;

    for (int where = T_END; where <= T_START; where++) {
        const char *beside = where == T_END ? "before" : "after";
        if (t_case("load %s a guard page", beside)) {
            m.memory = t_alloc((ROWS - 1) * STEP + BYTES, 1, where, 0x41);
            m.stride = STEP;
            configure_part(&m);
            memset(m.file.tile, 0xee, sizeof m.file.tile);
            for (int i = 0; i < (ROWS - 1) * STEP + BYTES; i++)
                m.memory[i] = (uint8_t)i;
            t_protect(m.memory);
            t_call(call_load, &m);
            for (int r = 0; r < TILE_ROWS; r++)
                for (int i = 0; i < TILE_BYTES; i++) {
                    const int want = r < ROWS && i < BYTES ? r * STEP + i : 0;
                    t_check(m.file.tile[3][r][i] == want, "row %d, byte %d: %d, not %d", r, i,
                            m.file.tile[3][r][i], want);
                }
            t_check(m.file.tile[2][0][0] == 0xee, "another tile was written");
        }
        if (t_case("store %s a guard page", beside)) {
            uint8_t *memory = t_alloc((ROWS - 1) * STEP + BYTES, 1, where, 0x41);
            m.memory = memory + (ROWS - 1) * STEP; /* from the last row up */
            m.stride = -STEP;
            configure_part(&m);
            for (int r = 0; r < TILE_ROWS; r++)
                memset(m.file.tile[3][r], 100 + r, TILE_BYTES);
            t_call(call_store, &m);
            for (int i = 0; i < (ROWS - 1) * STEP + BYTES; i++) {
                const int want = i % STEP < BYTES ? 100 + ROWS - 1 - i / STEP : 0x41;
                t_check(memory[i] == want, "byte %d: %d, not %d", i, memory[i], want);
            }
        }
    }
    if (t_case("stride 0 repeats the row")) {
        uint8_t row[BYTES] = {9, 8, 7};
        m.memory = row;
        m.stride = 0;
        configure_part(&m);
        call_load(&m);
        t_check(m.file.tile[3][ROWS - 1][1] == 8 && m.file.tile[3][ROWS][1] == 0, "it does not");
    }
    if (t_case("zero and release")) {
        configure_part(&m);
        memset(m.file.tile, 0xee, sizeof m.file.tile);
        t_zero(&m.file, 3);
        t_check(m.file.tile[3][0][0] == 0 && m.file.tile[2][0][0] == 0xee, "not that tile alone");
        t_release(&m.file);
        t_check(m.file.tile[2][0][0] == 0 && m.file.config.palette == 0, "something is left");
    }
}

/* ---- what the CPU would refuse ----------------------------------------------------------------- */

static void check_fault(tile_file *file, const char *what)
{
    t_check(file->fault && strstr(file->fault, what), "the fault is %s",
            file->fault ? file->fault : "none");
}

static void test_illegal_configurations(void)
{
    static tile_file file;
    tile_config c;

    for (int i = 0; i < 7; i++) {
        if (!t_case("configuration %d", i))
            continue;
        c = whole_tiles();
        if (i == 0)
            c.palette = 2;
        if (i == 1)
            c.reserved[13] = 1;
        if (i == 2)
            c.colsb[7] = 65;
        if (i == 3)
            c.rows[0] = 17;
        if (i == 4)
            c.rows[4] = 0;
        if (i == 5)
            c.colsb[4] = 0;
        if (i == 6)
            c.rows[8] = c.colsb[8] = 1;
        t_configure(&file, &c);
        check_fault(&file, "LDTILECFG");
    }
    if (t_case("palette 0 is none")) {
        c = whole_tiles();
        c.palette = 0;
        t_configure(&file, &c);
        t_check(!file.fault && file.config.rows[0] == 0, "it configured something");
        t_zero(&file, 0);
        check_fault(&file, "the tiles are not configured");
    }
}

static void test_illegal_products(void)
{
    static tile_file file;
    tile_config c = amx_shape(3, 4, 5);

    if (t_case("a tile that is not there")) {
        t_configure(&file, &c);
        t_zero(&file, 3);
        check_fault(&file, "this tile");
    }
    if (t_case("twice the same")) {
        t_configure(&file, &c);
        t_dot_bf16(&file, 0, 1, 1);
        check_fault(&file, "twice");
    }
    for (int i = 0; i < 4; i++) {
        if (!t_case("sizes %d", i))
            continue;
        tile_config wrong = amx_shape(3, 4, 5);
        wrong.rows[i % 3]++;
        if (i == 3)
            wrong.colsb[0]++;
        t_configure(&file, &wrong);
        memset(file.tile, 0x3f, sizeof file.tile);
        if (i == 0)
            t_dot_bf16(&file, 0, 1, 2);
        else
            t_dot_u8(&file, 0, 1, 2);
        check_fault(&file, i == 3 ? "multiple" : "match");
        t_check(file.tile[0][0][0] == 0x3f, "it computed all the same");
    }
    if (t_case("release dies of what was refused")) {
        const pid_t child = fork();
        if (child == 0) {
            signal(SIGILL, SIG_DFL);
            t_configure(&file, &c);
            t_dot_bf16(&file, 0, 1, 1);
            t_release(&file);
            _exit(0);
        }
        int status = 0;
        t_check(child > 0 && waitpid(child, &status, 0) == child, "there is no child");
        t_check(WIFSIGNALED(status), "it returned");
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {
        {"by_hand", test_by_hand},
        {"bytes_by_hand", test_bytes_by_hand},
        {"memory", test_memory},
        {"illegal_configurations", test_illegal_configurations},
        {"illegal_products", test_illegal_products},
        {"random", test_amx_random},
        {"random_bytes", test_amx_bytes},
        {"fma", test_amx_fma},
        {"instructions", test_amx_real},
    };
    return t_main(argc, argv, "simd_amx_tiles", tests, (int)(sizeof tests / sizeof *tests));
}
