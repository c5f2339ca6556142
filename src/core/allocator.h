/* core/allocator.h - where handles get their memory. */
#ifndef QKV_CORE_ALLOCATOR_H
#define QKV_CORE_ALLOCATOR_H

#include "qkv/base.h"

/* The caller's allocator, or malloc and free for NULL.  Returns 0 if one of its functions is
 * missing. */
int qkv_allocator_of(const qkv_allocator *given, qkv_allocator *out);

#endif
