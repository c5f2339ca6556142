/* sizing/kind.c - layers of one kind in a step: projections, pairs, keys and values moved. */
#include "sizing/work.h"

/* Keys that queries see, summed over the chunks. */
static uint64_t keys_of(qkv_work *c, const qkv_work_layers *k)
{
    const uint64_t chunk = k->steps > 1 ? c->chunk : k->n;
    uint64_t sum = 0;

    for (uint64_t at = 0; at < k->n; at += chunk)
        sum = qkv_tally_add(&c->tally, sum,
                            qkv_size_keys(k->l, k->past + at, qkv_min_u64(chunk, k->n - at),
                                          c->memory, c->setup->pairs));
    return sum;
}

/* ---- projections -------------------------------------------------------------------------- */

static void project_heads(qkv_work *c, const qkv_work_layers *k)
{
    const qkv_layer_desc *l = k->l;
    const uint64_t d = (uint64_t)l->d_model, h = (uint64_t)l->n_q_heads;
    const uint64_t from = l->d_memory > 0 ? (uint64_t)l->d_memory : d;
    const uint64_t q = h * (uint64_t)l->head_dim * (l->o_gate ? 2 : 1);
    const uint64_t kv =
        (uint64_t)l->n_kv_heads * (uint64_t)(l->head_dim + (l->v_from_k ? 0 : l->head_dim_v));
    const uint64_t tokens = qkv_work_times(c, c->seqs, k->n),
                   made = qkv_work_times(c, c->seqs, k->kv_new);
    const uint64_t all = k->own + k->shared;

    qkv_work_add_product(c, QKV_SIZE_PROJECT, tokens, qkv_work_times(c, d * q, all), k->steps);
    qkv_work_add_product(c, QKV_SIZE_PROJECT, made, qkv_work_times(c, from * kv, k->own), k->steps);
    qkv_work_add_states(c, QKV_SIZE_PROJECT, qkv_work_times(c, tokens, all), d + q);
}

static void project_mla(qkv_work *c, const qkv_work_layers *k)
{
    const qkv_layer_desc *l = k->l;
    const uint64_t d = (uint64_t)l->d_model, h = (uint64_t)l->n_q_heads;
    const uint64_t q = (uint64_t)l->q_lora_rank, all = h * (uint64_t)l->head_dim;
    const uint64_t row = (uint64_t)(l->kv_lora_rank + l->rope_dim);
    const uint64_t tokens = qkv_work_times(c, c->seqs, k->n), n = k->own + k->shared;

    qkv_work_add_product(c, QKV_SIZE_PROJECT, tokens,
                         qkv_work_times(c, (q > 0 ? d * q + q * all : d * all) + d * row, n),
                         k->steps);
    qkv_work_add_states(c, QKV_SIZE_PROJECT, qkv_work_times(c, tokens, n), d + all);
}

/* Multiply-adds of latents to heads, expanded or absorbed, in one layer. */
static uint64_t expansion(qkv_work *c, const qkv_work_layers *k, int absorbed)
{
    const qkv_layer_desc *l = k->l;
    const uint64_t each = (uint64_t)l->kv_lora_rank * (uint64_t)l->n_q_heads *
                          (uint64_t)(l->head_dim - l->rope_dim + l->head_dim_v);
    return qkv_work_times(c, qkv_work_times(c, each, c->seqs), absorbed ? k->n : k->keys);
}

/* Of scores and values, a pair and head. */
static uint64_t pair_width(const qkv_layer_desc *l, int absorbed, int values)
{
    if (l->kind != QKV_LAYER_MLA || !absorbed)
        return (uint64_t)(values ? l->head_dim_v : l->head_dim);
    return (uint64_t)(l->kv_lora_rank + (values ? 0 : l->rope_dim));
}

/* ---- attention ---------------------------------------------------------------------------- */

static void attend(qkv_work *c, const qkv_work_layers *k)
{
    const qkv_layer_desc *l = k->l;
    const uint64_t n = k->own + k->shared, h = (uint64_t)l->n_q_heads;
    const uint64_t pairs = qkv_work_times(c, qkv_work_times(c, k->pairs, c->seqs), n);
    const uint64_t rows =
        qkv_work_times(c, qkv_work_times(c, qkv_work_times(c, c->seqs, k->n), n), h);
    qkv_size_stage *s = c->work->stage;

    qkv_work_add(c, &c->work->pairs, qkv_work_times(c, pairs, h));
    qkv_work_add(c, &s[QKV_SIZE_SCORES].multiply_adds,
                 qkv_work_times(c, qkv_work_times(c, pairs, h), pair_width(l, c->absorbed, 0)));
    qkv_work_add(c, &s[QKV_SIZE_VALUES].multiply_adds,
                 qkv_work_times(c, qkv_work_times(c, pairs, h), pair_width(l, c->absorbed, 1)));
    qkv_work_add(c, &s[QKV_SIZE_SOFTMAX].exponentials, qkv_work_times(c, pairs, h));
    qkv_work_add_states(c, QKV_SIZE_SCORES, rows, pair_width(l, c->absorbed, 0));
    qkv_work_add_states(c, QKV_SIZE_VALUES, rows, pair_width(l, c->absorbed, 1));
}

/* Keys and values that are read, and those that are written. */
static void move_cache(qkv_work *c, const qkv_work_layers *k)
{
    const uint64_t page = (uint64_t)c->setup->page_tokens;
    const uint64_t keys = qkv_work_times(c, k->keys, c->seqs);
    const uint64_t n = k->own + k->shared;
    const int expanded = k->l->kind == QKV_LAYER_MLA && !c->absorbed;
    qkv_size_group g;
    qkv_size_rows r;

    qkv_size_shape(k->l, &g);
    qkv_size_rows_of(&g, c->setup, &c->tally, &r);
    const uint64_t once = qkv_work_times(c, qkv_work_times(c, qkv_up(keys, page), r.once), n);
    const uint64_t first = qkv_work_times(c, qkv_work_times(c, keys, r.key_token), n) + once;
    const uint64_t second = qkv_work_times(c, qkv_work_times(c, keys, r.token - r.key_token), n);
    const uint64_t written = qkv_work_times(
        c, qkv_work_times(c, qkv_work_times(c, c->seqs, k->kv_new), r.token), k->own);

    qkv_work_add_bytes(c, expanded ? QKV_SIZE_EXPAND : QKV_SIZE_SCORES, first);
    qkv_work_add_bytes(c, QKV_SIZE_VALUES, second);
    qkv_work_add_bytes(c, QKV_SIZE_PROJECT, written);
    qkv_work_add(c, &c->work->cache_read, qkv_tally_add(&c->tally, first, second));
    qkv_work_add(c, &c->work->cache_written, written);
}

static void output(qkv_work *c, const qkv_work_layers *k)
{
    const uint64_t wide = (uint64_t)k->l->n_q_heads * (uint64_t)k->l->head_dim_v;
    const uint64_t tokens = qkv_work_times(c, c->seqs, k->n), n = k->own + k->shared;
    const uint64_t d = (uint64_t)k->l->d_model;

    qkv_work_add_product(c, QKV_SIZE_OUTPUT, tokens, qkv_work_times(c, wide * d, n), k->steps);
    qkv_work_add_states(c, QKV_SIZE_OUTPUT, qkv_work_times(c, tokens, n), wide + d);
}

void qkv_work_count_kind(qkv_work *c, qkv_work_layers *k)
{
    const qkv_layer_desc *l = k->l;
    const int mla = l->kind == QKV_LAYER_MLA;

    if (l->kind == QKV_LAYER_STATE) {
        const uint64_t elements = qkv_work_times(c, (uint64_t)l->state_elements, k->own);
        qkv_work_add_product(c, QKV_SIZE_STATE, qkv_work_times(c, c->seqs, k->n),
                             qkv_work_times(c, (uint64_t)l->state_parameters, k->own), k->steps);
        qkv_work_add_states(c, QKV_SIZE_STATE, qkv_work_times(c, c->seqs, 2 * k->steps), elements);
        return;
    }
    k->pairs = qkv_size_pairs(l, k->past, k->n, c->memory, c->setup->pairs, &c->tally);
    k->keys = keys_of(c, k);
    if (mla) {
        const uint64_t matrix = (uint64_t)l->kv_lora_rank * (uint64_t)l->n_q_heads *
                                (uint64_t)(l->head_dim - l->rope_dim + l->head_dim_v);
        const uint64_t read = qkv_work_times(
            c, qkv_work_weight_bytes(c, qkv_work_times(c, matrix, k->own + k->shared)), k->steps);
        project_mla(c, k);
        qkv_work_add(c, &c->work->stage[QKV_SIZE_EXPAND].multiply_adds,
                     qkv_work_times(c, expansion(c, k, c->absorbed), k->own + k->shared));
        qkv_work_add_bytes(c, QKV_SIZE_EXPAND, read);
        qkv_work_add(c, &c->work->weights_read, read);
    } else {
        project_heads(c, k);
    }
    attend(c, k);
    move_cache(c, k);
    output(c, k);
}
