/* t_describe.c - random descriptors: sizes, types, lengths, masks. */
#include <stdio.h>
#include <string.h>

#include "t_problem.h"

t_limits t_limits_all(void)
{
    return (t_limits){.type = QKV_NONE, .max_len = 700, .max_dim = 300, .max_work = 3000000,
                      .max_seqs = 4, .max_heads = 12, .packed = 1, .lengths = 1, .positions = 1,
                      .masks = 1, .scores = 1, .layouts = T_ANY_LAYOUT, .outputs = 1, .strange = 1,
                      .fills = 1};
}

t_limits t_limits_plain(void)
{
    return (t_limits){.type = QKV_F32, .max_len = 200, .max_dim = 80, .max_work = 2000000,
                      .max_seqs = 2, .max_heads = 4};
}

const char *t_fill_name(int fill)
{
    static const char *const names[] = {"normal", "equal", "rising", "spike_last",
                                        "huge",   "vast",  "tiny",   "coarse",
                                        "constant"};
    return names[fill];
}

static int32_t any_type(t_rng *rng)
{
    static const int32_t types[] = {QKV_F32, QKV_F32, QKV_F16, QKV_BF16};
    return types[t_below(rng, 4)];
}

/* Sizes of interest: at and around multiples of vector widths and tiles, or anything. */
static int64_t any_size(t_rng *rng, int64_t low, int64_t high)
{
    static const int64_t centre[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512};
    int64_t n = t_between(rng, low, high);
    if (t_chance(rng, 60))
        n = centre[t_below(rng, 13)] + t_between(rng, -1, 1);
    return n < low ? low : n > high ? t_between(rng, low, high) : n;
}

static void choose_types(t_problem *p)
{
    qkv_desc *d = &p->desc;
    qkv_layout *four[] = {&d->q, &d->k, &d->v, &d->o};
    const int f64 = t_chance(&p->rng, 20), same = t_chance(&p->rng, 50);
    const int32_t one = any_type(&p->rng);

    for (int i = 0; i < 4; i++) {
        four[i]->type = f64 ? QKV_F64 : same ? one : any_type(&p->rng);
        if (p->limits.type != QKV_NONE)
            four[i]->type = p->limits.type;
    }
}

static void choose_sizes(t_problem *p)
{
    qkv_desc *d = &p->desc;
    const t_limits *l = &p->limits;
    t_rng *rng = &p->rng;

    d->n_seqs = (int32_t)t_between(rng, 1, l->max_seqs);
    if (t_chance(rng, 2) && l->lengths)
        d->n_seqs = 0;
    d->n_kv_heads = (int32_t)t_between(rng, 1, l->max_heads / 3 + 1);
    d->n_q_heads = d->n_kv_heads * (int32_t)t_between(rng, 1, l->max_heads / d->n_kv_heads);
    d->head_dim = (int32_t)any_size(rng, 1, l->max_dim);
    d->head_dim_v = t_chance(rng, 60) ? d->head_dim : (int32_t)any_size(rng, 1, l->max_dim);
    const int64_t small = t_chance(rng, 40) && l->lengths ? 0 : 1;
    d->q_len = t_chance(rng, 40) ? t_between(rng, small, 6) : any_size(rng, 1, l->max_len);
    d->kv_len = t_chance(rng, 30) ? d->q_len : any_size(rng, small, l->max_len);
    if (d->q_len <= 4 && t_chance(rng, 30)) /* long enough to be cut into parts */
        d->kv_len = t_between(rng, l->max_len / 2 + 1, 5 * l->max_len);
    /* Halve what is largest until the problem is affordable. */
    for (;;) {
        const int64_t pairs = d->q_len * d->kv_len * (d->head_dim + d->head_dim_v);
        if (pairs * d->n_seqs * d->n_q_heads <= l->max_work)
            return;
        if (d->n_q_heads > d->n_kv_heads && t_chance(rng, 50))
            d->n_q_heads = d->n_kv_heads;
        else if (d->n_seqs > 1)
            d->n_seqs--;
        else if (d->n_kv_heads > 1)
            d->n_q_heads = d->n_kv_heads = 1;
        else if (d->q_len > d->kv_len)
            d->q_len = (d->q_len + 1) / 2;
        else
            d->kv_len = (d->kv_len + 1) / 2;
    }
}

static int32_t *some_lens(t_problem *p, int64_t low, int64_t high)
{
    int32_t *lens = t_scratch(sizeof *lens * (size_t)(p->desc.n_seqs + 1));
    for (int32_t b = 0; b < p->desc.n_seqs; b++)
        lens[b] = (int32_t)(t_chance(&p->rng, 20) ? high : t_between(&p->rng, low, high));
    return lens;
}

/* n_seqs + 1 ascending row numbers; sets the longest length and lowers the total if asked. */
static const void *some_cu(t_problem *p, int64_t longest)
{
    const int32_t n = p->desc.n_seqs;
    int64_t *wide = t_scratch(sizeof *wide * (size_t)(n + 1));
    int32_t *narrow = t_scratch(sizeof *narrow * (size_t)(n + 1));

    wide[0] = t_chance(&p->rng, 30) ? t_below(&p->rng, 5) : 0;
    for (int32_t b = 0; b < n; b++)
        wide[b + 1] = wide[b] + (t_chance(&p->rng, 15) ? 0 : t_between(&p->rng, 0, longest));
    for (int32_t b = 0; b <= n; b++)
        narrow[b] = (int32_t)wide[b];
    return p->desc.cu_seqlens_type == QKV_I64 ? (const void *)wide : (const void *)narrow;
}

static void choose_lengths(t_problem *p)
{
    qkv_desc *d = &p->desc;
    t_rng *rng = &p->rng;

    d->cu_seqlens_type = t_chance(rng, 50) ? QKV_I32 : QKV_I64;
    if (p->limits.packed && t_chance(rng, 25))
        d->cu_seqlens_q = some_cu(p, d->q_len);
    if (p->limits.packed && t_chance(rng, d->cu_seqlens_q ? 80 : 10)) {
        const int together = d->cu_seqlens_q && d->q_len == d->kv_len && t_chance(rng, 50);
        d->cu_seqlens_k = together ? d->cu_seqlens_q : some_cu(p, d->kv_len);
    }
    if (!p->limits.lengths)
        return;
    if (!d->cu_seqlens_q && t_chance(rng, 30))
        d->q_lens = some_lens(p, 0, d->q_len);
    if (t_chance(rng, 40)) {
        int32_t *lens = some_lens(p, 0, d->kv_len);
        for (int32_t b = 0; d->cu_seqlens_k && b < d->n_seqs; b++)
            lens[b] = (int32_t)t_between(rng, 0, t_span_of(d, b).kv_len);
        d->kv_lens = lens;
    }
    if (t_chance(rng, 20))
        d->kv_starts = some_lens(p, 0, t_chance(rng, 20) ? d->kv_len : d->kv_len / 3);
}

static void choose_positions(t_problem *p)
{
    qkv_desc *d = &p->desc;
    t_rng *rng = &p->rng;

    if (t_chance(rng, 45))
        d->causal = t_chance(rng, 70) ? QKV_CAUSAL_INCLUSIVE : QKV_CAUSAL_STRICT;
    if (t_chance(rng, 40))
        d->align = QKV_ALIGN_TOP_LEFT;
    if (t_chance(rng, 25))
        d->window_left = t_chance(rng, 10) ? INT64_MAX : t_between(rng, 0, d->kv_len / 2 + 2);
    if (t_chance(rng, 20))
        d->window_right = t_chance(rng, 10) ? INT64_MAX : t_between(rng, 0, d->kv_len / 2 + 2);
    if (t_chance(rng, 25)) {
        int32_t *offsets = some_lens(p, -d->q_len / 2, d->kv_len);
        if (d->n_seqs > 0 && t_chance(rng, 5))
            offsets[0] = t_chance(rng, 50) ? INT32_MIN : INT32_MAX;
        d->q_offsets = offsets;
    }
}

static void choose_blocks(t_problem *p)
{
    qkv_desc *d = &p->desc;
    t_rng *rng = &p->rng;

    d->block_q = (int32_t)any_size(rng, 1, 80);
    d->block_k = (int32_t)any_size(rng, 1, 160);
    const int64_t rows = (d->q_len + d->block_q - 1) / d->block_q;
    const int64_t row = (d->kv_len + d->block_k - 1) / d->block_k + t_below(rng, 3);
    d->block_stride[2] = row;
    d->block_stride[1] = t_chance(rng, 50) ? 0 : rows * row;
    d->block_stride[0] = t_chance(rng, 50) ? 0 : d->n_q_heads * rows * row;
    const size_t bytes = (size_t)(d->n_seqs * d->n_q_heads * rows * row + row + 7) / 8 + 1;
    uint8_t *bits = t_scratch(bytes);
    const int density = (int)t_between(rng, 10, 90);
    memset(bits, 0, bytes);
    for (size_t i = 0; i < bytes * 8; i++)
        bits[i / 8] |= (uint8_t)(t_chance(rng, density) << i % 8);
    d->block_bits = bits;
}

static void choose_extras(t_problem *p)
{
    qkv_desc *d = &p->desc;
    t_rng *rng = &p->rng;
    const int f64 = d->q.type == QKV_F64;
    const int32_t output = f64 ? QKV_F64 : QKV_F32;

    if (p->limits.masks && t_chance(rng, 30))
        d->mask.type = QKV_BOOL;
    if (p->limits.masks && t_chance(rng, 30))
        d->bias.type = f64 && t_chance(rng, 60) ? QKV_F64 : any_type(rng);
    if (p->limits.masks && t_chance(rng, 20))
        choose_blocks(p);
    if (p->limits.scores) {
        if (t_chance(rng, 20))
            d->softcap = 0.5 + 40 * t_uniform(rng);
        if (t_chance(rng, 20))
            d->slopes.type = f64 && t_chance(rng, 60) ? QKV_F64 : any_type(rng);
        if (t_chance(rng, 25))
            d->sinks.type = f64 && t_chance(rng, 60) ? QKV_F64 : any_type(rng);
        if (t_chance(rng, 25))
            d->scale = t_chance(rng, 10) ? 0 : t_normal(rng) / 4;
    }
    if (!p->limits.outputs || t_chance(rng, 60))
        d->lse.type = output;
    if (p->limits.outputs && t_chance(rng, 20)) {
        d->weights.type = output;
        d->stage = (int32_t)t_below(rng, 4);
    }
}

void t_problem_describe(t_problem *p, uint64_t seed, const t_limits *limits)
{
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->rng = t_rng_of(seed);
    p->limits = *limits;
    qkv_desc_init(&p->desc);
    choose_types(p);
    choose_sizes(p);
    choose_lengths(p);
    if (limits->positions)
        choose_positions(p);
    choose_extras(p);
    p->fill = limits->fills && t_chance(&p->rng, 40) ? (int)t_below(&p->rng, T_N_FILLS) : T_NORMAL;
    t_problem_shape(p);
    t_problem_lay_out(p);
}

const char *t_problem_text(const t_problem *p)
{
    static char text[512];
    const qkv_desc *d = &p->desc;

    snprintf(text, sizeof text,
             "seed %llu: q %s k %s v %s o %s B%d Hq%d Hkv%d Tq%lld Tk%lld D%d Dv%d fill %s"
             "%s%s%s%s%s causal %d align %d window %lld,%lld%s%s%s%s%s%s softcap %g scale %g stage "
             "%d%s%s",
             (unsigned long long)p->seed, qkv_type_name((qkv_type)d->q.type),
             qkv_type_name((qkv_type)d->k.type), qkv_type_name((qkv_type)d->v.type),
             qkv_type_name((qkv_type)d->o.type), d->n_seqs, d->n_q_heads, d->n_kv_heads,
             (long long)d->q_len, (long long)d->kv_len, d->head_dim, d->head_dim_v,
             t_fill_name(p->fill), d->cu_seqlens_q ? " cu_q" : "", d->cu_seqlens_k ? " cu_k" : "",
             d->q_lens ? " q_lens" : "", d->kv_lens ? " kv_lens" : "",
             d->kv_starts ? " kv_starts" : "", d->causal, d->align, (long long)d->window_left,
             (long long)d->window_right, d->q_offsets ? " q_offsets" : "",
             d->mask.type ? " mask" : "", d->bias.type ? " bias" : "",
             d->sinks.type ? " sinks" : "", d->slopes.type ? " slopes" : "",
             d->block_bits ? " blocks" : "", d->softcap,
             d->scale == QKV_SCALE_DEFAULT ? 0 : d->scale, d->weights.type ? d->stage : -1,
             p->packed_qkv ? " packed_qkv" : "", p->v_is_k ? " v_is_k" : "");
    return text;
}
