/* cache/load.h - a load on its way: the header is checked in load_header.c, the rest in load.c. */
#ifndef QKV_CACHE_LOAD_H
#define QKV_CACHE_LOAD_H

#include "cache/file_format.h"

typedef struct loading {
    qkv_cache *cache;
    const qkv_cache_reader *reader;
    qkv_say say;
    qkv_cache_header header;
    qkv_crc32c *crc;
    uint32_t sum;          /* checksum of the current part */
    int32_t *seqs;         /* the caller's: ids of the new sequences */
    int32_t *pages, *open; /* page of each number in the file */
    int32_t *tables;
    uint8_t *seen; /* of each page, then of each open page */
} loading;

/* Everything after the header, into memory that fits it. */
qkv_status qkv_cache_load_body(loading *l);

#endif
