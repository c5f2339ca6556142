/*
 * cached.c - qkv_cache_write_rotated stores what turning the keys first and then writing them does:
 * two caches, one written each way, saved, and the files compared byte for byte.
 */
#include <stdlib.h>
#include <string.h>

#include "qkv/cache.h"
#include "rope_test.h"

enum { MAX_SEQS = 3, MAX_TOKENS = 40 };

typedef struct setup {
    qkv_rope rope;
    double factors[2][N_FACTORS];
    qkv_cache_config config;
    int32_t type;      /* of rows */
    int split, packed; /* rotary channels apart; sequences one behind the other */
    qkv_rope_args angles;
} setup;

static void random_setup(t_rng *rng, setup *s, int latent)
{
    static const int32_t types[] = {QKV_F32, QKV_F16, QKV_BF16};
    qkv_cache_config *c = &s->config;

    do {
        random_rope(rng, &s->rope, s->factors);
    } while (s->rope.head_dim % 64 != 0 || s->rope.head_dim > 256 ||
             (latent && s->rope.rotary_offset < 2));
    s->rope.short_factor = s->factors[0];
    s->rope.long_factor = s->factors[1];
    qkv_cache_config_init(c);
    c->flags = latent ? QKV_CACHE_LATENT : t_chance(rng, 30) ? QKV_CACHE_KEY_BOUNDS : 0;
    c->n_kv_heads = latent ? 1 : (int32_t)t_between(rng, 1, 3);
    c->head_dim = s->rope.head_dim;
    c->head_dim_v = latent ? 2 * (int32_t)t_between(rng, 1, s->rope.rotary_offset / 2) : 16;
    c->k_format = (int32_t)t_between(rng, QKV_FORMAT_F32, QKV_FORMAT_E5M2);
    if (latent && c->k_format == QKV_FORMAT_INT8_CHANNEL)
        c->k_format = QKV_FORMAT_INT8;
    if (c->k_format >= QKV_FORMAT_E4M3 && t_chance(rng, 60))
        c->k_scale = QKV_SCALE_HEAD;
    c->float_type = types[t_below(rng, 3)];
    c->page_tokens = 16;
    c->n_pages = 16;
    c->max_seqs = MAX_SEQS;
    s->type = types[t_below(rng, 3)];
    s->split = latent && t_chance(rng, 50);
    s->packed = t_chance(rng, 50);
}

/* One step: rows of n sequences, in memory of [n][H][T][D] or packed [rows][H][D]. */
typedef struct step {
    int32_t n, seqs[MAX_SEQS], counts[MAX_SEQS], first_rows[MAX_SEQS];
    int64_t rows; /* T, or all of a packed one */
    void *k, *v, *k_rope;
    int64_t positions[MAX_SEQS * MAX_TOKENS];
} step;

static void *random_numbers(t_rng *rng, int32_t type, int64_t n)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    char *memory = t_scratch((size_t)(n * size) + 1);
    for (int64_t i = 0; i < n; i++) {
        const double x = t_normal(rng);
        qkv_convert(memory + i * size, (qkv_type)type, &x, QKV_F64, 1);
    }
    return memory;
}

static void random_step(t_rng *rng, const setup *s, step *t)
{
    const qkv_cache_config *c = &s->config;
    int32_t longest = 0, all = 0;

    for (int32_t i = 0; i < t->n; i++) {
        t->first_rows[i] = s->packed ? all : 0;
        t->counts[i] = t_chance(rng, 30) ? 1 : (int32_t)t_below(rng, MAX_TOKENS);
        all += t->counts[i];
        longest = t->counts[i] > longest ? t->counts[i] : longest;
    }
    t->rows = s->packed ? all : longest;
    const int64_t blocks = (s->packed ? 1 : t->n) * t->rows;
    const int32_t wide = s->split ? c->head_dim_v : c->head_dim;
    t->k = random_numbers(rng, s->type, blocks * c->n_kv_heads * wide);
    t->v = random_numbers(rng, s->type, blocks * c->n_kv_heads * c->head_dim_v);
    t->k_rope = random_numbers(rng, s->type, blocks * (c->head_dim - c->head_dim_v + 1));
    for (int64_t i = 0; i < blocks; i++)
        t->positions[i] = t_below(rng, 6000);
}

static void strides(int64_t to[3], const setup *s, const step *t, int64_t heads, int64_t dim)
{
    to[0] = s->packed ? 0 : heads * t->rows * dim;
    to[1] = s->packed ? dim : t->rows * dim;
    to[2] = s->packed ? heads * dim : dim;
}

static qkv_cache_rows rows_of(const setup *s, const step *t)
{
    const qkv_cache_config *c = &s->config;
    const int latent = c->flags & QKV_CACHE_LATENT;
    qkv_cache_rows r;

    qkv_cache_rows_init(&r);
    r.type = s->type;
    r.n_seqs = t->n;
    r.seqs = t->seqs;
    r.counts = t->counts;
    r.first_rows = s->packed ? t->first_rows : NULL;
    r.k = t->k;
    strides(r.k_stride, s, t, c->n_kv_heads, s->split ? c->head_dim_v : c->head_dim);
    r.v = latent ? NULL : t->v;
    strides(r.v_stride, s, t, c->n_kv_heads, c->head_dim_v);
    r.k_rope = s->split ? t->k_rope : NULL;
    strides(r.k_rope_stride, s, t, 1, c->head_dim - c->head_dim_v);
    return r;
}

/* Turns the keys of one sequence in place, as a caller would. */
static void turn_sequence(const setup *s, const step *t, const qkv_cache_rows *r, int32_t i)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)s->type);
    const int64_t *stride = s->split ? r->k_rope_stride : r->k_stride;
    const int64_t first = s->packed ? t->first_rows[i] : 0;
    char *base = s->split ? t->k_rope : t->k;
    qkv_rope rope = s->rope;
    qkv_rope_args a = s->angles;
    char text[256];

    if (s->split) { /* the memory holds the channels from head_dim_v on */
        rope.rotary_offset -= s->config.head_dim_v;
        rope.head_dim -= s->config.head_dim_v;
    }
    a.n_heads = s->config.n_kv_heads;
    a.n_tokens = t->counts[i];
    a.x_layout.type = s->type;
    memcpy(&a.x_layout.stride[1], &stride[1], 2 * sizeof *stride);
    a.x = base + (i * stride[0] + first * stride[2]) * size;
    a.y = base + (i * stride[0] + first * stride[2]) * size;
    if (a.positions)
        a.positions += i * a.position_stride[0] + first;
    else {
        a.cos = (const float *)a.cos + (i * a.table_stride[0] + first * a.table_stride[1]);
        a.sin = (const float *)a.sin + (i * a.table_stride[0] + first * a.table_stride[1]);
        a.table_rows -= first;
    }
    const qkv_status status = qkv_rope_apply(&rope, &a, NULL, text, sizeof text);
    t_check(status == QKV_OK, "%s", text);
}

/* Angles by positions, by a table of rows, or by one of positions. */
static void set_angles(t_rng *rng, setup *s, const step *t)
{
    const int64_t blocks = s->packed ? t->rows : t->n * t->rows;
    const int32_t pairs = qkv_rope_pairs(&s->rope);
    const int way = (int)t_below(rng, 3);
    qkv_rope_args *a = &s->angles;

    qkv_rope_args_init(a);
    a->inverse = t_chance(rng, 10);
    a->positions = t->positions;
    a->position_stride[0] = s->packed ? 0 : t->rows;
    if (t_chance(rng, 30))
        a->seq_len = t_below(rng, 9000);
    if (way == 0)
        return;
    const int64_t rows = way == 1 ? blocks : 6000;
    int64_t *every = t_scratch((size_t)rows * sizeof *every + 1);
    for (int64_t p = 0; p < rows; p++)
        every[p] = way == 1 ? t->positions[p] : p;
    void *c = t_scratch(qkv_rope_table_bytes(&s->rope, rows, QKV_F32) + 1);
    void *sines = t_scratch(qkv_rope_table_bytes(&s->rope, rows, QKV_F32) + 1);
    qkv_rope_table(&s->rope, 100, every, rows, QKV_F32, c, sines, NULL, 0);
    a->cos = c;
    a->sin = sines;
    a->table_rows = way == 1 ? t->rows : rows;
    a->table_stride[1] = pairs;
    if (way == 1) {
        a->positions = NULL;
        a->table_stride[0] = s->packed ? 0 : t->rows * pairs;
    }
}

/* ---- files -------------------------------------------------------------------------------- */

typedef struct file {
    char *data;
    size_t bytes;
} file;

static int put(void *ctx, const void *data, size_t bytes)
{
    file *f = ctx;
    f->data = realloc(f->data, f->bytes + bytes);
    memcpy(f->data + f->bytes, data, bytes);
    f->bytes += bytes;
    return 0;
}

static void check_same(qkv_cache *one, qkv_cache *other, const step *t)
{
    file files[2] = {{NULL, 0}, {NULL, 0}};
    const qkv_cache_writer writers[2] = {{put, &files[0]}, {put, &files[1]}};

    qkv_cache_save(one, t->n, t->seqs, &writers[0], NULL, 0);
    qkv_cache_save(other, t->n, t->seqs, &writers[1], NULL, 0);
    t_check(files[0].bytes > 0 && files[0].bytes == files[1].bytes &&
                memcmp(files[0].data, files[1].data, files[0].bytes) == 0,
            "the caches differ");
    free(files[0].data);
    free(files[1].data);
}

static void run_steps(t_rng *rng, setup *s, qkv_cache *caches[2])
{
    char text[256];
    step t = {.n = (int32_t)t_between(rng, 1, MAX_SEQS)};

    for (int32_t i = 0; i < t.n; i++)
        for (int k = 0; k < 2; k++)
            qkv_cache_add(caches[k], &t.seqs[i], NULL, 0);
    for (int turn = 0; turn < 3; turn++) {
        random_step(rng, s, &t);
        set_angles(rng, s, &t);
        for (int k = 0; k < 2; k++) {
            const qkv_status status =
                qkv_cache_reserve(caches[k], t.n, t.seqs, t.counts, text, sizeof text);
            t_check(status == QKV_OK, "%s", text);
        }
        if (t_failed())
            return;
        const qkv_cache_rows rows = rows_of(s, &t);
        t_check(qkv_cache_write_rotated(caches[0], 0, &rows, &s->rope, &s->angles, text,
                                        sizeof text) == QKV_OK,
                "%s", text);
        for (int32_t i = 0; i < t.n; i++)
            turn_sequence(s, &t, &rows, i);
        t_check(qkv_cache_write(caches[1], 0, &rows, text, sizeof text) == QKV_OK, "%s", text);
        for (int k = 0; k < 2; k++)
            qkv_cache_commit(caches[k], t.n, t.seqs, NULL, NULL, 0);
        check_same(caches[0], caches[1], &t);
    }
}

void test_cached(void)
{
    for (int k = 0; k < t_times(300); k++) {
        t_rng rng = t_rng_of(t_seed() + 5000 + (uint64_t)k);
        qkv_cache *caches[2] = {NULL, NULL};
        char text[256];
        setup s;

        memset(&s, 0, sizeof s);
        random_setup(&rng, &s, k % 3 == 0);
        if (!t_case("%s%s_%d", qkv_format_name(s.config.k_format),
                    s.split      ? "_split"
                    : k % 3 == 0 ? "_latent"
                                 : "",
                    k))
            continue;
        for (int i = 0; i < 2; i++) {
            const qkv_status status =
                qkv_cache_create(&s.config, NULL, &caches[i], text, sizeof text);
            t_check(status == QKV_OK, "%s", text);
        }
        if (!t_failed())
            run_steps(&rng, &s, caches);
        for (int i = 0; i < 2; i++)
            qkv_cache_destroy(caches[i]);
    }
}
