/* sizing/lines.h - text line by line: all are made in order, the one that was asked for is written.
 */
#ifndef QKV_SIZING_LINES_H
#define QKV_SIZING_LINES_H

#include "core/say.h"

typedef struct qkv_lines {
    qkv_say say;
    int32_t want, at;
} qkv_lines;

/* A line of `out`. */
#define LINE(...)                                                                                  \
    do {                                                                                           \
        if (out->at++ == out->want)                                                                \
            qkv_refuse(out->say, QKV_OK, __VA_ARGS__);                                             \
    } while (0)

static inline qkv_status qkv_lines_end(const qkv_lines *out)
{
    if (out->want >= 0 && out->want < out->at)
        return QKV_OK;
    return qkv_refuse(out->say, QKV_ERR_ARGUMENT, "line is %d; accepted are 0 to %d",
                      (int)out->want, (int)out->at - 1);
}

#endif
