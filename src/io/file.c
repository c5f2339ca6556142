/* io/file.c - see file.h. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkv/io.h"

/* Linux moves at most 0x7ffff000 bytes a call; asking for less keeps every system happy. */
#define LARGEST_TRANSFER ((size_t)1 << 30)

#define TEMPORARY_TRIES 100

qkv_status qkv_io_open(const char *path, int *descriptor, int64_t *size, qkv_say say)
{
    /* Without O_NONBLOCK opening a pipe would wait for its writer before we could refuse it. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0) {
        const int error = errno;
        close(fd);
        return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot read: %s", path, strerror(error));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot read: it is not a regular file", path);
    }
    *descriptor = fd;
    *size = st.st_size;
    return QKV_OK;
}

qkv_status qkv_io_read(int descriptor, const char *path, void *data, size_t bytes, int64_t offset,
                       qkv_say say)
{
    char *p = data;
    while (bytes > 0) {
        const size_t want = bytes < LARGEST_TRANSFER ? bytes : LARGEST_TRANSFER;
        const ssize_t got = pread(descriptor, p, want, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0)
            return qkv_refuse(say, QKV_ERR_SYSTEM, "%s: cannot read: it became shorter meanwhile",
                              path);
        p += got;
        offset += got;
        bytes -= (size_t)got;
    }
    return QKV_OK;
}

/* Closes and removes everything, then says why. */
static qkv_status abandon(qkv_io_output *output, qkv_say say, const char *what, int error)
{
    if (output->descriptor >= 0)
        close(output->descriptor);
    if (output->temporary != NULL)
        unlink(output->temporary);
    free(output->temporary);
    free(output->target);
    const char *path = output->path;
    memset(output, 0, sizeof *output);
    output->descriptor = -1;
    return qkv_refuse(say, error == ENOMEM ? QKV_ERR_MEMORY : QKV_ERR_SYSTEM, "%s: cannot %s: %s",
                      path, what, strerror(error));
}

/* Creates target.XXXX.tmp.  open and not mkstemp, because a new file gets the rights that umask
 * leaves, and umask cannot be read without changing it. */
static int create_temporary(qkv_io_output *output)
{
    static atomic_uint serial;
    const size_t bytes = strlen(output->target) + 40;
    char *name = malloc(bytes);
    if (name == NULL)
        return ENOMEM;
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        snprintf(name, bytes, "%s.%lx-%x.tmp", output->target, (unsigned long)getpid(),
                 atomic_fetch_add(&serial, 1));
        output->descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (output->descriptor >= 0) {
            output->temporary = name;
            return 0;
        }
        if (errno != EEXIST)
            break;
    }
    const int error = errno;
    free(name);
    return error;
}

qkv_status qkv_io_output_open(qkv_io_output *output, const char *path, qkv_say say)
{
    memset(output, 0, sizeof *output);
    output->path = path;
    output->descriptor = -1;

    struct stat st;
    const int exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        return abandon(output, say, "write", EISDIR);
    if (exists && !S_ISREG(st.st_mode)) {
        /* A pipe or a device: no old file to keep, and renaming would replace the device. */
        output->descriptor = open(path, O_WRONLY | O_CLOEXEC);
        return output->descriptor >= 0 ? QKV_OK : abandon(output, say, "write", errno);
    }
    output->target = exists ? realpath(path, NULL) : strdup(path);
    if (output->target == NULL)
        return abandon(output, say, "write", errno);
    const int error = create_temporary(output);
    if (error != 0)
        return abandon(output, say, "write", error);
    /* A file that is replaced keeps its rights.  Not being allowed to is no reason to fail. */
    if (exists)
        (void)fchmod(output->descriptor, st.st_mode & 07777);
    return QKV_OK;
}

qkv_status qkv_io_output_write(qkv_io_output *output, const void *data, size_t bytes, qkv_say say)
{
    const char *p = data;
    while (bytes > 0) {
        const size_t want = bytes < LARGEST_TRANSFER ? bytes : LARGEST_TRANSFER;
        const ssize_t put = write(output->descriptor, p, want);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return abandon(output, say, "write", errno);
        p += put;
        bytes -= (size_t)put;
    }
    return QKV_OK;
}

qkv_status qkv_io_output_commit(qkv_io_output *output, qkv_say say)
{
    /* Some file systems report a full disk only here, and the name must not arrive on disk before
     * the contents. */
    if (output->temporary != NULL && fsync(output->descriptor) != 0 && errno != EINVAL)
        return abandon(output, say, "write", errno);
    const int fd = output->descriptor;
    output->descriptor = -1;
    if (close(fd) != 0)
        return abandon(output, say, "write", errno);
    if (output->temporary != NULL && rename(output->temporary, output->target) != 0)
        return abandon(output, say, "rename the finished file", errno);
    free(output->temporary);
    free(output->target);
    memset(output, 0, sizeof *output);
    output->descriptor = -1;
    return QKV_OK;
}

qkv_status qkv_file_write(const char *path, const void *data, size_t data_bytes, char *text,
                          size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (path == NULL || (data == NULL && data_bytes > 0))
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_file_write: path or data is NULL");
    qkv_io_output output;
    qkv_status status = qkv_io_output_open(&output, path, say);
    if (status == QKV_OK)
        status = qkv_io_output_write(&output, data, data_bytes, say);
    return status == QKV_OK ? qkv_io_output_commit(&output, say) : status;
}
