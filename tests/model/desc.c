/* desc.c - the description of a layer: defaults, refusals, what follows from it. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "model_test.h"

static qkv_layer_desc plain(void)
{
    qkv_layer_desc l;

    qkv_layer_desc_init(&l);
    l.d_model = 64;
    l.n_q_heads = 8;
    l.n_kv_heads = 2;
    l.head_dim = l.head_dim_v = 16;
    return l;
}

static qkv_layer_desc mla(void)
{
    qkv_layer_desc l = plain();

    l.kind = QKV_LAYER_MLA;
    l.n_kv_heads = 8;
    l.head_dim = 192;
    l.head_dim_v = 128;
    l.kv_lora_rank = 512;
    l.rope_dim = 64;
    return l;
}

void test_desc_defaults(void)
{
    qkv_layer_desc l, older;

    if (t_case("values")) {
        qkv_layer_desc_init(&l);
        t_check(l.struct_size == sizeof l && l.kind == QKV_LAYER_ATTENTION, "size or kind");
        t_check(isnan(l.scale) && l.norm_eps == 1e-6 && l.causal == 1, "scale, eps or causal");
        t_check(l.window_left == QKV_UNBOUNDED && l.window_right == QKV_UNBOUNDED, "window");
        t_check(l.rope.type == QKV_ROPE_NONE && l.rope.struct_size == sizeof l.rope, "rope");
        t_check(l.latent_norm == QKV_NORM_RMS && l.alibi_max_bias == 8, "norm or ALiBi");
    }
    if (t_case("older struct")) {
        memset(&older, 0xee, sizeof older);
        qkv_layer_desc_init_sized(&older, offsetof(qkv_layer_desc, reserved));
        t_check(older.struct_size == offsetof(qkv_layer_desc, reserved), "struct_size");
        t_check(*(unsigned char *)&older.reserved == 0xee, "wrote past the struct");
        older.d_model = 8;
        older.n_q_heads = older.n_kv_heads = older.head_dim = older.head_dim_v = 1;
        t_check(qkv_layer_desc_check(&older, NULL, 0) == QKV_OK, "an older struct is refused");
    }
    if (t_case("good ones")) {
        char text[200];
        l = plain();
        t_check(qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK, "plain: %s", text);
        l = mla();
        t_check(qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK, "mla: %s", text);
        l.rope.type = QKV_ROPE_DEFAULT;
        l.rope.head_dim = 64;
        t_check(qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK, "rope: %s", text);
        qkv_layer_desc_init(&l);
        l.kind = QKV_LAYER_STATE;
        l.d_model = 1;
        t_check(qkv_layer_desc_check(&l, text, sizeof text) == QKV_OK, "state: %s", text);
    }
}

static void refused(const char *name, const qkv_layer_desc *l, const char *words)
{
    char text[300] = "";

    if (!t_case("%s", name))
        return;
    t_check(qkv_layer_desc_check(l, text, sizeof text) == QKV_ERR_ARGUMENT, "accepted");
    t_check(strstr(text, words) != NULL, "\"%s\" does not say \"%s\"", text, words);
}

#define REFUSED(make, field, value)                                                                \
    do {                                                                                           \
        qkv_layer_desc changed = make();                                                           \
        changed.field = value;                                                                     \
        refused(#make "." #field "=" #value, &changed, #field " is ");                            \
    } while (0)

void test_desc_refusals(void)
{
    refused("NULL", NULL, "layer is NULL");
    REFUSED(plain, struct_size, 0);
    REFUSED(plain, struct_size, 100000);
    REFUSED(plain, kind, 0);
    REFUSED(plain, kind, 4);
    REFUSED(plain, d_model, 0);
    REFUSED(plain, d_model, INT_MAX);
    REFUSED(plain, d_memory, -1);
    REFUSED(plain, n_q_heads, 0);
    REFUSED(plain, n_q_heads, 65537);
    REFUSED(plain, n_kv_heads, 3);
    REFUSED(plain, n_kv_heads, 0);
    REFUSED(plain, n_kv_heads, 16);
    REFUSED(plain, head_dim, 0);
    REFUSED(plain, head_dim, 1025);
    REFUSED(plain, head_dim_v, -5);
    REFUSED(plain, kv_lora_rank, 4);
    REFUSED(plain, q_bias, 2);
    REFUSED(plain, o_bias, -1);
    REFUSED(plain, qk_norm, 4);
    REFUSED(plain, o_gate, 2);
    REFUSED(plain, norm_eps, -1);
    REFUSED(plain, norm_eps, INFINITY);
    REFUSED(plain, scale, INFINITY);
    REFUSED(plain, softcap, -1);
    REFUSED(plain, softcap, NAN);
    REFUSED(plain, sinks, 2);
    REFUSED(plain, causal, 2);
    REFUSED(plain, window_left, -2);
    REFUSED(plain, chunk_tokens, -1);
    REFUSED(plain, alibi, 3);
    REFUSED(plain, alibi_max_bias, 0);
    REFUSED(plain, relative_buckets, -1);
    REFUSED(plain, relative_buckets, 1);
    REFUSED(plain, reserved[3], 1);
    REFUSED(mla, kv_lora_rank, 0);
    REFUSED(mla, rope_dim, 193);
    REFUSED(mla, n_kv_heads, 1);
    REFUSED(mla, k_bias, 1);
    REFUSED(mla, sinks, 1);
    qkv_layer_desc l = plain();
    l.cross = 1;
    refused("cross and causal", &l, "causal is 1 and cross is 1");
    l.causal = 0;
    l.rope.type = QKV_ROPE_DEFAULT;
    refused("cross and rope", &l, "rope.type is default");
    l = plain();
    l.rope.type = QKV_ROPE_DEFAULT;
    refused("rope without width", &l, "rope.head_dim is 0; accepted is head_dim, 16");
    l.rope.head_dim = 16;
    l.rope.theta = -1;
    refused("rope's own", &l, "rope: theta is -1");
    l = plain();
    l.relative_buckets = 32;
    l.relative_max_distance = 16;
    refused("relative distance", &l, "relative_max_distance is 16");
    l = mla();
    l.kv_lora_rank = 1024;
    refused("a latent too wide", &l, "kv_lora_rank + rope_dim is 1088; accepted are 1 to 1024");
    l = plain();
    l.v_from_k = 1;
    l.head_dim_v = 8;
    refused("v_from_k", &l, "head_dim_v is 8");
}

static void variant(const char *expected, int32_t kind, int32_t q, int32_t kv)
{
    qkv_layer_desc l = plain();
    char text[20];

    l.kind = kind;
    l.n_q_heads = q;
    l.n_kv_heads = kv;
    if (t_case("variant/%s", expected))
        t_check(strcmp(qkv_layer_variant(&l, text, sizeof text), expected) == 0, "it is %s", text);
}

void test_desc_numbers(void)
{
    qkv_layer_desc l = plain();

    variant("MHA", QKV_LAYER_ATTENTION, 8, 8);
    variant("MHA", QKV_LAYER_ATTENTION, 1, 1);
    variant("MQA", QKV_LAYER_ATTENTION, 8, 1);
    variant("GQA-2", QKV_LAYER_ATTENTION, 8, 2);
    variant("GQA-32768", QKV_LAYER_ATTENTION, 65536, 32768);
    variant("MLA", QKV_LAYER_MLA, 8, 8);
    variant("state", QKV_LAYER_STATE, 0, 0);
    if (t_case("scale")) {
        t_check(qkv_layer_scale(&l) == 0.25, "1/sqrt(16) is %g", qkv_layer_scale(&l));
        l.scale = 0;
        t_check(qkv_layer_scale(&l) == 0, "0 is a scale");
        l = mla();
        l.rope.type = QKV_ROPE_YARN;
        l.rope.head_dim = 64;
        l.rope.factor = 40;
        l.rope.mscale = l.rope.mscale_all_dim = 1;
        /* 192^-1/2 (0.1 ln 40 + 1)^2, DeepSeek-V3's. */
        t_check(fabs(qkv_layer_scale(&l) - 0.135234) < 1e-6, "it is %.9g", qkv_layer_scale(&l));
        l.rope.factor = NAN;
        l.rope.max_positions = 40 * 4096;
        l.rope.original_max_positions = 4096;
        t_check(fabs(qkv_layer_scale(&l) - 0.135234) < 1e-6, "without factor %.9g",
                qkv_layer_scale(&l));
        l.rope.mscale_all_dim = 0;
        t_check(fabs(qkv_layer_scale(&l) - 1 / sqrt(192)) < 1e-12, "mscale alone counts");
        l.kind = QKV_LAYER_STATE;
        t_check(isnan(qkv_layer_scale(&l)), "a state has a scale");
    }
    if (t_case("cache elements")) {
        l = plain();
        t_check(qkv_layer_cache_elements(&l) == 64, "GQA");
        l.cross = 1;
        t_check(qkv_layer_cache_elements(&l) == 0, "cross");
        l = mla();
        t_check(qkv_layer_cache_elements(&l) == 576, "MLA");
    }
}
