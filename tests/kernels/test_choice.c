/*
 * test_choice.c - which kernel the rows of a sequence get, by count.
 *
 * A vector of the attend kernel costs the same with one query in it as with all; a row of the
 * decode kernel costs more than its share of a full vector.  The table below says how much, in
 * thousandths of a vector, as measured on the machines that docs/performance.md names.  For every
 * number of rows that speculative decoding has, the way a plan cuts them must be about the
 * cheapest there is, and must read each key once.
 */
#include <stdio.h>
#include <string.h>

#include "choice.h"

enum { MOST_TOKENS = 16, MOST_ROWS = 256, HEADS = 2, KEYS = 2048 };

/* first: what the first vector costs beyond another, such as widening a block.  alone: how much
 * longer the decode kernel waits for keys that nobody had before it. */
static const struct kind {
    const char *name;
    qkv_type type;
    uint32_t tier;
    int row, alone, first;
} kinds[] = {
    {"f32", QKV_F32, QKV_CPU_AVX512, 83, 150, 90},
    {"f16", QKV_F16, QKV_CPU_AVX512, 81, 0, 240},
    {"bf16", QKV_BF16, QKV_CPU_AVX512_BF16, 91, 140, 255},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds, VECTOR = 1000 };

static const int32_t groups[] = {1, 2, 3, 4, 5, 7, 8, 12, 16};
enum { N_GROUPS = sizeof groups / sizeof *groups };

static qkv_desc problem(const struct kind *kind, int32_t group, int64_t tokens)
{
    qkv_desc d;
    qkv_desc_init(&d);
    d.n_seqs = 1;
    d.n_q_heads = HEADS * group;
    d.n_kv_heads = HEADS;
    d.q_len = tokens;
    d.kv_len = KEYS;
    d.head_dim = d.head_dim_v = 64;
    d.causal = QKV_CAUSAL_INCLUSIVE;
    d.cpu_mask = kind->tier | (kind->tier - 1); /* and what is below, but no AMX */
    d.cpu_mask &= ~(uint32_t)QKV_CPU_AMX;
    qkv_desc_dense(&d, kind->type, QKV_BHTD);
    return d;
}

const qkv_plan *choice_plan(const qkv_desc *d)
{
    const qkv_plan *plan = NULL;
    const size_t bytes = qkv_plan_size(d);
    t_check(qkv_plan_init(t_scratch(bytes), bytes, d, &plan) == QKV_OK, "no plan");
    return plan;
}

/* Rows by the attend kernel, whose vectors may be partly empty, and rows by the decode kernel. */
static int cost_of(const struct kind *kind, int64_t lanes, int64_t attend, int64_t decode)
{
    const int64_t vectors = (attend + lanes - 1) / lanes;
    const int once = vectors > 0 ? kind->first : kind->alone;
    return (int)(vectors * VECTOR + once + decode * kind->row);
}

/* Of all ways to give whole vectors and what is left to one of the two. */
static int least_cost(const struct kind *kind, const qkv_plan *plan, int64_t rows)
{
    const int64_t lanes = plan->attend->vector;
    int least = cost_of(kind, lanes, rows, 0);

    for (int64_t vectors = 0; vectors * lanes <= rows; vectors++) {
        const int64_t rest = rows - vectors * lanes;
        const int cost = cost_of(kind, lanes, vectors * lanes, rest);
        if (rest <= plan->decode->lanes && cost < least)
            least = cost;
    }
    return least;
}

static int chosen_cost(const struct kind *kind, const qkv_plan *plan, int64_t rows)
{
    const qkv_seq *seq = &plan->seqs[0];
    if (seq->kernel == plan->decode)
        return cost_of(kind, plan->attend->vector, 0, rows);
    return cost_of(kind, plan->attend->vector, rows - seq->rest, seq->rest);
}

/* Every row is in one tile, and tiles are whole vectors but for the last. */
static void check_tiles(const qkv_plan *plan, int64_t rows)
{
    const qkv_seq *seq = &plan->seqs[0];
    int64_t next = 0;

    for (int64_t block = 0; block < seq->blocks; block++) {
        const qkv_row_range range = qkv_rows_of_tile(plan, seq, block);
        const int last = block == seq->blocks - 1;
        const int64_t rest = last ? seq->rest : 0, n = range.end - range.from - rest;
        t_check(range.from == next && n >= 1 && n <= seq->kernel->lanes,
                "%lld rows: tile %lld has %lld .. %lld", (long long)rows, (long long)block,
                (long long)range.from, (long long)range.end);
        t_check(rest == 0 || n % seq->kernel->vector == 0, "%lld rows: a rest of %lld beside %lld",
                (long long)rows, (long long)rest, (long long)n);
        t_check(rest <= plan->decode->lanes, "a rest of %lld", (long long)rest);
        next = range.end;
    }
    t_check(next == rows, "tiles end at %lld of %lld", (long long)next, (long long)rows);
}

static int has_tier(const struct kind *kind)
{
    return (qkv_cpu_flags() & kind->tier) == kind->tier;
}

static void test_cheapest(void)
{
    for (int k = 0; k < N_KINDS; k++)
        for (int g = 0; g < N_GROUPS; g++) {
            if (!has_tier(&kinds[k]) || !t_case("%s, G = %d", kinds[k].name, (int)groups[g]))
                continue;
            for (int64_t t = 1; t <= MOST_TOKENS; t++) {
                const qkv_desc d = problem(&kinds[k], groups[g], t);
                const qkv_plan *plan = choice_plan(&d);
                const int64_t rows = t * groups[g];
                const int cost = chosen_cost(&kinds[k], plan, rows);
                const int least = least_cost(&kinds[k], plan, rows);
                t_check(100 * cost <= 103 * least,
                        "%lld rows cost %d and could cost %d (rest %lld)",
                        (long long)rows, cost, least, (long long)plan->seqs[0].rest);
                check_tiles(plan, rows);
            }
        }
}

/* More rows never cost less, and one row more never as much as a vector more, but where a vector
 * begins that is nearly full. */
static void test_no_cliff(void)
{
    for (int k = 0; k < N_KINDS; k++) {
        if (!has_tier(&kinds[k]) || !t_case("%s", kinds[k].name))
            continue;
        int before = 0;
        for (int64_t rows = 1; rows <= MOST_ROWS; rows++) {
            const qkv_desc d = problem(&kinds[k], 1, rows);
            const qkv_plan *plan = choice_plan(&d);
            const int cost = chosen_cost(&kinds[k], plan, rows);
            if (plan->seqs[0].streams == 0)
                break;
            t_check(cost >= before - kinds[k].row, "%lld rows cost %d, one less %d",
                    (long long)rows, cost, before);
            t_check(cost <= before + VECTOR / 2, "%lld rows cost %d, one less %d",
                    (long long)rows, cost, before);
            before = cost;
        }
    }
}

/* Up to a tile and what rides on it, each key is read once a key/value head. */
static void test_reads(void)
{
    for (int k = 0; k < N_KINDS; k++) {
        if (!has_tier(&kinds[k]) || !t_case("%s", kinds[k].name))
            continue;
        for (int64_t t = 1; t <= 64; t++) {
            const qkv_desc d = problem(&kinds[k], 1, t);
            const qkv_plan *plan = choice_plan(&d);
            const int64_t all = plan->attend->lanes + plan->attend->rest;
            if (t <= plan->attend->lanes || (t <= all && plan->seqs[0].rest > 0))
                t_check(qkv_plan_key_reads(plan) == (int64_t)HEADS * KEYS, "%lld rows read %lld",
                        (long long)t, (long long)qkv_plan_key_reads(plan));
        }
    }
}

/* A block mask chooses alike whether it is stored once or for each head; and a sequence chooses
 * by itself, whatever else is in the batch. */
static void test_own_choice(void)
{
    static uint8_t bits[MOST_ROWS];
    const int64_t lens[] = {1, 9, 16, 0, 3};

    memset(bits, 0xff, sizeof bits);
    for (int k = 0; k < N_KINDS; k++) {
        if (!has_tier(&kinds[k]) || !t_case("%s", kinds[k].name))
            continue;
        qkv_desc d = problem(&kinds[k], 3, 7);
        d.block_bits = bits;
        d.block_q = d.block_k = 64;
        d.block_stride[2] = KEYS / 64;
        const qkv_seq shared = choice_plan(&d)->seqs[0];
        d.block_stride[1] = d.block_stride[2];
        const qkv_seq own = choice_plan(&d)->seqs[0];
        t_check(shared.kernel == own.kernel && shared.rest == 0 && own.rest == 0, "block masks");

        int32_t q_lens[5];
        for (int b = 0; b < 5; b++)
            q_lens[b] = (int32_t)lens[b];
        qkv_desc all = problem(&kinds[k], 2, 16);
        all.n_seqs = 5;
        all.q_lens = q_lens;
        qkv_desc_dense(&all, kinds[k].type, QKV_BHTD);
        const qkv_plan *batch = choice_plan(&all);
        for (int b = 0; b < 5; b++) {
            const qkv_desc one = problem(&kinds[k], 2, lens[b]);
            const qkv_seq *x = &choice_plan(&one)->seqs[0], *y = &batch->seqs[b];
            t_check(x->kernel == y->kernel && x->rest == y->rest && x->parts == y->parts,
                    "sequence %d", b);
        }
    }
}

int main(int argc, char **argv)
{
    static const t_test tests[] = {{"cheapest", test_cheapest},
                                   {"no_cliff", test_no_cliff},
                                   {"reads", test_reads},
                                   {"own_choice", test_own_choice},
                                   {"bits", test_bits}};
    return t_main(argc, argv, "choice", tests, (int)(sizeof tests / sizeof *tests));
}
