/* rotation.c - tensors turned, against the formula. */
#include <math.h>
#include <string.h>

#include "rope_test.h"

static const int32_t types[] = {QKV_F32, QKV_F16, QKV_BF16, QKV_F64};

typedef struct problem {
    qkv_rope rope;
    double factors[2][N_FACTORS];
    qkv_rope_args args;
    tensor x, y;
    int64_t *positions; /* [B][T] or [T] */
    int in_place;
} problem;

static double half_unit(int32_t type)
{
    return type == QKV_F64   ? 0x1p-53
           : type == QKV_F32 ? 0x1p-24
           : type == QKV_F16 ? 0x1p-11
                             : 0x1p-8;
}

static void make_positions(t_rng *rng, problem *p)
{
    const int per_seq = t_chance(rng, 70);
    const int64_t n = (per_seq ? p->args.n_seqs : 1) * p->args.n_tokens;

    p->positions = t_alloc((size_t)n * 8, 8, T_END, 0x77);
    for (int64_t i = 0; i < n; i++)
        p->positions[i] = t_below(rng, (int64_t)1 << t_below(rng, 18)) -
                          (t_chance(rng, 10) ? 50 : 0);
    p->args.positions = p->positions;
    p->args.position_stride[0] = per_seq ? p->args.n_tokens : 0;
}

static void make_problem(t_rng *rng, problem *p, int32_t x_type, int32_t y_type)
{
    random_rope(rng, &p->rope, p->factors);
    p->rope.short_factor = p->factors[0];
    p->rope.long_factor = p->factors[1];
    qkv_rope_args *a = &p->args;
    qkv_rope_args_init(a);
    a->n_seqs = (int32_t)t_between(rng, 1, 3);
    a->n_heads = (int32_t)t_between(rng, 1, 4);
    a->n_tokens = t_between(rng, 1, 9);
    a->inverse = t_chance(rng, 30);
    const int64_t n[4] = {a->n_seqs, a->n_heads, a->n_tokens, p->rope.head_dim};
    make_tensor(rng, &p->x, x_type, n, (int)t_below(rng, 3), (int)t_below(rng, 2));
    p->in_place = x_type == y_type && t_chance(rng, 50);
    if (p->in_place)
        p->y = p->x;
    else
        make_tensor(rng, &p->y, y_type, n, (int)t_below(rng, 3), (int)t_below(rng, 2));
    a->x_layout = p->x.layout;
    a->y_layout = p->y.layout;
    if (p->in_place && t_chance(rng, 50))
        a->y_layout.type = QKV_NONE;
    a->x = p->x.base;
    a->y = p->y.base;
    make_positions(rng, p);
}

/* What length a sequence's angles go by. */
static int64_t length_of(const problem *p, int64_t b)
{
    int64_t length = 0;
    for (int64_t t = 0; t < p->args.n_tokens; t++) {
        const int64_t at = p->positions[b * p->args.position_stride[0] + t];
        length = at >= length ? at + 1 : length;
    }
    return p->args.seq_len == QKV_ROPE_AUTO ? length : p->args.seq_len;
}

static void check_row(const problem *p, const tensor *before, int64_t b, int64_t h, int64_t t)
{
    double x[MAX_DIM];
    long double want[MAX_DIM];
    const qkv_rope *r = &p->rope;
    const int32_t y_type = p->y.layout.type;
    const int64_t length = length_of(p, b);
    const int64_t at = p->positions[b * p->args.position_stride[0] + t];
    const double unit = half_unit(y_type) + 3 * half_unit(y_type == QKV_F64 ? QKV_F64 : QKV_F32);

    for (int c = 0; c < r->head_dim; c++)
        x[c] = tensor_get(before, b, h, t, c);
    oracle_row(r, length, at, p->args.inverse, x, want);
    char turns[MAX_DIM] = {0};
    for (int i = 0; i < oracle_rotary_dim(r) / 2; i++) {
        int pair[2];
        oracle_pair(r, i, &pair[0], &pair[1]);
        const long double size = oracle_factor(r) * (fabs(x[pair[0]]) + fabs(x[pair[1]]));
        const long double angle = fabsl(at * oracle_frequency(r, length, i));
        for (int k = 0; k < 2; k++) {
            const double have = tensor_get(&p->y, b, h, t, pair[k]);
            turns[pair[k]] = 1;
            t_check(fabsl(have - want[pair[k]]) <= size * (unit + oracle_slack(r) * angle) +
                                                       (y_type == QKV_F16 ? 0x1p-24L : 0),
                    "b %d h %d t %d channel %d is %.9g, not %.9Lg", (int)b, (int)h, (int)t, pair[k],
                    have, want[pair[k]]);
        }
    }
    const size_t size = qkv_type_size((qkv_type)y_type);
    for (int c = 0; c < r->head_dim; c++) {
        char passed[8];
        qkv_convert(passed, (qkv_type)y_type, (char *)before->base + tensor_at(before, b, h, t, c),
                    (qkv_type)before->layout.type, 1);
        t_check(turns[c] ||
                    memcmp(passed, (char *)p->y.base + tensor_at(&p->y, b, h, t, c), size) == 0,
                "b %d h %d t %d channel %d does not turn, and changed", (int)b, (int)h, (int)t, c);
    }
}

/* The tensor as it is, elsewhere. */
static tensor copy_of(const tensor *t)
{
    tensor copy = *t;
    copy.memory = t_scratch(t->bytes);
    memcpy(copy.memory, t->memory, t->bytes);
    copy.base = (char *)copy.memory + ((char *)t->base - (char *)t->memory);
    return copy;
}

static void call(void *arg)
{
    const problem *p = arg;
    qkv_rope_run(&p->rope, &p->args, NULL);
}

void test_rotation(void)
{
    for (int k = 0; k < t_times(400); k++) {
        t_rng rng = t_rng_of(t_seed() + 1000 + (uint64_t)k);
        problem p;
        char text[256];
        const int32_t x_type = types[k % 4];
        const int32_t y_type = x_type == QKV_F64 || k % 8 < 4 ? x_type : types[k / 8 % 3];
        if (!t_case("%s_%s_%d", qkv_type_name((qkv_type)x_type), qkv_type_name((qkv_type)y_type),
                    k))
            continue;
        make_problem(&rng, &p, x_type, y_type);
        if (t_chance(&rng, 30))
            p.args.seq_len = t_below(&rng, 9000);
        const tensor before = copy_of(&p.x);
        if (!p.in_place)
            t_protect(p.x.memory);
        t_protect(p.positions);
        t_check(qkv_rope_args_check(&p.rope, &p.args, text, sizeof text) == QKV_OK, "%s", text);
        if (t_failed())
            continue;
        t_call(call, &p);
        for (int64_t b = 0; b < p.args.n_seqs; b++)
            for (int64_t h = 0; h < p.args.n_heads; h++)
                for (int64_t t = 0; t < p.args.n_tokens; t++)
                    check_row(&p, &before, b, h, t);
    }
}
