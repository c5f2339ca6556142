/* model_test.h - what the tests of models share. */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H

#include "qkv/io.h"
#include "qkv/model.h"
#include "t.h"

/* Configurations of all families, small, each with the fields that it demands and some more. */
typedef struct model_text {
    const char *name, *json;
} model_text;

extern const model_text model_texts[];
extern const int n_model_texts;

/* That of a family. */
const char *model_text_of(const char *family);

/* Reads JSON; the status of parsing or reading, with its sentence. */
qkv_status model_from(const char *json, const char *as, qkv_model *model, char text[512]);

/* The JSON of a family's text with a key of the top level, or of text_config, replaced by a value;
 * value NULL: removed.  0 if there is no such key. */
int model_replace(const char *json, const char *key, const char *value, char *out, size_t bytes);

/* Key number index of the text's model ("" is the end). */
const char *model_key(const char *json, int index, char key[64]);

void test_desc_defaults(void);
void test_desc_refusals(void);
void test_desc_numbers(void);
void test_read_values(void);
void test_read_sentences(void);
void test_read_hostile(void);
void test_read_broken(void);
void test_read_random(void);
void test_read_structs(void);
void test_weights(void);
void test_checkpoints(void);
void test_checkpoint_refusals(void);

#endif
