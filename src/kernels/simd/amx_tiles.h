/*
 * simd/amx_tiles.h - the tile vocabulary: Intel AMX, or an exact model of it in plain C.
 *
 * A tile is up to 16 rows of up to 64 bytes.  One instruction multiplies two of them,
 *
 *     t_dot_bf16(file, C, A, B)     C[m][n] += sum_k A[m][2k] B[k][2n] + A[m][2k+1] B[k][2n+1]
 *
 * with A of M rows and K pairs, B of K rows and N pairs, C of M rows and N floats.  Kernels are
 * written once on these names; README.md lists them.  amx_tiles_real.h makes instructions of them,
 * and amx_tiles_model.h, chosen by QKV_AMX_MODEL, the same bits on any CPU, so that the kernels are
 * tested where there is no AMX.
 *
 * `file` is a tile_file of the caller: where the model keeps what the CPU keeps in registers.  Tile
 * numbers are literals 0 .. 7, because they are part of the instruction.
 *
 * Cycles on Sapphire Rapids (Intel's optimisation manual, chapter on AMX): a dot product 16, its
 * result after 52; a load 8 and a store 16 in the first cache level; t_configure and t_release
 * together about 100.
 */
#ifndef QKV_SIMD_AMX_TILES_H
#define QKV_SIMD_AMX_TILES_H

#include <stdint.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64, TILE_NAMES = 8 };

/* What t_configure reads: 64 bytes in this order.  A tile that is not used has rows = colsb = 0. */
typedef struct tile_config {
    uint8_t palette;      /* 1; 0 means no tiles */
    uint8_t start_row;    /* 0 */
    uint8_t reserved[14]; /* 0 */
    uint16_t colsb[16];   /* bytes a row; 8 .. 15 must be 0 */
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the instruction reads 64 bytes");

/* All eight tiles whole: 16 rows of 64 bytes. */
static inline tile_config whole_tiles(void)
{
    tile_config c = {.palette = 1};
    for (int i = 0; i < TILE_NAMES; i++) {
        c.colsb[i] = TILE_BYTES;
        c.rows[i] = TILE_ROWS;
    }
    return c;
}

#if defined(QKV_AMX_MODEL)
#include "kernels/simd/amx_tiles_model.h"
#else
#include "kernels/simd/amx_tiles_real.h"
#endif

#endif
