/*
 * io/file.h - whole files: checked reading, and writing that leaves a complete file or none.
 *
 * An output is written under a temporary name in the target's directory and renamed over the
 * target by qkv_io_output_commit.  Every failure says why and removes the temporary file.
 */
#ifndef QKV_IO_FILE_H
#define QKV_IO_FILE_H

#include <stdint.h>

#include "core/say.h"

/* Opens a regular file for reading; descriptor and size are set on success only. */
qkv_status qkv_io_open(const char *path, int *descriptor, int64_t *size, qkv_say say);

/* Reads exactly bytes at offset.  A file that ends earlier (it shrank) is QKV_ERR_SYSTEM. */
qkv_status qkv_io_read(int descriptor, const char *path, void *data, size_t bytes, int64_t offset,
                       qkv_say say);

/* A file on its way.  Set up by qkv_io_output_open; after a failure of any call nothing is left
 * to do. */
typedef struct qkv_io_output {
    const char *path; /* as the caller wrote it, for sentences */
    char *target; /* where it ends: path with symbolic links followed; NULL when written in place */
    char *temporary; /* NULL when written in place (a pipe or a device) */
    int descriptor;
} qkv_io_output;

qkv_status qkv_io_output_open(qkv_io_output *output, const char *path, qkv_say say);
qkv_status qkv_io_output_write(qkv_io_output *output, const void *data, size_t bytes, qkv_say say);
qkv_status qkv_io_output_commit(qkv_io_output *output, qkv_say say);

#endif
