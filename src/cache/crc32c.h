/*
 * cache/crc32c.h - CRC-32C (Castagnoli 1993), eight bytes at a time.
 *
 * Finds every change of up to 32 bits in a row, and all but one in 2^32 of others.  The tables take
 * 8 KiB and are made when they are needed: two thousand steps are nothing beside a file.
 */
#ifndef QKV_CACHE_CRC32C_H
#define QKV_CACHE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef struct qkv_crc32c {
    uint32_t table[8][256];
} qkv_crc32c;

void qkv_crc32c_make(qkv_crc32c *tables);

/* The checksum of what gave `crc` so far (0 at first) and then these bytes. */
uint32_t qkv_crc32c_add(const qkv_crc32c *tables, uint32_t crc, const void *data, size_t bytes);

#endif
