/* core/status.c - the version, and status codes in words. */
#include "qkv/base.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

uint32_t qkv_version(void)
{
    return (uint32_t)QKV_VERSION_MAJOR << 16 | (uint32_t)QKV_VERSION_MINOR << 8 | QKV_VERSION_PATCH;
}

const char *qkv_version_string(void)
{
    return TEXT(QKV_VERSION_MAJOR) "." TEXT(QKV_VERSION_MINOR) "." TEXT(QKV_VERSION_PATCH);
}

static const struct {
    const char *name, *text;
} statuses[] = {
    [QKV_OK] = {"QKV_OK", "The call did what was asked."},
    [QKV_ERR_ARGUMENT] = {"QKV_ERR_ARGUMENT", "A field or pointer is outside its documented range."},
    [QKV_ERR_UNSUPPORTED] = {"QKV_ERR_UNSUPPORTED", "Nothing in this build computes what was asked."},
    [QKV_ERR_BUFFER] = {"QKV_ERR_BUFFER", "Memory given by the caller is too small or misaligned."},
    [QKV_ERR_MEMORY] = {"QKV_ERR_MEMORY", "Memory could not be allocated."},
    [QKV_ERR_SYSTEM] = {"QKV_ERR_SYSTEM", "The operating system refused."},
    [QKV_ERR_FORMAT] = {"QKV_ERR_FORMAT", "A file is not what it says it is."},
    [QKV_ERR_FULL] = {"QKV_ERR_FULL", "A cache has no place left for what was asked."},
};

static int known(qkv_status status) { return (int)status >= 0 && (int)status <= (int)QKV_ERR_FULL; }

const char *qkv_status_name(qkv_status status)
{
    return known(status) ? statuses[status].name : "(no qkv_status)";
}

const char *qkv_status_text(qkv_status status)
{
    return known(status) ? statuses[status].text : "This value is no qkv_status.";
}
