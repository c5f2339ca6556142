/* api.h - the files of the API test program. */
#ifndef API_H
#define API_H

#include "qkv/qkv.h"
#include "t.h"

void test_refusals(void);
void test_args(void);
void test_coded_refusals(void);
void test_block_tables(void);
void test_older_structs(void);
void test_merge_refusals(void);
void test_versions(void);
void test_plans(void);
void test_one_call(void);
void test_registry(void);
void test_no_malloc(void);
void test_stack(void);
void test_pool(void);
void test_narrow_all(void);
void test_narrow_many(void);
void test_convert_refusals(void);

/* A small problem that qkv accepts: B 2, Hq 4, Hkv 2, Tq 5, Tk 9, D 8, Dv 8, f32, lse. */
qkv_desc api_desc(void);

/* Checks that nothing accepts d, and that qkv_explain's sentence holds this one. */
void api_check_refused(const qkv_desc *d, const char *sentence);

#endif
