/* refusals.c - every sentence, and that nothing was begun. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "rope_test.h"

static const double ones[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const double holes[32] = {1, 0};

static qkv_rope good(int32_t type)
{
    qkv_rope r;
    qkv_rope_init(&r);
    r.type = type;
    r.head_dim = 64;
    r.factor = 2;
    r.max_positions = 100;
    r.n_factors = 32;
    r.short_factor = r.long_factor = ones;
    return r;
}

static void refused(const char *name, const qkv_rope *r, const char *sentence)
{
    char text[300] = "";
    double f[512], a = 7;

    if (!t_case("%s", name))
        return;
    const qkv_status status = qkv_rope_check(r, text, sizeof text);
    t_check(status == QKV_ERR_ARGUMENT && strstr(text, sentence), "%s", text);
    t_check(qkv_rope_frequencies(r, 0, f, &a, text, sizeof text) == status && a == 7 &&
                strstr(text, sentence),
            "frequencies: %s", text);
    t_check(qkv_rope_pairs(r) == 0 && qkv_rope_table_bytes(r, 1, QKV_F32) == 0, "pairs");
}

#define WITH(type, change, sentence)                                                               \
    do {                                                                                           \
        qkv_rope r = good(type);                                                                   \
        r.change;                                                                                  \
        refused(#type "_" #change, &r, sentence);                                                  \
    } while (0)

static void refused_types(void)
{
    WITH(QKV_ROPE_LINEAR, factor = NAN, "factor is not given; rope type linear needs it");
    WITH(QKV_ROPE_NTK, factor = NAN, "rope type ntk needs it");
    WITH(QKV_ROPE_NTK, rotary_dim = 2, "rotary_dim is 2; rope type ntk divides by rotary_dim - 2");
    WITH(QKV_ROPE_DYNAMIC, factor = NAN, "rope type dynamic needs it");
    WITH(QKV_ROPE_DYNAMIC, max_positions = 0, "max_positions is 0; rope type dynamic needs it");
    WITH(QKV_ROPE_YARN, max_positions = 0, "original_max_positions is 0; rope type yarn needs it");
    WITH(QKV_ROPE_YARN, theta = 1, "theta is 1; rope type yarn divides by its logarithm");
    WITH(QKV_ROPE_YARN, beta_fast = 0.5, "beta_fast is 0.5; it must be 1 ..");
    WITH(QKV_ROPE_YARN, beta_slow = 0, "beta_slow is 0; it must be 1e-10 ..");
    WITH(QKV_ROPE_YARN, mscale = -1, "mscale is -1; it must be 0 ..");
    WITH(QKV_ROPE_YARN, mscale_all_dim = INFINITY, "mscale_all_dim is inf; it must be 0 ..");
    WITH(QKV_ROPE_YARN, truncate = 2, "truncate is 2; it must be 0 .. 1");
    WITH(QKV_ROPE_LONGROPE, n_factors = 31, "n_factors is 31; rope type longrope needs one a pair");
    WITH(QKV_ROPE_LONGROPE, short_factor = NULL, "short_factor is NULL; rope type longrope");
    WITH(QKV_ROPE_LONGROPE, long_factor = NULL, "long_factor is NULL; rope type longrope");
    WITH(QKV_ROPE_LONGROPE, long_factor = holes, "long_factor[1] is 0; it must be 1e-10 ..");
    WITH(QKV_ROPE_LONGROPE, max_positions = 1, "original_max_positions is 1; rope type longrope");
    WITH(QKV_ROPE_LLAMA3, factor = NAN, "rope type llama3 needs it");
    WITH(QKV_ROPE_LLAMA3, max_positions = 0, "rope type llama3 needs it, 1 or more");
    WITH(QKV_ROPE_LLAMA3, low_freq_factor = 0, "low_freq_factor is 0");
    WITH(QKV_ROPE_LLAMA3, high_freq_factor = 1, "it must be more than low_freq_factor, which is 1");
    WITH(QKV_ROPE_PROPORTIONAL, head_dim = 63, "which leaves 63 channels; pairs need an even");
}

void test_refused_ropes(void)
{
    WITH(QKV_ROPE_DEFAULT, struct_size = 8, "rope.struct_size is 8; it must be");
    WITH(QKV_ROPE_DEFAULT, type = 9, "type is 9; it must be 0 (none) .. 8 (proportional)");
    WITH(QKV_ROPE_DEFAULT, type = -1, "type is -1");
    WITH(QKV_ROPE_DEFAULT, pairing = 2, "pairing is 2; it must be 0 .. 1");
    WITH(QKV_ROPE_DEFAULT, precision = 2, "precision is 2; it must be 0 .. 1");
    WITH(QKV_ROPE_DEFAULT, head_dim = 0, "head_dim is 0; it must be 1 .. 1024");
    WITH(QKV_ROPE_DEFAULT, head_dim = 1025, "head_dim is 1025; it must be 1 .. 1024");
    WITH(QKV_ROPE_DEFAULT, head_dim = 65, "which leaves 65 channels; pairs need an even number");
    WITH(QKV_ROPE_DEFAULT, rotary_offset = 64, "rotary_offset is 64; it must be 0 .. 63");
    WITH(QKV_ROPE_DEFAULT, rotary_offset = -1, "rotary_offset is -1");
    WITH(QKV_ROPE_DEFAULT, rotary_dim = 33, "rotary_dim is 33; it must be an even number 2 .. 64");
    WITH(QKV_ROPE_DEFAULT, rotary_dim = 66, "rotary_dim is 66");
    WITH(QKV_ROPE_DEFAULT, rotary_dim = 0, "rotary_dim is 0");
    WITH(QKV_ROPE_DEFAULT, theta = 0, "theta is 0; it must be 1e-10 .. 1e+30");
    WITH(QKV_ROPE_DEFAULT, theta = NAN, "theta is ");
    WITH(QKV_ROPE_DEFAULT, theta = INFINITY, "theta is inf");
    WITH(QKV_ROPE_DEFAULT, factor = 0.5, "factor is 0.5; it must be 1 ..");
    WITH(QKV_ROPE_DEFAULT, attention_factor = 0, "attention_factor is 0; it must be 1e-10");
    WITH(QKV_ROPE_DEFAULT, max_positions = -1, "max_positions is -1; it must be 0 ..");
    WITH(QKV_ROPE_DEFAULT, original_max_positions = -5, "original_max_positions is -5");
    refused_types();
    refused("null", NULL, "rope is NULL");
    if (t_case("newer_header")) {
        struct {
            qkv_rope rope;
            char more[8];
        } longer;
        char text[200];
        memset(&longer, 0xff, sizeof longer);
        qkv_rope_init_sized(&longer.rope, sizeof longer);
        t_check(longer.more[0] == 0 && longer.rope.struct_size == sizeof longer, "not cleared");
        t_check(qkv_rope_check(&longer.rope, text, sizeof text) == QKV_ERR_UNSUPPORTED, "%s", text);
    }
}

/* ---- arguments ---------------------------------------------------------------------------- */

static float x[256], y[256], c[64], s[64];
static int64_t positions[2] = {0, 1};

static qkv_rope_args good_args(void)
{
    qkv_rope_args a;
    const qkv_rope r = good(QKV_ROPE_DEFAULT);
    qkv_rope_args_init(&a);
    a.n_heads = 2;
    a.n_tokens = 2;
    qkv_rope_args_dense(&a, &r, QKV_F32, QKV_BHTD);
    a.x = x;
    a.y = y;
    a.positions = positions;
    return a;
}

static void refused_args(const char *name, const qkv_rope_args *a, const char *sentence)
{
    const qkv_rope r = good(QKV_ROPE_DEFAULT);
    char text[300] = "";

    if (!t_case("%s", name))
        return;
    for (int i = 0; i < 256; i++)
        y[i] = 3;
    t_check(qkv_rope_args_check(&r, a, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, sentence),
            "%s", text);
    t_check(qkv_rope_apply(&r, a, NULL, text, sizeof text) == QKV_ERR_ARGUMENT, "applied");
    for (int i = 0; i < 256; i++)
        t_check(y[i] == 3, "y[%d] was written", i);
}

#define ARGS(name, change, sentence)                                                               \
    do {                                                                                           \
        qkv_rope_args a = good_args();                                                             \
        change;                                                                                    \
        refused_args(name, &a, sentence);                                                          \
    } while (0)

static void refused_angles(void)
{
    static int64_t far[2] = {0, ((int64_t)1 << 53) + 1};
    static int64_t below[2] = {0, -1};

    ARGS("inverse", a.inverse = 2, "inverse is 2; it must be 0 .. 1");
    ARGS("seq_len", a.seq_len = -2, "seq_len is -2");
    ARGS("no_angles", a.positions = NULL, "positions is NULL and so are cos and sin");
    ARGS("cos_alone", a.cos = c, "give both or neither");
    ARGS("far", a.positions = far, "position 1 of sequence 0 is 9007199254740993; it must be");
    ARGS("misaligned_positions", a.positions = (const int64_t *)(const void *)((char *)far + 4),
         "it must be aligned to 8 bytes");
    ARGS("table_type", (a.cos = c, a.sin = s, a.table_type = QKV_I8), "table_type is 8 (i8)");
    ARGS("table_rows", (a.cos = c, a.sin = s, a.table_rows = -1), "table_rows is -1");
    ARGS("row", (a.cos = c, a.sin = s, a.table_rows = 1), "is 1; it must be 0 .. 0, a row of the");
    ARGS("row_below", (a.cos = c, a.sin = s, a.table_rows = 2, a.positions = below), "is -1; it");
    ARGS("too_few_rows", (a.cos = c, a.sin = s, a.table_rows = 1, a.positions = NULL),
         "table_rows is 1; without positions tokens up to 1 need 2");
}

void test_refused_args(void)
{
    refused_args("null", NULL, "args is NULL or was not set up");
    ARGS("struct_size", a.struct_size = 4, "args is NULL or was not set up");
    ARGS("n_seqs", a.n_seqs = -1, "n_seqs is -1; it must be 0 ..");
    ARGS("n_heads", a.n_heads = -1, "n_heads is -1");
    ARGS("n_tokens", a.n_tokens = -1, "n_tokens is -1");
    ARGS("x_type", a.x_layout.type = QKV_I32, "x_layout.type is 6 (i32); it must be f64, f32");
    ARGS("y_type", a.y_layout.type = QKV_E4M3, "y_layout.type is 10 (e4m3)");
    ARGS("f64", (a.y_layout = a.x_layout, a.y_layout.type = QKV_F64), "f64 goes only with f64");
    ARGS("channels", a.x_layout.stride[3] = 2, "x_layout.stride[3] is 2; channels must be");
    ARGS("x_null", a.x = NULL, "x is NULL");
    ARGS("y_null", a.y = NULL, "y is NULL");
    ARGS("misaligned", a.x = (char *)x + 1, "it must be aligned to 4 bytes, the size of f32");
    ARGS("span", a.x_layout.stride[2] = INT64_MAX / 2, "x spans more than 2^59 elements");
    ARGS("collides", (a.y_layout = a.x_layout, a.y_layout.stride[2] = 32), "two elements in one");
    ARGS("broadcast", (a.y_layout = a.x_layout, a.y_layout.stride[1] = 0), "two elements in one");
    ARGS("overlap", (a.x = y, a.y = y + 16), "y overlaps x; it must be x itself");
    ARGS("overlap_layout", (a.x = y, a.y_layout = a.x_layout, a.y_layout.stride[1] = 64,
                            a.y_layout.stride[2] = 128), "y overlaps x; it must be x itself");
    ARGS("one_token", (a.n_tokens = 1, a.x = y, a.y = y + 16, a.x_layout.stride[2] = INT64_MAX),
         "y overlaps x");
    ARGS("least_stride", (a.n_tokens = 1, a.x = y, a.y = y + 16, a.x_layout.stride[2] = INT64_MIN),
         "y overlaps x");
    refused_angles();
    if (t_case("slots_of_one_array")) { /* [T][2][H][D]: x is the first of each two, y the second */
        qkv_rope_args a = good_args();
        const qkv_rope r = good(QKV_ROPE_DEFAULT);
        char text[300];
        static float both[512];
        qkv_rope_args_dense(&a, &r, QKV_F32, QKV_BTHD);
        a.x_layout.stride[2] = 256;
        a.x = both;
        a.y = both + 128;
        t_check(qkv_rope_apply(&r, &a, NULL, text, sizeof text) == QKV_OK, "%s", text);
        a.y = both + 64;
        t_check(qkv_rope_apply(&r, &a, NULL, text, sizeof text) == QKV_ERR_ARGUMENT, "accepted");
    }
    if (t_case("no_text")) {
        qkv_rope_args a = good_args();
        a.n_seqs = -1;
        const qkv_rope r = good(QKV_ROPE_DEFAULT);
        t_check(qkv_rope_apply(&r, &a, NULL, NULL, 0) == QKV_ERR_ARGUMENT, "accepted");
    }
}
