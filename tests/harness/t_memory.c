/*
 * t_memory.c - memory beside guard pages.
 *
 *     T_END     | fill fill block | guard |
 *     T_START   | guard | block fill fill |
 */
#include "t.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_BLOCKS = 4096 };

typedef struct t_block {
    unsigned char *map, *pages, *memory; /* all of it; without the guard; the block */
    size_t map_bytes, pages_bytes, bytes;
    unsigned char fill;
} t_block;

static t_block blocks[MAX_BLOCKS];
static int n_blocks;
static void *scratches[MAX_BLOCKS];
static int n_scratches;

static void out_of_memory(void)
{
    fprintf(stderr, "the test harness is out of memory\n");
    exit(3);
}

void *t_alloc(size_t bytes, size_t align, int where, unsigned char fill)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t pages_bytes = (bytes + align + page - 1) / page * page;
    t_block *b = &blocks[n_blocks];

    if (n_blocks == MAX_BLOCKS)
        out_of_memory();
    b->map_bytes = pages_bytes + page;
    b->map = mmap(NULL, b->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED)
        out_of_memory();
    n_blocks++;
    b->pages = where == T_END ? b->map : b->map + page;
    b->pages_bytes = pages_bytes;
    b->bytes = bytes;
    b->fill = fill;
    b->memory = where == T_END ? b->pages + (pages_bytes - bytes) / align * align : b->pages;
    memset(b->pages, fill, pages_bytes);
    if (mprotect(where == T_END ? b->map + pages_bytes : b->map, page, PROT_NONE) != 0)
        out_of_memory();
    return b->memory;
}

void t_protect(void *memory)
{
    for (int i = 0; i < n_blocks; i++)
        if (blocks[i].memory == memory)
            mprotect(blocks[i].pages, blocks[i].pages_bytes, PROT_READ);
}

/* The first changed byte outside the block as an offset from its start; 0 if there is none. */
static ptrdiff_t changed_around(const t_block *b)
{
    const unsigned char *end = b->pages + b->pages_bytes;
    for (const unsigned char *p = b->memory; p-- > b->pages;)
        if (*p != b->fill)
            return p - b->memory;
    for (const unsigned char *p = b->memory + b->bytes; p < end; p++)
        if (*p != b->fill)
            return p - b->memory;
    return 0;
}

void t_free_all(void)
{
    for (int i = 0; i < n_blocks; i++) {
        const ptrdiff_t at = changed_around(&blocks[i]);
        if (at)
            t_fail("byte %td of a block of %zu bytes was written", at, blocks[i].bytes);
        munmap(blocks[i].map, blocks[i].map_bytes);
    }
    for (int i = 0; i < n_scratches; i++)
        free(scratches[i]);
    n_blocks = n_scratches = 0;
}

void *t_scratch(size_t bytes)
{
    void *memory = n_scratches < MAX_BLOCKS ? malloc(bytes ? bytes : 1) : NULL;
    if (!memory)
        out_of_memory();
    scratches[n_scratches++] = memory;
    return memory;
}
