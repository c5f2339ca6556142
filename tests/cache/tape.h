/* tape.h - a file in memory. */
#ifndef TAPE_H
#define TAPE_H

#include "cache_test.h"

typedef struct tape {
    unsigned char *data;
    size_t size, at, fail_at; /* bytes on it; position; writing past fail_at fails */
} tape;

/* Empty, of the running case. */
tape tape_new(void);
qkv_status tape_save(tape *t, qkv_cache *cache, int n, const int32_t *ids, char *text,
                     size_t bytes);
/* From the start; room for 8 ids. */
qkv_status tape_load(tape *t, qkv_cache *cache, int32_t *ids, int32_t *n, char *text, size_t bytes);
qkv_status tape_inspect(tape *t, qkv_cache_file_info *info, char *text, size_t bytes);

#endif
