/* library.c - open a libqkv and find its functions. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

static const struct {
    const char *name;
    size_t place;
} functions[] = {
#define FUNCTION(name) {"qkv_" #name, offsetof(library, name)}
    FUNCTION(version),     FUNCTION(desc_init_sized), FUNCTION(desc_dense),
    FUNCTION(explain),     FUNCTION(plan_size),       FUNCTION(plan_init),
    FUNCTION(plan_kernel), FUNCTION(workspace_size),  FUNCTION(args_init_sized),
    FUNCTION(pool_create), FUNCTION(pool_parallel),   FUNCTION(pool_destroy),
    FUNCTION(convert),     FUNCTION(run_parallel),
#undef FUNCTION
};

static int find_functions(library *lib)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(lib->handle, functions[i].name);
        if (symbol == NULL) {
            fprintf(stderr, "guard: %s has no %s\n", lib->path, functions[i].name);
            return -1;
        }
        /* POSIX says that the pointer works as one to a function; C has no cast for it. */
        memcpy((char *)lib + functions[i].place, &symbol, sizeof symbol);
    }
    return 0;
}

int library_open(library *lib, const char *path, int32_t n_threads)
{
    memset(lib, 0, sizeof *lib);
    lib->path = path;
    lib->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (lib->handle == NULL) {
        fprintf(stderr, "guard: %s\n", dlerror());
        return -1;
    }
    if (find_functions(lib) != 0)
        return -1;
    if (lib->version() >> 16 != QKV_VERSION_MAJOR) {
        fprintf(stderr, "guard: %s has major version %u, the headers have %d: structs may differ\n",
                path, (unsigned)(lib->version() >> 16), QKV_VERSION_MAJOR);
        return -1;
    }
    if (lib->pool_create(n_threads, NULL, &lib->pool) != QKV_OK) {
        fprintf(stderr, "guard: %d threads could not be started\n", (int)n_threads);
        return -1;
    }
    lib->loop = lib->pool_parallel(lib->pool);
    return 0;
}

void library_close(library *lib)
{
    if (lib->pool != NULL)
        lib->pool_destroy(lib->pool);
    lib->pool = NULL;
}
