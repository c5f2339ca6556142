/*
 * attention/run.c - tasks of a plan on tensors.
 *
 *     workspace   [slot] partial states   then   [worker][lanes | scratch | state]
 *
 * Nothing here can fail: every size was checked when the plan was made.
 */
#include <math.h>
#include <string.h>

#include "attention/internal.h"
#include "core/convert.h"

/* One tile of a task: which sequence, which heads, which rows. */
typedef struct tile_place {
    const qkv_plan *plan;
    const qkv_args *args;
    const qkv_seq *seq;
    int64_t b, group, block;
    qkv_lane *lanes;
    qkv_tile tile;
} tile_place;

/* As numbers, because an empty tensor may have no address to add to. */
static void *at(const void *base, const qkv_layout *l, int64_t i0, int64_t i1, int64_t i2)
{
    const int64_t offset = i0 * l->stride[0] + i1 * l->stride[1] + i2 * l->stride[2];
    return (void *)((uintptr_t)base +
                    (uintptr_t)(offset * (int64_t)qkv_type_size((qkv_type)l->type)));
}

static void set_lane(const tile_place *place, qkv_lane *lane, int64_t h, int64_t t)
{
    const qkv_plan *plan = place->plan;
    const qkv_desc *d = &plan->desc;
    const qkv_args *args = place->args;
    const int64_t b = place->b, qb = plan->rows.packed_q ? 0 : b, row = place->seq->q_row + t;
    const qkv_range range = qkv_visible_range(&plan->rules, &place->seq->span, t);

    memset(lane, 0, sizeof *lane);
    lane->q = at(args->q, &d->q, qb, h, row);
    lane->o = at(args->o, &d->o, qb, h, row);
    lane->lo = range.lo;
    lane->hi = range.hi;
    lane->position = place->seq->span.q_offset + t;
    if (d->lse.type != QKV_NONE)
        lane->lse = at(args->lse, &d->lse, qb, h, row);
    if (d->weights.type != QKV_NONE)
        lane->weights = at(args->weights, &d->weights, b, h, t);
    if (d->mask.type != QKV_NONE)
        lane->mask = at(args->mask, &d->mask, b, h, t);
    if (d->bias.type != QKV_NONE)
        lane->bias = at(args->bias, &d->bias, b, h, t);
    if (d->slopes.type != QKV_NONE)
        lane->slope = qkv_load_f64(at(args->slopes, &d->slopes, b, h, 0), d->slopes.type, 0);
    if (d->sinks.type != QKV_NONE)
        lane->sink = qkv_load_f64(at(args->sinks, &d->sinks, b, h, 0), d->sinks.type, 0);
    if (plan->shape.block_k)
        lane->block_row = qkv_block_row(d, b, h, t);
}

/* Fills the lanes of a tile.  A sequence without queries leaves it empty. */
static void place_tile(tile_place *place, int32_t worker)
{
    const qkv_plan *plan = place->plan;
    const int64_t group = plan->head_group, lanes = place->seq->kernel->lanes;
    const int64_t row0 = place->block * lanes;
    const int64_t rows = place->seq->span.q_len * group - row0;
    char *memory = (char *)place->args->workspace + (size_t)plan->n_slots * plan->state_bytes +
                   (size_t)worker *
                       (plan->lanes_bytes + plan->scratch_bytes + plan->own_state_bytes);

    place->lanes = (qkv_lane *)(void *)memory;
    place->tile.shape = &plan->shape;
    place->tile.lanes = place->lanes;
    place->tile.n_lanes = (int32_t)(rows < lanes ? rows : lanes);
    place->tile.scratch = memory + plan->lanes_bytes;
    place->tile.state = memory + plan->lanes_bytes + plan->scratch_bytes;
    for (int64_t i = 0; i < place->tile.n_lanes; i++)
        set_lane(place, &place->lanes[i], place->group * group + (row0 + i) % group,
                 (row0 + i) / group);
    /* A block of keys may be visited for some of its keys or for some of its lanes only. */
    place->tile.mixed_blocks = plan->shape.block_k > 0 && plan->shape.block_k % QKV_BLOCK_KEYS != 0;
    for (int64_t i = 1; plan->shape.block_k && i < place->tile.n_lanes; i++)
        place->tile.mixed_blocks |= place->lanes[i].block_row != place->lanes[0].block_row;
}

static void *slot(const tile_place *place, int64_t part)
{
    const qkv_plan *plan = place->plan;
    const qkv_seq *seq = place->seq;
    const int64_t n =
        seq->first_slot + (place->group * seq->blocks + place->block) * seq->parts + part;
    return (char *)place->args->workspace + (size_t)n * plan->state_bytes;
}

/* Does any lane of the tile see key block kb? */
static int tile_sees_block(const tile_place *place, int64_t kb)
{
    for (int32_t i = 0; i < place->tile.n_lanes; i++) {
        const int64_t row = place->lanes[i].block_row;
        if (i > 0 && row == place->lanes[i - 1].block_row)
            continue;
        if (qkv_block_bit(place->plan->block_bits, row + kb))
            return 1;
    }
    return 0;
}

/* Where the keys and values of the tile's head lie. */
static qkv_kv find_keys(const tile_place *place)
{
    const qkv_desc *d = &place->plan->desc;
    const qkv_args *args = place->args;
    const int paged = d->page_tokens > 0;
    const int64_t b = place->plan->rows.packed_k || paged ? 0 : place->b;
    const int64_t head = place->group * place->plan->head_group / place->plan->group;
    const int64_t row = place->seq->k_row;
    qkv_kv kv = {.k = at(args->k, &d->k, b, head, row), .v = at(args->v, &d->v, b, head, row)};

    if (d->k_scale.type != QKV_NONE)
        kv.k_scale = at(args->k_scale, &d->k_scale, b, head, row);
    if (d->k_min.type != QKV_NONE)
        kv.k_min = at(args->k_min, &d->k_min, b, head, row);
    if (d->v_scale.type != QKV_NONE)
        kv.v_scale = at(args->v_scale, &d->v_scale, b, head, row);
    if (d->v_min.type != QKV_NONE)
        kv.v_min = at(args->v_min, &d->v_min, b, head, row);
    if (d->k_rope.type != QKV_NONE)
        kv.k_rope = at(args->k_rope, &d->k_rope, b, head, row);
    if (paged) {
        kv.pages = args->block_table + place->b * d->block_table_stride[0] +
                   head * d->block_table_stride[1];
        kv.page_tokens = d->page_tokens;
        kv.k_page = d->k.stride[0];
        kv.v_page = d->v.stride[0];
        kv.k_scale_page = d->k_scale.stride[0];
        kv.v_scale_page = d->v_scale.stride[0];
        kv.k_rope_page = d->k_rope.stride[0];
    }
    return kv;
}

static void visit_keys(const tile_place *place, int64_t j0, int64_t j1)
{
    qkv_kv kv = find_keys(place);

    kv.first = j0;
    if (j0 < j1)
        place->seq->kernel->keys(&place->tile, &kv, j0, j1);
}

/* The keys from j towards `end` up to the first that some lane's pattern shows; end if none. */
static int64_t skip_hidden(const tile_place *place, int64_t j, int64_t end)
{
    const int64_t size = place->plan->shape.block_k;
    while (j < end && !tile_sees_block(place, j / size))
        j = (j / size + 1) * size;
    return j < end ? j : end;
}

/* The same from behind: one past the last key of j .. end-1 that the pattern shows. */
static int64_t drop_hidden(const tile_place *place, int64_t j, int64_t end)
{
    const int64_t size = place->plan->shape.block_k;
    while (end > j && !tile_sees_block(place, (end - 1) / size))
        end = (end - 1) / size * size;
    return end > j ? end : j;
}

/* Keys j0 .. j1-1 without what every lane's pattern hides.  A block of the kernel is trimmed at its
 * ends but not split: its sum must stay one sum, whoever else is in the tile. */
static void visit_blocks(const tile_place *place, int64_t j0, int64_t j1)
{
    int64_t from = skip_hidden(place, j0, j1);

    while (from < j1) {
        int64_t end = (from / QKV_BLOCK_KEYS + 1) * QKV_BLOCK_KEYS;
        end = end < j1 ? end : j1;
        visit_keys(place, from, drop_hidden(place, from, end));
        from = skip_hidden(place, end, j1);
    }
}

static int raw_scores(const qkv_plan *plan)
{
    return plan->shape.stage == QKV_STAGE_SCORES || plan->shape.stage == QKV_STAGE_CAPPED;
}

/* All keys of one part that some lane of the tile sees. */
static void visit_part(tile_place *place, int64_t part)
{
    const qkv_seq *seq = place->seq;
    int64_t j0 = place->lanes[0].lo;
    int64_t j1 = place->lanes[place->tile.n_lanes - 1].hi + 1;

    if (raw_scores(place->plan)) { /* the look shows hidden scores too */
        place->tile.mixed_blocks = place->plan->shape.block_k > 0;
        visit_keys(place, seq->span.kv_start, seq->span.kv_len);
        return;
    }
    if (seq->parts > 1) {
        const int64_t from = seq->part_lo + part * seq->part_keys, to = from + seq->part_keys;
        j0 = j0 > from ? j0 : from;
        j1 = j1 < to ? j1 : to;
    }
    if (place->plan->shape.block_k)
        visit_blocks(place, j0, j1);
    else
        visit_keys(place, j0, j1);
}

static void fill_weights(const qkv_plan *plan, void *row, double x)
{
    for (int64_t j = 0; j < plan->shape.kv_len; j++) {
        const int64_t i = j * plan->shape.weights_stride;
        if (plan->desc.weights.type == QKV_F64)
            ((double *)row)[i] = x;
        else
            ((float *)row)[i] = (float)x;
    }
}

/* Rows past the sequence's own length, in a padded batch: o = 0, lse = -infinity. */
static void write_padding(const tile_place *place)
{
    const qkv_plan *plan = place->plan;
    const qkv_desc *d = &plan->desc;
    const qkv_args *args = place->args;
    const int64_t h0 = place->group * plan->head_group;

    /* Packed tensors have no such rows, but weights are padded to q_len. */
    if (plan->rows.packed_q && d->weights.type == QKV_NONE)
        return;
    const double hidden = plan->shape.stage == QKV_STAGE_WEIGHTS ? 0 : -INFINITY;
    for (int64_t h = h0; h < h0 + plan->head_group; h++)
        for (int64_t t = place->seq->span.q_len; t < d->q_len; t++) {
            if (d->weights.type != QKV_NONE)
                fill_weights(plan, at(args->weights, &d->weights, place->b, h, t), hidden);
            if (plan->rows.packed_q)
                continue;
            memset(at(args->o, &d->o, place->b, h, t), 0,
                   (size_t)d->head_dim_v * qkv_type_size((qkv_type)d->o.type));
            if (d->lse.type == QKV_F64)
                *(double *)at(args->lse, &d->lse, place->b, h, t) = -INFINITY;
            else if (d->lse.type == QKV_F32)
                *(float *)at(args->lse, &d->lse, place->b, h, t) = -INFINITY;
        }
}

static void finish_tile(const tile_place *place)
{
    if (place->tile.n_lanes > 0)
        place->seq->kernel->finish(&place->tile);
    if (place->block == place->seq->blocks - 1)
        write_padding(place);
}

/* Index of the last sequence whose tasks begin at or before `task`. */
static int64_t find_sequence(const qkv_plan *plan, int32_t phase, int64_t task)
{
    int64_t low = 0, high = plan->desc.n_seqs - 1;
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        const qkv_seq *seq = &plan->seqs[middle];
        if ((phase == 0 ? seq->first_task : seq->first_merge) <= task)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void attend_task(tile_place *place, int64_t part, int32_t worker)
{
    const qkv_seq *seq = place->seq;

    place_tile(place, worker);
    if (place->tile.n_lanes > 0) {
        if (seq->parts > 1)
            place->tile.state = slot(place, part);
        for (int32_t i = 0; place->plan->shape.stage >= 0 && i < place->tile.n_lanes; i++)
            fill_weights(place->plan, place->lanes[i].weights, -INFINITY);
        place->seq->kernel->begin(&place->tile);
        visit_part(place, part);
    }
    if (seq->parts == 1)
        finish_tile(place);
}

static void merge_task(tile_place *place, int32_t worker)
{
    place_tile(place, worker);
    place->tile.state = slot(place, 0);
    for (int64_t part = 1; part < place->seq->parts; part++)
        place->seq->kernel->merge(&place->tile, slot(place, part));
    finish_tile(place);
}

void qkv_run_task(const qkv_plan *plan, const qkv_args *args, int32_t phase, int64_t task,
                  int32_t worker)
{
    tile_place place = {.plan = plan, .args = args};

    place.b = find_sequence(plan, phase, task);
    place.seq = &plan->seqs[place.b];
    if (phase == 1) {
        const int64_t local = task - place.seq->first_merge;
        place.group = local / place.seq->blocks;
        place.block = local % place.seq->blocks;
        merge_task(&place, worker);
        return;
    }
    /* Blocks from the last: under a causal mask it is the longest, and long tasks that start
     * first leave the least waiting at the end. */
    const int64_t local = task - place.seq->first_task, parts = place.seq->parts;
    place.group = local / (place.seq->blocks * parts);
    place.block = place.seq->blocks - 1 - local / parts % place.seq->blocks;
    attend_task(&place, local % parts, worker);
}

int32_t qkv_n_phases(const qkv_plan *plan) { return plan->n_merges > 0 ? 2 : 1; }

int64_t qkv_n_tasks(const qkv_plan *plan, int32_t phase)
{
    return phase == 0 ? plan->n_tasks : phase == 1 ? plan->n_merges : 0;
}

void qkv_run(const qkv_plan *plan, const qkv_args *args)
{
    for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++)
        for (int64_t task = 0; task < qkv_n_tasks(plan, phase); task++)
            qkv_run_task(plan, args, phase, task, 0);
}

typedef struct phase_job {
    const qkv_plan *plan;
    const qkv_args *args;
    int32_t phase;
} phase_job;

static void phase_task(void *arg, int64_t i, int32_t worker)
{
    const phase_job *job = arg;
    qkv_run_task(job->plan, job->args, job->phase, i, worker);
}

void qkv_run_parallel(const qkv_plan *plan, const qkv_args *args, const qkv_parallel *parallel)
{
    for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++) {
        phase_job job = {plan, args, phase};
        parallel->parallel_for(parallel->ctx, qkv_n_tasks(plan, phase), phase_task, &job);
    }
}
