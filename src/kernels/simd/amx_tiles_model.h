/*
 * simd/amx_tiles_model.h - the tile vocabulary as a model in plain C, bit for bit what Intel documents.
 * Included by amx_tiles.h.
 *
 * After the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: LDTILECFG,
 * TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBF16PS and TDPBSSD / SUD / USD / UUD, and the fault
 * conditions of the class AMX-E4.  What it says of TDPBF16PS, in short:
 *
 *   - Each element of C has two sums that begin at +0, one for the even and one for the odd halves of
 *     the pairs.  Each takes its products in ascending k, one fused multiply-add for one product.
 *   - At the end the two sums are added, and then that is added to the element of C.
 *   - Every step rounds to nearest even.  Subnormal operands (of A, B and C) count as zeros of their
 *     sign, and a result that is subnormal after rounding becomes one.  MXCSR plays no part.
 *
 * So the number of products an instruction gets decides the order of the sum.  (Intel's
 * Intrinsics Guide writes a single sum that begins at C.  The manual is the specification.)
 *
 * The manual does not say which NaN comes of several; the model gives 0x7fc00000 for every NaN.
 *
 * What would raise an exception sets tile_file.fault instead and changes nothing else; t_release
 * then executes an undefined instruction as the CPU would have done, so that it cannot be missed.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct tile_file {
    tile_config config; /* palette 0: not configured */
    uint8_t tile[TILE_NAMES][TILE_ROWS][TILE_BYTES];
    const char *fault; /* the first one; NULL */
} tile_file;

/* ---- float arithmetic -------------------------------------------------------------------------- */

static inline float tile_f32(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline uint32_t tile_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Subnormals are zeros. */
static inline float tile_daz(uint32_t bits)
{
    return tile_f32((bits & 0x7f800000u) ? bits : bits & 0x80000000u);
}

/* To 24 bits, to nearest even; what is below the normal numbers after that becomes 0.  From half a
 * unit below them on, rounding with an unbounded exponent reaches them. */
static inline float tile_round(double x)
{
    if (!(fabs(x) < 0x1p-126))
        return (float)x;
    return copysignf(fabs(x) < 0x1.ffffffp-127 ? 0 : 0x1p-126f, (float)x);
}

/* c + a b, rounded once.  The product of two bf16 is exact in double, and a sum of two numbers of 24
 * bits that is rounded to 53 bits first is right all the same: 53 is at least 2 24 + 2 (Figueroa,
 * "When is double rounding innocuous?", 1995). */
static inline float tile_fma(float a, float b, float c)
{
    return tile_round((double)c + (double)a * (double)b);
}

static inline float tile_add(float a, float b)
{
    return tile_round((double)a + (double)b);
}

enum { TILE_PAIRS = TILE_BYTES / 4, TILE_HALVES = TILE_BYTES / 2 };

static inline void tile_widen(const uint8_t *pairs, float out[TILE_HALVES])
{
    uint16_t h[TILE_HALVES];
    memcpy(h, pairs, sizeof h);
    for (int i = 0; i < TILE_HALVES; i++)
        out[i] = tile_daz((uint32_t)h[i] << 16);
}

/* ---- configuration ----------------------------------------------------------------------------- */

static inline int tile_fault(tile_file *file, const char *why)
{
    if (!file->fault)
        file->fault = why;
    return 0;
}

static inline int tile_config_is_legal(const tile_config *c)
{
    int wrong = c->palette > 1;
    for (int i = 0; i < 14; i++)
        wrong |= c->reserved[i] != 0;
    for (int i = 0; i < 16; i++) {
        const int most = i < TILE_NAMES;
        wrong |= c->colsb[i] > most * TILE_BYTES || c->rows[i] > most * TILE_ROWS;
        wrong |= (c->colsb[i] == 0) != (c->rows[i] == 0);
    }
    return !wrong;
}

/* Palette 0 is the initial state, whatever else is written there. */
static inline void tile_configure(tile_file *file, const tile_config *config)
{
    if (config->palette != 0 && !tile_config_is_legal(config)) {
        tile_fault(file, "LDTILECFG: illegal configuration");
        return;
    }
    memset(file->tile, 0, sizeof file->tile);
    memset(&file->config, 0, sizeof file->config);
    if (config->palette != 0)
        file->config = *config;
}

static inline void tile_release(tile_file *file)
{
    const tile_config none = {.palette = 0};
    tile_configure(file, &none);
}

static inline int tile_is_there(tile_file *file, int t)
{
    if (file->config.palette == 0)
        return tile_fault(file, "the tiles are not configured");
    return file->config.rows[t] > 0 ? 1 : tile_fault(file, "this tile is not configured");
}

/* ---- memory ------------------------------------------------------------------------------------ */

static inline void tile_zero(tile_file *file, int t)
{
    if (tile_is_there(file, t))
        memset(file->tile[t], 0, sizeof file->tile[t]);
}

/* Rows and bytes past those of the configuration become 0. */
static inline void tile_load(tile_file *file, int t, const void *p, int64_t stride)
{
    if (!tile_is_there(file, t))
        return;
    memset(file->tile[t], 0, sizeof file->tile[t]);
    for (int r = 0; r < file->config.rows[t]; r++)
        memcpy(file->tile[t][r], (const char *)p + r * stride, file->config.colsb[t]);
}

static inline void tile_store(tile_file *file, int t, void *p, int64_t stride)
{
    if (!tile_is_there(file, t))
        return;
    for (int r = 0; r < file->config.rows[t]; r++)
        memcpy((char *)p + r * stride, file->tile[t][r], file->config.colsb[t]);
}

/* ---- products ---------------------------------------------------------------------------------- */

static inline int tiles_match(tile_file *file, int c, int a, int b)
{
    const tile_config *g = &file->config;

    if (!tile_is_there(file, c) || !tile_is_there(file, a) || !tile_is_there(file, b))
        return 0;
    if (c == a || c == b || a == b)
        return tile_fault(file, "a tile is used twice");
    if (g->colsb[c] % 4 || g->colsb[a] % 4 || g->colsb[b] % 4)
        return tile_fault(file, "a row is not a multiple of 4 bytes");
    if (g->rows[c] != g->rows[a] || g->colsb[c] != g->colsb[b] || g->colsb[a] / 4 != g->rows[b])
        return tile_fault(file, "the tiles do not match");
    return 1;
}

static inline void tile_dot_bf16(tile_file *file, int c, int a, int b)
{
    float wide[TILE_ROWS][TILE_HALVES];

    if (!tiles_match(file, c, a, b))
        return;
    for (int k = 0; k < TILE_ROWS; k++)
        tile_widen(file->tile[b][k], wide[k]);
    for (int m = 0; m < file->config.rows[c]; m++) {
        float x[TILE_HALVES], sum[TILE_HALVES] = {0};
        uint32_t out[TILE_PAIRS];
        tile_widen(file->tile[a][m], x);
        for (int k = 0; k < file->config.colsb[a] / 4; k++)
            for (int i = 0; i < TILE_HALVES; i++)
                sum[i] = tile_fma(x[2 * k + i % 2], wide[k][i], sum[i]);
        memcpy(out, file->tile[c][m], sizeof out);
        for (int n = 0; n < file->config.colsb[c] / 4; n++) {
            const float both = tile_add(sum[2 * n], sum[2 * n + 1]);
            const float y = tile_add(tile_daz(out[n]), both);
            out[n] = y != y ? 0x7fc00000u : tile_bits(y);
        }
        memcpy(file->tile[c][m], out, sizeof out);
    }
}

/* Bytes of A and B, signed where the mask says so; sums of 32 bits that wrap. */
enum { TILE_A_SIGNED = 1, TILE_B_SIGNED = 2 };

static inline uint32_t tile_byte(uint8_t x, int is_signed)
{
    return is_signed ? (uint32_t)(int32_t)(int8_t)x : x;
}

static inline void tile_dot_bytes(tile_file *file, int c, int a, int b, int mode)
{
    if (!tiles_match(file, c, a, b))
        return;
    for (int m = 0; m < file->config.rows[c]; m++) {
        uint32_t out[TILE_PAIRS];
        memcpy(out, file->tile[c][m], sizeof out);
        for (int k = 0; k < file->config.colsb[a]; k++) {
            const uint32_t x = tile_byte(file->tile[a][m][k], mode & TILE_A_SIGNED);
            for (int n = 0; n < file->config.colsb[c] / 4; n++)
                out[n] += x * tile_byte(file->tile[b][k / 4][4 * n + k % 4], mode & TILE_B_SIGNED);
        }
        memcpy(file->tile[c][m], out, sizeof out);
    }
}

/* ---- the names of the vocabulary --------------------------------------------------------------- */

static inline void t_configure(tile_file *file, const tile_config *config)
{
    file->fault = NULL;
    tile_configure(file, config);
}

static inline void t_release(tile_file *file)
{
    if (file->fault)
        __builtin_trap();
    tile_release(file);
}

#define t_zero(file, t) tile_zero(file, t)
#define t_load(file, t, p, stride) tile_load(file, t, p, stride)
#define t_load_once(file, t, p, stride) tile_load(file, t, p, stride)
#define t_store(file, t, p, stride) tile_store(file, t, p, stride)
#define t_dot_bf16(file, c, a, b) tile_dot_bf16(file, c, a, b)
#define t_dot_i8(file, c, a, b) tile_dot_bytes(file, c, a, b, TILE_A_SIGNED | TILE_B_SIGNED)
#define t_dot_i8u8(file, c, a, b) tile_dot_bytes(file, c, a, b, TILE_A_SIGNED)
#define t_dot_u8i8(file, c, a, b) tile_dot_bytes(file, c, a, b, TILE_B_SIGNED)
#define t_dot_u8(file, c, a, b) tile_dot_bytes(file, c, a, b, 0)
