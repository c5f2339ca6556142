/* model/desc.c - the description of a layer's attention: defaults, checks, what follows from it. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/say.h"
#include "qkv/model.h"

#define LARGEST_WIDTH (1 << 20)
#define LARGEST_HEADS 65536
#define LARGEST_HEAD 1024

void qkv_layer_desc_init_sized(qkv_layer_desc *layer, size_t struct_size)
{
    qkv_layer_desc d;

    memset(&d, 0, sizeof d);
    d.struct_size = (uint32_t)(struct_size < sizeof d ? struct_size : sizeof d);
    d.kind = QKV_LAYER_ATTENTION;
    d.latent_norm = QKV_NORM_RMS;
    d.norm_eps = 1e-6;
    d.scale = NAN;
    d.causal = 1;
    d.window_left = d.window_right = QKV_UNBOUNDED;
    d.alibi_max_bias = 8;
    qkv_rope_init(&d.rope);
    d.rope.type = QKV_ROPE_NONE;
    memset(layer, 0, struct_size);
    memcpy(layer, &d, d.struct_size);
    if (struct_size > sizeof d)
        layer->struct_size = (uint32_t)struct_size;
}

/* ---- checks ------------------------------------------------------------------------------- */

/* What a field may be: an integer in [low, high]. */
typedef struct range {
    const char *name;
    int64_t value, low, high;
} range;

static qkv_status check_ranges(const range *ranges, size_t n, qkv_say say)
{
    for (size_t i = 0; i < n; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "%s is %lld; accepted are %lld to %lld",
                              ranges[i].name, (long long)ranges[i].value, (long long)ranges[i].low,
                              (long long)ranges[i].high);
    return QKV_OK;
}

#define CHECK_RANGES(list) check_ranges(list, sizeof(list) / sizeof(list)[0], say)

static qkv_status check_numbers(const qkv_layer_desc *l, qkv_say say)
{
    if (!(l->norm_eps >= 0 && isfinite(l->norm_eps)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "norm_eps is %g; accepted are finite numbers from 0", l->norm_eps);
    if (!(isnan(l->scale) || isfinite(l->scale)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "scale is %g; accepted are finite numbers, and NaN for the default",
                          l->scale);
    if (!(l->softcap >= 0 && isfinite(l->softcap)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "softcap is %g; accepted are finite numbers from 0 (none)", l->softcap);
    if (!(l->alibi_max_bias > 0 && isfinite(l->alibi_max_bias)))
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "alibi_max_bias is %g; accepted are finite numbers above 0",
                          l->alibi_max_bias);
    return QKV_OK;
}

/* Fields that every layer with attention has. */
static qkv_status check_common(const qkv_layer_desc *l, qkv_say say)
{
    const range list[] = {
        {"d_memory", l->d_memory, 0, LARGEST_WIDTH},
        {"n_q_heads", l->n_q_heads, 1, LARGEST_HEADS},
        {"n_kv_heads", l->n_kv_heads, 1, l->n_q_heads},
        {"head_dim", l->head_dim, 1, LARGEST_HEAD},
        {"head_dim_v", l->head_dim_v, 1, LARGEST_HEAD},
        {"q_bias", l->q_bias, 0, 1},
        {"k_bias", l->k_bias, 0, 1},
        {"v_bias", l->v_bias, 0, 1},
        {"o_bias", l->o_bias, 0, 1},
        {"qk_norm", l->qk_norm, QKV_NORM_NONE, QKV_NORM_LAYER},
        {"latent_norm", l->latent_norm, QKV_NORM_NONE, QKV_NORM_LAYER},
        {"o_gate", l->o_gate, 0, 1},
        {"sinks", l->sinks, 0, 1},
        {"causal", l->causal, 0, 1},
        {"cross", l->cross, 0, 1},
        {"v_from_k", l->v_from_k, 0, 1},
        {"window_left", l->window_left, QKV_UNBOUNDED, INT64_MAX},
        {"window_right", l->window_right, QKV_UNBOUNDED, INT64_MAX},
        {"chunk_tokens", l->chunk_tokens, 0, INT64_MAX},
        {"alibi", l->alibi, QKV_ALIBI_NONE, QKV_ALIBI_SCALED},
        {"relative_buckets", l->relative_buckets, 0, 65536},
        {"relative_max_distance", l->relative_max_distance, 0, INT32_MAX},
        {"relative_bidirectional", l->relative_bidirectional, 0, 1},
        {"weights", l->weights, QKV_WEIGHTS_F32, QKV_WEIGHTS_F32_PACKED},
    };
    const qkv_status status = CHECK_RANGES(list);
    if (status != QKV_OK)
        return status;
    if (l->n_q_heads % l->n_kv_heads != 0)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "n_kv_heads is %d; accepted are divisors of n_q_heads, %d", l->n_kv_heads,
                          l->n_q_heads);
    if (l->cross && l->causal)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "causal is 1 and cross is 1; another sequence has no future, so causal "
                          "is 0 with cross");
    return check_numbers(l, say);
}

static qkv_status check_relative(const qkv_layer_desc *l, qkv_say say)
{
    /* Half of the buckets (of a direction) are exact distances, the others logarithmic up to
     * relative_max_distance, which must therefore be larger. */
    const int32_t half = l->relative_buckets / (l->relative_bidirectional ? 4 : 2);

    if (l->relative_buckets == 0)
        return QKV_OK;
    if (half < 1)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "relative_buckets is %d; accepted are 0 and from %d",
                          l->relative_buckets, l->relative_bidirectional ? 4 : 2);
    if (l->relative_max_distance <= half)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "relative_max_distance is %d; accepted are more than %d, the distances "
                          "that %d relative_buckets tell apart one by one",
                          l->relative_max_distance, half, l->relative_buckets);
    return QKV_OK;
}

/* A layer with keys and values of heads has none of MLA's widths. */
static qkv_status check_plain(const qkv_layer_desc *l, qkv_say say)
{
    const range list[] = {{"q_lora_rank", l->q_lora_rank, 0, 0},
                          {"kv_lora_rank", l->kv_lora_rank, 0, 0},
                          {"rope_dim", l->rope_dim, 0, 0}};
    const qkv_status status = CHECK_RANGES(list);
    if (status != QKV_OK)
        return status;
    if (l->v_from_k && l->head_dim_v != l->head_dim)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "head_dim_v is %d; with v_from_k it is head_dim, %d", l->head_dim_v,
                          l->head_dim);
    return QKV_OK;
}

static qkv_status check_mla(const qkv_layer_desc *l, qkv_say say)
{
    const range list[] = {
        {"q_lora_rank", l->q_lora_rank, 0, LARGEST_WIDTH},
        {"kv_lora_rank", l->kv_lora_rank, 1, LARGEST_HEAD},
        {"rope_dim", l->rope_dim, 0, l->head_dim},
        {"kv_lora_rank + rope_dim", (int64_t)l->kv_lora_rank + l->rope_dim, 1, LARGEST_HEAD},
        {"n_kv_heads", l->n_kv_heads, l->n_q_heads, l->n_q_heads},
        {"k_bias", l->k_bias, 0, 0},
        {"v_bias", l->v_bias, 0, 0},
        {"qk_norm", l->qk_norm, 0, 0},
        {"o_gate", l->o_gate, 0, 0},
        {"v_from_k", l->v_from_k, 0, 0},
        {"cross", l->cross, 0, 0},
        {"sinks", l->sinks, 0, 0},
        {"relative_buckets", l->relative_buckets, 0, 0},
    };
    return CHECK_RANGES(list);
}

static qkv_status check_rope(const qkv_layer_desc *l, qkv_say say)
{
    const int32_t turning = l->kind == QKV_LAYER_MLA ? l->rope_dim : l->head_dim;
    char sentence[320];

    if (l->rope.type == QKV_ROPE_NONE)
        return QKV_OK;
    if (l->cross)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "rope.type is %s; with cross there is no common position, and it is none",
                          qkv_rope_type_name(l->rope.type));
    if (l->rope.head_dim != turning)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "rope.head_dim is %d; accepted is %s, %d",
                          l->rope.head_dim, l->kind == QKV_LAYER_MLA ? "rope_dim" : "head_dim",
                          turning);
    if (qkv_rope_check(&l->rope, sentence, sizeof sentence) != QKV_OK)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "rope: %s", sentence);
    return QKV_OK;
}

static qkv_status check_state(const qkv_layer_desc *l, qkv_say say)
{
    const range list[] = {{"state_elements", l->state_elements, 0, INT64_MAX},
                          {"state_parameters", l->state_parameters, 0, INT64_MAX},
                          {"state_type", l->state_type, QKV_NONE, QKV_BF16}};
    return CHECK_RANGES(list);
}

static qkv_status check_attention(const qkv_layer_desc *l, qkv_say say)
{
    qkv_status status = check_common(l, say);
    if (status == QKV_OK)
        status = l->kind == QKV_LAYER_MLA ? check_mla(l, say) : check_plain(l, say);
    if (status == QKV_OK)
        status = check_relative(l, say);
    return status == QKV_OK ? check_rope(l, say) : status;
}

/* A copy with the size of this library's struct; what an older caller does not know is default. */
static qkv_status full_desc(const qkv_layer_desc *layer, qkv_layer_desc *full, qkv_say say)
{
    if (layer == NULL)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "layer is NULL");
    if (layer->struct_size < offsetof(qkv_layer_desc, reserved) ||
        layer->struct_size > sizeof *layer)
        return qkv_refuse(say, QKV_ERR_ARGUMENT,
                          "struct_size is %u; call qkv_layer_desc_init first", layer->struct_size);
    qkv_layer_desc_init(full);
    memcpy(full, layer, layer->struct_size);
    for (size_t i = 0; i < sizeof full->reserved / sizeof full->reserved[0]; i++)
        if (full->reserved[i] != 0)
            return qkv_refuse(say, QKV_ERR_ARGUMENT, "reserved[%zu] is %d; accepted is 0", i,
                              full->reserved[i]);
    return QKV_OK;
}

qkv_status qkv_layer_desc_check(const qkv_layer_desc *layer, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_layer_desc l;
    qkv_status status = full_desc(layer, &l, say);

    if (status != QKV_OK)
        return status;
    const range list[] = {{"kind", l.kind, QKV_LAYER_ATTENTION, QKV_LAYER_STATE},
                          {"d_model", l.d_model, 1, LARGEST_WIDTH}};
    status = CHECK_RANGES(list);
    if (status == QKV_OK)
        status = l.kind == QKV_LAYER_STATE ? check_state(&l, say) : check_attention(&l, say);
    return status == QKV_OK ? qkv_accept(say) : status;
}

/* ---- what follows ------------------------------------------------------------------------- */

double qkv_layer_scale(const qkv_layer_desc *l)
{
    if (l->kind == QKV_LAYER_STATE || l->head_dim < 1)
        return NAN;
    if (!isnan(l->scale))
        return l->scale;
    double scale = 1 / sqrt((double)l->head_dim);
    /* arXiv:2309.00071, section 3.4, as DeepSeek applies it: on scores, for the whole head. */
    if (l->kind == QKV_LAYER_MLA && l->rope.type == QKV_ROPE_YARN && l->rope.mscale_all_dim != 0) {
        const qkv_rope *r = &l->rope;
        const double factor =
            isnan(r->factor) ? (double)r->max_positions / (double)r->original_max_positions
                             : r->factor;
        const double m = factor > 1 ? 0.1 * r->mscale_all_dim * log(factor) + 1 : 1;
        scale *= m * m;
    }
    return scale;
}

char *qkv_layer_variant(const qkv_layer_desc *l, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};

    if (l->kind == QKV_LAYER_STATE)
        qkv_refuse(say, QKV_OK, "state");
    else if (l->kind == QKV_LAYER_MLA)
        qkv_refuse(say, QKV_OK, "MLA");
    else if (l->n_kv_heads == l->n_q_heads)
        qkv_refuse(say, QKV_OK, "MHA");
    else if (l->n_kv_heads == 1)
        qkv_refuse(say, QKV_OK, "MQA");
    else
        qkv_refuse(say, QKV_OK, "GQA-%d", l->n_kv_heads);
    return text;
}

int64_t qkv_layer_cache_elements(const qkv_layer_desc *l)
{
    if (l->kind == QKV_LAYER_STATE || l->cross)
        return 0;
    if (l->kind == QKV_LAYER_MLA)
        return (int64_t)l->kv_lora_rank + l->rope_dim;
    return (int64_t)l->n_kv_heads * ((int64_t)l->head_dim + l->head_dim_v);
}
