/* model_reserve.c - room for new tokens: which pages it must take, and when there are too few. */
#include <string.h>

#include "model.h"

typedef struct demand {
    int pages, open;
    int gone[2][M_SEQS], n_gone[2]; /* names given up by sequences of this call */
} demand;

/* Must this sequence take another page because the name has more owners? */
static int replaced(const model *m, demand *d, int name, int open)
{
    int left = m_owners(m, name, open);
    for (int i = 0; i < d->n_gone[open]; i++)
        left -= d->gone[open][i] == name;
    if (left <= 1)
        return 0;
    d->gone[open][d->n_gone[open]++] = name;
    return 1;
}

static void add_demand(const model *m, demand *d, const m_seq *s, int count)
{
    const int pages = m_n_pages(m, s), new = m_pages_for(m, s->length + count) - pages;

    if (count == 0)
        return;
    d->pages += new;
    d->open += m_has_open(m) ? new : 0;
    if (s->length % m->c.page_tokens == 0)
        return;
    d->pages += replaced(m, d, s->page[pages - 1], 0);
    if (m_has_open(m))
        d->open += pages - 1 < s->n_closed ? 1 : replaced(m, d, s->open[pages - 1], 1);
}

static void grow(model *m, m_seq *s, int count)
{
    const int pages = m_n_pages(m, s), used = s->length % m->c.page_tokens;

    if (count == 0)
        return;
    if (used > 0) {
        const int last = pages - 1;
        if (m_has_open(m) && last < s->n_closed) {
            m_open_values(m, s, last, used);
            s->n_closed = last;
            s->open[last] = m->next_name++;
        } else if (m_has_open(m) && m_owners(m, s->open[last], 1) > 1) {
            s->open[last] = m->next_name++;
        }
        if (m_owners(m, s->page[last], 0) > 1)
            s->page[last] = m->next_name++;
    }
    for (int p = pages; p < m_pages_for(m, s->length + count); p++) {
        s->page[p] = m->next_name++;
        s->open[p] = m->next_name++;
        s->n_closed += !m_has_open(m);
    }
    s->length += count;
}

/* Writes in one call or, if a sequence has several tokens, in two. */
static void write_new(model *m, int n, m_seq **list, const int *counts)
{
    int starts[M_SEQS], first[M_SEQS], rest[M_SEQS];
    const int twice = t_chance(&m->rng, 30);

    for (int i = 0; i < n; i++) {
        starts[i] = list[i]->length - counts[i];
        first[i] = twice ? counts[i] - counts[i] / 2 : counts[i];
        rest[i] = counts[i] - first[i];
    }
    m_write(m, n, list, starts, first);
    for (int i = 0; i < n; i++)
        starts[i] += first[i];
    if (twice)
        m_write(m, n, list, starts, rest);
}

void m_step_reserve(model *m)
{
    m_seq *list[M_SEQS];
    int32_t ids[M_SEQS], counts[M_SEQS];
    const int n = m_draw_list(m, list), ones = t_chance(&m->rng, 30);
    demand d;
    int too_long = 0;
    char text[256];

    memset(&d, 0, sizeof d);
    for (int i = 0; i < n; i++) {
        ids[i] = list[i]->id;
        counts[i] = ones ? 1 : (int)t_below(&m->rng, t_chance(&m->rng, 10) ? 90 : 12);
        if (list[i]->length + counts[i] > M_TOKENS - 1)
            return;
        const int gap = (list[i]->first_page - m_head_pages(m)) * m->c.page_tokens;
        too_long |= list[i]->length + counts[i] - gap > m->c.max_tokens;
        add_demand(m, &d, list[i], counts[i]);
    }
    const m_totals t = m_count(m);
    const int full = d.pages > m->c.n_pages - t.used || d.open > m->c.n_open_pages - t.used_open;
    const qkv_status got =
        qkv_cache_reserve(m->cache, n, ids, ones ? NULL : counts, text, sizeof text);
    t_check(got == (full || too_long ? QKV_ERR_FULL : QKV_OK),
            "reserve gave %s (%s); %d + %d pages of %d, %d + %d open of %d", qkv_status_name(got),
            text, t.used, d.pages, m->c.n_pages, t.used_open, d.open, m->c.n_open_pages);
    if (got != QKV_OK)
        return;
    for (int i = 0; i < n; i++)
        grow(m, list[i], counts[i]);
    write_new(m, n, list, counts);
}
