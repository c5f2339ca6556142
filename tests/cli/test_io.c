/* test_io.c - qkv/io.h from C: round trips, and the refusals the command cannot provoke. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkv/io.h"
#include "t.h"

static char folder[64];

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* A tensor of counted bytes; bool gets 0 and 1. */
static qkv_tensor counted(qkv_type type, int32_t rank, const int64_t *shape)
{
    qkv_tensor t;
    t_check(qkv_tensor_alloc(&t, type, rank, shape) == QKV_OK, "qkv_tensor_alloc failed");
    for (size_t i = 0; i < qkv_tensor_bytes(&t); i++)
        ((uint8_t *)t.data)[i] = (uint8_t)(type == QKV_BOOL ? i % 3 == 0 : i * 7);
    return t;
}

static void check_same(const qkv_tensor *a, const qkv_tensor *b)
{
    t_check(a->type == b->type && a->rank == b->rank, "type or rank differ");
    t_check(memcmp(a->shape, b->shape, sizeof a->shape) == 0, "shapes differ");
    t_check(memcmp(a->data, b->data, qkv_tensor_bytes(a)) == 0, "data differs");
    t_check((uintptr_t)b->data % 64 == 0, "data is not aligned to 64 bytes");
}

/* ---- round trips -------------------------------------------------------------------------- */

static void round_trip(qkv_type type, int32_t rank, const int64_t *shape)
{
    char text[256] = "";
    qkv_tensor out = counted(type, rank, shape), in;
    const char *path = path_of("t.npy");
    t_check(qkv_npy_write(path, &out, text, sizeof text) == QKV_OK, "npy write: %s", text);
    t_check(qkv_npy_read(path, &in, text, sizeof text) == QKV_OK, "npy read: %s", text);
    check_same(&out, &in);
    qkv_tensor_free(&in);

    const char *name = "a \"name\" \xc3\xa9";
    qkv_safetensors *file = NULL;
    path = path_of("t.safetensors");
    t_check(qkv_safetensors_write(path, 1, &name, &out, text, sizeof text) == QKV_OK, "write: %s",
            text);
    t_check(qkv_safetensors_open(path, &file, text, sizeof text) == QKV_OK, "open: %s", text);
    if (file != NULL) {
        t_check(qkv_safetensors_read(file, name, &in, text, sizeof text) == QKV_OK, "read: %s",
                text);
        check_same(&out, &in);
    }
    qkv_tensor_free(&in);
    qkv_safetensors_close(file);
    qkv_tensor_free(&out);
}

static void test_round_trips(void)
{
    static const int64_t shape[QKV_MAX_RANK] = {2, 1, 3, 1, 2, 1, 1, 3};
    static const int64_t empty[3] = {4, 0, 5};
    for (int type = QKV_F64; type <= QKV_I64; type++) {
        for (int32_t rank = 0; rank <= QKV_MAX_RANK; rank++)
            if (t_case("%s rank %d", qkv_type_name((qkv_type)type), (int)rank))
                round_trip((qkv_type)type, rank, shape);
        if (t_case("%s empty", qkv_type_name((qkv_type)type)))
            round_trip((qkv_type)type, 3, empty);
    }
}

/* Larger elements first, so that each tensor is aligned to its element in the file. */
static void test_alignment(void)
{
    if (!t_case("order"))
        return;
    static const qkv_type types[] = {QKV_BOOL, QKV_F16, QKV_F64, QKV_I32, QKV_BF16, QKV_F32};
    static const char *const names[] = {"z", "y", "x", "w", "v", "u"};
    const int64_t shape[1] = {3};
    qkv_tensor t[6];
    for (int i = 0; i < 6; i++)
        t[i] = counted(types[i], 1, shape);
    char text[256] = "";
    qkv_safetensors *file = NULL;
    const char *path = path_of("order.safetensors");
    t_check(qkv_safetensors_write(path, 6, names, t, text, sizeof text) == QKV_OK, "%s", text);
    t_check(qkv_safetensors_open(path, &file, text, sizeof text) == QKV_OK, "%s", text);
    t_check(file != NULL && qkv_safetensors_count(file) == 6, "not six tensors");
    for (int64_t i = 0; file != NULL && i < 6; i++) {
        qkv_safetensors_entry e;
        t_check(qkv_safetensors_entry_at(file, i, &e) == QKV_OK, "entry %d", (int)i);
        t_check((uintptr_t)e.data % qkv_type_size((qkv_type)e.type) == 0, "%s is misaligned",
                e.name);
    }
    qkv_safetensors_entry e;
    if (file != NULL) {
        t_check(qkv_safetensors_entry_at(file, -1, &e) == QKV_ERR_ARGUMENT, "index -1 was taken");
        t_check(qkv_safetensors_entry_at(file, 6, &e) == QKV_ERR_ARGUMENT, "index 6 was taken");
        t_check(qkv_safetensors_entry_at(file, 0, NULL) == QKV_ERR_ARGUMENT, "NULL was taken");
    }
    qkv_safetensors_close(file);
    for (int i = 0; i < 6; i++)
        qkv_tensor_free(&t[i]);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void test_alloc(void)
{
    static const struct {
        const char *name;
        qkv_type type;
        int32_t rank;
        int64_t shape[4];
    } bad[] = {{"no type", QKV_NONE, 1, {1}},
               {"unknown type", (qkv_type)99, 1, {1}},
               {"negative rank", QKV_F32, -1, {1}},
               {"rank 9", QKV_F32, 9, {1}},
               {"negative", QKV_F32, 2, {-2, -2}},
               {"too many", QKV_BOOL, 2, {INT64_MAX, 2}},
               {"too many bytes", QKV_F64, 1, {INT64_MAX / 4}},
               {"too many with 0", QKV_BOOL, 3, {0, INT64_MAX, 2}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (!t_case("%s", bad[i].name))
            continue;
        qkv_tensor t;
        t_check(qkv_tensor_alloc(&t, bad[i].type, bad[i].rank, bad[i].shape) == QKV_ERR_ARGUMENT,
                "it was taken");
        t_check(t.data == NULL, "data was allocated");
    }
    if (t_case("zeros, and freed twice")) {
        qkv_tensor t;
        const int64_t shape[2] = {5, 7};
        t_check(qkv_tensor_alloc(&t, QKV_F32, 2, shape) == QKV_OK, "refused");
        for (int i = 0; i < 35; i++)
            t_check(((float *)t.data)[i] == 0, "element %d is not 0", i);
        t_check(qkv_tensor_elements(&t) == 35 && qkv_tensor_bytes(&t) == 140, "sizes");
        qkv_tensor_free(&t);
        qkv_tensor_free(&t);
        t_check(qkv_tensor_elements(&t) == 0, "an empty tensor has elements");
    }
}

static void refused(qkv_status got, qkv_status want, const char *text, const char *word)
{
    struct stat st;
    t_check(got == want, "status is %s, expected %s", qkv_status_name(got), qkv_status_name(want));
    t_check(strstr(text, word) != NULL, "\"%s\" does not say \"%s\"", text, word);
    t_check(stat(path_of("bad"), &st) != 0, "a file was written");
}

static void test_write_refusals(void)
{
    const int64_t shape[1] = {2};
    char text[256];
    qkv_tensor good[2] = {{0}};
    if (!t_case("tensors"))
        return;
    good[0] = counted(QKV_F32, 1, shape);
    good[1] = counted(QKV_F32, 1, shape);
    qkv_tensor bad[4] = {good[0], good[0], good[0], good[0]};
    bad[0].type = 99;
    bad[1].rank = 9;
    bad[2].shape[0] = -1;
    bad[3].data = NULL;
    const char *words[4] = {"its type is 99", "its rank is 9", "negative dimension",
                            "data is NULL"};
    const char *names[2] = {"x", "x"}, *reserved = "__metadata__", *latin = "\xff", *none = NULL;
    for (int i = 0; i < 4; i++) {
        refused(qkv_npy_write(path_of("bad"), &bad[i], text, sizeof text), QKV_ERR_ARGUMENT, text,
                words[i]);
        refused(qkv_safetensors_write(path_of("bad"), 1, names, &bad[i], text, sizeof text),
                QKV_ERR_ARGUMENT, text, words[i]);
    }
    const struct {
        const char *const *names;
        int32_t n;
        const char *word;
    } calls[] = {{names, 2, "two tensors are named"},
                 {&reserved, 1, "__metadata__"},
                 {&latin, 1, "UTF-8"},
                 {&none, 1, "names[0] is NULL"},
                 {names, -1, "n is negative"}};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        refused(qkv_safetensors_write(path_of("bad"), calls[i].n, calls[i].names, good, text,
                                      sizeof text),
                QKV_ERR_ARGUMENT, text, calls[i].word);
    refused(qkv_safetensors_write(NULL, 0, NULL, NULL, text, sizeof text), QKV_ERR_ARGUMENT, text,
            "NULL");
    refused(qkv_file_write(path_of("bad"), NULL, 3, text, sizeof text), QKV_ERR_ARGUMENT, text,
            "NULL");
    /* No room for a sentence is allowed. */
    t_check(qkv_npy_read(path_of("missing"), &bad[0], NULL, 0) == QKV_ERR_SYSTEM, "missing file");
    t_check(qkv_npy_write(path_of("no/folder"), &good[0], NULL, 0) == QKV_ERR_SYSTEM, "no folder");
    t_check(bad[0].data == NULL, "a failed read left data");
    qkv_tensor_free(&good[0]);
    qkv_tensor_free(&good[1]);
}

static void test_plain_files(void)
{
    char text[256] = "";
    struct stat st;
    if (t_case("empty")) {
        t_check(qkv_file_write(path_of("f"), NULL, 0, text, sizeof text) == QKV_OK, "%s", text);
        t_check(stat(path_of("f"), &st) == 0 && st.st_size == 0, "not an empty file");
    }
    if (t_case("replaced")) {
        t_check(qkv_file_write(path_of("f"), "one", 3, text, sizeof text) == QKV_OK, "%s", text);
        t_check(qkv_file_write(path_of("f"), "three", 5, text, sizeof text) == QKV_OK, "%s", text);
        t_check(stat(path_of("f"), &st) == 0 && st.st_size == 5, "not five bytes");
    }
    if (t_case("no tensors")) {
        qkv_safetensors *file = NULL;
        const char *path = path_of("none.safetensors");
        t_check(qkv_safetensors_write(path, 0, NULL, NULL, text, sizeof text) == QKV_OK, "%s",
                text);
        t_check(qkv_safetensors_open(path, &file, text, sizeof text) == QKV_OK, "%s", text);
        t_check(file != NULL && qkv_safetensors_count(file) == 0, "tensors from nowhere");
        qkv_safetensors_close(file);
        qkv_safetensors_close(NULL);
    }
}

static void clean_up(void)
{
    static const char *const names[] = {"t.npy", "t.safetensors", "order.safetensors",
                                        "none.safetensors", "f"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_of(names[i]));
    rmdir(folder);
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"round_trips", test_round_trips},
                                   {"alignment", test_alignment},
                                   {"alloc", test_alloc},
                                   {"write_refusals", test_write_refusals},
                                   {"plain_files", test_plain_files}};
    snprintf(folder, sizeof folder, "qkv_test_io.XXXXXX");
    if (mkdtemp(folder) == NULL) {
        perror("test_io: mkdtemp");
        return 1;
    }
    const int code = t_main(argc, argv, "io", tests, sizeof tests / sizeof tests[0]);
    clean_up();
    return code;
}
