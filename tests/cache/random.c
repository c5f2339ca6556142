/* random.c - random operations on random caches, against the model. */
#include <stdlib.h>
#include <string.h>

#include "model.h"

static int32_t any_of(t_rng *rng, const int32_t *list, int n) { return list[t_below(rng, n)]; }

/* A format with a group and scales that go with it. */
static void draw_format(t_rng *rng, int keys, int dim, int32_t *format, int32_t *group,
                        int32_t *per)
{
    do
        *format = (int32_t)t_between(rng, QKV_FORMAT_F32, QKV_FORMAT_E5M2);
    while (*format == QKV_FORMAT_INT8_CHANNEL && !keys);
    *group = 0;
    *per = QKV_SCALE_TOKEN;
    if (*format >= QKV_FORMAT_E4M3 && t_chance(rng, 50))
        *per = QKV_SCALE_HEAD;
    else if (*format >= QKV_FORMAT_INT8 && *format != QKV_FORMAT_INT8_CHANNEL && t_chance(rng, 50))
        *group = dim >= 64 && t_chance(rng, 50) ? 64 : dim >= 32 ? 32 : 0;
}

qkv_cache_config m_random_config(t_rng *rng)
{
    static const int32_t dims[] = {5, 8, 16, 33, 64, 70}, types[] = {QKV_F32, QKV_F16, QKV_BF16};
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = QKV_CACHE_POISON;
    c.n_layers = (int32_t)t_between(rng, 1, M_LAYERS);
    c.head_dim = any_of(rng, dims, 6);
    c.head_dim_v = any_of(rng, dims, 6);
    c.n_kv_heads = (int32_t)t_between(rng, 1, M_HEADS);
    if (t_chance(rng, 20)) {
        c.flags |= QKV_CACHE_LATENT;
        c.n_kv_heads = 1;
        c.head_dim_v = c.head_dim_v < c.head_dim ? c.head_dim_v : c.head_dim;
    }
    c.float_type = any_of(rng, types, 3);
    const int latent = c.flags & QKV_CACHE_LATENT;
    draw_format(rng, 1, latent ? c.head_dim_v : c.head_dim, &c.k_format, &c.k_group,
                &c.k_scale);
    if (!latent)
        draw_format(rng, 0, c.head_dim_v, &c.v_format, &c.v_group, &c.v_scale);
    c.flags |= t_chance(rng, 30) ? QKV_CACHE_KEY_BOUNDS : 0;
    c.page_tokens = t_chance(rng, 60) ? 16 : t_chance(rng, 50) ? 32 : 48;
    c.n_pages = (int32_t)t_between(rng, 4, 30);
    c.max_seqs = (int32_t)t_between(rng, 1, M_SEQS);
    c.sink_tokens = t_chance(rng, 40) ? (int32_t)t_below(rng, 40) : 0;
    c.window_left = t_chance(rng, 35) ? t_below(rng, 80) : QKV_UNBOUNDED;
    if (t_chance(rng, 15) && c.k_format != QKV_FORMAT_INT8_CHANNEL) {
        c.flags |= QKV_CACHE_CONTIGUOUS;
        c.page_tokens = (int32_t)t_between(rng, 1, 150);
        c.window_left = QKV_UNBOUNDED;
    }
    if (t_chance(rng, 30))
        c.max_tokens = t_between(rng, 1, 200);
    if (t_chance(rng, 30))
        c.n_open_pages = (int32_t)t_between(rng, 1, 8);
    return c;
}

int m_create(model *m, const qkv_cache_config *config, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->rng = t_rng_of(seed);
    m->cache = make_cache(config);
    if (!m->cache)
        return 0;
    qkv_cache_config_get(m->cache, &m->c);
    const size_t per =
        (size_t)(m->c.n_layers * m->c.n_kv_heads * (m->c.head_dim + m->c.head_dim_v));
    for (int i = 0; i < M_SEQS; i++)
        m->seq[i].values = t_scratch(M_TOKENS * per * sizeof(float));
    const float scales[M_HEADS] = {0.25f, 0.5f};
    if ((m->c.k_scale == QKV_SCALE_HEAD || m->c.v_scale == QKV_SCALE_HEAD) &&
        t_chance(&m->rng, 30)) {
        m->given = 1;
        expect(qkv_cache_set_scales(m->cache, 0, m->c.k_scale == QKV_SCALE_HEAD ? scales : NULL,
                                    m->c.v_scale == QKV_SCALE_HEAD ? scales : NULL, TEXT),
               QKV_OK);
    }
    return 1;
}

/* Nothing is left in use when all sequences are gone. */
void m_destroy(model *m)
{
    qkv_cache_stats stats;

    for (int i = 0; i < M_SEQS; i++)
        if (m->seq[i].live)
            expect(qkv_cache_release(m->cache, m->seq[i].id), QKV_OK);
    expect(qkv_cache_stats_get(m->cache, &stats), QKV_OK);
    t_check(stats.n_seqs == 0 && stats.used_pages == 0 && stats.used_open_pages == 0 &&
                stats.payload == 0,
            "%d sequences, %d pages, %d open pages remain", stats.n_seqs, stats.used_pages,
            stats.used_open_pages);
    qkv_cache_destroy(m->cache);
}

void test_random(void)
{
    static model m;

    for (int i = 0; i < t_times(250); i++) {
        const uint64_t seed = t_seed() * 1000003 + (uint64_t)i;
        t_rng rng = t_rng_of(seed);
        const qkv_cache_config c = m_random_config(&rng);
        if (!t_case("c%d k=%s v=%s P%d%s%s", i, qkv_format_name(c.k_format),
                    qkv_format_name(c.v_format), c.page_tokens,
                    c.flags & QKV_CACHE_LATENT ? " latent" : "",
                    c.window_left != QKV_UNBOUNDED ? " window" : "") ||
            !m_create(&m, &c, seed))
            continue;
        for (int step = 0; step < 120 && !t_failed(); step++) {
            m_step(&m);
            if (step % 4 == 0)
                m_check_all(&m);
        }
        m_destroy(&m);
    }
}
