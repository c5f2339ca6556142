/* model/source.c - values of a configuration, checked; see reader.h. */
#include <math.h>
#include <string.h>

#include "model/reader.h"

int qkv_join(char *text, size_t n, const char *a, const char *b, const char *c)
{
    const size_t la = strlen(a), lb = strlen(b), lc = strlen(c);

    text[0] = '\0';
    if (la + lb + lc >= n)
        return 0;
    memcpy(text, a, la);
    memcpy(text + la, b, lb);
    memcpy(text + la + lb, c, lc + 1);
    return 1;
}

qkv_config_value qkv_value_at(reader *r, const char *path)
{
    qkv_config_value value;
    char whole[READER_PATH + sizeof r->base];

    memset(&value, 0, sizeof value);
    if (r->status == QKV_OK && *path != '\0' && qkv_join(whole, sizeof whole, r->base, path, ""))
        r->config->get(r->config->ctx, whole, &value);
    return value;
}

const char *qkv_value_words(const qkv_config_value *v, char words[VALUE_WORDS])
{
    const qkv_say say = {words, VALUE_WORDS};

    switch (v->kind) {
    case QKV_CONFIG_NULL:
        return "null";
    case QKV_CONFIG_BOOL:
        return v->integer ? "true" : "false";
    case QKV_CONFIG_INTEGER:
        qkv_refuse(say, QKV_OK, "%lld", (long long)v->integer);
        return words;
    case QKV_CONFIG_REAL:
        qkv_refuse(say, QKV_OK, "%.9g", v->real);
        return words;
    case QKV_CONFIG_TEXT:
        qkv_refuse(say, QKV_OK, strlen(v->text) > 48 ? "\"%.45s...\"" : "\"%.48s\"", v->text);
        return words;
    case QKV_CONFIG_LIST:
        return "a list";
    case QKV_CONFIG_TABLE:
        return "a table";
    default:
        return "missing";
    }
}

int qkv_value_is_nothing(const qkv_config_value *v)
{
    switch (v->kind) {
    case QKV_CONFIG_BOOL:
    case QKV_CONFIG_INTEGER:
        return v->integer == 0;
    case QKV_CONFIG_REAL:
        return v->real == 0;
    case QKV_CONFIG_TEXT:
        return *v->text == '\0';
    case QKV_CONFIG_LIST:
    case QKV_CONFIG_TABLE:
        return v->count == 0;
    default:
        return 1;
    }
}

static int is_there(const qkv_config_value *v)
{
    return v->kind != QKV_CONFIG_MISSING && v->kind != QKV_CONFIG_NULL;
}

int64_t qkv_integer_at(reader *r, const char *path, int64_t low, int64_t high, int64_t otherwise)
{
    const qkv_config_value v = qkv_value_at(r, path);
    char words[VALUE_WORDS];

    if (!is_there(&v))
        return otherwise;
    if (v.kind == QKV_CONFIG_INTEGER && v.integer >= low && v.integer <= high)
        return v.integer;
    REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s; accepted are whole numbers from %lld to %lld", r->base,
           path, qkv_value_words(&v, words), (long long)low, (long long)high);
    return otherwise;
}

double qkv_real_at(reader *r, const char *path, double above, double otherwise)
{
    const qkv_config_value v = qkv_value_at(r, path);
    char words[VALUE_WORDS];

    if (!is_there(&v))
        return otherwise;
    const double x = v.kind == QKV_CONFIG_INTEGER ? (double)v.integer : v.real;
    if ((v.kind == QKV_CONFIG_INTEGER || v.kind == QKV_CONFIG_REAL) && isfinite(x) && x > above)
        return x;
    REFUSE(r, QKV_ERR_FORMAT, isinf(above) ? "%s%s is %s; accepted are finite numbers"
                                           : "%s%s is %s; accepted are finite numbers above %g",
           r->base, path, qkv_value_words(&v, words), above);
    return otherwise;
}

int qkv_bool_at(reader *r, const char *path, int otherwise)
{
    const qkv_config_value v = qkv_value_at(r, path);
    char words[VALUE_WORDS];

    if (!is_there(&v))
        return otherwise;
    if (v.kind != QKV_CONFIG_BOOL)
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s; accepted are true and false", r->base, path,
               qkv_value_words(&v, words));
    return v.integer != 0;
}

/* ---- by field ------------------------------------------------------------------------------- */

/* The next of words with blanks between, into path; NULL after the last. */
static const char *next_word(const char *words, char path[READER_PATH])
{
    const char *end = strchr(words, ' ');
    const size_t n = end != NULL ? (size_t)(end - words) : strlen(words);

    if (n == 0 || n >= READER_PATH)
        return NULL;
    memcpy(path, words, n);
    path[n] = '\0';
    return end != NULL ? end + 1 : words + n;
}

static int agree(const qkv_config_value *a, const qkv_config_value *b)
{
    if (a->kind == QKV_CONFIG_TEXT && b->kind == QKV_CONFIG_TEXT)
        return strcmp(a->text, b->text) == 0;
    if (a->kind == QKV_CONFIG_BOOL || b->kind == QKV_CONFIG_BOOL)
        return a->kind == b->kind && a->integer == b->integer;
    const double x = a->kind == QKV_CONFIG_INTEGER ? (double)a->integer : a->real;
    const double y = b->kind == QKV_CONFIG_INTEGER ? (double)b->integer : b->real;
    return x == y;
}

const char *qkv_field_path(reader *r, field f, char path[READER_PATH])
{
    const char *words = r->f->fields[f];
    char other[READER_PATH], a[VALUE_WORDS], b[VALUE_WORDS];
    qkv_config_value v, w;

    path[0] = '\0';
    if (words == NULL)
        return path;
    words = next_word(words, path);
    v = qkv_value_at(r, path);
    while (words != NULL && (words = next_word(words, other)) != NULL) {
        w = qkv_value_at(r, other);
        if (is_there(&v) && is_there(&w) && !agree(&v, &w))
            REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s and %s%s is %s; they mean the same", r->base,
                   path, qkv_value_words(&v, a), r->base, other, qkv_value_words(&w, b));
        if (v.kind == QKV_CONFIG_MISSING || (!is_there(&v) && is_there(&w))) {
            if (w.kind != QKV_CONFIG_MISSING) {
                memcpy(path, other, sizeof other);
                v = w;
            }
        }
    }
    return path;
}

int32_t qkv_field_kind(reader *r, field f)
{
    char path[READER_PATH];
    return qkv_value_at(r, qkv_field_path(r, f, path)).kind;
}

int64_t qkv_demand(reader *r, field f, int64_t low, int64_t high)
{
    char path[READER_PATH];
    const qkv_config_value v = qkv_value_at(r, qkv_field_path(r, f, path));
    const int64_t otherwise = (int64_t)r->f->defaults[f];

    if (r->status == QKV_OK && !is_there(&v) && (v.kind == QKV_CONFIG_NULL || otherwise == 0))
        REFUSE(r, QKV_ERR_FORMAT, "%s%s is %s; a %s model needs it: a whole number from %lld",
               r->base, path, v.kind == QKV_CONFIG_NULL ? "null" : "missing", r->f->name,
               (long long)low);
    return qkv_integer_at(r, path, low, high, otherwise != 0 ? otherwise : low);
}

int64_t qkv_integer_of(reader *r, field f, int64_t low, int64_t high, int64_t if_null)
{
    char path[READER_PATH];
    const int32_t kind = qkv_value_at(r, qkv_field_path(r, f, path)).kind;

    return qkv_integer_at(r, path, low, high,
                          kind == QKV_CONFIG_NULL ? if_null : (int64_t)r->f->defaults[f]);
}

double qkv_real_of(reader *r, field f, double above, double if_null)
{
    char path[READER_PATH];
    const int32_t kind = qkv_value_at(r, qkv_field_path(r, f, path)).kind;

    return qkv_real_at(r, path, above, kind == QKV_CONFIG_NULL ? if_null : r->f->defaults[f]);
}

int qkv_bool_of(reader *r, field f)
{
    char path[READER_PATH];
    const int32_t kind = qkv_value_at(r, qkv_field_path(r, f, path)).kind;

    return qkv_bool_at(r, path, kind == QKV_CONFIG_NULL ? 0 : r->f->defaults[f] != 0);
}
