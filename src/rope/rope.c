/* rope/rope.c - the description of a rotation: names, defaults, every reason to refuse one. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "rope/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const qkv_status try_status = (call);                                                      \
        if (try_status != QKV_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

enum { MAX_DIM = 2 * QKV_ROPE_MAX_PAIRS };

/* Outside of these, angles or what they are made from may leave the range of f32. */
#define LEAST 1e-10
#define MOST 1e30

static const char *const names[] = {
    [QKV_ROPE_NONE] = "none",         [QKV_ROPE_DEFAULT] = "default",
    [QKV_ROPE_LINEAR] = "linear",     [QKV_ROPE_NTK] = "ntk",
    [QKV_ROPE_DYNAMIC] = "dynamic",   [QKV_ROPE_YARN] = "yarn",
    [QKV_ROPE_LONGROPE] = "longrope", [QKV_ROPE_LLAMA3] = "llama3",
    [QKV_ROPE_PROPORTIONAL] = "proportional",
};

const char *qkv_rope_type_name(int32_t type)
{
    return type >= QKV_ROPE_NONE && type <= QKV_ROPE_PROPORTIONAL ? names[type] : "?";
}

void qkv_rope_init_sized(qkv_rope *rope, size_t struct_size)
{
    qkv_rope r;

    memset(&r, 0, sizeof r);
    r.struct_size = (uint32_t)struct_size;
    r.type = QKV_ROPE_DEFAULT;
    r.rotary_dim = QKV_ROPE_AUTO;
    r.truncate = 1;
    r.theta = 10000;
    r.factor = r.attention_factor = NAN;
    r.beta_fast = 32;
    r.beta_slow = 1;
    r.low_freq_factor = 1;
    r.high_freq_factor = 4;
    memset(rope, 0, struct_size);
    memcpy(rope, &r, struct_size < sizeof r ? struct_size : sizeof r);
}

static qkv_status check_int(qkv_say say, const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        REFUSE("%s is %lld; it must be %lld .. %lld", name, (long long)value, (long long)low,
               (long long)high);
    return QKV_OK;
}

static qkv_status check_real(qkv_say say, const char *name, double value, double low)
{
    if (!(value >= low && value <= MOST))
        REFUSE("%s is %g; it must be %g .. %g", name, value, low, MOST);
    return QKV_OK;
}

/* Which channels turn; resolves rotary_dim. */
static qkv_status check_channels(qkv_rope *r, qkv_say say)
{
    TRY(check_int(say, "head_dim", r->head_dim, 1, MAX_DIM));
    if (r->type == QKV_ROPE_NONE) {
        r->rotary_offset = r->rotary_dim = 0;
        return QKV_OK;
    }
    TRY(check_int(say, "rotary_offset", r->rotary_offset, 0, r->head_dim - 1));
    const int32_t width = r->head_dim - r->rotary_offset;
    if (r->rotary_dim == QKV_ROPE_AUTO || r->type == QKV_ROPE_PROPORTIONAL)
        if (width % 2)
            REFUSE("head_dim is %d and rotary_offset %d, which leaves %d channels; pairs need an "
                   "even number, or a rotary_dim",
                   r->head_dim, r->rotary_offset, width);
    if (r->rotary_dim == QKV_ROPE_AUTO)
        r->rotary_dim = width;
    if (r->rotary_dim < 2 || r->rotary_dim > width || r->rotary_dim % 2)
        REFUSE("rotary_dim is %d; it must be an even number 2 .. %d (head_dim %d less "
               "rotary_offset %d), or QKV_ROPE_AUTO",
               r->rotary_dim, width, r->head_dim, r->rotary_offset);
    return QKV_OK;
}

static qkv_status need_positions(const char *name, int64_t value, int64_t least, const char *type,
                                 qkv_say say)
{
    if (value < least)
        REFUSE("%s is %lld; rope type %s needs it, %lld or more", name, (long long)value, type,
               (long long)least);
    return QKV_OK;
}

static qkv_status need_factor(const qkv_rope *r, qkv_say say)
{
    if (isnan(r->factor))
        REFUSE("factor is not given; rope type %s needs it, 1 or more", names[r->type]);
    return QKV_OK;
}

/* Theta grown by a power r/(r-2). */
static qkv_status check_grown(const qkv_rope *r, qkv_say say)
{
    TRY(need_factor(r, say));
    if (r->rotary_dim < 4)
        REFUSE("rotary_dim is %d; rope type %s divides by rotary_dim - 2, so it must be 4 or more",
               r->rotary_dim, names[r->type]);
    if (r->type == QKV_ROPE_DYNAMIC)
        TRY(need_positions("max_positions", r->max_positions, 1, "dynamic", say));
    return QKV_OK;
}

static qkv_status check_yarn(const qkv_rope *r, qkv_say say)
{
    TRY(need_positions("original_max_positions", r->original_max_positions, 1, "yarn", say));
    if (isnan(r->factor))
        TRY(need_positions("max_positions", r->max_positions, 1, "yarn without a factor", say));
    if (r->theta <= 1)
        REFUSE("theta is %g; rope type yarn divides by its logarithm, so it must be more than 1",
               r->theta);
    TRY(check_real(say, "beta_slow", r->beta_slow, LEAST));
    TRY(check_real(say, "beta_fast", r->beta_fast, r->beta_slow));
    TRY(check_real(say, "mscale", r->mscale, 0));
    TRY(check_real(say, "mscale_all_dim", r->mscale_all_dim, 0));
    return check_int(say, "truncate", r->truncate, 0, 1);
}

static qkv_status check_longrope(const qkv_rope *r, qkv_say say)
{
    const double *lists[] = {r->short_factor, r->long_factor};
    const char *const list_names[] = {"short_factor", "long_factor"};

    TRY(need_positions("original_max_positions", r->original_max_positions, 2, "longrope", say));
    if (isnan(r->factor) && isnan(r->attention_factor))
        TRY(need_positions("max_positions", r->max_positions, 1, "longrope without a factor", say));
    if (r->n_factors != r->rotary_dim / 2)
        REFUSE("n_factors is %d; rope type longrope needs one a pair, %d for rotary_dim %d",
               r->n_factors, r->rotary_dim / 2, r->rotary_dim);
    for (int l = 0; l < 2; l++) {
        if (!lists[l])
            REFUSE("%s is NULL; rope type longrope needs it", list_names[l]);
        for (int32_t i = 0; i < r->n_factors; i++)
            if (!(lists[l][i] >= LEAST && lists[l][i] <= MOST))
                REFUSE("%s[%d] is %g; it must be %g .. %g", list_names[l], i, lists[l][i], LEAST,
                       MOST);
    }
    return QKV_OK;
}

static qkv_status check_llama3(const qkv_rope *r, qkv_say say)
{
    TRY(need_factor(r, say));
    TRY(need_positions("original_max_positions", r->original_max_positions, 1, "llama3", say));
    TRY(check_real(say, "low_freq_factor", r->low_freq_factor, LEAST));
    TRY(check_real(say, "high_freq_factor", r->high_freq_factor, LEAST));
    if (r->high_freq_factor <= r->low_freq_factor)
        REFUSE("high_freq_factor is %g; it must be more than low_freq_factor, which is %g",
               r->high_freq_factor, r->low_freq_factor);
    return QKV_OK;
}

static qkv_status check_type(const qkv_rope *r, qkv_say say)
{
    switch (r->type) {
    case QKV_ROPE_LINEAR:
        return need_factor(r, say);
    case QKV_ROPE_NTK:
    case QKV_ROPE_DYNAMIC:
        return check_grown(r, say);
    case QKV_ROPE_YARN:
        return check_yarn(r, say);
    case QKV_ROPE_LONGROPE:
        return check_longrope(r, say);
    case QKV_ROPE_LLAMA3:
        return check_llama3(r, say);
    default:
        return QKV_OK;
    }
}

static qkv_status copy(const qkv_rope *in, qkv_rope *full, qkv_say say)
{
    const unsigned least = offsetof(qkv_rope, reserved), most = sizeof(qkv_rope);

    if (!in)
        REFUSE("rope is NULL");
    if (in->struct_size < least)
        REFUSE("rope.struct_size is %u; it must be %u .. %u: call qkv_rope_init first",
               in->struct_size, least, most);
    if (in->struct_size > most)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "rope.struct_size is %u; this library (%s) knows fields up to %u: the "
                          "program was compiled with a newer header",
                          in->struct_size, qkv_version_string(), most);
    qkv_rope_init(full);
    memcpy(full, in, in->struct_size);
    full->struct_size = most;
    return QKV_OK;
}

qkv_status qkv_rope_load(const qkv_rope *in, qkv_rope *r, qkv_say say)
{
    TRY(copy(in, r, say));
    if (r->type < QKV_ROPE_NONE || r->type > QKV_ROPE_PROPORTIONAL)
        REFUSE("type is %d; it must be %d (none) .. %d (proportional), a QKV_ROPE_ type", r->type,
               QKV_ROPE_NONE, QKV_ROPE_PROPORTIONAL);
    TRY(check_int(say, "pairing", r->pairing, QKV_ROPE_HALF_SPLIT, QKV_ROPE_INTERLEAVED));
    TRY(check_int(say, "precision", r->precision, QKV_ROPE_EXACT, QKV_ROPE_F32));
    TRY(check_channels(r, say));
    if (r->type == QKV_ROPE_NONE)
        return QKV_OK;
    TRY(check_real(say, "theta", r->theta, LEAST));
    if (!isnan(r->factor))
        TRY(check_real(say, "factor", r->factor, 1));
    if (!isnan(r->attention_factor))
        TRY(check_real(say, "attention_factor", r->attention_factor, LEAST));
    TRY(check_int(say, "max_positions", r->max_positions, 0, QKV_ROPE_MAX_POSITION));
    TRY(check_int(say, "original_max_positions", r->original_max_positions, 0,
                  QKV_ROPE_MAX_POSITION));
    if (r->original_max_positions == 0)
        r->original_max_positions = r->max_positions;
    return check_type(r, say);
}

qkv_status qkv_rope_check(const qkv_rope *rope, char *text, size_t bytes)
{
    const qkv_say say = {text, bytes};
    qkv_rope full;
    const qkv_status status = qkv_rope_load(rope, &full, say);

    return status == QKV_OK ? qkv_accept(say) : status;
}

int32_t qkv_rope_pairs(const qkv_rope *rope)
{
    const qkv_say silent = {NULL, 0};
    qkv_rope full;

    return qkv_rope_load(rope, &full, silent) == QKV_OK ? full.rotary_dim / 2 : 0;
}
