/* lines.h - results for JavaScript: lines of path, tab, kind, tab, value. */
#ifndef QKV_WEB_LINES_H
#define QKV_WEB_LINES_H

#include <stddef.h>
#include <stdint.h>

typedef struct web_lines {
    char *text;
    size_t bytes, used;
    int cut;          /* there was not room for all of it */
    char path[200];   /* where we are, with a dot behind it */
    size_t path_used;
} web_lines;

web_lines web_lines_begin(char *text, size_t bytes);
/* Goes into a table or an entry of a list; leave with what enter gave. */
size_t web_enter(web_lines *l, const char *name);
size_t web_enter_at(web_lines *l, int index);
void web_leave(web_lines *l, size_t before);

void web_whole(web_lines *l, const char *name, uint64_t value);
void web_real(web_lines *l, const char *name, double value);
void web_bool(web_lines *l, const char *name, int value);
void web_text(web_lines *l, const char *name, const char *value); /* NULL: null */
void web_null(web_lines *l, const char *name);
void web_list(web_lines *l, const char *name); /* a list, as yet empty */

#endif
