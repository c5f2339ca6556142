/* test_cache_file.c - saved caches on disk: whole, atomic, and refused when they are not what they
 * say. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkv/io.h"
#include "t.h"

static char folder[64], place[128];

static const char *path_of(const char *name)
{
    snprintf(place, sizeof place, "%s/%s", folder, name);
    return place;
}

static qkv_cache *new_cache(void)
{
    qkv_cache_config c;
    qkv_cache *cache = NULL;
    char text[256] = "";

    qkv_cache_config_init(&c);
    c.head_dim = c.head_dim_v = 8;
    c.n_pages = 4;
    c.page_tokens = 16;
    c.max_seqs = 2;
    t_check(qkv_cache_create(&c, NULL, &cache, text, sizeof text) == QKV_OK, "%s", text);
    return cache;
}

static int32_t fill(qkv_cache *cache)
{
    static float x[20 * 8];
    const int32_t count = 20;
    int32_t seq = 0;
    qkv_cache_rows r;

    for (int i = 0; i < 160; i++)
        x[i] = (float)i;
    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.k = r.v = x;
    r.k_stride[2] = r.v_stride[2] = 8;
    t_check(qkv_cache_add(cache, &seq, NULL, 0) == QKV_OK &&
                qkv_cache_reserve(cache, 1, &seq, &count, NULL, 0) == QKV_OK &&
                qkv_cache_write(cache, 0, &r, NULL, 0) == QKV_OK,
            "no tokens");
    return seq;
}

/* Only the named file is in the folder: nothing temporary stays behind. */
static void check_alone(const char *name)
{
    char command[256];
    snprintf(command, sizeof command, "test \"$(ls -A %s)\" = '%s'", folder, name);
    t_check(system(command) == 0, "the folder does not hold just \"%s\"", name);
}

static void change(const char *path, long at, int byte)
{
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, at, SEEK_SET) != 0 || fputc(byte, f) == EOF || fclose(f) != 0)
        t_fail("cannot change %s", path);
}

static void refuse(qkv_cache *cache, const char *path, qkv_status want, const char *sentence)
{
    int32_t ids[2], n = 5;
    char text[256] = "";
    const qkv_status got = qkv_cache_load_file(cache, path, 2, ids, &n, text, sizeof text);

    t_check(got == want && strstr(text, sentence) && strstr(text, path),
            "%s: \"%s\" instead of \"%s\"", qkv_status_name(got), text, sentence);
    t_check(n == 0 && qkv_cache_length(cache, 1) == -1, "something was loaded");
}

static void test_round_trip(void)
{
    qkv_cache_file_info info;
    int32_t ids[2] = {0, 0}, n = 0;
    char text[256] = "";
    float k[8];
    const int64_t stride[2] = {8, 8};

    if (!t_case("saved and loaded"))
        return;
    qkv_cache *cache = new_cache(), *other = new_cache();
    const int32_t seq = fill(cache);
    const char *path = path_of("a.qkvcache");
    t_check(qkv_cache_save_file(cache, 1, &seq, path, text, sizeof text) == QKV_OK, "%s", text);
    check_alone("a.qkvcache");
    t_check(qkv_cache_inspect_file(path, &info, text, sizeof text) == QKV_OK && info.tokens == 20 &&
                info.n_seqs == 1 && info.config.head_dim == 8,
            "%s", text);
    t_check(qkv_cache_load_file(other, path, 2, ids, &n, text, sizeof text) == QKV_OK && n == 1,
            "%s", text);
    t_check(qkv_cache_length(other, ids[0]) == 20 &&
                qkv_cache_read(other, 0, ids[0], 19, 1, QKV_F32, k, stride, NULL, NULL, NULL, 0) ==
                    QKV_OK &&
                k[7] == 159,
            "key %g", (double)k[7]);
    t_check(qkv_cache_save_file(cache, 1, &seq, path, text, sizeof text) == QKV_OK, "again: %s",
            text);
    check_alone("a.qkvcache");
    unlink(path);
    qkv_cache_destroy(cache);
    qkv_cache_destroy(other);
}

static void test_bad_files(void)
{
    char text[256] = "";
    struct stat st;

    if (!t_case("refused"))
        return;
    qkv_cache *cache = new_cache(), *other = new_cache();
    const int32_t seq = fill(cache), stale = 77;
    char path[128];
    snprintf(path, sizeof path, "%s", path_of("b.qkvcache"));
    t_check(qkv_cache_save_file(cache, 1, &stale, path, text, sizeof text) == QKV_ERR_ARGUMENT &&
                strstr(text, "sequence 77"),
            "%s", text);
    check_alone("");
    t_check(qkv_cache_save_file(cache, 1, &seq, path, text, sizeof text) == QKV_OK, "%s", text);
    t_check(stat(path, &st) == 0, "no file");
    t_check(truncate(path, st.st_size - 1) == 0, "truncate");
    refuse(other, path, QKV_ERR_FORMAT, "its header says");
    t_check(truncate(path, st.st_size + 1) == 0, "truncate");
    refuse(other, path, QKV_ERR_FORMAT, "its header says");
    t_check(truncate(path, 100) == 0, "truncate");
    refuse(other, path, QKV_ERR_FORMAT, "in the header");
    t_check(truncate(path, 0) == 0, "truncate");
    refuse(other, path, QKV_ERR_FORMAT, "shorter than 8 bytes");
    t_check(qkv_cache_save_file(cache, 1, &seq, path, text, sizeof text) == QKV_OK, "%s", text);
    change(path, st.st_size / 2, 0x5a);
    refuse(other, path, QKV_ERR_FORMAT, "damaged");
    change(path, 0, 'Q');
    refuse(other, path, QKV_ERR_FORMAT, "not a saved cache");
    unlink(path);
    refuse(other, path, QKV_ERR_SYSTEM, "cannot open");
    refuse(other, folder, QKV_ERR_SYSTEM, "not a regular file");
    t_check(qkv_cache_save_file(cache, 1, &seq, path_of("no/folder"), text, sizeof text) ==
                QKV_ERR_SYSTEM,
            "%s", text);
    t_check(qkv_cache_save_file(cache, 1, &seq, NULL, text, sizeof text) == QKV_ERR_ARGUMENT,
            "NULL");
    t_check(qkv_cache_load_file(other, NULL, 0, NULL, NULL, text, sizeof text) == QKV_ERR_ARGUMENT,
            "NULL");
    t_check(qkv_cache_inspect_file(path, NULL, text, sizeof text) == QKV_ERR_ARGUMENT, "NULL");
    qkv_cache_destroy(cache);
    qkv_cache_destroy(other);
}

/* A disk that is full leaves the old file. */
static void test_full_disk(void)
{
    char text[256] = "";

    if (!t_case("full disk"))
        return;
    qkv_cache *cache = new_cache();
    const int32_t seq = fill(cache);
    if (access("/dev/full", W_OK) == 0)
        t_check(qkv_cache_save_file(cache, 1, &seq, "/dev/full", text, sizeof text) ==
                        QKV_ERR_SYSTEM &&
                    strstr(text, strerror(ENOSPC)),
                "%s", text);
    qkv_cache_destroy(cache);
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"round_trip", test_round_trip},
                                   {"bad_files", test_bad_files},
                                   {"full_disk", test_full_disk}};
    snprintf(folder, sizeof folder, "qkv_test_cache.XXXXXX");
    if (mkdtemp(folder) == NULL) {
        perror("test_cache_file: mkdtemp");
        return 1;
    }
    const int code = t_main(argc, argv, "cache_file", tests, sizeof tests / sizeof tests[0]);
    rmdir(folder);
    return code;
}
