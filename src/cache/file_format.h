/*
 * cache/file_format.h - a saved cache, byte by byte.
 *
 *     header    the struct below, with its checksum
 *     tables    of each sequence a qkv_cache_record, the file's number of each page it has and of
 *               each open page; a checksum of all tables
 *     pages     of each page a qkv_cache_page_head, its bytes of layer 0, 1, ...; a checksum
 *     open      open pages likewise
 *
 * All numbers are little-endian.  A change of anything that decides what a page holds, and so of
 * cache/map.c, is a new version.
 */
#ifndef QKV_CACHE_FILE_FORMAT_H
#define QKV_CACHE_FILE_FORMAT_H

#include "cache/crc32c.h"
#include "cache/internal.h"

#define QKV_CACHE_MAGIC "qkvcache"
enum { QKV_CACHE_VERSION = 1, QKV_CACHE_BYTE_ORDER = 0x01020304 };

/* Flags that change what a page holds. */
enum { QKV_CACHE_STORED_FLAGS = QKV_CACHE_LATENT | QKV_CACHE_KEY_BOUNDS };

typedef struct qkv_cache_header {
    char magic[8];
    int32_t version, byte_order;
    int32_t flags, n_layers, n_kv_heads, head_dim, head_dim_v;
    int32_t k_format, v_format, k_group, v_group, k_scale, v_scale;
    int32_t float_type, page_tokens, sink_tokens;
    int32_t n_seqs, n_pages, n_open, longest; /* longest: most pages in one table */
    int64_t window_left, tokens;
    int64_t page_bytes, open_bytes, table_bytes,
        bytes;              /* a page in one layer; all tables; the file */
    uint32_t reserved, crc; /* of all that stands before */
} qkv_cache_header;
_Static_assert(sizeof(qkv_cache_header) == 144, "the header has no gaps");

typedef struct qkv_cache_record {
    int32_t length, committed, start, gap_end; /* gap_end: first page after the gap; 0: no gap */
    int32_t n_pages, n_closed;
} qkv_cache_record;

typedef struct qkv_cache_page_head {
    int32_t used, closed; /* tokens; 1 if it holds codes */
} qkv_cache_page_head;

static inline uint32_t qkv_cache_header_crc(const qkv_crc32c *tables, const qkv_cache_header *h)
{
    return qkv_crc32c_add(tables, 0, h, offsetof(qkv_cache_header, crc));
}

/* Bytes of a page of one kind in the file. */
static inline int64_t qkv_cache_stored_page(const qkv_cache_header *h, int64_t bytes)
{
    return (int64_t)sizeof(qkv_cache_page_head) + bytes * h->n_layers + 4;
}

/* Reads a header and checks that it is one.  Uses tables as scratch. */
qkv_status qkv_cache_read_header(const qkv_cache_reader *reader, qkv_crc32c *tables,
                                 qkv_cache_header *header, qkv_say say);

static inline int qkv_cache_little_endian(void)
{
    const uint16_t one = 1;
    return *(const unsigned char *)&one == 1;
}

#endif
