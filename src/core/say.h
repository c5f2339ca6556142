/* core/say.h - sentences for people, written into the caller's buffer. */
#ifndef QKV_CORE_SAY_H
#define QKV_CORE_SAY_H

#include <stddef.h>

#include "qkv/base.h"

/* Where a refusal is written; text may be NULL if bytes is 0. */
typedef struct qkv_say {
    char *text;
    size_t bytes;
} qkv_say;

/*
 * Writes the sentence, cut to fit and always terminated, and returns status, so that a check
 * reads `return qkv_refuse(say, QKV_ERR_ARGUMENT, "head_dim is %d; ...", d);`.
 */
#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 3, 4)))
#endif
qkv_status qkv_refuse(qkv_say say, qkv_status status, const char *format, ...);

/* Writes "ok" and returns QKV_OK. */
qkv_status qkv_accept(qkv_say say);

#endif
