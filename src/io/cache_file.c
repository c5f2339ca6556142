/* io/cache_file.c - saved caches as files; what is in them is the cache's own affair. */
#include <stdio.h>
#include <unistd.h>

#include "io/file.h"
#include "qkv/io.h"

enum { SENTENCE = 256 };

static qkv_status refuse_with_path(qkv_say say, qkv_status status, const char *path,
                                   const char *sentence)
{
    return qkv_refuse(say, status, "%s: %s", path, sentence);
}

/* ---- writing ---------------------------------------------------------------------------- */

/* The file is opened at the first write: until then the cache may refuse. */
typedef struct target {
    const char *path;
    qkv_io_output output;
    int opened;
    qkv_status status; /* of the first call that failed; its sentence is in say */
    qkv_say say;
} target;

static int write_some(void *ctx, const void *data, size_t bytes)
{
    target *t = ctx;

    if (!t->opened)
        t->status = qkv_io_output_open(&t->output, t->path, t->say);
    t->opened = 1;
    if (t->status == QKV_OK)
        t->status = qkv_io_output_write(&t->output, data, bytes, t->say);
    return t->status != QKV_OK;
}

qkv_status qkv_cache_save_file(qkv_cache *cache, int32_t n, const int32_t *seqs, const char *path,
                               char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    target t = {.path = path, .status = QKV_OK, .say = say};
    const qkv_cache_writer writer = {write_some, &t};
    char sentence[SENTENCE] = "";

    if (path == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "path is NULL");
    qkv_status status = qkv_cache_save(cache, n, seqs, &writer, sentence, sizeof sentence);
    if (t.status != QKV_OK) /* the output has cleaned up and said why */
        return t.status;
    if (status != QKV_OK)
        return refuse_with_path(say, status, path, sentence);
    status = qkv_io_output_commit(&t.output, say);
    return status == QKV_OK ? qkv_accept(say) : status;
}

/* ---- reading ---------------------------------------------------------------------------- */

typedef struct source {
    int descriptor;
    const char *path;
    int64_t size, at;
    int ended; /* more was asked for than there is */
} source;

static int read_some(void *ctx, void *data, size_t bytes)
{
    const qkv_say nobody = {NULL, 0};
    source *s = ctx;

    if ((uint64_t)bytes > (uint64_t)(s->size - s->at)) {
        s->ended = 1;
        return 1;
    }
    const int failed = qkv_io_read(s->descriptor, s->path, data, bytes, s->at, nobody) != QKV_OK;
    s->at += (int64_t)bytes;
    return failed;
}

/* Opens a file and reads its header; on success it is open and at its start again. */
static qkv_status open_saved(source *s, const char *path, qkv_cache_file_info *info, qkv_say say)
{
    const qkv_cache_reader reader = {read_some, s};
    char sentence[SENTENCE] = "";

    s->path = path;
    s->at = 0;
    s->ended = 0;
    if (path == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "path is NULL");
    qkv_status status = qkv_io_open(path, &s->descriptor, &s->size, say);
    if (status != QKV_OK)
        return status;
    status = qkv_cache_inspect(&reader, info, sentence, sizeof sentence);
    if (status == QKV_OK && info->bytes != (uint64_t)s->size) {
        snprintf(sentence, sizeof sentence, "the file has %lld bytes; its header says %llu",
                 (long long)s->size, (unsigned long long)info->bytes);
        status = QKV_ERR_FORMAT;
    }
    if (status != QKV_OK) {
        close(s->descriptor);
        return refuse_with_path(say, s->ended ? QKV_ERR_FORMAT : status, path, sentence);
    }
    s->at = 0;
    return QKV_OK;
}

qkv_status qkv_cache_load_file(qkv_cache *cache, const char *path, int32_t max_seqs, int32_t *seqs,
                               int32_t *n, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_cache_file_info info;
    char sentence[SENTENCE] = "";
    source s;

    if (n != NULL)
        *n = 0;
    qkv_status status = open_saved(&s, path, &info, say);
    if (status != QKV_OK)
        return status;
    const qkv_cache_reader reader = {read_some, &s};
    status = qkv_cache_load(cache, &reader, max_seqs, seqs, n, sentence, sizeof sentence);
    close(s.descriptor);
    return status == QKV_OK ? qkv_accept(say) : refuse_with_path(say, status, path, sentence);
}

qkv_status qkv_cache_inspect_file_sized(const char *path, qkv_cache_file_info *out,
                                        size_t struct_size, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_cache_file_info info;
    source s;

    if (out == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "info is NULL");
    const qkv_status status = open_saved(&s, path, &info, say);
    if (status != QKV_OK)
        return status;
    const qkv_cache_reader reader = {read_some, &s};
    const qkv_status again = qkv_cache_inspect_sized(&reader, out, struct_size, text, bytes);
    close(s.descriptor);
    return again;
}
