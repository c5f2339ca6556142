/* memory.c - memory, names and conversions for JavaScript. */
#include <stdlib.h>

#include "qkv/base.h"
#include "web.h"

void *web_alloc(size_t bytes)
{
    const size_t unit = 64; /* as workspaces want it */
    return bytes <= SIZE_MAX - unit ? aligned_alloc(unit, (bytes / unit + 1) * unit) : NULL;
}

void web_free(void *memory) { free(memory); }

const char *web_version(void) { return qkv_version_string(); }

const char *web_status_name(int status) { return qkv_status_name((qkv_status)status); }

int web_convert(void *dst, int dst_type, const void *src, int src_type, size_t n)
{
    return qkv_convert(dst, (qkv_type)dst_type, src, (qkv_type)src_type, n);
}
