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

/* One tile of a task: which sequence, which heads, which rows. */
typedef struct tile_place {
    const qkv_plan *plan;
    const qkv_args *args;
    const qkv_seq *seq;
    int64_t b, group, block;
    int own_rows; /* lanes differ in their row of the block mask */
    qkv_kv kv;
    qkv_lane *lanes; /* of all rows */
    int64_t n_lanes;
    qkv_tile tile;
    qkv_tile rest; /* the last rows, where they are the decode kernel's */
} tile_place;

/* States of a tile lie one after the other. */
static void set_state(tile_place *place, void *state)
{
    const int32_t dv = place->plan->shape.head_dim_v;

    place->tile.state = state;
    place->rest.state = (char *)state +
                        qkv_align64(place->seq->kernel->state_bytes(place->tile.n_lanes, dv));
}

/* Fills the lanes of a tile.  A sequence without queries leaves it empty. */
static void place_tile(tile_place *place, int32_t worker)
{
    const qkv_plan *plan = place->plan;
    const qkv_row_range rows = qkv_rows_of_tile(plan, place->seq, place->block);
    char *memory = (char *)place->args->workspace + (size_t)plan->n_slots * plan->state_bytes +
                   (size_t)worker *
                       (plan->lanes_bytes + plan->scratch_bytes + plan->own_state_bytes);

    place->lanes = (qkv_lane *)(void *)memory;
    place->tile.shape = &plan->shape;
    place->tile.lanes = place->lanes;
    place->n_lanes = rows.end - rows.from;
    place->tile.streams = place->seq->streams;
    place->tile.scratch = memory + plan->lanes_bytes;
    place->rest = place->tile;
    if (place->block == place->seq->blocks - 1)
        place->rest.n_lanes = (int32_t)place->seq->rest;
    place->tile.n_lanes = (int32_t)place->n_lanes - place->rest.n_lanes;
    place->rest.lanes = place->lanes + place->tile.n_lanes;
    place->rest.scratch = memory + plan->lanes_bytes + plan->rest_scratch;
    set_state(place, memory + plan->lanes_bytes + plan->scratch_bytes);
    qkv_fill_lanes(plan, place->args, place->b, place->group, rows, place->lanes);
    place->own_rows = 0;
    for (int64_t i = 1; plan->shape.block_k && i < place->tile.n_lanes; i++)
        place->own_rows |= place->lanes[i].block_row != place->lanes[0].block_row;
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
    const int32_t n = place->own_rows ? place->tile.n_lanes : 1;
    for (int32_t i = 0; i < n; i++) {
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
    qkv_kv kv = {.k = qkv_at(args->k, &d->k, b, head, row),
                 .v = qkv_at(args->v, &d->v, b, head, row)};

    if (d->k_scale.type != QKV_NONE)
        kv.k_scale = qkv_at(args->k_scale, &d->k_scale, b, head, row);
    if (d->k_min.type != QKV_NONE)
        kv.k_min = qkv_at(args->k_min, &d->k_min, b, head, row);
    if (d->v_scale.type != QKV_NONE)
        kv.v_scale = qkv_at(args->v_scale, &d->v_scale, b, head, row);
    if (d->v_min.type != QKV_NONE)
        kv.v_min = qkv_at(args->v_min, &d->v_min, b, head, row);
    if (d->k_rope.type != QKV_NONE)
        kv.k_rope = qkv_at(args->k_rope, &d->k_rope, b, head, row);
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

/* With a rest the kernels take turns, so that the second finds its keys in the core's cache. */
static void visit_keys(tile_place *place, int64_t j0, int64_t j1)
{
    place->kv.first = j0;
    place->kv.end = j1;
    if (place->rest.n_lanes == 0 && j0 < j1)
        place->seq->kernel->keys(&place->tile, &place->kv, j0, j1);
    for (int64_t j = j0, end; place->rest.n_lanes > 0 && j < j1; j = end) {
        end = (j / QKV_BLOCK_KEYS + 1) * QKV_BLOCK_KEYS;
        end = end < j1 ? end : j1;
        place->seq->kernel->keys(&place->tile, &place->kv, j, end);
        place->plan->decode->keys(&place->rest, &place->kv, j, end);
    }
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

/* Does the pattern hide from some lane one of keys from .. end-1, of which the first and the last
 * are seen, or one before them that a kernel looks at because its products begin there? */
static int has_holes(const tile_place *place, int64_t from, int64_t end)
{
    const int64_t size = place->plan->shape.block_k;
    if (place->own_rows || from % QKV_PRODUCT_KEYS != 0)
        return 1;
    for (int64_t kb = from / size + 1; kb < (end - 1) / size; kb++)
        if (!tile_sees_block(place, kb))
            return 1;
    return 0;
}

/* Keys j0 .. j1-1 without what every lane's pattern hides.  A block of the kernel is trimmed at its
 * ends but not split: its sum must stay one sum, whoever else is in the tile. */
static void visit_blocks(tile_place *place, int64_t j0, int64_t j1)
{
    int64_t from = skip_hidden(place, j0, j1);

    while (from < j1) {
        int64_t end = (from / QKV_BLOCK_KEYS + 1) * QKV_BLOCK_KEYS;
        end = end < j1 ? end : j1;
        const int64_t last = drop_hidden(place, from, end);
        place->tile.mixed_blocks = has_holes(place, from, last);
        visit_keys(place, from, last);
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
    int64_t j1 = place->lanes[place->n_lanes - 1].hi + 1;

    place->kv = find_keys(place);
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
                fill_weights(plan, qkv_at(args->weights, &d->weights, place->b, h, t), hidden);
            if (plan->rows.packed_q)
                continue;
            memset(qkv_at(args->o, &d->o, place->b, h, t), 0,
                   (size_t)d->head_dim_v * qkv_type_size((qkv_type)d->o.type));
            if (d->lse.type == QKV_F64)
                *(double *)qkv_at(args->lse, &d->lse, place->b, h, t) = -INFINITY;
            else if (d->lse.type == QKV_F32)
                *(float *)qkv_at(args->lse, &d->lse, place->b, h, t) = -INFINITY;
        }
}

static void finish_tile(const tile_place *place)
{
    if (place->tile.n_lanes > 0)
        place->seq->kernel->finish(&place->tile);
    if (place->rest.n_lanes > 0)
        place->plan->decode->finish(&place->rest);
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
            set_state(place, slot(place, part));
        for (int64_t i = 0; place->plan->shape.stage >= 0 && i < place->n_lanes; i++)
            fill_weights(place->plan, place->lanes[i].weights, -INFINITY);
        place->seq->kernel->begin(&place->tile);
        if (place->rest.n_lanes > 0)
            place->plan->decode->begin(&place->rest);
        visit_part(place, part);
    }
    if (seq->parts == 1)
        finish_tile(place);
}

static void merge_task(tile_place *place, int32_t worker)
{
    place_tile(place, worker);
    set_state(place, slot(place, 0));
    tile_place other = *place;
    for (int64_t part = 1; part < place->seq->parts; part++) {
        set_state(&other, slot(place, part));
        place->seq->kernel->merge(&place->tile, other.tile.state);
        if (place->rest.n_lanes > 0)
            place->plan->decode->merge(&place->rest, other.rest.state);
    }
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
    /* Under a causal mask the last block is the longest, and long tasks that start first leave the
     * least waiting at the end.  Behind a window all are alike, and keys are new at one end
     * only. */
    const int64_t local = task - place.seq->first_task, parts = place.seq->parts;
    const int64_t blocks = place.seq->blocks, n = local / parts % blocks;
    place.group = local / (blocks * parts);
    place.block = plan->rules.window_left < 0 ? blocks - 1 - n : n;
    attend_task(&place, local % parts, worker);
}

int32_t qkv_n_phases(const qkv_plan *plan) { return plan->n_merges > 0 ? 2 : 1; }

int64_t qkv_n_tasks(const qkv_plan *plan, int32_t phase)
{
    return phase == 0 ? plan->n_tasks : phase == 1 ? plan->n_merges : 0;
}

static void run_phase(const qkv_plan *plan, const qkv_args *args, int32_t phase)
{
    for (int64_t task = 0; task < qkv_n_tasks(plan, phase); task++)
        qkv_run_task(plan, args, phase, task, 0);
}

void qkv_run(const qkv_plan *plan, const qkv_args *args)
{
    for (int32_t phase = 0; phase < qkv_n_phases(plan); phase++)
        run_phase(plan, args, phase);
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
        if (plan->small[phase])
            run_phase(plan, args, phase);
        else
            parallel->parallel_for(parallel->ctx, qkv_n_tasks(plan, phase), phase_task, &job);
    }
}
