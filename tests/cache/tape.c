/* tape.c - see tape.h. */
#include "tape.h"

#include <string.h>

enum { TAPE = 8 << 20 };

static int tape_write(void *ctx, const void *data, size_t bytes)
{
    tape *t = ctx;
    if (t->at + bytes > t->fail_at || t->at + bytes > TAPE)
        return 1;
    memcpy(t->data + t->at, data, bytes);
    t->at += bytes;
    t->size = t->at;
    return 0;
}

static int tape_read(void *ctx, void *data, size_t bytes)
{
    tape *t = ctx;
    if (t->at + bytes > t->size)
        return 1;
    memcpy(data, t->data + t->at, bytes);
    t->at += bytes;
    return 0;
}

tape tape_new(void)
{
    const tape t = {t_scratch(TAPE), 0, 0, TAPE};
    return t;
}

qkv_status tape_save(tape *t, qkv_cache *cache, int n, const int32_t *ids, char *text, size_t bytes)
{
    const qkv_cache_writer writer = {tape_write, t};
    t->at = t->size = 0;
    return qkv_cache_save(cache, n, ids, &writer, text, bytes);
}

qkv_status tape_load(tape *t, qkv_cache *cache, int32_t *ids, int32_t *n, char *text, size_t bytes)
{
    const qkv_cache_reader reader = {tape_read, t};
    t->at = 0;
    return qkv_cache_load(cache, &reader, 8, ids, n, text, bytes);
}

qkv_status tape_inspect(tape *t, qkv_cache_file_info *info, char *text, size_t bytes)
{
    const qkv_cache_reader reader = {tape_read, t};
    t->at = 0;
    return qkv_cache_inspect(&reader, info, text, bytes);
}
