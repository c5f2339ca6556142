/* layer_text.c - qkv layer info for people. */
#include <math.h>
#include <stdio.h>

#include "layer.h"

/* "0-4, 6-10", with line breaks. */
static void print_layers(const qkv_model *m, const cli_layers *group, int32_t only, int column)
{
    const int32_t n = cli_layers_of(m, group->part);
    const char *comma = "";

    for (int32_t i = 0; i < n; i++) {
        int32_t last = i;
        char text[40];
        if (!cli_in_group(m, group, i) || (only >= 0 && i != only))
            continue;
        while (only < 0 && last + 1 < n && cli_in_group(m, group, last + 1))
            last++;
        int width = snprintf(text, sizeof text, last > i ? "%d-%d" : "%d", i, last);
        if (column + width + 2 > 92) {
            printf(",\n   ");
            comma = " ";
            column = 4;
        }
        printf("%s%s", comma, text);
        column += width + 2;
        comma = ", ";
        i = last;
    }
    putchar('\n');
}

static void print_title(const qkv_model *m, const cli_layers *group, int32_t only)
{
    static const char *const parts[] = {"", "encoder ", "cross-attention of "};
    int32_t n = 0;

    for (int32_t i = 0; i < cli_layers_of(m, group->part); i++)
        n += cli_in_group(m, group, i) && (only < 0 || i == only);
    printf("\n%s%s ", parts[group->part], n == 1 ? "layer" : "layers");
    print_layers(m, group, only, 24);
}

static void print_heads(const qkv_layer_desc *l)
{
    char variant[32];

    printf("  attention    %s: ", qkv_layer_variant(l, variant, sizeof variant));
    if (l->kind == QKV_LAYER_STATE) {
        printf("%lld elements a sequence (%s), whatever its length\n", (long long)l->state_elements,
               l->state_type == QKV_NONE ? "as the cache" : qkv_type_name((qkv_type)l->state_type));
        return;
    }
    printf("%d query head%s", l->n_q_heads, l->n_q_heads == 1 ? "" : "s");
    if (l->kind == QKV_LAYER_MLA) {
        printf(" of %d + %d channels, values of %d\n", l->head_dim - l->rope_dim, l->rope_dim,
               l->head_dim_v);
        printf("  latent       %d channels, and a rotary key of %d", l->kv_lora_rank, l->rope_dim);
        if (l->q_lora_rank > 0)
            printf("; %d for queries", l->q_lora_rank);
        putchar('\n');
        return;
    }
    printf(", %d key/value head%s, %d channels each\n", l->n_kv_heads,
           l->n_kv_heads == 1 ? "" : "s", l->head_dim);
    if (l->o_gate || l->v_from_k)
        printf("               %s\n", l->o_gate ? "outputs are gated"
                                               : "values are the keys before norm and rotation");
}

static void print_scores(const qkv_model *m, const qkv_layer_desc *l)
{
    printf("  scores       scale %.7g", qkv_layer_scale(l));
    if (m->scale_by_layer)
        printf(" (divided by the layer's number, from 1)");
    if (l->softcap > 0)
        printf(", soft-cap %.7g", l->softcap);
    if (l->sinks)
        printf(", a sink a head");
    if (l->alibi != QKV_ALIBI_NONE)
        printf(", ALiBi%s up to 2^-%.7g", l->alibi == QKV_ALIBI_SCALED ? " (scaled)" : "",
               l->alibi_max_bias);
    if (l->relative_buckets > 0)
        printf(", a bias for %d buckets of distances up to %d%s", l->relative_buckets,
               l->relative_max_distance, l->relative_bidirectional ? ", both ways" : "");
    printf("\n  sees         %s", l->cross    ? "all of the encoder's output"
                                  : l->causal ? "itself and what is before"
                                              : "all");
    if (l->window_left != QKV_UNBOUNDED)
        printf(", a window of %lld keys", (long long)l->window_left + 1);
    if (l->chunk_tokens > 0)
        printf(", in its chunk of %lld", (long long)l->chunk_tokens);
    putchar('\n');
}

static void print_rope(const qkv_rope *r)
{
    if (r->type == QKV_ROPE_NONE) {
        printf("  rope         none\n");
        return;
    }
    printf("  rope         %s, theta %.10g", qkv_rope_type_name(r->type), r->theta);
    if (!isnan(r->factor))
        printf(", factor %.10g", r->factor);
    if (r->original_max_positions > 0)
        printf(" from %lld positions", (long long)r->original_max_positions);
    printf(", %d of %d channels, %s\n", r->rotary_dim, r->head_dim,
           r->pairing == QKV_ROPE_INTERLEAVED ? "neighbours" : "halves");
}

static void print_rest(const qkv_layer_desc *l)
{
    static const char *const norms[] = {"none", "RMS", "RMS with 1 + w", "layer norm"};
    const int mla = l->kind == QKV_LAYER_MLA;

    if (mla)
        printf("  norms        of the latents: %s, eps %.3g\n", norms[l->latent_norm], l->norm_eps);
    else if (l->qk_norm != QKV_NORM_NONE)
        printf("  norms        of queries and keys a head: %s, eps %.3g\n", norms[l->qk_norm],
               l->norm_eps);
    if (l->q_bias | l->k_bias | l->v_bias | l->o_bias)
        printf("  biases      %s%s%s%s\n",
               !l->q_bias ? "" : mla ? " latents" : " q", l->k_bias ? " k" : "",
               l->v_bias ? " v" : "", l->o_bias ? " o" : "");
    if (qkv_layer_cache_elements(l) > 0 && l->causal)
        printf("  cache        %lld elements a token and layer, %lld bytes in 16 bits\n",
               (long long)qkv_layer_cache_elements(l), (long long)qkv_layer_cache_elements(l) * 2);
}

static void print_kept(const qkv_model *m)
{
    const cli_kept kept = cli_what_is_kept(m);

    if (kept.token > 0)
        printf("  cache        %lld elements a token, %lld bytes in 16 bits\n",
               (long long)kept.token, (long long)kept.token * 2);
    else if (m->encoder_layers == 0 && kept.state == 0)
        printf("  cache        none: every token sees all\n");
    if (kept.far_token != kept.token)
        printf("               %lld elements, %lld bytes, when windows and chunks are full\n",
               (long long)kept.far_token, (long long)kept.far_token * 2);
    if (kept.memory_token > 0)
        printf("               %lld elements, %lld bytes, a token of the encoder's output\n",
               (long long)kept.memory_token, (long long)kept.memory_token * 2);
    if (kept.state > 0)
        printf("               %lld elements of states a sequence\n", (long long)kept.state);
    int32_t shared = 0;
    for (int32_t i = 0; i < m->n_layers; i++)
        shared += m->cache_of[i] != i;
    if (shared > 0)
        printf("               layers %d-%d use the keys and values of layers before\n",
               m->n_layers - shared, m->n_layers - 1);
}

int cli_layer_text(const qkv_model *m, const char *path, int32_t only)
{
    cli_layers groups[CLI_LAYER_GROUPS];
    const int32_t n = cli_group_layers(m, only, groups);

    printf("%s: a %s model%s\n", path, m->family,
           m->sizing_only ? " (known for sizing only)" : "");
    if (m->encoder_layers > 0)
        printf("  layers       %d of the encoder, %d of the decoder, %d channels\n",
               m->encoder_layers, m->n_layers, m->d_model);
    else
        printf("  layers       %d, %d channels\n", m->n_layers, m->d_model);
    if (only < 0)
        print_kept(m);
    if (m->unpriced[0])
        printf("  not looked at  %s\n", m->unpriced);
    for (int32_t g = 0; g < n; g++) {
        const qkv_layer_desc *l = &groups[g].desc;
        print_title(m, &groups[g], only);
        print_heads(l);
        if (l->kind == QKV_LAYER_STATE)
            continue;
        print_scores(m, l);
        print_rope(&l->rope);
        print_rest(l);
    }
    return CLI_DONE;
}
