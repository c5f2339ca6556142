/* damage.c - saved caches with every byte changed, cut at every length, and lying about themselves.
 */
#include "damage.h"

#include <string.h>

qkv_cache *small_file(tape *t, int32_t k_format, qkv_cache_config *c)
{
    static float x[20 * 8];
    int32_t ids[2];
    const int32_t count = 20;
    qkv_cache_rows r;

    *c = small_config();
    c->n_layers = c->n_kv_heads = 1;
    c->head_dim = c->head_dim_v = 4;
    c->k_format = k_format;
    c->n_pages = 4;
    c->n_open_pages = k_format == QKV_FORMAT_INT8_CHANNEL ? 3 : QKV_CACHE_AUTO;
    qkv_cache *cache = make_cache(c);
    qkv_cache_rows_init(&r);
    for (int i = 0; i < 160; i++)
        x[i] = (float)i * 0.37f;
    expect(qkv_cache_add(cache, &ids[0], TEXT), QKV_OK);
    expect(qkv_cache_reserve(cache, 1, ids, &count, TEXT), QKV_OK);
    r.seqs = ids;
    r.k = r.v = x;
    r.k_stride[2] = r.v_stride[2] = 4;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, ids, NULL, TEXT), QKV_OK);
    expect(qkv_cache_fork(cache, ids[0], &ids[1], TEXT), QKV_OK);
    expect(qkv_cache_truncate(cache, ids[1], 18, TEXT), QKV_OK);
    expect(tape_save(t, cache, 2, ids, TEXT), QKV_OK);
    qkv_cache_release(cache, ids[0]);
    qkv_cache_release(cache, ids[1]);
    return cache;
}

void expect_refusal(qkv_cache *cache, tape *t, const char *what, int at)
{
    int32_t ids[8], n = 7;
    qkv_cache_stats s;
    char text[256] = "";
    const qkv_status got = tape_load(t, cache, ids, &n, text, sizeof text);

    t_check(got != QKV_OK && n == 0 && text[0], "%s at %d was taken", what, at);
    qkv_cache_stats_get(cache, &s);
    t_check(s.n_seqs == 0 && s.used_pages == 0 && s.used_open_pages == 0 && s.tokens == 0,
            "%s at %d left %d sequences, %d pages", what, at, s.n_seqs, s.used_pages);
}

/* Every byte and every length. */
static void damage_all(qkv_cache *cache, tape *t)
{
    const size_t size = t->size;
    const int step = size > 4000 && t_times(100) < 100 ? 7 : 1;
    int32_t ids[8], n;

    for (size_t i = 0; i < size; i += (size_t)step)
        for (int bit = 0; bit < 8; bit += 3) {
            t->data[i] ^= (unsigned char)(1 << bit);
            expect_refusal(cache, t, "a flipped bit", (int)i);
            t->data[i] ^= (unsigned char)(1 << bit);
        }
    for (size_t i = 0; i < size; i += (size_t)step) {
        t->size = i;
        expect_refusal(cache, t, "an end", (int)i);
    }
    t->size = size;
    for (size_t i = 0; i + 16 <= size; i += 16) {
        unsigned char kept[16];
        memcpy(kept, t->data + i, 16);
        memset(t->data + i, 0, 16);
        if (memcmp(kept, t->data + i, 16) != 0)
            expect_refusal(cache, t, "zeros", (int)i);
        memcpy(t->data + i, kept, 16);
    }
    expect(tape_load(t, cache, ids, &n, TEXT), QKV_OK); /* whole again */
    t_check(n == 2, "%d sequences", n);
}

/* A file whose checksums are right and whose header or tables lie. */
static void put_crc(unsigned char *data, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    memcpy(data + n, &crc, 4);
}

static void lie(qkv_cache *cache, tape *t, size_t from, size_t at, int32_t value, size_t crc_at)
{
    unsigned char kept[4], kept_crc[4];

    memcpy(kept, t->data + at, 4);
    memcpy(kept_crc, t->data + crc_at, 4);
    memcpy(t->data + at, &value, 4);
    if (memcmp(kept, t->data + at, 4) != 0) {
        put_crc(t->data + from, crc_at - from);
        expect_refusal(cache, t, "a lie", (int)at);
    }
    memcpy(t->data + at, kept, 4);
    memcpy(t->data + crc_at, kept_crc, 4);
}

static void lie_everywhere(qkv_cache *cache, tape *t)
{
    static const int32_t values[] = {-1, 1, 3, 17, 100, 1 << 20, INT32_MAX, INT32_MIN};
    enum { HEADER = 144, TABLES_AT = 120 };
    int64_t tables;

    memcpy(&tables, t->data + TABLES_AT, 8);
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t at = 8; at < HEADER - 4; at += 4)
            if (at != 104 && at != 108 && at != 96 &&
                at != 100) /* counts that nothing depends on */
                lie(cache, t, 0, at, values[v], HEADER - 4);
        /* The first record and its table: length, committed, start, gap, pages, closed, numbers.  A
         * smaller committed or start is no lie. */
        for (size_t at = HEADER; at < HEADER + 24; at += 4)
            if (values[v] < 0 || values[v] > 100)
                lie(cache, t, HEADER, at, values[v], HEADER + (size_t)tables);
        for (size_t at = HEADER + 24; at < HEADER + 32; at += 4)
            if (values[v] < 0 || values[v] > 1)
                lie(cache, t, HEADER, at, values[v], HEADER + (size_t)tables);
    }
}

/* The page of a sequence that is gone, taken again by a shorter one. */
static void secrets(void)
{
    static float secret[16 * 16], x[16];
    qkv_cache_config c = small_config();
    tape t = tape_new();
    int32_t seq = 0;
    const int32_t all = 16;
    qkv_cache_rows r;

    c.flags = 0; /* not even when nothing is wiped */
    qkv_cache *cache = make_cache(&c);
    for (int i = 0; i < 256; i++)
        memcpy(&secret[i], "SECR", 4);
    qkv_cache_rows_init(&r);
    r.seqs = &seq;
    r.k = r.v = secret;
    r.k_stride[1] = r.v_stride[1] = 8;
    r.k_stride[2] = r.v_stride[2] = 16;
    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_reserve(cache, 1, &seq, &all, NULL, 0);
    for (int layer = 0; layer < 2; layer++)
        expect(qkv_cache_write(cache, layer, &r, TEXT), QKV_OK);
    qkv_cache_release(cache, seq);
    qkv_cache_add(cache, &seq, NULL, 0);
    qkv_cache_reserve(cache, 1, &seq, NULL, NULL, 0);
    r.k = r.v = x;
    for (int layer = 0; layer < 2; layer++)
        expect(qkv_cache_write(cache, layer, &r, TEXT), QKV_OK);
    expect(tape_save(&t, cache, 1, &seq, TEXT), QKV_OK);
    for (size_t i = 0; i + 4 <= t.size; i++)
        t_check(memcmp(t.data + i, "SECR", 4) != 0, "a secret at byte %zu", i);
    qkv_cache_destroy(cache);
}

/* A page that no table names: it would never be given back. */
static void orphan(qkv_cache *cache, tape *t)
{
    enum {
        HEADER = 144,
        FIRST = HEADER + 24 + 4,
        SECOND = HEADER + 32 + 24 + 4,
        END = HEADER + 64
    };
    int32_t one = 0;

    memcpy(&one, t->data + FIRST, 4);
    t_check(one == 1 && memcmp(t->data + FIRST, t->data + SECOND, 4) == 0, "entry %d", one);
    one = 0;
    memcpy(t->data + FIRST, &one, 4);
    memcpy(t->data + SECOND, &one, 4);
    put_crc(t->data + HEADER, END - HEADER);
    expect_refusal(cache, t, "an orphan", FIRST);
}

void test_damage(void)
{
    static const int32_t formats[] = {QKV_FORMAT_BF16, QKV_FORMAT_INT8_CHANNEL};

    for (int f = 0; f < 2; f++) {
        qkv_cache_config c;
        if (t_case("every byte, %s", qkv_format_name(formats[f]))) {
            tape t = tape_new();
            qkv_cache *cache = small_file(&t, formats[f], &c);
            damage_all(cache, &t);
            qkv_cache_destroy(cache);
        }
        if (t_case("lies, %s", qkv_format_name(formats[f]))) {
            tape t = tape_new();
            qkv_cache *cache = small_file(&t, formats[f], &c);
            lie_everywhere(cache, &t);
            qkv_cache_destroy(cache);
        }
        if (t_case("a writer that fails, %s", qkv_format_name(formats[f]))) {
            tape t = tape_new();
            qkv_cache *cache = small_file(&t, formats[f], &c);
            const size_t size = t.size;
            int32_t ids[8], n;
            expect(tape_load(&t, cache, ids, &n, TEXT), QKV_OK);
            for (t.fail_at = 0; t.fail_at < size; t.fail_at += 13)
                expect(tape_save(&t, cache, n, ids, TEXT), QKV_ERR_SYSTEM);
            qkv_cache_destroy(cache);
        }
    }
    if (t_case("a page nobody has")) {
        qkv_cache_config c;
        tape t = tape_new();
        qkv_cache *cache = small_file(&t, QKV_FORMAT_BF16, &c);
        orphan(cache, &t);
        qkv_cache_destroy(cache);
    }
    if (t_case("nothing of others is saved"))
        secrets();
}
