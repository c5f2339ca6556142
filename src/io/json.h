/* io/json.h - whole files of JSON, read strictly. */
#ifndef QKV_IO_JSON_H
#define QKV_IO_JSON_H

#include <jansson.h>

#include "core/say.h"

/* Limits of what a configuration may be: deeper or wider ones are no configurations, and would make
 * reading slow. */
#define QKV_IO_JSON_DEPTH 32
#define QKV_IO_JSON_KEYS 4096

/* Reads a table from a file of at most most_bytes, or from memory.  Refused are what is not JSON,
 * duplicate keys, NaN and infinity, numbers outside of int64 and double, text after the end; name
 * stands in every sentence. */
qkv_status qkv_io_json_read(const char *path, int64_t most_bytes, json_t **table, qkv_say say);
qkv_status qkv_io_json_parse(const char *name, const char *data, size_t data_bytes, json_t **table,
                             qkv_say say);

/* "directory/name", to be freed; NULL without memory. */
char *qkv_io_join(const char *directory, const char *name);

/* Is it a directory? */
int qkv_io_is_directory(const char *path);

/* Is there a file of this name? */
int qkv_io_exists(const char *path);

#endif
