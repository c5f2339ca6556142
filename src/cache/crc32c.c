/* cache/crc32c.c - see crc32c.h.  Table n advances a byte by n more bytes (Kounavis and Berry
 * 2005). */
#include "cache/crc32c.h"

#include <string.h>

enum { POLYNOMIAL = 0x82f63b78 }; /* 0x1edc6f41, bits reversed */

void qkv_crc32c_make(qkv_crc32c *t)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) ? (uint32_t)POLYNOMIAL : 0);
        t->table[0][i] = crc;
    }
    for (int n = 1; n < 8; n++)
        for (int i = 0; i < 256; i++) {
            const uint32_t crc = t->table[n - 1][i];
            t->table[n][i] = crc >> 8 ^ t->table[0][crc & 255];
        }
}

uint32_t qkv_crc32c_add(const qkv_crc32c *t, uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc; /* little-endian, like the files */
        crc = t->table[7][low & 255] ^ t->table[6][low >> 8 & 255] ^ t->table[5][low >> 16 & 255] ^
              t->table[4][low >> 24] ^ t->table[3][high & 255] ^ t->table[2][high >> 8 & 255] ^
              t->table[1][high >> 16 & 255] ^ t->table[0][high >> 24];
    }
    for (; bytes > 0; bytes--, p++)
        crc = crc >> 8 ^ t->table[0][(crc ^ *p) & 255];
    return ~crc;
}
