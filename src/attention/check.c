/*
 * attention/check.c - every reason to refuse a descriptor, each with its sentence.
 *
 * Checks run in an order in which later ones may rely on earlier ones: sizes before the arrays
 * that are indexed by them, arrays before the tensors whose extents follow from them.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "attention/internal.h"
#include "core/convert.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const qkv_status try_status = (call);                                                      \
        if (try_status != QKV_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

enum {
    MAX_DIM = QKV_MAX_HEAD_DIM,
    FIRST_DESC = offsetof(qkv_desc, page_tokens) /* bytes of the struct when it was shortest */
};
#define MAX_LEN ((int64_t)INT32_MAX)
#define MAX_BLOCK_BITS ((int64_t)1 << 40)

static qkv_status load(const qkv_desc *in, qkv_desc *full, qkv_say say)
{
    if (!in)
        REFUSE("desc is NULL");
    if (in->struct_size < FIRST_DESC)
        REFUSE("desc.struct_size is %u; it must be %u .. %u: call qkv_desc_init first",
               in->struct_size, (unsigned)FIRST_DESC, (unsigned)sizeof(qkv_desc));
    if (in->struct_size > sizeof(qkv_desc))
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "desc.struct_size is %u; this library (%s) knows fields up to %u: the "
                          "program was compiled with a newer header",
                          in->struct_size, qkv_version_string(), (unsigned)sizeof(qkv_desc));
    qkv_desc_init(full);
    memcpy(full, in, in->struct_size);
    full->struct_size = sizeof *full;
    return QKV_OK;
}

static qkv_status check_int(qkv_say say, const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        REFUSE("%s is %lld; it must be %lld .. %lld", name, (long long)value, (long long)low,
               (long long)high);
    return QKV_OK;
}

static qkv_status check_sizes(const qkv_desc *d, qkv_say say)
{
    TRY(check_int(say, "n_seqs", d->n_seqs, 0, INT32_MAX));
    TRY(check_int(say, "n_q_heads", d->n_q_heads, 1, INT32_MAX));
    TRY(check_int(say, "n_kv_heads", d->n_kv_heads, 1, INT32_MAX));
    if (d->n_q_heads % d->n_kv_heads != 0)
        REFUSE("n_kv_heads is %d; it must divide n_q_heads, which is %d", d->n_kv_heads,
               d->n_q_heads);
    TRY(check_int(say, "head_dim", d->head_dim, 1, MAX_DIM));
    TRY(check_int(say, "head_dim_v", d->head_dim_v, 1, MAX_DIM));
    TRY(check_int(say, "q_len", d->q_len, 0, MAX_LEN));
    TRY(check_int(say, "kv_len", d->kv_len, 0, MAX_LEN));
    return QKV_OK;
}

static qkv_status check_choices(qkv_desc *d, qkv_say say)
{
    TRY(check_int(say, "precision", d->precision, QKV_PRECISION_HIGHEST, QKV_PRECISION_MEDIUM));
    TRY(check_int(say, "causal", d->causal, QKV_CAUSAL_NONE, QKV_CAUSAL_STRICT));
    TRY(check_int(say, "align", d->align, QKV_ALIGN_BOTTOM_RIGHT, QKV_ALIGN_TOP_LEFT));
    TRY(check_int(say, "stage", d->stage, QKV_STAGE_SCORES, QKV_STAGE_WEIGHTS));
    TRY(check_int(say, "window_left", d->window_left, -1, INT64_MAX));
    TRY(check_int(say, "window_right", d->window_right, -1, INT64_MAX));
    if (d->scale == QKV_SCALE_DEFAULT)
        d->scale = 1 / sqrt((double)d->head_dim);
    if (!isfinite(d->scale))
        REFUSE("scale is %g; it must be finite, or QKV_SCALE_DEFAULT for 1/sqrt(head_dim)",
               d->scale);
    if (d->q.type != QKV_F64 && !isfinite((float)d->scale))
        REFUSE("scale is %g; it must fit an f32", d->scale);
    if (!(d->softcap >= 0 && isfinite(d->softcap)))
        REFUSE("softcap is %g; it must be finite and positive, or 0 for none", d->softcap);
    if (d->q.type != QKV_F64 && d->softcap > 0 &&
        !(isfinite((float)d->softcap) && (float)d->softcap > 0))
        REFUSE("softcap is %g; it must fit an f32", d->softcap);
    return QKV_OK;
}

static qkv_status check_main_types(const qkv_desc *d, qkv_say say)
{
    const char *names[] = {"q", "k", "v", "o"};
    const qkv_layout *layouts[] = {&d->q, &d->k, &d->v, &d->o};
    const int32_t dims[] = {d->head_dim, d->head_dim, d->head_dim_v, d->head_dim_v};

    for (int i = 0; i < 4; i++) {
        const int32_t type = layouts[i]->type;
        const int coded = (i == 1 || i == 2) && qkv_type_is_coded(type);
        if (!qkv_type_is_float(type) && !coded)
            REFUSE("%s.type is %d (%s); it must be f32, f16, bf16 or f64%s", names[i], type,
                   qkv_type_name((qkv_type)type),
                   i == 1 || i == 2 ? ", or codes: i8, u4, e4m3 or e5m2" : "");
        if ((type == QKV_F64) != (d->q.type == QKV_F64))
            REFUSE("%s.type is %s but q.type is %s; f64 goes only with f64 for all of q, k, v, o",
                   names[i], qkv_type_name((qkv_type)type), qkv_type_name((qkv_type)d->q.type));
        if (layouts[i]->stride[3] != 1 && dims[i] > 1)
            REFUSE("%s.stride[3] is %lld; channels must be contiguous (stride 1): copy the tensor "
                   "first",
                   names[i], (long long)layouts[i]->stride[3]);
    }
    return QKV_OK;
}

static qkv_status check_input_type(const qkv_desc *d, const qkv_layout *layout, const char *name,
                                   qkv_say say)
{
    if (layout->type == QKV_NONE)
        return QKV_OK;
    if (!qkv_type_is_float(layout->type))
        REFUSE("%s.type is %d (%s); it must be f32, f16, bf16, f64 or none", name, layout->type,
               qkv_type_name((qkv_type)layout->type));
    if (layout->type == QKV_F64 && d->q.type != QKV_F64)
        REFUSE("%s.type is f64 but q.type is %s; f64 goes only with f64", name,
               qkv_type_name((qkv_type)d->q.type));
    return QKV_OK;
}

static qkv_status check_output_type(const qkv_desc *d, const qkv_layout *layout, const char *name,
                                    qkv_say say)
{
    const int32_t compute = qkv_compute_type(d);
    if (layout->type != QKV_NONE && layout->type != compute)
        REFUSE("%s.type is %d (%s); it must be %s for q of type %s, or none", name, layout->type,
               qkv_type_name((qkv_type)layout->type), qkv_type_name((qkv_type)compute),
               qkv_type_name((qkv_type)d->q.type));
    return QKV_OK;
}

static qkv_status check_types(const qkv_desc *d, qkv_say say)
{
    TRY(check_main_types(d, say));
    if (d->mask.type != QKV_NONE && d->mask.type != QKV_BOOL)
        REFUSE("mask.type is %d (%s); it must be bool or none: numbers to be added are a bias",
               d->mask.type, qkv_type_name((qkv_type)d->mask.type));
    TRY(check_input_type(d, &d->bias, "bias", say));
    TRY(check_input_type(d, &d->sinks, "sinks", say));
    TRY(check_input_type(d, &d->slopes, "slopes", say));
    TRY(check_output_type(d, &d->lse, "lse", say));
    return check_output_type(d, &d->weights, "weights", say);
}

static qkv_status check_lens(const qkv_desc *d, const int32_t *lens, const char *name, int64_t most,
                             qkv_say say)
{
    for (int32_t b = 0; lens && b < d->n_seqs; b++)
        if (lens[b] < 0 || lens[b] > most)
            REFUSE("%s[%d] is %d; it must be 0 .. %lld", name, b, lens[b], (long long)most);
    return QKV_OK;
}

static qkv_status check_cu(const qkv_desc *d, const void *cu, const char *name, int64_t most,
                           const char *most_name, qkv_say say)
{
    if (!cu)
        return QKV_OK;
    if (qkv_cu_at(d, cu, 0) < 0)
        REFUSE("%s[0] is %lld; it must be 0 or more", name, (long long)qkv_cu_at(d, cu, 0));
    for (int32_t b = 0; b < d->n_seqs; b++) {
        const int64_t from = qkv_cu_at(d, cu, b), to = qkv_cu_at(d, cu, (int64_t)b + 1);
        if (to < from)
            REFUSE("%s[%d] is %lld, less than the %lld before it; the numbers must ascend", name,
                   b + 1, (long long)to, (long long)from);
        if (to - from > most)
            REFUSE("%s gives sequence %d %lld tokens; %s allows %lld", name, b,
                   (long long)(to - from), most_name, (long long)most);
    }
    return QKV_OK;
}

static qkv_status check_lengths(const qkv_desc *d, qkv_say say)
{
    if ((d->cu_seqlens_q || d->cu_seqlens_k) && d->cu_seqlens_type != QKV_I32 &&
        d->cu_seqlens_type != QKV_I64)
        REFUSE("cu_seqlens_type is %d (%s); it must be i32 or i64", d->cu_seqlens_type,
               qkv_type_name((qkv_type)d->cu_seqlens_type));
    if (d->q_lens && d->cu_seqlens_q)
        REFUSE("q_lens is given together with cu_seqlens_q, which already says the lengths");
    TRY(check_cu(d, d->cu_seqlens_q, "cu_seqlens_q", d->q_len, "q_len", say));
    TRY(check_cu(d, d->cu_seqlens_k, "cu_seqlens_k", d->kv_len, "kv_len", say));
    TRY(check_lens(d, d->q_lens, "q_lens", d->q_len, say));
    TRY(check_lens(d, d->kv_lens, "kv_lens", d->kv_len, say));
    TRY(check_lens(d, d->kv_starts, "kv_starts", d->kv_len, say));
    for (int32_t b = 0; d->kv_lens && d->cu_seqlens_k && b < d->n_seqs; b++) {
        const int64_t own = qkv_cu_at(d, d->cu_seqlens_k, (int64_t)b + 1) -
                            qkv_cu_at(d, d->cu_seqlens_k, b);
        if (d->kv_lens[b] > own)
            REFUSE("kv_lens[%d] is %d; cu_seqlens_k gives that sequence %lld keys", b,
                   d->kv_lens[b], (long long)own);
    }
    return QKV_OK;
}

static qkv_status check_blocks(const qkv_desc *d, qkv_say say)
{
    if (!d->block_bits)
        return QKV_OK;
    TRY(check_int(say, "block_q", d->block_q, 1, INT32_MAX));
    TRY(check_int(say, "block_k", d->block_k, 1, INT32_MAX));
    const int64_t counts[] = {d->n_seqs, d->n_q_heads, (d->q_len + d->block_q - 1) / d->block_q};
    const char *names[] = {"block_stride[0]", "block_stride[1]", "block_stride[2]"};
    for (int i = 0; i < 3; i++) {
        int64_t most = MAX_BLOCK_BITS;
        if (counts[i] > 1)
            most /= counts[i];
        TRY(check_int(say, names[i], d->block_stride[i], 0, most));
    }
    return QKV_OK;
}

static qkv_status check_pages(const qkv_desc *d, qkv_say say)
{
    const int64_t entries = d->page_tokens > 0 ? (d->kv_len + d->page_tokens - 1) / d->page_tokens : 0;

    TRY(check_int(say, "page_tokens", d->page_tokens, 0, INT32_MAX));
    if (d->page_tokens == 0)
        return QKV_OK;
    TRY(check_int(say, "n_pages", d->n_pages, 1, INT32_MAX));
    if (d->cu_seqlens_k)
        REFUSE("cu_seqlens_k is given together with page_tokens %d; pages say where keys are",
               d->page_tokens);
    TRY(check_int(say, "block_table_stride[0]", d->block_table_stride[0], 0, INT64_MAX >> 34));
    TRY(check_int(say, "block_table_stride[1]", d->block_table_stride[1], 0, INT64_MAX >> 34));
    for (int i = 0; i < 2; i++)
        if ((i == 0 ? d->n_seqs : d->n_kv_heads) > 1 && d->block_table_stride[i] != 0 &&
            d->block_table_stride[i] < entries)
            REFUSE("block_table_stride[%d] is %lld; kv_len %lld takes %lld pages of %d tokens, so "
                   "it must be that or more, or 0",
                   i, (long long)d->block_table_stride[i], (long long)d->kv_len,
                   (long long)entries, d->page_tokens);
    return QKV_OK;
}

/* Scales of k or v, and the default of their group. */
static qkv_status check_scales(const char *side, int32_t type, int32_t dim, const qkv_layout *scale,
                               const qkv_layout *min, int32_t *group, qkv_say say)
{
    if (!qkv_type_is_coded(type)) {
        if (scale->type != QKV_NONE || min->type != QKV_NONE)
            REFUSE("%s_scale or %s_min is given, but %s.type is %s; only codes have scales", side,
                   side, side, qkv_type_name((qkv_type)type));
        *group = 0;
        return QKV_OK;
    }
    if (scale->type != QKV_F32 && scale->type != QKV_F16)
        REFUSE("%s_scale.type is %s; codes of type %s need scales in f32 or f16", side,
               qkv_type_name((qkv_type)scale->type), qkv_type_name((qkv_type)type));
    if (min->type != (type == QKV_U4 ? scale->type : QKV_NONE))
        REFUSE("%s_min.type is %s; it must be %s for codes of type %s", side,
               qkv_type_name((qkv_type)min->type),
               type == QKV_U4 ? "that of the scales" : "none", qkv_type_name((qkv_type)type));
    if (*group == 0)
        *group = dim;
    if (*group < 1 || *group > dim || (type == QKV_U4 && *group % 2 && *group != dim))
        REFUSE("%s_group is %d; it must be 1 .. %d channels%s, or 0 for all", side, *group, dim,
               type == QKV_U4 ? ", an even number" : "");
    for (int i = 0; i < 4 && type == QKV_U4; i++)
        if (min->stride[i] != scale->stride[i])
            REFUSE("%s_min.stride[%d] is %lld; it must be that of %s_scale, %lld", side, i,
                   (long long)min->stride[i], side, (long long)scale->stride[i]);
    return QKV_OK;
}

static qkv_status check_codes(qkv_desc *d, qkv_say say)
{
    TRY(check_int(say, "rope_dim", d->rope_dim, 0, d->head_dim - 1));
    if ((d->rope_dim > 0) != (d->k_rope.type != QKV_NONE))
        REFUSE("k_rope.type is %s and rope_dim %d; give both or neither",
               qkv_type_name((qkv_type)d->k_rope.type), d->rope_dim);
    if (d->rope_dim > 0 && (!qkv_type_is_float(d->k_rope.type) || d->k_rope.type == QKV_F64 ||
                            d->q.type == QKV_F64))
        REFUSE("k_rope.type is %s and q.type %s; k_rope must be f32, f16 or bf16, and q not f64",
               qkv_type_name((qkv_type)d->k_rope.type), qkv_type_name((qkv_type)d->q.type));
    if (d->rope_dim > 1 && d->k_rope.stride[3] != 1)
        REFUSE("k_rope.stride[3] is %lld; channels must be contiguous (stride 1)",
               (long long)d->k_rope.stride[3]);
    TRY(check_scales("k", d->k.type, qkv_k_dim(d), &d->k_scale, &d->k_min, &d->k_group, say));
    return check_scales("v", d->v.type, d->head_dim_v, &d->v_scale, &d->v_min, &d->v_group, say);
}

static qkv_status check_tensors(const qkv_desc *d, qkv_say say)
{
    const qkv_rows rows = qkv_rows_of(d);
    qkv_named_layout tensors[QKV_N_TENSORS];

    qkv_tensors(d, &rows, tensors);
    for (int i = 0; i < QKV_N_TENSORS; i++) {
        const qkv_named_layout *t = &tensors[i];
        const int64_t *s = t->layout->stride;
        int64_t first, end;
        if (t->layout->type == QKV_NONE)
            continue;
        if (!qkv_extent_bytes(&t->extent, &first, &end))
            REFUSE("%s.stride is (%lld, %lld, %lld, %lld); the tensor would span more than 2^62 "
                   "bytes",
                   t->name, (long long)s[0], (long long)s[1], (long long)s[2], (long long)s[3]);
        if (t->output && !qkv_extent_is_injective(&t->extent))
            REFUSE("%s.stride is (%lld, %lld, %lld, %lld); an output must not have two elements in "
                   "one place",
                   t->name, (long long)s[0], (long long)s[1], (long long)s[2], (long long)s[3]);
    }
    return QKV_OK;
}

/* Windows wider than any distance between positions mean the same as that distance; cut there,
 * arithmetic on positions cannot overflow. */
static void cut_windows(qkv_desc *d)
{
    const int64_t widest = (int64_t)1 << 34;
    d->window_left = d->window_left > widest ? widest : d->window_left;
    d->window_right = d->window_right > widest ? widest : d->window_right;
}

qkv_status qkv_desc_check(const qkv_desc *in, qkv_desc *d, qkv_say say)
{
    TRY(load(in, d, say));
    TRY(check_sizes(d, say));
    TRY(check_choices(d, say));
    TRY(check_types(d, say));
    TRY(check_lengths(d, say));
    TRY(check_blocks(d, say));
    TRY(check_pages(d, say));
    TRY(check_codes(d, say));
    TRY(check_tensors(d, say));
    cut_windows(d);
    return qkv_accept(say);
}

qkv_status qkv_explain(const qkv_desc *desc, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_desc full;
    return qkv_desc_check(desc, &full, say);
}
