/*
 * attention/plan.c - from a descriptor to an immutable plan: kernel, tasks, memory.
 *
 * How the work is cut.  A tile is up to kernel->lanes rows of one sequence, where row r is query
 * token r / head_group of head r % head_group in its group: the heads that share keys and values
 * fill the lanes together.  Under a block mask no tile lies in two rows of its blocks, or a tile
 * would visit what either sees.  A sequence of few rows uses the decode kernel, and so do a few
 * rows that a longer one has beyond whole vectors; they ride on its last tile.  A task is one
 * tile against all its keys.  A sequence with few tiles and many keys (decoding) is
 * cut by keys as well: its parts are computed in phase 0 as partial states and joined in ascending
 * order in phase 1.
 *
 * Every cut depends on the sequence's own sizes and on the kernel, never on the number of threads
 * or on the rest of the batch; therefore neither do the bits.
 */
#include <string.h>

#include "attention/internal.h"

static size_t block_bytes(const qkv_desc *d) { return (size_t)((qkv_block_bit_count(d) + 7) / 8); }

static size_t plan_bytes(const qkv_desc *d)
{
    return sizeof(qkv_plan) + (size_t)d->n_seqs * sizeof(qkv_seq) + block_bytes(d);
}

size_t qkv_plan_size(const qkv_desc *desc)
{
    const qkv_say quiet = {NULL, 0};
    qkv_desc d;
    return qkv_desc_check(desc, &d, quiet) == QKV_OK ? plan_bytes(&d) : 0;
}

static void set_shape(qkv_shape *s, const qkv_desc *d)
{
    s->head_dim = d->head_dim;
    s->head_dim_v = d->head_dim_v;
    s->q_type = d->q.type;
    s->o_type = d->o.type;
    s->bias_type = d->bias.type;
    s->stage = d->weights.type != QKV_NONE ? d->stage : -1;
    s->has_mask = d->mask.type != QKV_NONE;
    s->has_bias = d->bias.type != QKV_NONE;
    s->has_slopes = d->slopes.type != QKV_NONE;
    s->has_sinks = d->sinks.type != QKV_NONE;
    s->block_k = d->block_bits ? d->block_k : 0;
    s->k_stride = d->k.stride[2];
    s->v_stride = d->v.stride[2];
    s->k_type = d->k.type;
    s->v_type = d->v.type;
    s->rope_dim = d->rope_dim;
    s->k_rope_type = d->k_rope.type;
    s->k_rope_stride = d->k_rope.stride[2];
    s->k_scales = (qkv_scales){d->k_scale.type, d->k_group, d->k_scale.stride[2],
                               d->k_scale.stride[3]};
    s->v_scales = (qkv_scales){d->v_scale.type, d->v_group, d->v_scale.stride[2],
                               d->v_scale.stride[3]};
    s->mask_stride = d->mask.stride[3];
    s->bias_stride = d->bias.stride[3];
    s->weights_stride = d->weights.stride[3];
    s->kv_len = d->kv_len;
    s->scale = d->scale;
    s->softcap = d->softcap;
}

static void set_span(qkv_seq *seq, const qkv_desc *d, int64_t b)
{
    qkv_span *span = &seq->span;

    span->q_len = d->q_lens ? d->q_lens[b] : d->q_len;
    if (d->cu_seqlens_q) {
        seq->q_row = qkv_cu_at(d, d->cu_seqlens_q, b);
        span->q_len = qkv_cu_at(d, d->cu_seqlens_q, b + 1) - seq->q_row;
    }
    span->kv_len = d->kv_len;
    if (d->cu_seqlens_k) {
        seq->k_row = qkv_cu_at(d, d->cu_seqlens_k, b);
        span->kv_len = qkv_cu_at(d, d->cu_seqlens_k, b + 1) - seq->k_row;
    }
    if (d->kv_lens)
        span->kv_len = d->kv_lens[b];
    span->kv_start = d->kv_starts ? d->kv_starts[b] : 0;
    if (d->q_offsets)
        span->q_offset = d->q_offsets[b];
    else
        span->q_offset = d->align == QKV_ALIGN_TOP_LEFT ? 0 : span->kv_len - span->q_len;
}

static int64_t tiles_of(int64_t rows, const qkv_kernel *kernel)
{
    return rows > 0 ? (rows + kernel->lanes - 1) / kernel->lanes : 1;
}

/* No more parts of so many keys than make enough tasks.  The state of a part of many rows is as
 * many bytes as a few hundred of its keys, and is written, read again and joined: 128 rows, 8 heads
 * and 8,192 keys took 5 % longer in 16 parts than in 8.  A few rows have small states.  Tiles are
 * counted with all heads of a group even where block masks keep heads apart, so that how a pattern
 * is stored does not show in bits. */
static int64_t parts_for(const qkv_plan *plan, const qkv_seq *seq, int64_t keys)
{
    const int64_t tiles =
        plan->desc.n_kv_heads * tiles_of(seq->span.q_len * plan->group - seq->rest, seq->kernel);
    const int64_t parts = keys / QKV_PART_KEYS;
    int64_t most = QKV_MAX_PARTS;

    if (seq->kernel == plan->attend && tiles * most > QKV_SPLIT_TASKS)
        most = (QKV_SPLIT_TASKS + tiles - 1) / tiles;
    return parts < most ? parts : most;
}

/* Whether keys and values come from memory, or from a cache that is as far, more often than from the
 * second level: they are many and tiles few, or what a tile reads is more than that level holds. */
static int32_t reads_from_afar(const qkv_plan *plan, int64_t tiles, int64_t keys, int64_t seen)
{
    const qkv_shape *shape = &plan->shape;
    const int64_t row = shape->head_dim * (int64_t)qkv_type_size((qkv_type)shape->k_type) +
                        shape->head_dim_v * (int64_t)qkv_type_size((qkv_type)shape->v_type);

    return (tiles <= QKV_STREAM_TILES && keys >= 2 * QKV_PART_KEYS) ||
           seen > QKV_STREAM_BYTES / row;
}

/* How many parts the keys of a sequence are cut into, and where; and how far they are. */
static void cut_keys(const qkv_plan *plan, qkv_seq *seq)
{
    const int64_t tiles = tiles_of(seq->span.q_len * plan->group - seq->rest, seq->kernel);

    seq->parts = 1;
    if (seq->span.q_len == 0)
        return;
    const qkv_range first = qkv_visible_range(&plan->rules, &seq->span, 0);
    const qkv_range last = qkv_visible_range(&plan->rules, &seq->span, seq->span.q_len - 1);
    const int64_t base = first.lo > 0 ? first.lo / QKV_PART_UNIT * QKV_PART_UNIT : 0;
    const int64_t keys = last.hi + 1 - base;
    seq->streams = reads_from_afar(plan, tiles, keys, last.hi + 1 - last.lo);
    if (tiles > QKV_MAX_SPLIT_BLOCKS || keys < 2 * QKV_PART_KEYS || plan->shape.stage >= 0)
        return;
    const int64_t parts = parts_for(plan, seq, keys), each = (keys + parts - 1) / parts;
    seq->part_lo = base;
    seq->part_keys = (each + QKV_PART_UNIT - 1) / QKV_PART_UNIT * QKV_PART_UNIT;
    seq->parts = (keys + seq->part_keys - 1) / seq->part_keys;
}

/* Which rows are a tile.  Rows of the block mask that are shorter than a vector share one; longer
 * ones are cut evenly, in whole vectors. */
static void cut_rows(const qkv_plan *plan, qkv_seq *seq)
{
    const int64_t lanes = seq->kernel->lanes;
    const int64_t rows = seq->span.q_len * plan->head_group - seq->rest;

    seq->tile_rows = seq->cut_rows = lanes;
    if (plan->shape.block_k > 0 && seq->kernel == plan->attend) {
        const int64_t block = (int64_t)plan->desc.block_q * plan->head_group;
        const int64_t unit = lanes < QKV_ROW_UNIT ? lanes : QKV_ROW_UNIT;
        seq->cut_rows = block < unit ? unit / block * block : block;
        const int64_t each = (seq->cut_rows - 1) / ((seq->cut_rows - 1) / lanes + 1) + 1;
        const int64_t whole = (each + unit - 1) / unit * unit;
        seq->tile_rows = whole < lanes ? whole : lanes;
    }
    const int64_t whole_cuts = rows / seq->cut_rows, rest = rows % seq->cut_rows;
    seq->blocks = whole_cuts * ((seq->cut_rows - 1) / seq->tile_rows + 1) +
                  (rest + seq->tile_rows - 1) / seq->tile_rows;
    seq->blocks = seq->blocks > 0 ? seq->blocks : 1;
}

qkv_row_range qkv_rows_of_tile(const qkv_plan *plan, const qkv_seq *seq, int64_t block)
{
    const int64_t tiles = (seq->cut_rows - 1) / seq->tile_rows + 1;
    const int64_t cut = block / tiles * seq->cut_rows, from = cut + block % tiles * seq->tile_rows;
    const int64_t rows = seq->span.q_len * plan->head_group;
    int64_t end = rows - seq->rest;

    end = end < cut + seq->cut_rows ? end : cut + seq->cut_rows;
    end = end < from + seq->tile_rows ? end : from + seq->tile_rows;
    return (qkv_row_range){from, block == seq->blocks - 1 ? rows : end};
}

/* Few enough rows are the decode kernel's.  Rows are counted with all heads of a group even where
 * block masks keep heads apart, so that how a pattern is stored does not choose the kernel; for the
 * same reason such a sequence has no rest.  Nor have sequences of many tiles: it is little there,
 * and a row of a prefill keeps its bits when rows are added behind it. */
static void choose_kernel(const qkv_plan *plan, qkv_seq *seq)
{
    const qkv_kernel *attend = plan->attend, *decode = plan->decode;
    const int64_t rows = seq->span.q_len * plan->group, rest = rows % attend->vector;

    seq->kernel = rows <= decode->lanes && rows <= attend->few ? decode : attend;
    if (seq->kernel == attend && rows > attend->vector && rest <= attend->rest &&
        plan->shape.block_k == 0 && tiles_of(rows, attend) <= QKV_STREAM_TILES)
        seq->rest = rest;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Bytes of a partial state of this sequence. */
static size_t slot_bytes(const qkv_plan *plan, const qkv_seq *seq)
{
    const int64_t rows = seq->span.q_len * plan->head_group - seq->rest, most = seq->tile_rows;
    const int32_t lanes = (int32_t)(rows < most ? rows : most), dv = plan->shape.head_dim_v;
    const size_t rest =
        seq->rest ? qkv_align64(plan->decode->state_bytes((int32_t)seq->rest, dv)) : 0;
    return qkv_align64(seq->kernel->state_bytes(lanes, dv)) + rest;
}

/* Cuts every sequence and counts; seqs may be NULL if only the counts are wanted. */
static void cut_sequences(qkv_plan *plan, const qkv_desc *d, qkv_seq *seqs)
{
    for (int64_t b = 0; b < d->n_seqs; b++) {
        qkv_seq one, *seq = seqs ? &seqs[b] : &one;
        memset(seq, 0, sizeof *seq);
        set_span(seq, d, b);
        choose_kernel(plan, seq);
        cut_rows(plan, seq);
        cut_keys(plan, seq);
        seq->first_task = plan->n_tasks;
        seq->first_merge = plan->n_merges;
        seq->first_slot = plan->n_slots;
        const int64_t tiles = plan->n_groups * seq->blocks;
        plan->n_tasks += tiles * seq->parts;
        if (seq->parts > 1) {
            plan->n_merges += tiles;
            plan->n_slots += tiles * seq->parts;
            plan->state_bytes = larger(plan->state_bytes, slot_bytes(plan, seq));
        }
    }
}

/* Pairs of query and key are counted as if all were visible; joining states costs a multiplication and
 * an addition a number. */
static void find_small_phases(qkv_plan *plan, const qkv_desc *d)
{
    const double each = 2.0 * d->n_q_heads * (plan->shape.head_dim + plan->shape.head_dim_v);
    double pairs = 0;

    for (int64_t b = 0; plan->seqs && b < d->n_seqs; b++)
        pairs += (double)plan->seqs[b].span.q_len * (double)plan->seqs[b].span.kv_len;
    plan->small[0] = pairs * each <= QKV_SMALL_RUN;
    plan->small[1] = (double)plan->n_slots * (double)plan->state_bytes / 2 <= QKV_SMALL_RUN;
}

/* The memory of one worker, enough for either kernel; for both where tiles may have a rest. */
static void size_worker(qkv_plan *plan)
{
    const qkv_kernel *kernels[] = {plan->attend, plan->decode};
    const int32_t d = plan->shape.head_dim, dv = plan->shape.head_dim_v;
    size_t lanes[2], scratch[2], state[2];

    for (int i = 0; i < 2; i++) {
        lanes[i] = qkv_align64((size_t)kernels[i]->lanes * sizeof(qkv_lane));
        scratch[i] = qkv_align64(kernels[i]->scratch_bytes(d, dv));
        state[i] = qkv_align64(kernels[i]->state_bytes(kernels[i]->lanes, dv));
    }
    const int both = plan->attend->rest > 0;
    plan->rest_scratch = scratch[0];
    plan->lanes_bytes = both ? lanes[0] + lanes[1] : larger(lanes[0], lanes[1]);
    plan->scratch_bytes = both ? scratch[0] + scratch[1] : larger(scratch[0], scratch[1]);
    plan->own_state_bytes = both ? state[0] + state[1] : larger(state[0], state[1]);
}

static void forget_pointers(qkv_desc *d)
{
    d->q_lens = d->kv_lens = d->kv_starts = d->q_offsets = NULL;
    d->cu_seqlens_q = d->cu_seqlens_k = NULL;
    d->block_bits = NULL;
}

static void build(qkv_plan *plan, const qkv_desc *d, qkv_seq *seqs)
{
    const int32_t group = d->n_q_heads / d->n_kv_heads;

    memset(plan, 0, sizeof *plan);
    plan->magic = QKV_PLAN_MAGIC;
    plan->seqs = seqs;
    plan->desc = *d;
    forget_pointers(&plan->desc);
    plan->rows = qkv_rows_of(d);
    plan->attend = qkv_find_kernel(QKV_OP_ATTEND, d);
    plan->decode = qkv_find_kernel(QKV_OP_DECODE, d);
    set_shape(&plan->shape, d);
    plan->rules.causal = d->causal;
    plan->rules.window_left = d->window_left;
    plan->rules.window_right = d->window_right;
    plan->group = group;
    /* Heads with patterns of their own share no visits: give each its own tiles. */
    plan->head_group = d->block_bits && d->block_stride[1] != 0 ? 1 : group;
    plan->n_groups = d->n_q_heads / plan->head_group;
    cut_sequences(plan, d, seqs);
    find_small_phases(plan, d);
    size_worker(plan);
}

static void copy_blocks(qkv_plan *plan, const qkv_desc *d)
{
    plan->block_bits = (uint8_t *)(plan->seqs + d->n_seqs);
    if (block_bytes(d) > 0)
        memcpy(plan->block_bits, d->block_bits, block_bytes(d));
    plan->shape.block_bits = plan->block_bits;
}

size_t qkv_dry_workspace_size(const qkv_desc *checked, int32_t n_workers)
{
    qkv_plan plan;
    build(&plan, checked, NULL);
    return qkv_workspace_size(&plan, n_workers);
}

qkv_status qkv_plan_init(void *mem, size_t bytes, const qkv_desc *desc, const qkv_plan **plan)
{
    const qkv_say quiet = {NULL, 0};
    qkv_desc d;
    const qkv_status status = qkv_desc_check(desc, &d, quiet);

    if (status != QKV_OK)
        return status;
    if (!plan)
        return QKV_ERR_ARGUMENT;
    if (!mem || bytes < plan_bytes(&d) || (uintptr_t)mem % 8 != 0)
        return QKV_ERR_BUFFER;
    qkv_plan *made = mem;
    build(made, &d, (qkv_seq *)(made + 1));
    copy_blocks(made, &d);
    *plan = made;
    return QKV_OK;
}

size_t qkv_workspace_size(const qkv_plan *plan, int32_t n_workers)
{
    const size_t workers = n_workers < 1 ? 1 : (size_t)n_workers;
    return workers * (plan->lanes_bytes + plan->scratch_bytes + plan->own_state_bytes) +
           (size_t)plan->n_slots * plan->state_bytes;
}

const char *qkv_plan_kernel(const qkv_plan *plan)
{
    const qkv_kernel *kernel = plan->decode;
    for (int64_t b = 0; b < plan->desc.n_seqs; b++)
        if (plan->seqs[b].kernel != plan->decode)
            kernel = plan->attend;
    return kernel->name;
}

/* Keys of [lo, hi] in blocks whose bit is set. */
static int64_t keys_in_blocks(const qkv_plan *plan, int64_t row_bit, qkv_range range)
{
    const int64_t size = plan->shape.block_k;
    int64_t keys = 0;

    for (int64_t j = range.lo; j <= range.hi;) {
        const int64_t kb = j / size;
        const int64_t end = (kb + 1) * size < range.hi + 1 ? (kb + 1) * size : range.hi + 1;
        if (qkv_block_bit(plan->block_bits, row_bit + kb))
            keys += end - j;
        j = end;
    }
    return keys;
}

int64_t qkv_plan_visible_pairs(const qkv_plan *plan)
{
    const qkv_desc *d = &plan->desc;
    int64_t pairs = 0;

    for (int64_t b = 0; b < d->n_seqs; b++) {
        const qkv_span *span = &plan->seqs[b].span;
        for (int64_t i = 0; i < span->q_len; i++) {
            const qkv_range range = qkv_visible_range(&plan->rules, span, i);
            if (range.hi < range.lo)
                continue;
            if (!plan->shape.block_k) {
                pairs += (range.hi - range.lo + 1) * d->n_q_heads;
                continue;
            }
            for (int64_t h = 0; h < d->n_q_heads; h++) {
                pairs += keys_in_blocks(plan, qkv_block_row(d, b, h, i), range);
            }
        }
    }
    return pairs;
}
