/* io/json.c - see json.h. */
#include "io/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

qkv_status qkv_io_json_parse(const char *name, const char *data, size_t data_bytes, json_t **table,
                             qkv_say say)
{
    json_error_t error;

    /* jansson 2.14 reads over a byte of 0 behind a number. */
    *table = NULL;
    if (memchr(data, 0, data_bytes) != NULL)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: not valid JSON: it has a byte of 0", name);
    *table = json_loadb(data, data_bytes, JSON_REJECT_DUPLICATES, &error);
    if (*table == NULL)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: not valid JSON: line %d: %s", name, error.line,
                          error.text);
    if (json_is_object(*table))
        return QKV_OK;
    json_decref(*table);
    *table = NULL;
    return qkv_refuse(say, QKV_ERR_FORMAT, "%s: not a table, that is, not in { }", name);
}

qkv_status qkv_io_json_read(const char *path, int64_t most_bytes, json_t **table, qkv_say say)
{
    int fd;
    int64_t size;
    qkv_status status = qkv_io_open(path, &fd, &size, say);

    *table = NULL;
    if (status != QKV_OK)
        return status;
    char *data = size <= most_bytes ? malloc((size_t)size + 1) : NULL;
    if (size > most_bytes)
        status = qkv_refuse(say, QKV_ERR_FORMAT, "%s: has %lld bytes; accepted are up to %lld",
                            path, (long long)size, (long long)most_bytes);
    else if (data == NULL)
        status = qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory to read it", path);
    else
        status = qkv_io_read(fd, path, data, (size_t)size, 0, say);
    close(fd);
    if (status == QKV_OK)
        status = qkv_io_json_parse(path, data, (size_t)size, table, say);
    free(data);
    return status;
}

char *qkv_io_join(const char *directory, const char *name)
{
    const size_t n = strlen(directory), m = strlen(name);
    const int slash = n > 0 && directory[n - 1] != '/';
    char *path = malloc(n + (size_t)slash + m + 1);

    if (path == NULL)
        return NULL;
    memcpy(path, directory, n);
    if (slash)
        path[n] = '/';
    memcpy(path + n + slash, name, m + 1);
    return path;
}

int qkv_io_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int qkv_io_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}
