/* model_steps.c - operations on the model and the cache, side by side. */
#include <string.h>

#include "model.h"

int m_draw_list(model *m, m_seq **list)
{
    int n = 0;
    const int first = (int)t_below(&m->rng, M_SEQS);
    for (int i = 0; i < M_SEQS; i++) {
        m_seq *s = &m->seq[(first + i) % M_SEQS];
        if (s->live && t_chance(&m->rng, 60))
            list[n++] = s;
    }
    return n;
}

static m_seq *any_live(model *m)
{
    for (int tries = 0; tries < 20; tries++) {
        m_seq *s = &m->seq[t_below(&m->rng, M_SEQS)];
        if (s->live)
            return s;
    }
    return NULL;
}

static void copy_seq(const model *m, m_seq *to, const m_seq *from)
{
    float *values = to->values;
    const int32_t id = to->id;
    const size_t per =
        (size_t)(m->c.n_layers * m->c.n_kv_heads * (m->c.head_dim + m->c.head_dim_v));

    *to = *from;
    to->values = values;
    to->id = id;
    if (to != from)
        memcpy(to->values, from->values, (size_t)from->length * per * sizeof(float));
}

static void clear_seq(const model *m, m_seq *s)
{
    s->length = s->committed = s->start = s->n_closed = 0;
    s->first_page = m_head_pages(m);
}

static void step_add(model *m, int fork)
{
    m_seq *s = NULL, *parent = fork ? any_live(m) : NULL;
    int live = 0;
    int32_t id = 0;
    char text[256];

    for (int i = 0; i < M_SEQS; i++) {
        live += m->seq[i].live;
        s = m->seq[i].live ? s : &m->seq[i];
    }
    if (fork && !parent)
        return;
    const qkv_status got = parent ? qkv_cache_fork(m->cache, parent->id, &id, text, sizeof text)
                                  : qkv_cache_add(m->cache, &id, text, sizeof text);
    t_check(got == (live < m->c.max_seqs ? QKV_OK : QKV_ERR_FULL), "%s: %s", qkv_status_name(got),
            text);
    if (got != QKV_OK || !s)
        return;
    if (parent)
        copy_seq(m, s, parent);
    else
        clear_seq(m, s);
    s->live = 1;
    s->id = id;
    for (int i = 0; i < M_SEQS; i++)
        t_check(&m->seq[i] == s || !m->seq[i].live || m->seq[i].id != id, "id %d is in use", id);
}

static void step_reorder(model *m)
{
    m_seq *list[M_SEQS], old[M_SEQS];
    int32_t ids[M_SEQS], parents[M_SEQS];
    const int n = m_draw_list(m, list);
    const size_t bytes =
        sizeof(float) * M_TOKENS *
        (size_t)(m->c.n_layers * m->c.n_kv_heads * (m->c.head_dim + m->c.head_dim_v));

    for (int i = 0; i < n; i++) {
        ids[i] = list[i]->id;
        parents[i] = (int32_t)t_below(&m->rng, n);
        old[i] = *list[i];
        old[i].values = t_scratch(bytes);
        memcpy(old[i].values, list[i]->values, bytes);
    }
    expect(qkv_cache_reorder(m->cache, n, ids, parents, TEXT), QKV_OK);
    for (int i = 0; i < n; i++)
        copy_seq(m, list[i], &old[parents[i]]);
}

static void evict_pages(const model *m, m_seq *s, int end)
{
    const int last = m_n_pages(m, s) - 1;
    end = end < last ? end : last;
    s->first_page = s->first_page > end ? s->first_page : end;
}

static void step_commit(model *m)
{
    m_seq *list[M_SEQS];
    int32_t ids[M_SEQS];
    int64_t lengths[M_SEQS];
    const int n = m_draw_list(m, list), all = t_chance(&m->rng, 50);

    for (int i = 0; i < n; i++) {
        ids[i] = list[i]->id;
        lengths[i] = all ? list[i]->length : t_below(&m->rng, list[i]->length + 1);
    }
    expect(qkv_cache_commit(m->cache, n, ids, all ? NULL : lengths, TEXT), QKV_OK);
    for (int i = 0; i < n; i++) {
        m_seq *s = list[i];
        s->committed = lengths[i] > s->committed ? (int)lengths[i] : s->committed;
        while (m_has_open(m) && (s->n_closed + 1) * m->c.page_tokens <= s->committed)
            m_close_values(m, s, s->n_closed++);
        if (m->c.window_left != QKV_UNBOUNDED && s->committed > m->c.window_left)
            evict_pages(m, s, (s->committed - (int)m->c.window_left) / m->c.page_tokens);
    }
}

/* May a sequence be shortened to this length?  Its next query, at that position, needs the window's
 * keys and a page before it. */
static int may_truncate(const model *m, const m_seq *s, int length)
{
    const int page = s->first_page * m->c.page_tokens;

    if (length <= m->c.sink_tokens)
        return 1;
    if (length < s->start)
        return 0;
    if (s->first_page == m_head_pages(m))
        return 1;
    if (length <= page)
        return 0;
    return s->start >= page || length - m->c.window_left >= page;
}

static void truncate_model(const model *m, m_seq *s, int length)
{
    s->length = length;
    s->committed = s->committed < length ? s->committed : length;
    s->n_closed = s->n_closed < m_n_pages(m, s) ? s->n_closed : m_n_pages(m, s);
    if (length <= m->c.sink_tokens) {
        s->start = 0;
        s->first_page = m_head_pages(m);
    }
}

static void step_truncate(model *m)
{
    m_seq *s = any_live(m);
    char text[256];
    if (!s)
        return;
    const int back = (int)t_below(&m->rng, t_chance(&m->rng, 50) ? 8 : 60);
    const int length = t_chance(&m->rng, 10)   ? 0
                       : t_chance(&m->rng, 20) ? (int)t_below(&m->rng, s->length + 1)
                       : s->length > back      ? s->length - back
                                               : 0;
    const qkv_status want = may_truncate(m, s, length) ? QKV_OK : QKV_ERR_ARGUMENT;
    const qkv_status got = length == 0 && t_chance(&m->rng, 50)
                               ? qkv_cache_reset(m->cache, s->id)
                               : qkv_cache_truncate(m->cache, s->id, length, text, sizeof text);
    t_check(got == want, "truncate to %d gave %s: %s", length, qkv_status_name(got), text);
    if (got == QKV_OK)
        truncate_model(m, s, length);
}

static void step_evict(model *m)
{
    m_seq *s = any_live(m);
    if (!s)
        return;
    const int before = (int)t_below(&m->rng, s->committed + 1);
    expect(qkv_cache_evict(m->cache, s->id, before, TEXT), QKV_OK);
    if (before > m->c.sink_tokens && before > s->start)
        s->start = before;
    evict_pages(m, s, before / m->c.page_tokens);
}

static void step_release(model *m)
{
    m_seq *s = any_live(m);
    qkv_cache_seq_info info;
    if (!s)
        return;
    expect(qkv_cache_release(m->cache, s->id), QKV_OK);
    expect(qkv_cache_release(m->cache, s->id), QKV_ERR_ARGUMENT);
    expect(qkv_cache_seq_info_get(m->cache, s->id, &info), QKV_ERR_ARGUMENT);
    t_check(qkv_cache_length(m->cache, s->id) == -1, "a length after release");
    s->live = 0;
}

void m_step(model *m)
{
    const int64_t what = t_below(&m->rng, 106);
    if (what < 38)
        m_step_reserve(m);
    else if (what < 55)
        step_commit(m);
    else if (what < 65)
        step_truncate(m);
    else if (what < 75)
        step_add(m, 1);
    else if (what < 82)
        step_add(m, 0);
    else if (what < 87)
        step_reorder(m);
    else if (what < 91)
        step_evict(m);
    else if (what < 95)
        step_release(m);
    else
        m_check_view(m);
}
