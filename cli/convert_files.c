/*
 * convert_files.c - the folder of a converted model: made under another name beside its place,
 * filled, and renamed when it is complete.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* renameat2 */
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "convert.h"

enum { COPY_BYTES = 1 << 20 };

int convert_join(char path[CONVERT_PATH], const char *folder, const char *name)
{
    if (snprintf(path, CONVERT_PATH, "%s/%s", folder, name) >= CONVERT_PATH)
        return cli_complain("%s/%s: the path is too long", folder, name);
    return CLI_DONE;
}

/* ---- a file on its way -------------------------------------------------------------------- */

int convert_put(FILE *f, const char *path, const void *data, size_t bytes)
{
    if (bytes > 0 && fwrite(data, 1, bytes, f) != bytes)
        return cli_complain("%s cannot be written: %s", path, strerror(errno));
    return CLI_DONE;
}

int convert_close(FILE *f, const char *path, int code)
{
    if (code == CLI_DONE && (fflush(f) != 0 || fsync(fileno(f)) != 0))
        code = cli_complain("%s cannot be written: %s", path, strerror(errno));
    if (fclose(f) != 0 && code == CLI_DONE)
        code = cli_complain("%s cannot be written: %s", path, strerror(errno));
    return code;
}

int convert_write_json(const convert_model *c, const char *name, const json_t *value)
{
    char path[CONVERT_PATH];
    char *text = json_dumps(value, JSON_INDENT(2));
    FILE *f = NULL;
    int code = text != NULL ? convert_join(path, c->temporary, name) : cli_complain_memory(name, 0);

    if (code == CLI_DONE && (f = fopen(path, "wbx")) == NULL)
        code = cli_complain("%s cannot be made: %s", path, strerror(errno));
    if (f != NULL) {
        code = convert_put(f, path, text, strlen(text));
        if (code == CLI_DONE)
            code = convert_put(f, path, "\n", 1);
        code = convert_close(f, path, code);
    }
    free(text);
    return code;
}

static int copy_file(const convert_model *c, const char *name)
{
    char from[CONVERT_PATH], to[CONVERT_PATH];
    char *block = malloc(COPY_BYTES);
    FILE *in = NULL, *out = NULL;
    int code = block != NULL ? CLI_DONE : cli_complain_memory(name, COPY_BYTES);

    if (code == CLI_DONE && (convert_join(from, c->r->directory, name) != CLI_DONE ||
                             convert_join(to, c->temporary, name) != CLI_DONE))
        code = CLI_WRONG;
    if (code == CLI_DONE && (in = fopen(from, "rb")) == NULL)
        code = cli_complain("%s cannot be read: %s", from, strerror(errno));
    if (code == CLI_DONE && (out = fopen(to, "wbx")) == NULL)
        code = cli_complain("%s cannot be made: %s", to, strerror(errno));
    for (size_t n; code == CLI_DONE && (n = fread(block, 1, COPY_BYTES, in)) > 0;)
        code = convert_put(out, to, block, n);
    if (code == CLI_DONE && ferror(in))
        code = cli_complain("%s cannot be read: %s", from, strerror(errno));
    if (out != NULL)
        code = convert_close(out, to, code);
    if (in != NULL)
        fclose(in);
    free(block);
    return code;
}

/* ---- everything else ---------------------------------------------------------------------- */

static int ends_in(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* What belongs to the model whatever its attention is.  Weights in other formats, pictures and what
 * was written about the old model do not. */
static int belongs(const char *name)
{
    static const char *const ends[] = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab"};

    if (strcmp(name, "config.json") == 0 || ends_in(name, ".index.json"))
        return 0;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (ends_in(name, ends[i]))
            return 1;
    return strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "NOTICE", 6) == 0;
}

/* The new folder may be on its way inside of the old one. */
static int is_temporary(const convert_model *c, const struct stat *about)
{
    struct stat own;
    return stat(c->temporary, &own) == 0 && own.st_dev == about->st_dev &&
           own.st_ino == about->st_ino;
}

static int copy_others(convert_model *c)
{
    char path[CONVERT_PATH];
    struct stat about;
    int code = CLI_DONE;
    DIR *folder = opendir(c->r->directory);

    if (folder == NULL)
        return cli_complain("%s cannot be read: %s", c->r->directory, strerror(errno));
    for (const struct dirent *d; code == CLI_DONE && (d = readdir(folder)) != NULL;) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        code = convert_join(path, c->temporary, d->d_name);
        if (code != CLI_DONE || access(path, F_OK) == 0 || strcmp(d->d_name, "config.json") == 0)
            continue; /* written anew */
        code = convert_join(path, c->r->directory, d->d_name);
        const int there = code == CLI_DONE && stat(path, &about) == 0;
        if (there && S_ISREG(about.st_mode) && belongs(d->d_name)) {
            code = copy_file(c, d->d_name);
            c->n_other_files++;
        } else if (!there || !is_temporary(c, &about)) {
            json_array_append_new(c->left_out, json_string(d->d_name));
        }
    }
    closedir(folder);
    return code;
}

/* ---- the folder --------------------------------------------------------------------------- */

/* Bytes of the tensors that change, and of all files there are: enough for the new ones. */
static int check_space(const convert_model *c)
{
    char path[CONVERT_PATH];
    struct stat about;
    struct statvfs disk;
    uint64_t need = 0;
    DIR *folder = opendir(c->r->directory);

    for (const struct dirent *d; folder != NULL && (d = readdir(folder)) != NULL;)
        if ((belongs(d->d_name) || ends_in(d->d_name, ".safetensors")) &&
            convert_join(path, c->r->directory, d->d_name) == CLI_DONE && stat(path, &about) == 0 &&
            S_ISREG(about.st_mode))
            need += (uint64_t)about.st_size;
    if (folder != NULL)
        closedir(folder);
    for (int32_t i = 0; i < c->n_tensors; i++) {
        qkv_safetensors_entry e;
        if (qkv_checkpoint_tensor(c->old, c->tensors[i].name, &e, NULL, 0) == QKV_OK)
            need += (uint64_t)c->tensors[i].bytes - e.bytes;
    }
    if (statvfs(c->temporary, &disk) == 0 && need / disk.f_frsize + 1 > disk.f_bavail)
        return cli_complain("-o is %s, where %llu bytes are free; about %llu are needed",
                            c->target, (unsigned long long)disk.f_bavail * disk.f_frsize,
                            (unsigned long long)need);
    return CLI_DONE;
}

int convert_folder_begin(convert_model *c)
{
    struct stat about;
    size_t n = strlen(c->target);
    char *name = malloc(n + 16);

    if (name == NULL)
        return cli_complain_memory("a path", n);
    memcpy(name, c->target, n + 1);
    while (n > 1 && name[n - 1] == '/')
        name[--n] = '\0';
    if (n == 0 || lstat(name, &about) == 0) {
        free(name);
        return cli_complain(n == 0 ? "-o is empty%s" : "-o is %s, which is there already",
                            c->target);
    }
    memcpy(name + n, ".tmpXXXXXX", 11);
    if (mkdtemp(name) == NULL) {
        free(name);
        return cli_complain("-o is %s, beside which no folder can be made: %s", c->target,
                            strerror(errno));
    }
    c->temporary = name;
    return check_space(c);
}

int convert_folder_fill(convert_model *c)
{
    c->left_out = json_array();
    int code = convert_write_weights(c);
    if (code == CLI_DONE)
        code = convert_write_json(c, "config.json", c->config);
    return code == CLI_DONE ? copy_others(c) : code;
}

/* Not over something that came to the place meanwhile. */
static int rename_new(const char *from, const char *to)
{
    struct stat about;

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (lstat(to, &about) == 0) { /* a file system that has no such call */
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

int convert_folder_finish(convert_model *c)
{
    char target[CONVERT_PATH];
    const mode_t mask = umask(0);

    umask(mask);
    snprintf(target, sizeof target, "%.*s", (int)(strlen(c->temporary) - 10), c->temporary);
    const int folder = open(c->temporary, O_RDONLY | O_DIRECTORY);
    if (folder >= 0) {
        (void)fsync(folder);
        close(folder);
    }
    if (chmod(c->temporary, 0777 & ~mask) != 0 || rename_new(c->temporary, target) != 0)
        return cli_complain("-o is %s, which cannot be made: %s", c->target, strerror(errno));
    free(c->temporary);
    c->temporary = NULL;
    return CLI_DONE;
}

void convert_folder_remove(convert_model *c)
{
    char path[CONVERT_PATH];
    DIR *folder = c->temporary != NULL ? opendir(c->temporary) : NULL;

    for (const struct dirent *d; folder != NULL && (d = readdir(folder)) != NULL;)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 &&
            convert_join(path, c->temporary, d->d_name) == CLI_DONE)
            unlink(path);
    if (folder != NULL) {
        closedir(folder);
        rmdir(c->temporary);
    }
    free(c->temporary);
    c->temporary = NULL;
}
