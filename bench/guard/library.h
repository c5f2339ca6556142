/*
 * library.h - one libqkv of two, opened by its path.
 *
 * Both have the same names inside, so nothing is linked: every call goes through this table.  The
 * struct layouts are those of the headers this program was compiled with, the older library's; a
 * later library serves them too (qkv_desc_init_sized).
 */
#ifndef GUARD_LIBRARY_H
#define GUARD_LIBRARY_H

#include "qkv/attention.h"

typedef struct library {
    const char *path;
    void *handle;
    uint32_t (*version)(void);
    void (*desc_init_sized)(qkv_desc *, size_t);
    void (*desc_dense)(qkv_desc *, qkv_type, int32_t);
    qkv_status (*explain)(const qkv_desc *, char *, size_t);
    size_t (*plan_size)(const qkv_desc *);
    qkv_status (*plan_init)(void *, size_t, const qkv_desc *, const qkv_plan **);
    const char *(*plan_kernel)(const qkv_plan *);
    size_t (*workspace_size)(const qkv_plan *, int32_t);
    void (*args_init_sized)(qkv_args *, size_t);
    void (*run_parallel)(const qkv_plan *, const qkv_args *, const qkv_parallel *);
    qkv_status (*pool_create)(int32_t, const qkv_allocator *, qkv_pool **);
    qkv_parallel (*pool_parallel)(qkv_pool *);
    void (*pool_destroy)(qkv_pool *);
    qkv_status (*convert)(void *, qkv_type, const void *, qkv_type, size_t);
    qkv_pool *pool;
    qkv_parallel loop;
} library;

/* Opens the library and starts its pool of n_threads.  Returns 0, or -1 after a sentence on
 * standard error; then the table is not to be used. */
int library_open(library *lib, const char *path, int32_t n_threads);

/* Ends its threads.  The library stays loaded until the program ends. */
void library_close(library *lib);

#endif
