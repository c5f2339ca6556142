/* cache_test.h - the files of the cache test program. */
#ifndef CACHE_TEST_H
#define CACHE_TEST_H

#include "qkv/cache.h"
#include "t.h"

/* formats.c, fp8.c, formats_other.c */
void test_int8(void);
void test_int4(void);
void test_fp8(void);
void test_ggml(void);
void test_ort(void);
void test_format_refusals(void);

/* configs.c, refusals.c, memory.c, sharing.c */
void test_config(void);
void test_refusals(void);
void test_failing_memory(void);
void test_bytes(void);
void test_sharing(void);

/* random.c */
void test_random(void);

/* files.c, damage.c */
void test_save(void);
void test_load_refusals(void);
void test_damage(void);

/* threads.c */
void test_threads(void);

/* views.c */
void test_views(void);
void test_poison(void);
void test_head_scales(void);

/* prefixes.c, pick.c, pools.c */
void test_prefixes(void);
void test_pick(void);
void test_pools(void);

/* attend.c, cascade.c, sparse.c */
void test_attend(void);
void test_cascade(void);
void test_sparse(void);

/* A config of small sizes that is accepted: 2 layers, 2 heads, D 8, Dv 8, f32, 8 pages of 16, 4
 * sequences, poisoned. */
qkv_cache_config small_config(void);

/* A cache in the running case, destroyed by the caller; fails the case and returns NULL if it is
 * refused. */
qkv_cache *make_cache(const qkv_cache_config *config);

/* Fails the case unless a call gave this status. */
#define expect(call, status)                                                                       \
    do {                                                                                           \
        char expect_text[256] = "";                                                                \
        const qkv_status expect_got = (call);                                                      \
        (void)expect_text;                                                                         \
        t_check(expect_got == (status), "%s gave %s instead of %s; %s", #call,                     \
                qkv_status_name(expect_got), qkv_status_name(status), expect_text);                \
    } while (0)
#define TEXT expect_text, sizeof expect_text

#endif
