/* views.c - what views refuse, and what freed memory holds. */
#include <math.h>
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

/* `count` committed tokens whose numbers are all x. */
static void append(qkv_cache *cache, int32_t seq, int32_t count, float x)
{
    static float rows[64 * 16];
    qkv_cache_rows r;

    for (int i = 0; i < 64 * 16; i++)
        rows[i] = x;
    expect(qkv_cache_reserve(cache, 1, &seq, &count, TEXT), QKV_OK);
    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.counts = &count;
    r.k = r.v = rows;
    r.k_stride[1] = r.v_stride[1] = 8;
    r.k_stride[2] = r.v_stride[2] = 16;
    for (int layer = 0; layer < 2; layer++)
        expect(qkv_cache_write(cache, layer, &r, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &seq, NULL, TEXT), QKV_OK);
}

static qkv_status try_view(qkv_cache *cache, const qkv_cache_select *s, const qkv_cache_view **view,
                           char *text, size_t bytes)
{
    const size_t need = qkv_cache_view_size(cache, s);
    return qkv_cache_view_init(t_alloc(need, 8, T_END, 0), need, cache, s, view, text, bytes);
}

static void refuse(qkv_cache *cache, const qkv_cache_select *s, const char *sentence)
{
    const qkv_cache_view *view = NULL;
    char text[256] = "";
    const qkv_status got = try_view(cache, s, &view, text, sizeof text);

    t_check(got == QKV_ERR_ARGUMENT && strstr(text, sentence) && !view, "%s: \"%s\"",
            qkv_status_name(got), text);
}

static void refused_selections(void)
{
    qkv_cache_config c = small_config();
    c.window_left = 20;
    qkv_cache *cache = make_cache(&c);
    int32_t seq = 0, stale = 77, q = 1;
    qkv_cache_select s;

    qkv_cache_add(cache, &seq, NULL, 0);
    append(cache, seq, 30, 1);
    append(cache, seq, 23, 1); /* 53 committed: 0 .. 31 are gone */
    qkv_cache_select_init(&s);
    s.seqs = &seq;
    s.q_lens = &q;
    q = 1; /* query 52 needs 32 .. 52 */
    const qkv_cache_view *view = NULL;
    expect(try_view(cache, &s, &view, TEXT), QKV_OK);
    q = 2; /* query 51 needs 31 */
    refuse(cache, &s, "make the view before the commit");
    q = 54;
    refuse(cache, &s, "q_lens[0] is 54");
    q = -1;
    refuse(cache, &s, "q_lens[0] is -1");
    q = 0;
    s.seqs = &stale;
    refuse(cache, &s, "sequence 77 is not alive");
    s.seqs = NULL;
    refuse(cache, &s, "seqs is");
    s.seqs = &seq;
    s.n_seqs = -1;
    refuse(cache, &s, "n_seqs is -1");
    s.n_seqs = 1;
    s.from = 5;
    s.to = 4;
    refuse(cache, &s, "from and to are 5 and 4");
    s.to = 9;
    s.causal = QKV_CAUSAL_STRICT;
    refuse(cache, &s, "causal is 2");
    s.causal = QKV_CAUSAL_NONE;
    refuse(cache, &s, "a cache with a window needs positions");
    s.struct_size = 4;
    refuse(cache, &s, "was not set up");
    expect(qkv_cache_view_init(NULL, 0, cache, &s, NULL, TEXT), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(cache);
}

/* The name of an evicted token is enough: what was given up by name is not missed. */
static void evicted_by_name(void)
{
    qkv_cache_config c = small_config();
    c.window_left = 20;
    qkv_cache *cache = make_cache(&c);
    int32_t seq = 0, q = 8;
    qkv_cache_select s;
    const qkv_cache_view *view = NULL;

    qkv_cache_add(cache, &seq, NULL, 0);
    append(cache, seq, 53, 1);
    expect(qkv_cache_evict(cache, seq, 50, TEXT), QKV_OK);
    qkv_cache_select_init(&s);
    s.seqs = &seq;
    s.q_lens = &q;
    expect(try_view(cache, &s, &view, TEXT), QKV_OK);
    qkv_cache_destroy(cache);
}

static void bad_parts(void)
{
    const qkv_cache_config c = small_config();
    qkv_cache *cache = make_cache(&c);
    int32_t seq = 0;
    qkv_cache_select s;
    const qkv_cache_view *view = NULL;
    qkv_desc d;
    qkv_args a;

    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_select_init(&s);
    s.seqs = &seq;
    expect(try_view(cache, &s, &view, TEXT), QKV_OK);
    qkv_desc_init(&d);
    qkv_args_init(&a);
    expect(qkv_cache_view_desc(view, 1, &d), QKV_ERR_ARGUMENT);
    expect(qkv_cache_view_desc(view, -1, &d), QKV_ERR_ARGUMENT);
    expect(qkv_cache_view_desc(NULL, 0, &d), QKV_ERR_ARGUMENT);
    expect(qkv_cache_view_args(view, 0, 2, &a), QKV_ERR_ARGUMENT);
    expect(qkv_cache_view_args(view, 1, 0, &a), QKV_ERR_ARGUMENT);
    expect(qkv_cache_view_args(view, 0, 1, &a), QKV_OK);
    d.struct_size = 100; /* of a program that knows no pages */
    expect(qkv_cache_view_desc(view, 0, &d), QKV_ERR_ARGUMENT);
    qkv_cache_destroy(cache);
}

void test_views(void)
{
    if (t_case("refused selections"))
        refused_selections();
    if (t_case("evicted by name"))
        evicted_by_name();
    if (t_case("parts and layers"))
        bad_parts();
}

/* ---- poison ----------------------------------------------------------------------------- */

/* How many of the numbers of all pages of layer 1 are NaN; keys, or values. */
static int count_nan(qkv_cache *cache, int keys)
{
    qkv_cache_select s;
    const qkv_cache_view *view = NULL;
    qkv_desc d;
    qkv_args a;
    int n = 0;

    qkv_cache_select_init(&s);
    s.n_seqs = 0;
    expect(try_view(cache, &s, &view, TEXT), QKV_OK);
    qkv_desc_init(&d);
    qkv_args_init(&a);
    expect(qkv_cache_view_desc(view, 0, &d), QKV_OK);
    expect(qkv_cache_view_args(view, 0, 1, &a), QKV_OK);
    const float *x = keys ? a.k : a.v;
    const int64_t *step = keys ? d.k.stride : d.v.stride;
    for (int64_t page = 0; page < d.n_pages; page++)
        for (int64_t h = 0; h < 2; h++)
            for (int64_t t = 0; t < d.page_tokens; t++)
                for (int64_t i = 0; i < 8; i++)
                    n += isnan(x[page * step[0] + h * step[1] + t * step[2] + i]);
    return n;
}

void test_poison(void)
{
    enum { ALL = 8 * 2 * 16 * 8, TOKEN = 2 * 8 };
    const qkv_cache_config c = small_config();
    int32_t seq = 0, other = 0;

    for (int keys = 0; keys < 2; keys++)
        if (t_case("%s", keys ? "keys" : "values")) {
            qkv_cache *cache = make_cache(&c);
            t_check(count_nan(cache, keys) == ALL, "a new cache has %d NaN",
                    count_nan(cache, keys));
            qkv_cache_add(cache, &seq, NULL, 0);
            append(cache, seq, 40, 1);
            t_check(count_nan(cache, keys) == ALL - 40 * TOKEN, "40 tokens");
            qkv_cache_fork(cache, seq, &other, NULL, 0);
            append(cache, other, 1, 2); /* copies a page with 8 tokens */
            t_check(count_nan(cache, keys) == ALL - 49 * TOKEN, "a copy");
            qkv_cache_release(cache, seq);
            t_check(count_nan(cache, keys) == ALL - 41 * TOKEN, "after a release");
            qkv_cache_truncate(cache, other, 16, NULL, 0);
            t_check(count_nan(cache, keys) == ALL - 16 * TOKEN, "after a truncation");
            qkv_cache_reset(cache, other);
            t_check(count_nan(cache, keys) == ALL, "after a reset");
            qkv_cache_destroy(cache);
        }
}

/* ---- scales of heads -------------------------------------------------------------------- */

static float last(qkv_cache *cache, int32_t seq)
{
    const int64_t stride[2] = {8, 8};
    float k[16];
    expect(qkv_cache_read(cache, 1, seq, qkv_cache_length(cache, seq) - 1, 1, QKV_F32, k, stride,
                          NULL, NULL, TEXT),
           QKV_OK);
    return k[9];
}

void test_head_scales(void)
{
    qkv_cache_config c = small_config();
    int32_t seq = 0;

    c.k_format = c.v_format = QKV_FORMAT_E4M3;
    c.k_scale = c.v_scale = QKV_SCALE_HEAD;
    if (t_case("zeros first")) {
        qkv_cache *cache = make_cache(&c);
        qkv_cache_add(cache, &seq, NULL, 0);
        append(cache, seq, 3, 0);
        append(cache, seq, 1, 2);
        t_check(last(cache, seq) == 2, "%g", (double)last(cache, seq));
        qkv_cache_destroy(cache);
    }
    if (t_case("found at the first tokens, for good")) {
        qkv_cache *cache = make_cache(&c);
        qkv_cache_add(cache, &seq, NULL, 0);
        append(cache, seq, 20, 3);
        t_check(last(cache, seq) == 3, "%g", (double)last(cache, seq));
        append(cache, seq, 20, 100); /* saturates, on every page */
        t_check(last(cache, seq) == 3, "%g", (double)last(cache, seq));
        qkv_cache_reset(cache, seq);
        append(cache, seq, 1, 100);
        t_check(last(cache, seq) == 100, "%g after a reset", (double)last(cache, seq));
        qkv_cache_destroy(cache);
    }
}
