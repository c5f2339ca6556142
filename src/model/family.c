/* model/family.c - the table of families, and finding a row of it. */
#include "model/family.h"

#include <string.h>

#define PART_DECODER QKV_PART_DECODER
#define PART_ENCODER QKV_PART_ENCODER
#define PART_CROSS QKV_PART_CROSS

static const family families[] = {
#include "model/families.inc"
};

#define N_FAMILIES ((int32_t)(sizeof families / sizeof families[0]))

int qkv_words_have(const char *words, const char *word)
{
    const size_t n = strlen(word);

    for (const char *at = words; at != NULL && n > 0; at = strchr(at, ' ')) {
        at += *at == ' ';
        if (strncmp(at, word, n) == 0 && (at[n] == ' ' || at[n] == '\0'))
            return 1;
    }
    return 0;
}

const family *qkv_family_at(int32_t index)
{
    return index >= 0 && index < N_FAMILIES ? &families[index] : NULL;
}

const family *qkv_family_named(const char *name)
{
    for (int32_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

const family *qkv_family_of_type(const char *model_type)
{
    for (int32_t i = 0; i < N_FAMILIES; i++)
        if (qkv_words_have(families[i].types, model_type))
            return &families[i];
    return NULL;
}

int32_t qkv_family_count(void) { return N_FAMILIES; }

const char *qkv_family_name(int32_t index)
{
    const family *f = qkv_family_at(index);
    return f != NULL ? f->name : NULL;
}
