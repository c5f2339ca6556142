/* size_values.c - values of the options of qkv size. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "size.h"

int size_one_of(const char *option, const char *text, const char *const *words, int n, int *index)
{
    char list[200] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *index = i;
            return CLI_DONE;
        }
        strcat(strcat(list, i == 0 ? "" : i == n - 1 ? " and " : ", "), words[i]);
    }
    return cli_complain("--%s is %s; accepted are %s", option, text, list);
}

/* ---- numbers ------------------------------------------------------------------------------ */

/* Digits, no sign, no blanks in front. */
static int digits(const char *text, char **end, uint64_t *value)
{
    errno = 0;
    if (*text < '0' || *text > '9')
        return 0;
    const unsigned long long n = strtoull(text, end, 10);
    *value = n;
    return errno == 0 && n <= INT64_MAX;
}

int size_parse_count(const char *option, const char *text, int64_t low, int64_t high,
                     int64_t *value)
{
    uint64_t n = 0;
    char *end = NULL;
    int shift = -1;

    if (digits(text, &end, &n))
        shift = strcmp(end, "") == 0                             ? 0
                : strcmp(end, "k") == 0 || strcmp(end, "K") == 0 ? 10
                : strcmp(end, "M") == 0                          ? 20
                                                                 : -1;
    if (shift >= 0 && n <= (uint64_t)INT64_MAX >> shift)
        n <<= shift;
    else
        shift = -1;
    if (shift < 0 || n < (uint64_t)low || n > (uint64_t)high)
        return cli_complain("--%s is %s; accepted are whole numbers from %lld to %lld, with k for "
                            "1024 or M for 1048576",
                            option, text, (long long)low, (long long)high);
    *value = (int64_t)n;
    return CLI_DONE;
}

int size_parse_bytes(const char *option, const char *text, uint64_t *value)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"B", 1},           {"kB", 1e3},       {"MB", 1e6},
                 {"GB", 1e9},        {"TB", 1e12},      {"KiB", 1024},
                 {"MiB", 1048576.0}, {"GiB", SIZE_GIB}, {"TiB", 1024 * SIZE_GIB}};
    char *end = NULL;
    uint64_t whole = 0;
    const int is_whole = digits(text, &end, &whole);
    double n = is_whole ? (double)whole : -1;

    if (is_whole && *end == '.') {
        n = strtod(text, &end);
    }
    for (size_t i = 0; end != NULL && i < sizeof units / sizeof units[0]; i++)
        if (n > 0 && strcmp(end, units[i].unit) == 0 && n * units[i].bytes >= 1 &&
            n * units[i].bytes < 9e18) {
            *value = (uint64_t)(n * units[i].bytes);
            return CLI_DONE;
        }
    return cli_complain("--%s is %s; accepted are numbers above 0 with a unit: B, kB, MB, GB, TB "
                        "(of 1000), KiB, MiB, GiB, TiB (of 1024)",
                        option, text);
}

int size_parse_seconds(const char *option, const char *text, double *value)
{
    char *end = NULL;
    double n = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;

    if (n > 0 && strcmp(end, "ms") == 0)
        n /= 1000;
    else if (n > 0 && strcmp(end, "us") == 0)
        n /= 1e6;
    else if (!(n > 0) || strcmp(end, "s") != 0)
        n = -1;
    if (!(n > 0) || !isfinite(n))
        return cli_complain("--%s is %s; accepted are times above 0 with a unit: s, ms, us", option,
                            text);
    *value = n;
    return CLI_DONE;
}

/* ---- formats ------------------------------------------------------------------------------ */

static const int32_t formats[] = {
    QKV_FORMAT_F32,  QKV_FORMAT_F16,          QKV_FORMAT_BF16, QKV_FORMAT_INT8, QKV_FORMAT_INT4,
    QKV_FORMAT_E4M3, QKV_FORMAT_INT8_CHANNEL, QKV_FORMAT_E5M2, QKV_SIZE_Q8_0,   QKV_SIZE_Q4_0};

/* "int8", "int8:64", "e4m3:head" of n letters. */
static int parse_format(const char *text, size_t n, int32_t *format, int32_t *group, int32_t *scale)
{
    const char *colon = memchr(text, ':', n);
    const size_t name = colon != NULL ? (size_t)(colon - text) : n;
    int found = 0;

    *group = 0;
    *scale = QKV_SCALE_TOKEN;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const char *word = qkv_size_format_name(formats[i]);
        if (strlen(word) == name && memcmp(word, text, name) == 0) {
            *format = formats[i];
            found = 1;
        }
    }
    if (found && colon != NULL) {
        const size_t rest = n - name - 1;
        const char *after = colon + 1;
        *group = rest == 2 && memcmp(after, "32", 2) == 0    ? 32
                 : rest == 2 && memcmp(after, "64", 2) == 0  ? 64
                 : rest == 3 && memcmp(after, "128", 3) == 0 ? 128
                                                             : 0;
        *scale = rest == 4 && memcmp(after, "head", 4) == 0 ? QKV_SCALE_HEAD : QKV_SCALE_TOKEN;
        found = *group > 0 || *scale == QKV_SCALE_HEAD;
    }
    return found;
}

int size_parse_formats(const char *text, qkv_size_setup *s)
{
    const char *comma = strchr(text, ',');
    const size_t first = comma != NULL ? (size_t)(comma - text) : strlen(text);
    const char *second = comma != NULL ? comma + 1 : text;

    if (parse_format(text, first, &s->k_format, &s->k_group, &s->k_scale) &&
        parse_format(second, comma != NULL ? strlen(second) : first, &s->v_format, &s->v_group,
                     &s->v_scale))
        return CLI_DONE;
    return cli_complain("--kv is %s; accepted are f32, f16, bf16, int8, int8_channel, int4, e4m3, "
                        "e5m2, q8_0 and q4_0, with :32, :64, :128 or :head for scales, and one for "
                        "keys and one for values with a comma between",
                        text);
}

int size_parse_weights(const char *text, qkv_size_setup *s)
{
    static const struct {
        const char *word;
        int32_t bits;
    } words[] = {{"none", 0}, {"f32", 32}, {"f16", 16}, {"bf16", 16},
                 {"int8", 8}, {"e4m3", 8}, {"int4", 4}};
    int64_t n = 0;

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i].word) == 0) {
            s->weight_bits = words[i].bits;
            return CLI_DONE;
        }
    if (*text < '0' || *text > '9')
        return cli_complain("--weights is %s; accepted are f32, f16, bf16, int8, e4m3, int4, none, "
                            "and bits a parameter from 1 to 64",
                            text);
    const int code = cli_parse_integer("weights", text, 1, 64, &n);
    s->weight_bits = (int32_t)n;
    return code;
}

const char *size_solve_word(int32_t what)
{
    static const char *const words[] = {"?", "context", "users", "groups", "format"};
    return words[what >= 1 && what <= 4 ? what : 0];
}

/* "context,users" */
int size_parse_solve(const char *text, size_options *o)
{
    o->n_solve = 0;
    for (const char *at = text; at != NULL;) {
        const char *comma = strchr(at, ',');
        const size_t n = comma != NULL ? (size_t)(comma - at) : strlen(at);
        int32_t what = 0;
        for (int32_t w = 1; w <= 4; w++)
            if (strlen(size_solve_word(w)) == n && memcmp(at, size_solve_word(w), n) == 0)
                what = w;
        if (what == 0 || o->n_solve == 4)
            return cli_complain("--solve is %s; accepted are context, users, groups and format, "
                                "with commas between",
                                text);
        o->solve[o->n_solve++] = what;
        at = comma != NULL ? comma + 1 : NULL;
    }
    return CLI_DONE;
}
