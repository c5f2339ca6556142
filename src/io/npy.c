/*
 * io/npy.c - NumPy .npy files (numpy.lib.format, versions 1.0, 2.0 and 3.0).
 *
 *     "\x93NUMPY" major minor | header length, u16 (version 1) or u32, little endian | header |
 * data
 *
 * The header is the literal of a Python dict with exactly the keys descr, fortran_order and shape,
 * padded with spaces and ended by a newline.  The parser below takes that and nothing else of
 * Python: no escapes in strings, no expressions, no keys twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/tensor.h"

/* Only structured dtypes, which are refused, have headers beyond a few hundred bytes. */
#define LARGEST_HEADER (1 << 20)

#define ACCEPTED "accepted are f8 f4 f2 b1 u1 i4 i8, and V2 for bf16"

/* ---- header: the dict literal ------------------------------------------------------------- */

typedef struct header {
    char descr[16];
    int fortran;
    int32_t rank; /* may exceed QKV_MAX_RANK: counted on, so that the sentence can name it */
    int64_t shape[QKV_MAX_RANK];
    int structured; /* descr is a list of fields */
} header;

typedef struct reader {
    const char *p, *end;
} reader;

static void skip_blanks(reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

/* The character c after blanks. */
static int take(reader *r, char c)
{
    skip_blanks(r);
    if (r->p == r->end || *r->p != c)
        return 0;
    r->p++;
    return 1;
}

static int take_word(reader *r, const char *word)
{
    skip_blanks(r);
    const size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return 0;
    r->p += n;
    return 1;
}

/* A string in either kind of quotes, without escapes. */
static int take_string(reader *r, char *text, size_t bytes)
{
    skip_blanks(r);
    if (r->p == r->end || (*r->p != '\'' && *r->p != '"'))
        return 0;
    const char quote = *r->p++;
    size_t n = 0;
    for (; r->p < r->end && *r->p != quote; r->p++) {
        if (*r->p < ' ' || *r->p > '~' || *r->p == '\\' || n + 1 >= bytes)
            return 0;
        text[n++] = *r->p;
    }
    text[n] = '\0';
    return r->p < r->end && *r->p++ == quote;
}

static int take_dimension(reader *r, int64_t *value)
{
    skip_blanks(r);
    const char *start = r->p;
    int64_t v = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *r->p - '0', &v))
            return 0;
    }
    *value = v;
    return r->p > start;
}

/* (), (n,), (n, m), (n, m,): a tuple.  (n) is a number in Python and therefore wrong. */
static int take_shape(reader *r, header *h)
{
    if (!take(r, '('))
        return 0;
    for (h->rank = 0; !take(r, ')'); h->rank++) {
        int64_t dimension;
        if (!take_dimension(r, &dimension))
            return 0;
        if (h->rank < QKV_MAX_RANK)
            h->shape[h->rank] = dimension;
        if (!take(r, ',')) {
            h->rank++;
            return h->rank > 1 && take(r, ')');
        }
    }
    return 1;
}

static int take_value(reader *r, header *h, const char *key, int *seen)
{
    int bit, ok;
    if (strcmp(key, "descr") == 0) {
        bit = 1;
        skip_blanks(r);
        if (r->p < r->end && *r->p == '[') {
            h->structured = 1;
            return 0;
        }
        ok = take_string(r, h->descr, sizeof h->descr);
    } else if (strcmp(key, "fortran_order") == 0) {
        bit = 2;
        h->fortran = take_word(r, "True");
        ok = h->fortran || take_word(r, "False");
    } else if (strcmp(key, "shape") == 0) {
        bit = 4;
        ok = take_shape(r, h);
    } else {
        return 0;
    }
    if (*seen & bit)
        return 0;
    *seen |= bit;
    return ok;
}

static int parse_header(const char *text, size_t n, header *h)
{
    reader r = {text, text + n};
    int seen = 0;
    memset(h, 0, sizeof *h);
    if (n == 0 || text[n - 1] != '\n' || !take(&r, '{'))
        return 0;
    while (!take(&r, '}')) {
        char key[16];
        if (!take_string(&r, key, sizeof key) || !take(&r, ':') || !take_value(&r, h, key, &seen))
            return 0;
        if (!take(&r, ',')) {
            if (!take(&r, '}'))
                return 0;
            break;
        }
    }
    skip_blanks(&r);
    return seen == 7 && r.p == r.end;
}

/* descr to a type; *swap if the bytes are the other way round. */
static qkv_type parse_descr(const char *descr, int *swap)
{
    static const struct {
        const char *name;
        qkv_type type;
    } known[] = {{"f8", QKV_F64},  {"f4", QKV_F32},  {"f2", QKV_F16}, {"V2", QKV_BF16},
                 {"b1", QKV_BOOL}, {"u1", QKV_BOOL}, {"i4", QKV_I32}, {"i8", QKV_I64}};
    const int big = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    if (strchr("<>|=", descr[0]) == NULL || descr[0] == '\0')
        return QKV_NONE;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(descr + 1, known[i].name) != 0)
            continue;
        /* Only elements of one byte, and V2, have no byte order of their own. */
        const qkv_type type = known[i].type;
        if (descr[0] == '|' && type != QKV_BOOL && type != QKV_BF16)
            return QKV_NONE;
        *swap = type != QKV_BOOL && ((descr[0] == '>' && !big) || (descr[0] == '<' && big));
        return type;
    }
    return QKV_NONE;
}

/* ---- read --------------------------------------------------------------------------------- */

/* Reads and checks everything before the data; *start is where the data begins. */
static qkv_status read_header(int fd, int64_t size, const char *path, header *h, int64_t *start,
                              qkv_say say)
{
    unsigned char prefix[12];
    if (size < 10)
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: not a .npy file: it has only %lld bytes", path,
                          (long long)size);
    qkv_status status = qkv_io_read(fd, path, prefix, size < 12 ? 10 : 12, 0, say);
    if (status != QKV_OK)
        return status;
    if (memcmp(prefix, "\x93NUMPY", 6) != 0)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: not a .npy file: it does not begin with \\x93NUMPY", path);
    if (prefix[6] < 1 || prefix[6] > 3 || prefix[7] != 0)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: .npy format version is %d.%d; accepted are 1.0, 2.0 and 3.0", path,
                          prefix[6], prefix[7]);
    const int wide = prefix[6] > 1;
    int64_t n = prefix[8] | prefix[9] << 8;
    if (wide && size >= 12)
        n |= (int64_t)prefix[10] << 16 | (int64_t)prefix[11] << 24;
    *start = (wide ? 12 : 10) + n;
    if (*start > size)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: truncated: the header should end at byte %lld of %lld", path,
                          (long long)*start, (long long)size);
    if (n > LARGEST_HEADER)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: the header has %lld bytes; accepted are up to %d", path,
                          (long long)n, LARGEST_HEADER);
    char *text = malloc((size_t)n + 1);
    if (text == NULL)
        return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory for the header", path);
    status = qkv_io_read(fd, path, text, (size_t)n, *start - n, say);
    const int ok = status == QKV_OK && parse_header(text, (size_t)n, h);
    free(text);
    if (status != QKV_OK || ok)
        return status;
    if (h->structured)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED, "%s: its dtype is a structure; " ACCEPTED,
                          path);
    return qkv_refuse(say, QKV_ERR_FORMAT,
                      "%s: the .npy header is not a dict of descr, fortran_order and shape", path);
}

/* Copies Fortran order (first index runs through memory) to C order. */
static void from_fortran(const qkv_tensor *t, const char *from)
{
    const size_t size = qkv_type_size((qkv_type)t->type);
    const int64_t n = qkv_tensor_elements(t);
    int64_t index[QKV_MAX_RANK] = {0}, stride[QKV_MAX_RANK], at = 0, step = 1;
    for (int32_t r = 0; r < t->rank; r++) {
        stride[r] = step;
        step *= t->shape[r];
    }
    char *to = t->data;
    for (int64_t i = 0; i < n; i++, to += size) {
        memcpy(to, from + (size_t)at * size, size);
        for (int32_t r = t->rank - 1; r >= 0; r--) {
            at += stride[r];
            if (++index[r] < t->shape[r])
                break;
            at -= stride[r] * t->shape[r];
            index[r] = 0;
        }
    }
}

static qkv_status read_data(int fd, const char *path, const header *h, int64_t start, int swap,
                            qkv_tensor *tensor, qkv_say say)
{
    const size_t bytes = qkv_tensor_bytes(tensor);
    void *buffer = tensor->data;
    if (h->fortran && h->rank > 1) {
        buffer = malloc(bytes + 1);
        if (buffer == NULL)
            return qkv_refuse(say, QKV_ERR_MEMORY, "%s: not enough memory for %zu bytes", path,
                              bytes);
    }
    const qkv_status status = qkv_io_read(fd, path, buffer, bytes, start, say);
    if (status == QKV_OK && swap)
        qkv_io_swap(buffer, qkv_type_size((qkv_type)tensor->type), qkv_tensor_elements(tensor));
    if (status == QKV_OK && tensor->type == QKV_BOOL) {
        /* u1 may hold any byte; what we write as b1 may only hold 0 and 1. */
        for (size_t i = 0; i < bytes; i++)
            ((unsigned char *)buffer)[i] = ((unsigned char *)buffer)[i] != 0;
    }
    if (buffer != tensor->data) {
        if (status == QKV_OK)
            from_fortran(tensor, buffer);
        free(buffer);
    }
    return status;
}

static qkv_status read_open(int fd, int64_t size, const char *path, qkv_tensor *tensor, qkv_say say)
{
    header h;
    int64_t start = 0;
    qkv_status status = read_header(fd, size, path, &h, &start, say);
    if (status != QKV_OK)
        return status;
    int swap = 0;
    const qkv_type type = parse_descr(h.descr, &swap);
    if (type == QKV_NONE)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED, "%s: its dtype is '%s'; " ACCEPTED, path,
                          h.descr);
    if (h.rank > QKV_MAX_RANK)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "%s: it has %d dimensions; accepted are up to %d", path, (int)h.rank,
                          QKV_MAX_RANK);
    int64_t elements, bytes;
    if (!qkv_io_count(h.rank, h.shape, &elements) ||
        __builtin_mul_overflow(elements, (int64_t)qkv_type_size(type), &bytes))
        return qkv_refuse(say, QKV_ERR_FORMAT, "%s: its shape has more bytes than 64 bits count",
                          path);
    /* Before anything is allocated: the file has what its header promises. */
    if (bytes != size - start)
        return qkv_refuse(say, QKV_ERR_FORMAT,
                          "%s: %s: shape and dtype need %lld bytes of data, the file has %lld",
                          path, size - start < bytes ? "truncated" : "bytes left over",
                          (long long)bytes, (long long)(size - start));
    status = qkv_io_tensor_new(tensor, type, h.rank, h.shape);
    if (status != QKV_OK)
        return qkv_refuse(say, status, "%s: not enough memory for %lld bytes", path,
                          (long long)bytes);
    status = read_data(fd, path, &h, start, swap, tensor, say);
    if (status != QKV_OK)
        qkv_tensor_free(tensor);
    return status;
}

qkv_status qkv_npy_read(const char *path, qkv_tensor *tensor, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (path == NULL || tensor == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_npy_read: path or tensor is NULL");
    memset(tensor, 0, sizeof *tensor);
    int fd;
    int64_t size;
    qkv_status status = qkv_io_open(path, &fd, &size, say);
    if (status != QKV_OK)
        return status;
    status = read_open(fd, size, path, tensor, say);
    close(fd);
    return status;
}

/* ---- write -------------------------------------------------------------------------------- */

/* The whole header into text; returns its length.  256 bytes hold eight dimensions of 19 digits. */
static int format_header(const qkv_tensor *tensor, char text[384])
{
    static const char *const descr[] = {
        [QKV_F64] = "<f8",  [QKV_F32] = "<f4", [QKV_F16] = "<f2", [QKV_BF16] = "<V2",
        [QKV_BOOL] = "|b1", [QKV_I32] = "<i4", [QKV_I64] = "<i8"};
    char shape[256] = "(";
    int n = 1;
    for (int32_t r = 0; r < tensor->rank; r++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, r == 0 ? "%lld," : " %lld,",
                      (long long)tensor->shape[r]);
    /* (n,) keeps its comma, (n, m) has none at the end. */
    if (tensor->rank > 1)
        n--;
    snprintf(shape + n, sizeof shape - (size_t)n, ")");

    memcpy(text, "\x93NUMPY\1\0", 8);
    int end =
        10 + snprintf(text + 10, 374, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                      descr[tensor->type], shape);
    do {
        text[end++] = ' ';
    } while ((end + 1) % 64 != 0);
    text[end++] = '\n';
    text[8] = (char)((end - 10) & 255);
    text[9] = (char)((end - 10) >> 8);
    return end;
}

/* Data in the file's byte order, which is this machine's except on big-endian ones. */
static qkv_status write_data(qkv_io_output *output, const qkv_tensor *tensor, qkv_say say)
{
    const size_t size = qkv_type_size((qkv_type)tensor->type);
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ || size == 1)
        return qkv_io_output_write(output, tensor->data, qkv_tensor_bytes(tensor), say);
    char chunk[4096];
    const char *from = tensor->data;
    qkv_status status = QKV_OK;
    for (size_t left = qkv_tensor_bytes(tensor); left > 0 && status == QKV_OK;) {
        const size_t n = left < sizeof chunk ? left : sizeof chunk;
        memcpy(chunk, from, n);
        qkv_io_swap(chunk, size, (int64_t)(n / size));
        status = qkv_io_output_write(output, chunk, n, say);
        from += n;
        left -= n;
    }
    return status;
}

qkv_status qkv_npy_write(const char *path, const qkv_tensor *tensor, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    if (path == NULL || tensor == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "qkv_npy_write: path or tensor is NULL");
    qkv_status status = qkv_io_tensor_check(tensor, path, say);
    if (status != QKV_OK)
        return status;
    char head[384];
    const int head_bytes = format_header(tensor, head);
    qkv_io_output output;
    status = qkv_io_output_open(&output, path, say);
    if (status == QKV_OK)
        status = qkv_io_output_write(&output, head, (size_t)head_bytes, say);
    if (status == QKV_OK)
        status = write_data(&output, tensor, say);
    return status == QKV_OK ? qkv_io_output_commit(&output, say) : status;
}
