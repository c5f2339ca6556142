/*
 * t_memory_wasi.c - memory of the harness where there are no pages to protect: margins of the fill
 * on both sides, compared when the case ends.  Writes beside a block are found, reads are not;
 * t_protect finds writes when the case ends.
 */
#include "t.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCKS = 4096, MARGIN = 256 };

typedef struct t_block {
    unsigned char *all, *memory, *copy; /* with margins; the block; what t_protect saw */
    size_t all_bytes, bytes;
    unsigned char fill;
} t_block;

static t_block blocks[MAX_BLOCKS];
static int n_blocks;
static void *scratches[MAX_BLOCKS];
static int n_scratches;

static void *take(size_t bytes, int full)
{
    void *memory = full ? NULL : malloc(bytes ? bytes : 1);
    if (!memory) {
        fprintf(stderr, "the test harness is out of memory\n");
        exit(3);
    }
    return memory;
}

void *t_alloc(size_t bytes, size_t align, int where, unsigned char fill)
{
    const size_t all_bytes = bytes + 2 * align + 2 * MARGIN;
    t_block *b = &blocks[n_blocks];

    b->all = take(all_bytes, n_blocks == MAX_BLOCKS);
    n_blocks++;
    memset(b->all, fill, all_bytes);
    /* As with guard pages: blocks before one have no more than their own alignment. */
    const size_t at = (size_t)(b->all + MARGIN + align - 1) / align * align;
    b->memory = (unsigned char *)at + (where == T_END && at % (2 * align) == 0 ? align : 0);
    b->all_bytes = all_bytes;
    b->bytes = bytes;
    b->fill = fill;
    b->copy = NULL;
    return b->memory;
}

void t_protect(void *memory)
{
    for (int i = 0; i < n_blocks; i++)
        if (blocks[i].memory == memory) {
            free(blocks[i].copy);
            blocks[i].copy = take(blocks[i].bytes, 0);
            memcpy(blocks[i].copy, memory, blocks[i].bytes);
        }
}

static void check(const t_block *b)
{
    const unsigned char *end = b->all + b->all_bytes;
    for (const unsigned char *p = b->all; p < end; p++) {
        const int inside = p >= b->memory && p < b->memory + b->bytes;
        if (!inside && *p != b->fill) {
            t_fail("byte %td of a block of %zu bytes was written", p - b->memory, b->bytes);
            return;
        }
    }
    if (b->copy && memcmp(b->copy, b->memory, b->bytes) != 0)
        t_fail("a protected block of %zu bytes was written", b->bytes);
}

void t_free_all(void)
{
    for (int i = 0; i < n_blocks; i++) {
        check(&blocks[i]);
        free(blocks[i].copy);
        free(blocks[i].all);
    }
    for (int i = 0; i < n_scratches; i++)
        free(scratches[i]);
    n_blocks = n_scratches = 0;
}

void *t_scratch(size_t bytes)
{
    void *memory = take(bytes, n_scratches == MAX_BLOCKS);
    scratches[n_scratches++] = memory;
    return memory;
}
