/*
 * heatmap.c - the weights to be drawn.
 *
 * Only the heads that are drawn are computed: each is a problem of one sequence and one head,
 * whose tensors are those of the whole with moved base pointers.  By the library's promise its
 * bits are those of the whole.
 */
#include "heatmap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_HEADS 64

static const void *moved(const void *base, const qkv_layout *layout, int64_t b, int64_t h)
{
    if (base == NULL || layout->type == QKV_NONE)
        return base;
    return (const char *)base + (b * layout->stride[0] + h * layout->stride[1]) *
                                    (int64_t)qkv_type_size((qkv_type)layout->type);
}

/* Tokens of one sequence: by cu_seqlens, else by its length, else all. */
static int64_t tokens_of(const void *cu, const int32_t *lens, int64_t all, int64_t b)
{
    const int64_t *rows = cu;
    if (lens != NULL && lens[b] >= 0 && lens[b] <= all)
        return lens[b];
    return rows != NULL ? rows[b + 1] - rows[b] : all;
}

/* The one head's own bits, in whole bytes.  False if memory runs out. */
static int narrow_blocks(const qkv_desc *all, qkv_desc *one, int64_t b, int64_t h, uint8_t **bits)
{
    *bits = NULL;
    if (all->block_bits == NULL)
        return 1;
    const int64_t n_qb = (all->q_len + all->block_q - 1) / all->block_q;
    const int64_t n_kb = (all->kv_len + all->block_k - 1) / all->block_k;
    *bits = calloc((size_t)(n_qb * n_kb) / 8 + 1, 1);
    if (*bits == NULL)
        return 0;
    const int64_t from = b * all->block_stride[0] + h * all->block_stride[1];
    for (int64_t n = 0; n < n_qb * n_kb; n++) {
        const int64_t bit = from + n / n_kb * all->block_stride[2] + n % n_kb;
        if (all->block_bits[bit / 8] >> bit % 8 & 1)
            (*bits)[n / 8] |= (uint8_t)(1u << n % 8);
    }
    one->block_bits = *bits;
    one->block_stride[0] = one->block_stride[1] = 0;
    one->block_stride[2] = n_kb;
    return 1;
}

static void narrow(const cli_problem *p, int64_t b, int64_t h, qkv_desc *d, qkv_args *a)
{
    const int64_t group = p->desc.n_q_heads / p->desc.n_kv_heads, g = h / group;
    *d = p->desc;
    *a = p->args;
    d->n_seqs = d->n_q_heads = d->n_kv_heads = 1;
    d->stage = QKV_STAGE_WEIGHTS;
    d->lse.type = QKV_NONE;
    /* Packed tensors have no sequence stride: cu_seqlens finds the rows. */
    a->q = moved(a->q, &d->q, d->cu_seqlens_q != NULL ? 0 : b, h);
    a->k = moved(a->k, &d->k, d->cu_seqlens_k != NULL ? 0 : b, g);
    a->v = moved(a->v, &d->v, d->cu_seqlens_k != NULL ? 0 : b, g);
    a->mask = moved(a->mask, &d->mask, b, h);
    a->bias = moved(a->bias, &d->bias, b, h);
    a->sinks = moved(a->sinks, &d->sinks, b, h);
    a->slopes = moved(a->slopes, &d->slopes, b, h);
    if (d->cu_seqlens_q != NULL)
        d->cu_seqlens_q = (const int64_t *)d->cu_seqlens_q + b;
    if (d->cu_seqlens_k != NULL)
        d->cu_seqlens_k = (const int64_t *)d->cu_seqlens_k + b;
    const int32_t **lists[4] = {&d->q_lens, &d->kv_lens, &d->kv_starts, &d->q_offsets};
    for (int i = 0; i < 4; i++)
        if (*lists[i] != NULL)
            *lists[i] += b;
}

/* Runs one head; the o it has to compute too goes to scratch memory of all rows. */
static int compute(const cli_problem *p, int64_t b, int64_t h, qkv_tensor *weights)
{
    qkv_desc d;
    qkv_args a;
    uint8_t *bits = NULL;
    qkv_tensor o = {0};
    narrow(p, b, h, &d, &a);
    const int64_t rows = d.cu_seqlens_q != NULL ? p->in[CLI_Q].shape[0] : d.q_len;
    const int64_t o_shape[2] = {rows, d.head_dim_v}, w_shape[2] = {d.q_len, d.kv_len};
    const qkv_type type = d.q.type == QKV_F64 ? QKV_F64 : QKV_F32;
    d.o = (qkv_layout){(int32_t)type, 0, {0, 0, d.head_dim_v, 1}};
    d.weights = (qkv_layout){(int32_t)type, 0, {0, 0, d.kv_len > 0 ? d.kv_len : 1, 1}};
    int code = CLI_DONE;
    if (qkv_tensor_alloc(&o, type, 2, o_shape) != QKV_OK ||
        qkv_tensor_alloc(weights, type, 2, w_shape) != QKV_OK ||
        !narrow_blocks(&p->desc, &d, b, h, &bits))
        code = cli_complain("not enough memory for the weights of the heatmap, %lld x %lld",
                            (long long)d.q_len, (long long)d.kv_len);
    a.o = o.data;
    a.weights = weights->data;
    if (code == CLI_DONE)
        code = cli_run(&d, &a, NULL, NULL);
    qkv_tensor_free(&o);
    free(bits);
    return code;
}

/* The largest of each square of tokens; a NaN stays one. */
static void add_row(const cli_picture *picture, double *cells, int64_t query, const double *row)
{
    double *to = cells + query / picture->block * picture->columns;
    for (int64_t j = 0; j < picture->n_k; j++) {
        double *cell = &to[j / picture->block];
        if (isnan(row[j]) || row[j] > *cell)
            *cell = row[j];
    }
}

static int make_panel(const cli_problem *p, const cli_picture *picture, cli_panel *panel)
{
    qkv_tensor w = {0};
    int code = compute(p, picture->sequence, panel->head, &w);
    double *row = malloc((size_t)picture->n_k * sizeof *row);
    panel->cells = calloc((size_t)(picture->rows * picture->columns), sizeof *panel->cells);
    if (code == CLI_DONE && (row == NULL || panel->cells == NULL))
        code = cli_complain("not enough memory for the heatmap");
    for (int64_t i = 0; code == CLI_DONE && i < picture->n_q; i++) {
        const char *from =
            (const char *)w.data + i * p->desc.kv_len * (int64_t)qkv_type_size((qkv_type)w.type);
        (void)qkv_convert(row, QKV_F64, from, (qkv_type)w.type, (size_t)picture->n_k);
        add_row(picture, panel->cells, i, row);
    }
    qkv_tensor_free(&w);
    free(row);
    return code;
}

/* ---- what to draw ------------------------------------------------------------------------- */

/* "0", "0,3,5" or "all". */
static int choose_heads(const char *text, int64_t n_heads, int64_t heads[MOST_HEADS], int64_t *n)
{
    *n = 0;
    if (text != NULL && strcmp(text, "all") == 0) {
        for (; *n < n_heads && *n < MOST_HEADS; (*n)++)
            heads[*n] = *n;
        return CLI_DONE;
    }
    for (const char *p = text != NULL ? text : "0";;) {
        char *end;
        const long long h = strtoll(p, &end, 10);
        if (end == p || h < 0 || h >= n_heads || *n == MOST_HEADS || (*end != ',' && *end != '\0'))
            return cli_complain(
                "--heatmap-head is %s; accepted are all, and up to %d head numbers from "
                "0 to %lld with commas between",
                text != NULL ? text : "0", MOST_HEADS, (long long)n_heads - 1);
        heads[(*n)++] = h;
        if (*end == '\0')
            return CLI_DONE;
        p = end + 1;
    }
}

/* Reads the words of an axis and checks that there are enough. */
static int read_labels(const char *option, const char *path, int64_t need, char **text,
                       char ***words, int64_t *n)
{
    if (cli_load_words(path, text, words, n) != CLI_DONE)
        return CLI_WRONG;
    if (*n >= need)
        return CLI_DONE;
    return cli_complain("%s: %s holds %lld words; the sequence drawn has %lld tokens", option, path,
                        (long long)*n, (long long)need);
}

/* Position of query 0, as the library defines it. */
static int64_t first_position(const qkv_desc *d, int64_t b, int64_t n_q, int64_t n_k)
{
    if (d->q_offsets != NULL)
        return d->q_offsets[b];
    return d->align == QKV_ALIGN_TOP_LEFT ? 0 : n_k - n_q;
}

static int draw_to_file(const cli_picture *picture, const char *path)
{
    char *svg = NULL, text[CLI_TEXT];
    size_t bytes = 0;
    if (!cli_draw(picture, &svg, &bytes))
        return cli_complain("not enough memory for the heatmap");
    int code = CLI_DONE;
    if (qkv_file_write(path, svg, bytes, text, sizeof text) != QKV_OK)
        code = cli_complain("--heatmap: %s", text);
    free(svg);
    return code;
}

/* What stands on the axes, with the memory it lives in. */
typedef struct labels {
    char *text_k, *text_q, **words_k, **words_q;
    int64_t n_k, n_q;
} labels;

static int load_labels(const cli_options *options, labels *l, int64_t position,
                       cli_picture *picture)
{
    int code = CLI_DONE;
    if (options->labels != NULL)
        code = read_labels("--labels", options->labels, picture->n_k, &l->text_k, &l->words_k,
                           &l->n_k);
    if (code == CLI_DONE && options->labels_q != NULL)
        code = read_labels("--labels-q", options->labels_q, picture->n_q, &l->text_q, &l->words_q,
                           &l->n_q);
    picture->labels_k = l->words_k;
    picture->labels_q = l->words_q;
    /* Queries that stand at positions of keys carry the words of these keys. */
    if (l->words_q == NULL && l->words_k != NULL && position >= 0 &&
        position + picture->n_q <= l->n_k)
        picture->labels_q = l->words_k + position;
    return code;
}

static void free_labels(labels *l)
{
    free(l->words_k);
    free(l->words_q);
    free(l->text_k);
    free(l->text_q);
}

int cli_heatmap(const cli_problem *problem, const cli_options *options)
{
    const qkv_desc *d = &problem->desc;
    const int64_t b = options->heatmap_seq;
    int64_t heads[MOST_HEADS];
    cli_panel panels[MOST_HEADS] = {{0}};
    cli_picture picture = {0};
    if (b >= d->n_seqs)
        return cli_complain("--heatmap-seq is %lld; there are %d sequences, counted from 0",
                            (long long)b, (int)d->n_seqs);
    if (choose_heads(options->heatmap_heads, d->n_q_heads, heads, &picture.n_panels) != CLI_DONE)
        return CLI_WRONG;
    picture.sequence = b;
    picture.panels = panels;
    picture.n_q = tokens_of(d->cu_seqlens_q, d->q_lens, d->q_len, b);
    picture.n_k = tokens_of(d->cu_seqlens_k, d->kv_lens, d->kv_len, b);
    if (picture.n_q < 1 || picture.n_k < 1)
        return cli_complain(
            "--heatmap: sequence %lld has %lld queries and %lld keys: nothing to draw",
            (long long)b, (long long)picture.n_q, (long long)picture.n_k);
    cli_picture_size(&picture);

    labels l = {0};
    int code = load_labels(options, &l, first_position(d, b, picture.n_q, picture.n_k), &picture);
    for (int64_t i = 0; i < picture.n_panels && code == CLI_DONE; i++) {
        panels[i].head = heads[i];
        code = make_panel(problem, &picture, &panels[i]);
    }
    if (code == CLI_DONE)
        code = draw_to_file(&picture, options->heatmap);
    for (int64_t i = 0; i < MOST_HEADS; i++)
        free(panels[i].cells);
    free_labels(&l);
    return code;
}
