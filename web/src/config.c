/* config.c - a configuration that JavaScript has parsed, as the callbacks of qkv/model.h. */
#include <stdlib.h>
#include <string.h>

#include "qkv/model.h"
#include "web.h"

typedef struct entry {
    char *path, *text; /* path owns key, its last part */
    const char *key;
    int parent, kind, count;
    uint32_t hash;
    int next; /* in the chain of its hash; -1: the last */
} entry;

enum { CHAINS = 1024 };
static entry *entries;
static int n_entries, room;
static int chains[CHAINS]; /* entry + 1; 0: empty */

static uint32_t hash_of(const char *path) /* FNV-1a */
{
    uint32_t hash = 2166136261u;
    for (; *path; path++)
        hash = (hash ^ (unsigned char)*path) * 16777619u;
    return hash;
}

void web_config_clear(void)
{
    for (int i = 0; i < n_entries; i++) {
        free(entries[i].path);
        free(entries[i].text);
    }
    n_entries = 0;
    memset(chains, 0, sizeof chains);
}

static int grow(void)
{
    if (n_entries < room)
        return 1;
    const int wanted = room ? 2 * room : 256;
    entry *more = realloc(entries, (size_t)wanted * sizeof *more);
    if (!more)
        return 0;
    entries = more;
    room = wanted;
    return 1;
}

/* "parent/key"; the whole is "", its entries have no slash in front. */
static char *path_of(int parent, const char *key, size_t *key_at)
{
    const char *before = parent > 0 ? entries[parent].path : "";
    const size_t n = strlen(before);
    char *path = malloc(n + 1 + strlen(key) + 1);

    *key_at = n + (n > 0);
    if (path) {
        memcpy(path, before, n);
        path[n] = '/';
        strcpy(path + *key_at, key);
    }
    return path;
}

int web_config_add(int parent, const char *key, int kind, const char *text, int count)
{
    size_t key_at;

    if (parent >= n_entries || (parent < 0) != (n_entries == 0) || !grow())
        return -1;
    char *path = path_of(parent, key, &key_at), *copy = strdup(text);
    if (!path || !copy) {
        free(path);
        free(copy);
        return -1;
    }
    const uint32_t hash = hash_of(path);
    entries[n_entries] = (entry){path, copy, path + key_at, parent, kind, count, hash,
                                 chains[hash % CHAINS] - 1};
    chains[hash % CHAINS] = n_entries + 1;
    return n_entries++;
}

static const entry *find(const char *path)
{
    const uint32_t hash = hash_of(path);
    for (int i = chains[hash % CHAINS] - 1; i >= 0; i = entries[i].next)
        if (entries[i].hash == hash && strcmp(entries[i].path, path) == 0)
            return &entries[i];
    return NULL;
}

static void get(void *ctx, const char *path, qkv_config_value *value)
{
    const entry *e = find(path);

    (void)ctx;
    memset(value, 0, sizeof *value);
    if (!e)
        return;
    value->kind = e->kind;
    value->count = e->count;
    value->text = e->kind == QKV_CONFIG_TEXT ? e->text : NULL;
    if (e->kind == QKV_CONFIG_INTEGER || e->kind == QKV_CONFIG_BOOL) {
        value->integer = strtoll(e->text, NULL, 10);
        value->real = (double)value->integer;
    } else if (e->kind == QKV_CONFIG_REAL) {
        value->real = strtod(e->text, NULL);
    }
}

static const char *key(void *ctx, const char *path, int64_t index)
{
    const entry *table = find(path);

    (void)ctx;
    if (!table || table->kind != QKV_CONFIG_TABLE || index < 0)
        return NULL;
    const int parent = (int)(table - entries);
    for (int i = parent + 1; i < n_entries; i++)
        if (entries[i].parent == parent && index-- == 0)
            return entries[i].key;
    return NULL;
}

qkv_config web_config(void)
{
    const qkv_config config = {get, key, NULL};
    return config;
}
