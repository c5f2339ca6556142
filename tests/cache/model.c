/* model.c - what the model knows of pages, and the cache asked about it. */
#include "model.h"

#include <string.h>

int m_kept_from(const model *m, const m_seq *s)
{
    int from = s->start;
    if (s->first_page > m_head_pages(m) && s->first_page * m->c.page_tokens > from)
        from = s->first_page * m->c.page_tokens;
    return from > m->c.sink_tokens ? from : 0;
}

/* ---- names of pages --------------------------------------------------------------------- */

int m_owners(const model *m, int name, int open)
{
    int n = 0;
    for (int i = 0; i < M_SEQS; i++) {
        const m_seq *s = &m->seq[i];
        for (int p = 0; s->live && p < m_n_pages(m, s); p++)
            if (!m_in_gap(m, s, p) &&
                (open ? p >= s->n_closed && s->open[p] == name : s->page[p] == name))
                n++;
    }
    return n;
}

static int seen_before(const model *m, int seq, int page, int open)
{
    const m_seq *mine = &m->seq[seq];
    const int name = open ? mine->open[page] : mine->page[page];
    for (int i = 0; i <= seq; i++) {
        const m_seq *s = &m->seq[i];
        for (int p = 0; s->live && p < (i == seq ? page : m_n_pages(m, s)); p++)
            if (!m_in_gap(m, s, p) &&
                (open ? p >= s->n_closed && s->open[p] == name : s->page[p] == name))
                return 1;
    }
    return 0;
}

static int used_in(const model *m, const m_seq *s, int page)
{
    const int rest = s->length - page * m->c.page_tokens;
    return rest < m->c.page_tokens ? rest : m->c.page_tokens;
}

/* The most tokens that a sequence has in the page of that name. */
static int stored_in(const model *m, int name, int open)
{
    int most = 0;
    for (int i = 0; i < M_SEQS; i++) {
        const m_seq *s = &m->seq[i];
        for (int p = 0; s->live && p < m_n_pages(m, s); p++) {
            const int here = open ? p >= s->n_closed && s->open[p] == name
                                  : p < s->n_closed && s->page[p] == name;
            if (!m_in_gap(m, s, p) && here && used_in(m, s, p) > most)
                most = used_in(m, s, p);
        }
    }
    return most;
}

m_totals m_count(const model *m)
{
    m_totals t = {0, 0, 0, 0, 0};
    for (int i = 0; i < M_SEQS; i++)
        for (int p = 0; m->seq[i].live && p < m_n_pages(m, &m->seq[i]); p++) {
            const m_seq *s = &m->seq[i];
            if (m_in_gap(m, s, p))
                continue;
            t.tokens += used_in(m, s, p);
            if (!seen_before(m, i, p, 0)) {
                t.used++;
                t.shared += m_owners(m, s->page[p], 0) > 1;
                t.stored += stored_in(m, s->page[p], 0);
            }
            if (p >= s->n_closed && !seen_before(m, i, p, 1)) {
                t.used_open++;
                t.stored += stored_in(m, s->open[p], 1);
            }
        }
    return t;
}

/* ---- checks ----------------------------------------------------------------------------- */

static void check_info(const model *m, const m_seq *s)
{
    qkv_cache_seq_info info;
    int pages = 0, shared = 0;

    expect(qkv_cache_seq_info_get(m->cache, s->id, &info), QKV_OK);
    for (int p = 0; p < m_n_pages(m, s); p++)
        if (!m_in_gap(m, s, p)) {
            pages++;
            shared += m_owners(m, s->page[p], 0) > 1;
        }
    t_check(info.length == s->length && info.committed == s->committed &&
                info.kept_from == m_kept_from(m, s) && info.n_pages == pages &&
                info.n_shared == shared,
            "sequence %d has length %d, committed %d, kept from %d, %d pages, %d shared; should be "
            "%d, %d, %d, %d, %d",
            s->id, (int)info.length, (int)info.committed, (int)info.kept_from, info.n_pages,
            info.n_shared, s->length, s->committed, m_kept_from(m, s), pages, shared);
}

void m_check_all(model *m)
{
    const m_totals t = m_count(m);
    qkv_cache_stats got;
    int live = 0;

    for (int i = 0; i < M_SEQS; i++)
        if (m->seq[i].live) {
            live++;
            check_info(m, &m->seq[i]);
            m_check_seq(m, &m->seq[i], m->cache, m->seq[i].id);
        }
    expect(qkv_cache_stats_get(m->cache, &got), QKV_OK);
    t_check(got.n_seqs == live && got.used_pages == t.used && got.shared_pages == t.shared &&
                got.used_open_pages == t.used_open && got.tokens == t.tokens &&
                got.stored_tokens == t.stored,
            "seqs %d pages %d shared %d open %d tokens %d stored %d; should be %d %d %d %d %d %d",
            got.n_seqs, got.used_pages, got.shared_pages, got.used_open_pages, (int)got.tokens,
            (int)got.stored_tokens, live, t.used, t.shared, t.used_open, t.tokens, t.stored);
}
