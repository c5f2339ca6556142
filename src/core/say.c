/* core/say.c - see say.h.  vsnprintf writes to memory only; the library prints nothing. */
#include "core/say.h"

#include <stdarg.h>
#include <stdio.h>

qkv_status qkv_refuse(qkv_say say, qkv_status status, const char *format, ...)
{
    if (say.bytes > 0) {
        va_list list;
        va_start(list, format);
        vsnprintf(say.text, say.bytes, format, list);
        va_end(list);
    }
    return status;
}

qkv_status qkv_accept(qkv_say say) { return qkv_refuse(say, QKV_OK, "ok"); }
