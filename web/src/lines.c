/* lines.c - see lines.h. */
#include "lines.h"

#include <stdio.h>
#include <string.h>

web_lines web_lines_begin(char *text, size_t bytes)
{
    web_lines l = {text, bytes, 0, bytes == 0, "", 0};
    if (bytes)
        *text = 0;
    return l;
}

static size_t extend(web_lines *l, const char *name)
{
    const size_t before = l->path_used, n = strlen(name);

    if (before + n + 2 > sizeof l->path) {
        l->cut = 1;
        return before;
    }
    memcpy(l->path + before, name, n);
    strcpy(l->path + before + n, ".");
    l->path_used += n + 1;
    return before;
}

size_t web_enter(web_lines *l, const char *name) { return extend(l, name); }

size_t web_enter_at(web_lines *l, int index)
{
    char digits[16];
    snprintf(digits, sizeof digits, "%d", index);
    return extend(l, digits);
}

void web_leave(web_lines *l, size_t before)
{
    l->path_used = before;
    l->path[before] = 0;
}

static void put(web_lines *l, const char *name, char kind, const char *value)
{
    const size_t room = l->bytes - l->used;
    const int n = l->cut ? 0
                         : snprintf(l->text + l->used, room, "%s%s\t%c\t%s\n", l->path, name, kind,
                                    value);
    if (n < 0 || (size_t)n >= room)
        l->cut = 1;
    else
        l->used += (size_t)n;
}

void web_whole(web_lines *l, const char *name, uint64_t value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    put(l, name, 'i', digits);
}

void web_real(web_lines *l, const char *name, double value)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.17g", value);
    put(l, name, 'f', digits);
}

void web_bool(web_lines *l, const char *name, int value) { put(l, name, 'b', value ? "1" : "0"); }

void web_text(web_lines *l, const char *name, const char *value)
{
    put(l, name, value ? 's' : 'n', value ? value : "");
}

void web_null(web_lines *l, const char *name) { put(l, name, 'n', ""); }
void web_list(web_lines *l, const char *name) { put(l, name, 'e', ""); }
