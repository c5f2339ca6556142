/* cache.c - qkv cache: what a saved cache holds.
 *
 * Both subcommands read the whole file into a cache made from its header, so what they print has
 * been checked as loading checks it; --header looks at the first bytes only. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct saved {
    const char *path;
    qkv_cache_file_info info;
    qkv_cache *cache; /* NULL with --header */
    int32_t *seqs;
} saved;

/* ---- reading ----------------------------------------------------------------------------- */

static int open_saved(saved *s, int header_only)
{
    char text[CLI_TEXT];
    int32_t n = 0;
    const qkv_cache_config *c = &s->info.config;
    if (qkv_cache_inspect_file(s->path, &s->info, text, sizeof text) != QKV_OK)
        return cli_complain("%s", text);
    if (header_only)
        return CLI_DONE;
    if (qkv_cache_create(c, NULL, &s->cache, text, sizeof text) != QKV_OK)
        return cli_complain("%s: %s", s->path, text);
    s->seqs = calloc((size_t)c->max_seqs, sizeof *s->seqs);
    if (s->seqs == NULL)
        return cli_complain_memory(s->path, (size_t)c->max_seqs * sizeof *s->seqs);
    if (qkv_cache_load_file(s->cache, s->path, c->max_seqs, s->seqs, &n, text, sizeof text) !=
        QKV_OK)
        return cli_complain("%s", text);
    return CLI_DONE;
}

static void close_saved(saved *s)
{
    qkv_cache_destroy(s->cache);
    free(s->seqs);
}

/* ---- inspect ----------------------------------------------------------------------------- */

static const char *checksums(const saved *s)
{
    return s->cache ? "good" : "header good, rest not read";
}

static const char *scale_name(int32_t scale) { return scale == QKV_SCALE_HEAD ? "head" : "token"; }

/* A number, or null where the library has QKV_UNBOUNDED. */
static json_t *bounded(int64_t n) { return n < 0 ? json_null() : json_integer(n); }

static json_t *json_config(const qkv_cache_config *c)
{
    return json_pack(
        "{s:i, s:i, s:i, s:i, s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:i, s:o, s:i, s:b, s:b, s:b}",
        "n_layers", (int)c->n_layers, "n_kv_heads", (int)c->n_kv_heads, "head_dim",
        (int)c->head_dim, "head_dim_v", (int)c->head_dim_v, "k_format",
        qkv_format_name(c->k_format), "v_format", qkv_format_name(c->v_format), "k_group",
        (int)c->k_group, "v_group", (int)c->v_group, "k_scale", scale_name(c->k_scale), "v_scale",
        scale_name(c->v_scale), "float_type", qkv_type_name((qkv_type)c->float_type), "page_tokens",
        (int)c->page_tokens, "window", bounded(c->window_left), "sink_tokens", (int)c->sink_tokens,
        "latent", c->flags & QKV_CACHE_LATENT, "contiguous", c->flags & QKV_CACHE_CONTIGUOUS,
        "key_bounds", c->flags & QKV_CACHE_KEY_BOUNDS);
}

static json_t *json_sequences(const saved *s)
{
    json_t *list = json_array();
    for (int32_t i = 0; s->cache != NULL && i < s->info.n_seqs; i++) {
        qkv_cache_seq_info q;
        qkv_cache_seq_info_get(s->cache, s->seqs[i], &q);
        json_array_append_new(list,
                              json_pack("{s:I, s:I, s:I, s:i, s:i}", "length", (json_int_t)q.length,
                                        "committed", (json_int_t)q.committed, "kept_from",
                                        (json_int_t)q.kept_from, "pages", (int)q.n_pages,
                                        "shared_pages", (int)q.n_shared));
    }
    return list;
}

static int inspect_json(const saved *s)
{
    const qkv_cache_file_info *i = &s->info;
    return cli_print_json(json_pack(
        "{s:s, s:i, s:I, s:s, s:o, s:i, s:i, s:i, s:I, s:o}", "file", s->path, "version",
        (int)i->version, "bytes", (json_int_t)i->bytes, "checksums", checksums(s), "config",
        json_config(&i->config), "n_seqs", (int)i->n_seqs, "pages", (int)i->n_pages, "open_pages",
        (int)i->n_open_pages, "tokens", (json_int_t)i->tokens, "sequences", json_sequences(s)));
}

/* "int8 in groups of 32", "e4m3 with a scale a head" */
static void print_format(const char *what, int32_t format, int32_t group, int32_t scale)
{
    printf("%s %s", what, qkv_format_name(format));
    if (group > 0)
        printf(" in groups of %d", group);
    if (scale == QKV_SCALE_HEAD)
        printf(" with a scale a head");
}

static void print_config(const qkv_cache_config *c)
{
    const int latent = c->flags & QKV_CACHE_LATENT;
    if (latent) {
        printf("  layers       %d, rows of %d + %d channels\n  format      ", c->n_layers,
               c->head_dim_v, c->head_dim - c->head_dim_v);
        print_format("", c->k_format, c->k_group, c->k_scale);
        printf(", rotary %s\n", qkv_type_name((qkv_type)c->float_type));
    } else {
        printf("  layers       %d, of %d key/value heads with %d and %d channels\n  format       ",
               c->n_layers, c->n_kv_heads, c->head_dim, c->head_dim_v);
        print_format("keys", c->k_format, c->k_group, c->k_scale);
        print_format(", values", c->v_format, c->v_group, c->v_scale);
        putchar('\n');
    }
    printf("  pages        of %d tokens%s%s\n", c->page_tokens,
           c->flags & QKV_CACHE_CONTIGUOUS ? ", one a sequence" : "",
           c->flags & QKV_CACHE_KEY_BOUNDS ? ", with the ranges of their keys" : "");
    if (c->window_left != QKV_UNBOUNDED)
        printf("  window       %lld keys before a query\n", (long long)c->window_left);
    if (c->sink_tokens > 0)
        printf("  sinks        the first %d tokens\n", c->sink_tokens);
}

static int inspect_text(const saved *s)
{
    const qkv_cache_file_info *i = &s->info;
    printf("%s: a saved cache, version %d\n  bytes        %llu\n  checksums    %s\n", s->path,
           i->version, (unsigned long long)i->bytes, checksums(s));
    print_config(&i->config);
    printf("  holds        %d sequence%s, %lld tokens, %d pages", i->n_seqs,
           i->n_seqs == 1 ? "" : "s", (long long)i->tokens, i->n_pages);
    printf(i->n_open_pages > 0 ? ", %d of them open\n" : "\n", i->n_open_pages);
    if (s->cache != NULL && i->n_seqs > 0)
        printf("\n  %8s %10s %10s %10s %8s %8s\n", "sequence", "tokens", "committed", "kept from",
               "pages", "shared");
    for (int32_t n = 0; s->cache != NULL && n < i->n_seqs; n++) {
        qkv_cache_seq_info q;
        qkv_cache_seq_info_get(s->cache, s->seqs[n], &q);
        printf("  %8d %10lld %10lld %10lld %8d %8d\n", n, (long long)q.length,
               (long long)q.committed, (long long)q.kept_from, q.n_pages, q.n_shared);
    }
    return CLI_DONE;
}

/* ---- stats ------------------------------------------------------------------------------- */

/* What the same tokens take in 16 bits, shared ones once. */
static uint64_t wide_bytes(const qkv_cache_config *c, int64_t tokens)
{
    const int64_t values = c->flags & QKV_CACHE_LATENT ? 0 : c->head_dim_v;
    return 2 * (uint64_t)tokens * (uint64_t)c->n_layers * (uint64_t)c->n_kv_heads *
           (uint64_t)(c->head_dim + values);
}

static int print_stats(const saved *s, int json)
{
    qkv_cache_stats n;
    qkv_cache_bytes b;
    qkv_cache_stats_get(s->cache, &n);
    qkv_cache_config_check(&s->info.config, &b, NULL, 0);
    const uint64_t wide = wide_bytes(&s->info.config, n.stored_tokens);
    if (json)
        return cli_print_json(
            json_pack("{s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "file",
                      s->path, "n_seqs", (int)n.n_seqs, "pages", (int)n.used_pages, "shared_pages",
                      (int)n.shared_pages, "open_pages", (int)n.used_open_pages, "tokens",
                      (json_int_t)n.tokens, "stored_tokens", (json_int_t)n.stored_tokens, "payload",
                      (json_int_t)n.payload, "payload_16_bits", (json_int_t)wide, "page_bytes",
                      (json_int_t)b.page, "token_bytes", (json_int_t)b.token, "allocated",
                      (json_int_t)n.allocated, "bytes", (json_int_t)s->info.bytes));
    printf("%s: checksums good\n", s->path);
    printf("  sequences    %d\n", n.n_seqs);
    printf("  tokens       %lld, of which %lld are stored; the others are shared\n",
           (long long)n.tokens, (long long)n.stored_tokens);
    printf("  pages        %d, of which %d are shared and %d open; a page %llu bytes\n",
           n.used_pages, n.shared_pages, n.used_open_pages, (unsigned long long)b.page);
    printf("  payload      %llu bytes, a token %llu; in 16 bits %llu (%.2f times as many)\n",
           (unsigned long long)n.payload, (unsigned long long)b.token, (unsigned long long)wide,
           n.payload > 0 ? (double)wide / (double)n.payload : 1.0);
    printf("  in memory    %llu bytes\n  in the file  %llu bytes\n",
           (unsigned long long)n.allocated, (unsigned long long)s->info.bytes);
    return CLI_DONE;
}

/* ---- the command ------------------------------------------------------------------------- */

int cli_cache(int argc, char **argv)
{
    static const struct option list[] = {{"json", no_argument, NULL, 'j'},
                                         {"header", no_argument, NULL, 'e'},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};
    int json = 0, header = 0, help = 0;
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":h", list, NULL)) != -1;) {
        if (code == '?')
            return cli_complain(
                "%s is not an option of qkv cache; accepted are --json, --header and "
                "--help",
                argv[optind - 1]);
        json |= code == 'j';
        header |= code == 'e';
        help |= code == 'h';
    }
    if (help) {
        fputs(cli_help_page("cache"), stdout);
        return CLI_DONE;
    }
    const char *verb = optind < argc ? argv[optind] : "";
    const int inspect = strcmp(verb, "inspect") == 0;
    if (!inspect && strcmp(verb, "stats") != 0)
        return cli_complain("%s%s; accepted are inspect FILE and stats FILE",
                            *verb ? verb : "no subcommand is given",
                            *verb ? " is not a subcommand" : "");
    if (optind + 2 != argc)
        return cli_complain("%s takes one FILE; %d were given", verb, argc - optind - 1);
    if (header && !inspect)
        return cli_complain("--header is given; it is for inspect");
    saved s = {.path = argv[optind + 1]};
    int code = open_saved(&s, header);
    if (code == CLI_DONE)
        code = !inspect ? print_stats(&s, json) : json ? inspect_json(&s) : inspect_text(&s);
    close_saved(&s);
    return code;
}
