/* problem.c - see problem.h.  Shapes are checked here, where the files' names are known; what a
 * descriptor may say is left to the plan. */
#include "problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- q, k, v ------------------------------------------------------------------------------ */

/* A tensor seen as [B,H,T,D]; packed ones have B = 1 and all rows in T. */
typedef struct view {
    int64_t n[4], stride[4];
} view;

static int view_tensor(const qkv_tensor *t, cli_input input, int packed, view *out)
{
    char shape[CLI_SHAPE];
    if (packed ? t->rank != 3 : t->rank < 2 || t->rank > 4)
        return cli_complain(
            "%s has shape %s; accepted %s", cli_input_tensor(input), cli_shape_text(t, shape),
            packed ? "with cu_seqlens is [T,H,D]" : "are [B,H,T,D], [H,T,D] and [T,D]");
    int64_t step = 1;
    for (int r = 3; r >= 0; r--) {
        const int from = t->rank - 4 + r;
        out->n[r] = from >= 0 ? t->shape[from] : 1;
        out->stride[r] = step;
        step *= out->n[r] > 0 ? out->n[r] : 1; /* no stride of an empty tensor is 0 */
        if (out->n[r] > INT32_MAX)
            return cli_complain("%s has shape %s; accepted are dimensions up to %d",
                                cli_input_tensor(input), cli_shape_text(t, shape), INT32_MAX);
    }
    if (packed) {
        /* [T,H,D] was read as [1,T,H,D]: tokens and heads change places. */
        const view v = *out;
        out->n[1] = v.n[2], out->stride[1] = v.stride[2];
        out->n[2] = v.n[1], out->stride[2] = v.stride[1];
    }
    return CLI_DONE;
}

static int same(const cli_problem *p, cli_input a, const view *x, cli_input b, const view *y, int r,
                const char *what)
{
    char s[CLI_SHAPE], t[CLI_SHAPE];
    if (x->n[r] == y->n[r])
        return CLI_DONE;
    return cli_complain(
        "%s has %lld %s (shape %s) and %s has %lld (shape %s); they must be the same",
        cli_input_tensor(a), (long long)x->n[r], what, cli_shape_text(&p->in[a], s),
        cli_input_tensor(b), (long long)y->n[r], cli_shape_text(&p->in[b], t));
}

static qkv_layout layout_of(const qkv_tensor *t, const view *v)
{
    qkv_layout layout = {t->type, 0, {v->stride[0], v->stride[1], v->stride[2], v->stride[3]}};
    return layout;
}

/* Packed rows: checks cu_seqlens against the tensor's rows; *n_seqs sequences, *longest tokens. */
static int check_cu(const cli_problem *p, cli_input input, const view *rows, int64_t *n_seqs,
                    int64_t *longest)
{
    const qkv_tensor *t = &p->in[input];
    const char *name = cli_input_tensor(input);
    char shape[CLI_SHAPE];
    if (t->rank != 1 || t->shape[0] < 1 || t->shape[0] > INT32_MAX)
        return cli_complain("%s has shape %s; accepted is [B+1]", name, cli_shape_text(t, shape));
    const int64_t *cu = t->data;
    *n_seqs = t->shape[0] - 1;
    *longest = 0;
    for (int64_t b = 0; b <= *n_seqs; b++) {
        if (cu[b] < (b > 0 ? cu[b - 1] : 0) || cu[b] > rows->n[2])
            return cli_complain(
                "%s[%lld] is %lld; accepted are ascending row numbers from 0 to %lld, "
                "the rows there are",
                name, (long long)b, (long long)cu[b], (long long)rows->n[2]);
        if (b > 0 && cu[b] - cu[b - 1] > *longest)
            *longest = cu[b] - cu[b - 1];
    }
    return CLI_DONE;
}

static int describe_qkv(cli_problem *p)
{
    view q, k, v;
    qkv_desc *d = &p->desc;
    const int packed_q = p->in[CLI_CU_SEQLENS_Q].type != QKV_NONE;
    const int packed_k = p->in[CLI_CU_SEQLENS_K].type != QKV_NONE;
    if (view_tensor(&p->in[CLI_Q], CLI_Q, packed_q, &q) != CLI_DONE ||
        view_tensor(&p->in[CLI_K], CLI_K, packed_k, &k) != CLI_DONE ||
        view_tensor(&p->in[CLI_V], CLI_V, packed_k, &v) != CLI_DONE ||
        same(p, CLI_V, &v, CLI_K, &k, 0, "sequences") != CLI_DONE ||
        same(p, CLI_V, &v, CLI_K, &k, 1, "heads") != CLI_DONE ||
        same(p, CLI_V, &v, CLI_K, &k, 2, "tokens") != CLI_DONE ||
        same(p, CLI_K, &k, CLI_Q, &q, 3, "channels") != CLI_DONE)
        return CLI_WRONG;

    int64_t seqs_q = q.n[0], seqs_k = k.n[0], q_len = q.n[2], kv_len = k.n[2];
    if (packed_q && check_cu(p, CLI_CU_SEQLENS_Q, &q, &seqs_q, &q_len) != CLI_DONE)
        return CLI_WRONG;
    if (packed_k && check_cu(p, CLI_CU_SEQLENS_K, &k, &seqs_k, &kv_len) != CLI_DONE)
        return CLI_WRONG;
    if (seqs_q != seqs_k)
        return cli_complain("q has %lld sequences and k has %lld; they must be the same",
                            (long long)seqs_q, (long long)seqs_k);
    d->n_seqs = (int32_t)seqs_q;
    d->n_q_heads = (int32_t)q.n[1];
    d->n_kv_heads = (int32_t)k.n[1];
    d->head_dim = (int32_t)q.n[3];
    d->head_dim_v = (int32_t)v.n[3];
    d->q_len = q_len;
    d->kv_len = kv_len;
    d->q = layout_of(&p->in[CLI_Q], &q);
    d->k = layout_of(&p->in[CLI_K], &k);
    d->v = layout_of(&p->in[CLI_V], &v);
    d->cu_seqlens_type = QKV_I64;
    d->cu_seqlens_q = packed_q ? p->in[CLI_CU_SEQLENS_Q].data : NULL;
    d->cu_seqlens_k = packed_k ? p->in[CLI_CU_SEQLENS_K].data : NULL;
    p->args.q = p->in[CLI_Q].data;
    p->args.k = p->in[CLI_K].data;
    p->args.v = p->in[CLI_V].data;
    p->rank = p->in[CLI_Q].rank;
    return CLI_DONE;
}

/* ---- lengths ------------------------------------------------------------------------------ */

/* [B] or one number for all sequences. */
static int describe_lengths(cli_problem *p, cli_input input, const int32_t **field)
{
    const qkv_tensor *t = &p->in[input];
    const int64_t n_seqs = p->desc.n_seqs;
    char shape[CLI_SHAPE];
    if (t->type == QKV_NONE)
        return CLI_DONE;
    if (t->rank > 1 || (t->rank == 1 && t->shape[0] != n_seqs))
        return cli_complain("%s has shape %s; accepted are one number and [%lld], one a sequence",
                            cli_input_tensor(input), cli_shape_text(t, shape), (long long)n_seqs);
    p->lengths[input] = malloc(((size_t)n_seqs + 1) * sizeof(int32_t));
    if (p->lengths[input] == NULL)
        return cli_complain_memory(cli_input_tensor(input), (size_t)n_seqs * sizeof(int32_t));
    for (int64_t b = 0; b < n_seqs; b++) {
        const int64_t value = ((const int64_t *)t->data)[t->rank == 1 ? b : 0];
        if (value < INT32_MIN || value > INT32_MAX)
            return cli_complain("%s[%lld] is %lld; accepted are numbers that fit 32 bits",
                                cli_input_tensor(input), (long long)b, (long long)value);
        p->lengths[input][b] = (int32_t)value;
    }
    *field = p->lengths[input];
    return CLI_DONE;
}

/* ---- what broadcasts ---------------------------------------------------------------------- */

/* NumPy's rule: dimensions from the right; missing ones and those of 1 repeat. */
static int broadcast(const qkv_tensor *t, cli_input input, const char *what, int32_t rank,
                     const int64_t *full, int64_t *stride)
{
    char shape[CLI_SHAPE];
    int64_t step = 1;
    int ok = t->rank <= rank;
    for (int32_t r = rank - 1; r >= 0 && ok; r--) {
        const int32_t from = t->rank - rank + r;
        const int64_t n = from >= 0 ? t->shape[from] : 1;
        stride[r] = n == 1 ? 0 : step;
        step *= n;
        ok = n == 1 || n == full[r];
    }
    if (ok)
        return CLI_DONE;
    qkv_tensor whole = {0};
    whole.rank = rank;
    memcpy(whole.shape, full, (size_t)rank * sizeof *full);
    char whole_text[CLI_SHAPE];
    return cli_complain("%s has shape %s; accepted is what broadcasts to %s = %s",
                        cli_input_tensor(input), cli_shape_text(t, shape), what,
                        cli_shape_text(&whole, whole_text));
}

static int describe_optional(cli_problem *p, cli_input input, const char *what, int32_t rank,
                             qkv_layout *layout, const void **pointer)
{
    const qkv_desc *d = &p->desc;
    const qkv_tensor *t = &p->in[input];
    const int64_t full[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    if (t->type == QKV_NONE)
        return CLI_DONE;
    if (input == CLI_MASK && t->type != QKV_BOOL)
        return cli_complain(
            "mask has type %s; accepted is bool (or u1), not 0 where visible; numbers "
            "to be added to the scores are --bias",
            qkv_type_name((qkv_type)t->type));
    layout->type = t->type;
    *pointer = t->data;
    return broadcast(t, input, what, rank, full, layout->stride);
}

/* [B|1,Hq|1,nqb,nkb], one byte a block, to bits. */
static int describe_blocks(cli_problem *p, const cli_options *options)
{
    qkv_desc *d = &p->desc;
    const qkv_tensor *t = &p->in[CLI_BLOCK_MASK];
    d->block_q = options->block_q;
    d->block_k = options->block_k;
    if (t->type == QKV_NONE)
        return CLI_DONE;
    if (t->type != QKV_BOOL)
        return cli_complain("block_mask has type %s; accepted is bool (or u1)",
                            qkv_type_name((qkv_type)t->type));
    const int64_t n_qb = (d->q_len + d->block_q - 1) / d->block_q;
    const int64_t n_kb = (d->kv_len + d->block_k - 1) / d->block_k;
    const int64_t full[4] = {d->n_seqs, d->n_q_heads, n_qb, n_kb};
    int64_t stride[4];
    if (broadcast(t, CLI_BLOCK_MASK, "[B,Hq,query blocks,key blocks]", 4, full, stride) != CLI_DONE)
        return CLI_WRONG;

    /* A bit for each byte of the file, in its order; a repeated row or block gets its own bits,
     * because keys have no stride of their own. */
    const int64_t n_b = stride[0] ? d->n_seqs : 1, n_h = stride[1] ? d->n_q_heads : 1;
    int64_t bits;
    if (__builtin_mul_overflow(n_b * n_h, n_qb * n_kb, &bits))
        return cli_complain("block_mask repeats over more blocks than 64 bits count");
    const size_t bytes = (size_t)bits / 8 + 1;
    p->block_bits = calloc(bytes, 1);
    if (p->block_bits == NULL)
        return cli_complain_memory("block_mask", bytes);
    int64_t bit = 0;
    for (int64_t b = 0; b < n_b; b++)
        for (int64_t h = 0; h < n_h; h++)
            for (int64_t i = 0; i < n_qb; i++)
                for (int64_t j = 0; j < n_kb; j++, bit++)
                    if (((const uint8_t *)t
                             ->data)[b * stride[0] + h * stride[1] + i * stride[2] + j * stride[3]])
                        p->block_bits[bit / 8] |= (uint8_t)(1u << bit % 8);
    d->block_bits = p->block_bits;
    d->block_stride[2] = n_kb;
    d->block_stride[1] = stride[1] ? n_qb * n_kb : 0;
    d->block_stride[0] = stride[0] ? n_h * n_qb * n_kb : 0;
    return CLI_DONE;
}

/* ---- all inputs --------------------------------------------------------------------------- */

static void describe_options(qkv_desc *d, const cli_options *options)
{
    d->cpu_mask = options->cpu_mask;
    d->precision = options->precision;
    d->causal = options->causal;
    d->align = options->align;
    d->stage = options->stage;
    d->window_left = options->window_left;
    d->window_right = options->window_right;
    d->scale = options->scale;
    d->softcap = options->softcap;
}

int cli_problem_load(cli_problem *problem, const cli_options *options)
{
    memset(problem, 0, sizeof *problem);
    qkv_desc *d = &problem->desc;
    qkv_args *a = &problem->args;
    qkv_desc_init(d);
    qkv_args_init(a);
    if (cli_load_inputs(options, problem->in) != CLI_DONE)
        return CLI_WRONG;
    for (int i = CLI_Q; i <= CLI_V; i++)
        if (problem->in[i].type == QKV_NONE)
            return cli_complain(
                "there is no %s: give --%s FILE, or --in FILE.safetensors that holds it",
                cli_input_tensor((cli_input)i), cli_input_option((cli_input)i));
    describe_options(d, options);
    if (describe_qkv(problem) != CLI_DONE ||
        describe_lengths(problem, CLI_Q_LENS, &d->q_lens) != CLI_DONE ||
        describe_lengths(problem, CLI_KV_LENS, &d->kv_lens) != CLI_DONE ||
        describe_lengths(problem, CLI_KV_STARTS, &d->kv_starts) != CLI_DONE ||
        describe_lengths(problem, CLI_Q_OFFSET, &d->q_offsets) != CLI_DONE ||
        describe_optional(problem, CLI_MASK, "[B,Hq,Tq,Tk]", 4, &d->mask, &a->mask) != CLI_DONE ||
        describe_optional(problem, CLI_BIAS, "[B,Hq,Tq,Tk]", 4, &d->bias, &a->bias) != CLI_DONE ||
        describe_optional(problem, CLI_SINKS, "[B,Hq]", 2, &d->sinks, &a->sinks) != CLI_DONE ||
        describe_optional(problem, CLI_ALIBI, "[B,Hq]", 2, &d->slopes, &a->slopes) != CLI_DONE)
        return CLI_WRONG;
    return describe_blocks(problem, options);
}

/* ---- outputs ------------------------------------------------------------------------------ */

static int new_output(qkv_tensor *t, const char *name, qkv_type type, int32_t rank,
                      const int64_t *full)
{
    const qkv_status status = qkv_tensor_alloc(t, type, rank, full);
    if (status == QKV_OK)
        return CLI_DONE;
    int64_t bytes = (int64_t)qkv_type_size(type);
    for (int32_t r = 0; r < rank; r++)
        if (__builtin_mul_overflow(bytes, full[r], &bytes))
            return cli_complain("%s would have more bytes than 64 bits count", name);
    return cli_complain("not enough memory for %s: %lld bytes", name, (long long)bytes);
}

static void set_strides(qkv_layout *layout, int32_t type, int64_t s0, int64_t s1, int64_t s2,
                        int64_t s3)
{
    *layout = (qkv_layout){type, 0, {s0, s1, s2, s3}};
}

/* Strides are never 0, even if nothing is there to step over. */
static int64_t at_least_one(int64_t n) { return n > 0 ? n : 1; }

static int output_lse(cli_problem *p, qkv_type type)
{
    qkv_desc *d = &p->desc;
    const int64_t n_h = d->n_q_heads;
    if (d->cu_seqlens_q != NULL) {
        /* Packed like q, heads first: [Hq,T]. */
        const int64_t rows = p->in[CLI_Q].shape[0], shape[2] = {n_h, rows};
        set_strides(&d->lse, (int32_t)type, 0, at_least_one(rows), 1, 0);
        return new_output(&p->lse, "lse", type, 2, shape);
    }
    const int64_t shape[3] = {d->n_seqs, n_h, d->q_len};
    const int64_t head = at_least_one(d->q_len);
    set_strides(&d->lse, (int32_t)type, n_h * head, head, 1, 0);
    return new_output(&p->lse, "lse", type, p->rank - 1, shape + 4 - p->rank);
}

static int output_weights(cli_problem *p, qkv_type type)
{
    qkv_desc *d = &p->desc;
    const int64_t shape[4] = {d->n_seqs, d->n_q_heads, d->q_len, d->kv_len};
    const int32_t rank = d->cu_seqlens_q != NULL ? 4 : p->rank;
    const int64_t row = at_least_one(d->kv_len), head = at_least_one(d->q_len) * row;
    set_strides(&d->weights, (int32_t)type, d->n_q_heads * head, head, row, 1);
    return new_output(&p->weights, "weights", type, rank, shape + 4 - rank);
}

int cli_problem_outputs(cli_problem *problem, int want_lse, int want_weights)
{
    qkv_desc *d = &problem->desc;
    const qkv_type type = (qkv_type)problem->in[CLI_Q].type;
    const qkv_type wide = type == QKV_F64 ? QKV_F64 : QKV_F32;
    const int64_t n_h = d->n_q_heads, dv = d->head_dim_v;
    int code;
    if (d->cu_seqlens_q != NULL) {
        const int64_t shape[3] = {problem->in[CLI_Q].shape[0], n_h, dv};
        set_strides(&d->o, (int32_t)type, 0, dv, n_h * dv, 1);
        code = new_output(&problem->o, "o", type, 3, shape);
    } else {
        const int64_t shape[4] = {d->n_seqs, n_h, d->q_len, dv};
        const int64_t head = at_least_one(d->q_len) * dv;
        set_strides(&d->o, (int32_t)type, n_h * head, head, dv, 1);
        code = new_output(&problem->o, "o", type, problem->rank, shape + 4 - problem->rank);
    }
    if (code == CLI_DONE && want_lse)
        code = output_lse(problem, wide);
    if (code == CLI_DONE && want_weights)
        code = output_weights(problem, wide);
    problem->args.o = problem->o.data;
    problem->args.lse = problem->lse.data;
    problem->args.weights = problem->weights.data;
    return code;
}

void cli_problem_free(cli_problem *problem)
{
    for (int i = 0; i < CLI_N_INPUTS; i++) {
        qkv_tensor_free(&problem->in[i]);
        free(problem->lengths[i]);
    }
    qkv_tensor_free(&problem->o);
    qkv_tensor_free(&problem->lse);
    qkv_tensor_free(&problem->weights);
    free(problem->block_bits);
    memset(problem, 0, sizeof *problem);
}
