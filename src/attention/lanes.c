/*
 * attention/lanes.c - the rows of a tile as a kernel sees them: one lane a query.
 *
 * A tile has few heads and many tokens, so the first token's lanes are worked out from the
 * descriptor and the others by steps from those: at 40 cycles a lane all of them were 3 % of a
 * window of 256 keys.
 */
#include <string.h>

#include "attention/internal.h"
#include "core/convert.h"

static void set_lane(const qkv_plan *plan, const qkv_args *args, int64_t b, qkv_lane *lane,
                     int64_t h, int64_t t)
{
    const qkv_desc *d = &plan->desc;
    const qkv_seq *seq = &plan->seqs[b];
    const int64_t qb = plan->rows.packed_q ? 0 : b, row = seq->q_row + t;
    const qkv_range range = qkv_visible_range(&plan->rules, &seq->span, t);

    memset(lane, 0, sizeof *lane);
    lane->q = qkv_at(args->q, &d->q, qb, h, row);
    lane->o = qkv_at(args->o, &d->o, qb, h, row);
    lane->lo = range.lo;
    lane->hi = range.hi;
    lane->position = seq->span.q_offset + t;
    if (d->lse.type != QKV_NONE)
        lane->lse = qkv_at(args->lse, &d->lse, qb, h, row);
    if (d->weights.type != QKV_NONE)
        lane->weights = qkv_at(args->weights, &d->weights, b, h, t);
    if (d->mask.type != QKV_NONE)
        lane->mask = qkv_at(args->mask, &d->mask, b, h, t);
    if (d->bias.type != QKV_NONE)
        lane->bias = qkv_at(args->bias, &d->bias, b, h, t);
    if (d->slopes.type != QKV_NONE)
        lane->slope = qkv_load_f64(qkv_at(args->slopes, &d->slopes, b, h, 0), d->slopes.type, 0);
    if (d->sinks.type != QKV_NONE)
        lane->sink = qkv_load_f64(qkv_at(args->sinks, &d->sinks, b, h, 0), d->sinks.type, 0);
    if (plan->shape.block_k)
        lane->block_row = qkv_block_row(d, b, h, t);
}

/* Bytes from a token to the next. */
typedef struct token_steps {
    uintptr_t q, o, lse, weights, mask, bias;
} token_steps;

static uintptr_t token_step(const qkv_layout *l)
{
    return (uintptr_t)(l->stride[2] * (int64_t)qkv_type_size((qkv_type)l->type));
}

static token_steps steps_of(const qkv_desc *d)
{
    return (token_steps){token_step(&d->q),       token_step(&d->o),    token_step(&d->lse),
                         token_step(&d->weights), token_step(&d->mask), token_step(&d->bias)};
}

/* The lane of the token n behind that of `first`, same head: a tile has few heads and many
 * tokens. */
static void later_lane(const qkv_plan *plan, const qkv_span *span, const token_steps *step,
                       qkv_lane *lane, const qkv_lane *first, int64_t n)
{
    const qkv_desc *d = &plan->desc;
    const int64_t t = first->position - span->q_offset;
    const qkv_range range = qkv_visible_range(&plan->rules, span, t + n);
    const uintptr_t by = (uintptr_t)n;

    *lane = *first;
    lane->q = (const void *)((uintptr_t)first->q + by * step->q);
    lane->o = (void *)((uintptr_t)first->o + by * step->o);
    lane->lo = range.lo;
    lane->hi = range.hi;
    lane->position = first->position + n;
    if (first->lse)
        lane->lse = (void *)((uintptr_t)first->lse + by * step->lse);
    if (first->weights)
        lane->weights = (void *)((uintptr_t)first->weights + by * step->weights);
    if (first->mask)
        lane->mask = (const uint8_t *)((uintptr_t)first->mask + by * step->mask);
    if (first->bias)
        lane->bias = (const void *)((uintptr_t)first->bias + by * step->bias);
    if (plan->shape.block_k)
        lane->block_row += ((t + n) / d->block_q - t / d->block_q) * d->block_stride[2];
}

/* Rows of queries are asked for before the first is needed: nothing else waits for so many lines
 * together, and a window of 256 keys is over soon (4 % of its time went to waiting). */
static void ask_for_query(const qkv_lane *lane, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)lane->q + i);
}

void qkv_fill_lanes(const qkv_plan *plan, const qkv_args *args, int64_t b, int64_t group,
                    qkv_row_range rows, qkv_lane *lanes)
{
    const qkv_desc *d = &plan->desc;
    const token_steps step = steps_of(d);
    const int64_t heads = plan->head_group, n = rows.end - rows.from;
    const int64_t bytes = d->head_dim * (int64_t)qkv_type_size((qkv_type)d->q.type);

    for (int64_t i = 0; i < n && i < heads; i++)
        set_lane(plan, args, b, &lanes[i], group * heads + (rows.from + i) % heads,
                 (rows.from + i) / heads);
    for (int64_t i = heads, head = 0, tokens = 1; i < n; i++) {
        later_lane(plan, &plan->seqs[b].span, &step, &lanes[i], &lanes[head], tokens);
        ask_for_query(&lanes[i], bytes);
        head = head + 1 < heads ? head + 1 : 0;
        tokens += head == 0;
    }
}
