/* core/allocator.c - see allocator.h. */
#include "core/allocator.h"

#include <stdlib.h>

static void *standard_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    return malloc(bytes);
}

static void standard_free(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

int qkv_allocator_of(const qkv_allocator *given, qkv_allocator *out)
{
    const qkv_allocator standard = {standard_alloc, standard_free, NULL};
    *out = given ? *given : standard;
    return out->alloc != NULL && out->free != NULL;
}
