/*
 * amx.c - products of tiles of 16 rows of 64 bytes: tdpbf16ps and tdpbssd.
 *
 * Two tiles by two give four sums, which is what eight tile registers allow and what a product of
 * matrices does: an instruction starts every 16 cycles and takes 52, so four chains hide it.
 * Operands stay in registers; loading them is the kernel's business.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "loops.h"

enum { ROWS = 16, ROW_BYTES = 64, TILE_BYTES = ROWS * ROW_BYTES, SUMS = 4 };

typedef struct tile_config { /* what ldtilecfg reads: Intel SDM, "LDTILECFG" */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "the size the instruction reads");

/* Everything written to *p is in memory now.  gcc 12's intrinsics say of the configuration that
 * only eight bytes are read, and of a tile's memory nothing, so stores to them could come too late.
 */
static void settle(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* Eight tiles of 16 rows, sums zero, operands from `memory`. */
static void set_up(const uint8_t *memory)
{
    tile_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = ROW_BYTES;
        config.rows[t] = ROWS;
    }
    settle(&config);
    settle(memory);
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, memory, ROW_BYTES);
    _tile_loadd(5, memory, ROW_BYTES);
    _tile_loadd(6, memory, ROW_BYTES);
    _tile_loadd(7, memory, ROW_BYTES);
}

static float tear_down(void)
{
    int32_t result[TILE_BYTES / 4];
    _tile_stored(0, result, ROW_BYTES);
    _tile_release();
    return (float)result[0];
}

double loop_amx_bf16(long rounds, float *keep)
{
    uint16_t memory[TILE_BYTES / 2];
    for (int i = 0; i < TILE_BYTES / 2; i++)
        memory[i] = (uint16_t)(0x3c00 + i % 64); /* between 2^-7 and 2^-6 */
    set_up((const uint8_t *)memory);
    for (long r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    *keep += tear_down();
    return (double)rounds * SUMS * ROWS * 16 * (ROW_BYTES / 2) * 2;
}

double loop_amx_int8(long rounds, float *keep)
{
    uint8_t memory[TILE_BYTES];
    for (int i = 0; i < TILE_BYTES; i++)
        memory[i] = (uint8_t)(i % 100);
    set_up(memory);
    for (long r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    *keep += tear_down();
    return (double)rounds * SUMS * ROWS * 16 * ROW_BYTES * 2;
}
