/*
 * qkv/cache.h - keys and values kept between steps: pages, sequences, formats, views.
 *
 * A cache serves one *group* of layers, those that share a window and formats (a model with full
 * and sliding layers has two caches).  It owns a fixed number of pages; a page holds the keys
 * and values of page_tokens tokens, and one page number means the same tokens in every layer of the
 * group, each layer with its own memory.  So one block table and one plan serve all layers.
 *
 *     sequence 3, 37 tokens of 16 a page        layer 0   | page 0 | page 1 | page 2 | ...
 *     table: 5, 1, 8  ------------------->      layer 1   | page 0 | page 1 | page 2 | ...
 *     tokens 0-15, 16-31, 32-36                 ...
 *
 * Inside a page: keys as [head][token][channel], their scales, then values likewise.
 *
 * A step.  qkv_cache_reserve makes room for new tokens (everything that can fail, fails here),
 * qkv_cache_write stores their keys and values layer by layer, a view describes the
 * sequences to qkv/attention.h, and qkv_cache_commit says that the tokens stay.  Tokens that are
 * reserved and not committed are *speculative*: qkv_cache_truncate takes them back.
 *
 *     qkv_cache_reserve(cache, 1, &seq, NULL, text, sizeof text);       one token
 *     qkv_cache_view_init(...), qkv_cache_view_desc(...), qkv_plan_init(...)
 *     for each layer: qkv_cache_write(...), qkv_cache_view_args(...), qkv_run(...)
 *     qkv_cache_commit(cache, 1, &seq, NULL, text, sizeof text);
 *
 * Describing the cached tokens to qkv_plan_init and qkv_run is the part of qkv/cache_view.h.
 *
 * Pages are counted: a fork shares all pages of its parent, and who writes to a shared page first
 * gets a copy of it.  Positions are explicit and never move: token number t of a sequence is key
 * number t whatever was evicted before it.
 *
 * Sequences are told apart by ids.  An id is never 0 or negative, and that of a released sequence
 * is refused (until its place was used 32,767 times more), so a stale one cannot reach another's
 * tokens.
 *
 * Errors.  QKV_ERR_ARGUMENT for ids, counts, layers, pointers; QKV_ERR_FULL when pages, open pages
 * or sequences run out.  Whatever a call refuses, it has not begun: the cache is as before.  text
 * receives a sentence, or "ok"; it may be NULL if bytes is 0.
 *
 * Threads.  A cache has a lock, which every call takes for its bookkeeping but qkv_cache_write,
 * qkv_cache_read, qkv_cache_pick_pages and the attention itself.  Any calls may run at the same
 * time if they are for different sequences, and layers of one sequence may be written from several
 * threads.  For one sequence the caller keeps the order: nothing may change it (reserve, commit,
 * truncate, evict, reorder, reset, release) while another thread writes, reads, saves or attends
 * it.  A fork only reads its parent, which may be read and attended meanwhile, but not written.
 * The lock is held while pages are copied (reserve) and closed (commit).
 *
 * Memory is asked for once, in qkv_cache_create; only saving and loading need scratch besides.
 */
#ifndef QKV_CACHE_H
#define QKV_CACHE_H

#include "qkv/attention.h"
#include "qkv/formats.h"
#include "qkv/rope.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what a cache is -------------------------------------------------------------------- */

/*
 * How keys or values are stored; arithmetic in qkv/formats.h.  Bytes a token and head of D
 * channels: 4 D, 2 D, 2 D; INT8 D + 4 a group; INT8_CHANNEL D + 4 D / page_tokens; INT4 D/2 + 4 a
 * group; E4M3 and E5M2 D + 4 a group, or D with QKV_SCALE_HEAD.
 *
 * INT8_CHANNEL is for keys, also those of a latent cache (and so for its values): one scale a
 * channel, head and page.  Not with QKV_CACHE_CONTIGUOUS, where a page is a whole sequence and
 * would hardly ever close.  A page of keys stays in float_type, *open*, until all its tokens are
 * committed; then it *closes*, and its keys are within half a scale of what the open page held.
 * Appending to a closed page (after a truncation) opens it again from its codes; each time that
 * adds at most the rounding of float_type and, when it closes again, half a scale.
 */
enum {
    QKV_FORMAT_F32 = 1,
    QKV_FORMAT_F16 = 2,
    QKV_FORMAT_BF16 = 3,
    QKV_FORMAT_INT8 = 4,
    QKV_FORMAT_INT8_CHANNEL = 5,
    QKV_FORMAT_INT4 = 6,
    QKV_FORMAT_E4M3 = 7,
    QKV_FORMAT_E5M2 = 8
};

/* "bf16", "int8_channel", "e4m3" ...; "?" for a value that is no format.  Static storage. */
QKV_API const char *qkv_format_name(int32_t format);

/* What a scale of e4m3 or e5m2 is for. */
enum {
    QKV_SCALE_TOKEN = 0, /* a token, head and group of channels */
    QKV_SCALE_HEAD = 1   /* a sequence and head: that of qkv_cache_set_scales, or else found when
                          * token 0 is written, from all tokens of that call (1 if all are zero).
                          * Later tokens saturate */
};

enum {
    QKV_CACHE_LATENT = 1,     /* MLA: keys only; values are their first head_dim_v channels */
    QKV_CACHE_CONTIGUOUS = 2, /* a page holds a whole sequence: page_tokens is its capacity */
    QKV_CACHE_KEY_BOUNDS = 4, /* keep the range of every channel of keys a page, for
                               * qkv_cache_pick_pages: 4 D bytes a page and head (bf16) */
    QKV_CACHE_POISON = 8      /* fill with NaN what is freed, and all pages at first: for tests */
};

#define QKV_CACHE_AUTO (-1)

/* A cache.  Call qkv_cache_config_init first, which sets the defaults. */
typedef struct qkv_cache_config {
    uint32_t struct_size;  /* set by qkv_cache_config_init */
    int32_t flags;         /* QKV_CACHE_ flags; default 0 */
    int32_t n_layers;      /* of this group, 1 .. 65536; default 1 */
    int32_t n_kv_heads;    /* Hkv, 1 .. 65536; default 1; 1 if latent */
    int32_t head_dim;      /* D, 1 .. 1024; no default.  Latent: c + r */
    int32_t head_dim_v;    /* Dv, 1 .. 1024; no default.  Latent: c, at most D */
    int32_t k_format;      /* QKV_FORMAT_; default BF16.  Latent: of the c channels; if it is no
                            * float format, the rotary r channels are in float_type */
    int32_t v_format;      /* not INT8_CHANNEL; default BF16.  Latent: not looked at */
    int32_t k_group;       /* channels a scale covers: 32, 64, 128, or 0 for all; default 0.
                            * Integer and fp8 formats with QKV_SCALE_TOKEN only */
    int32_t v_group;
    int32_t k_scale;       /* QKV_SCALE_; default TOKEN; HEAD with E4M3 and E5M2 only */
    int32_t v_scale;
    int32_t float_type;    /* QKV_F32, F16 or BF16: open pages, rotary channels; default QKV_BF16 */
    int32_t page_tokens;   /* 16 .. 256, a multiple of 16; default 64.  Contiguous: 1 .. 2^31-1 */
    int32_t n_pages;       /* 1 .. 2^31-1; no default */
    int32_t n_open_pages;  /* INT8_CHANNEL: pages that may be open at once; default QKV_CACHE_AUTO:
                            * two a sequence and 2048 tokens' worth, at most n_pages */
    int32_t max_seqs;      /* sequences at once, 1 .. 65535; default 1 */
    int32_t sink_tokens;   /* first tokens of a sequence, never evicted, 0 .. 2^31-1; default 0 */
    int64_t max_tokens;    /* of a sequence, those evicted not counted; default QKV_CACHE_AUTO: as
                            * many as all pages hold */
    int64_t window_left;   /* keys before a query that the layers of this group see, besides the
                            * sinks; older ones are evicted at commit.  0 .. 2^31-1; default
                            * QKV_UNBOUNDED */
} qkv_cache_config;

QKV_API void qkv_cache_config_init_sized(qkv_cache_config *config, size_t struct_size);
static inline void qkv_cache_config_init(qkv_cache_config *config)
{
    qkv_cache_config_init_sized(config, sizeof *config);
}

/* What a cache of this config takes, in bytes, exactly.  This struct will not grow. */
typedef struct qkv_cache_bytes {
    uint64_t allocated; /* asked of the allocator by qkv_cache_create, all together */
    uint64_t page;      /* a page in all layers */
    uint64_t open_page; /* an open page in all layers; 0 without INT8_CHANNEL */
    uint64_t token;     /* a token in all layers, without what a page has once (scales, bounds) */
} qkv_cache_bytes;

/* QKV_OK, or QKV_ERR_ARGUMENT, QKV_ERR_UNSUPPORTED and the sentence that qkv_cache_create would
 * give.  needs may be NULL.  Thread-safe. */
QKV_API qkv_status qkv_cache_config_check(const qkv_cache_config *config, qkv_cache_bytes *needs,
                                          char *text, size_t bytes);

typedef struct qkv_cache qkv_cache;

/*
 * qkv_cache_create - an empty cache.
 *
 *   allocator  NULL for malloc and free.  Copied.  Asked for one block for the bookkeeping and one
 *              a layer; memory of pages is not touched before it is written (but by
 *              QKV_CACHE_POISON).
 *   cache      Receives the handle; NULL on failure.
 *
 * Returns QKV_OK; QKV_ERR_ARGUMENT; QKV_ERR_UNSUPPORTED; QKV_ERR_MEMORY.
 */
QKV_API qkv_status qkv_cache_create(const qkv_cache_config *config, const qkv_allocator *allocator,
                                    qkv_cache **cache, char *text, size_t bytes);

/* Frees everything.  No other call may be running.  NULL is allowed. */
QKV_API void qkv_cache_destroy(qkv_cache *cache);

/* The config with every default resolved.  Fills as much as the caller's struct has. */
QKV_API void qkv_cache_config_get_sized(const qkv_cache *cache, qkv_cache_config *config,
                                        size_t struct_size);
static inline void qkv_cache_config_get(const qkv_cache *cache, qkv_cache_config *config)
{
    qkv_cache_config_get_sized(cache, config, sizeof *config);
}

/* ---- sequences -------------------------------------------------------------------------- */

/* An empty sequence.  QKV_ERR_FULL when there are max_seqs. */
QKV_API qkv_status qkv_cache_add(qkv_cache *cache, int32_t *seq, char *text, size_t bytes);

/* A new sequence with the tokens of another, speculative ones too; no page is copied.  Truncate
 * it to share a prefix only.  Do not fork between a reserve and the last layer's write: what is
 * written later is refused, since the page is shared by then. */
QKV_API qkv_status qkv_cache_fork(qkv_cache *cache, int32_t seq, int32_t *child, char *text,
                                  size_t bytes);

/* Beam search: all at once, sequence seqs[i] becomes what seqs[parents[i]] was.  parents are in
 * [0, n) and may repeat; seqs may not.  Needs no pages. */
QKV_API qkv_status qkv_cache_reorder(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                     const int32_t *parents, char *text, size_t bytes);

/*
 * qkv_cache_reserve - room for counts[i] more tokens in sequence seqs[i].
 *
 * All or nothing.  counts NULL means one each; 0 is allowed; seqs may not repeat.  Lengths grow at
 * once; a page shared with another sequence is copied now if the first new token goes into it.
 * QKV_ERR_FULL says how many pages are needed and how many are free.
 */
QKV_API qkv_status qkv_cache_reserve(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                     const int32_t *counts, char *text, size_t bytes);

/*
 * qkv_cache_commit - the first lengths[i] tokens of sequence seqs[i] are final.
 *
 * They must be written in all layers.  lengths NULL: all tokens.  Never goes back: a smaller length
 * than was committed changes nothing.  Closes pages (INT8_CHANNEL) and evicts tokens that no later
 * query sees (window_left).  Cannot run out of pages.
 */
QKV_API qkv_status qkv_cache_commit(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                    const int64_t *lengths, char *text, size_t bytes);

/* Takes back all tokens from `length` on, committed or not.  Refused where the queries that come
 * next would need tokens that were evicted; length 0 is always possible. */
QKV_API qkv_status qkv_cache_truncate(qkv_cache *cache, int32_t seq, int64_t length, char *text,
                                      size_t bytes);

/* Forgets tokens sink_tokens .. before-1: views skip them, and pages that hold nothing else are
 * freed.  before is at most the committed length.  Positions stay. */
QKV_API qkv_status qkv_cache_evict(qkv_cache *cache, int32_t seq, int64_t before, char *text,
                                   size_t bytes);

/* Takes back all tokens, as truncation to 0; or the sequence itself as well.  QKV_ERR_ARGUMENT for
 * an id that is not alive. */
QKV_API qkv_status qkv_cache_reset(qkv_cache *cache, int32_t seq);
QKV_API qkv_status qkv_cache_release(qkv_cache *cache, int32_t seq);

typedef struct qkv_cache_seq_info {
    int64_t length;    /* position of the next token */
    int64_t committed; /* tokens below it are final */
    int64_t kept_from; /* tokens from here on are there, and the first sink_tokens; 0: all */
    int32_t n_pages;   /* in its table */
    int32_t n_shared;  /* of these also in another's */
} qkv_cache_seq_info;

QKV_API qkv_status qkv_cache_seq_info_get_sized(qkv_cache *cache, int32_t seq,
                                                qkv_cache_seq_info *info, size_t struct_size);
static inline qkv_status qkv_cache_seq_info_get(qkv_cache *cache, int32_t seq,
                                                qkv_cache_seq_info *info)
{
    return qkv_cache_seq_info_get_sized(cache, seq, info, sizeof *info);
}

/* The length alone; -1 for an id that is not alive. */
QKV_API int64_t qkv_cache_length(qkv_cache *cache, int32_t seq);

/* ---- keys and values in and out --------------------------------------------------------- */

/*
 * Tokens of several sequences.  Row t of head h of the i-th sequence lies at
 *     k + i * k_stride[0] + h * k_stride[1] + (first_rows[i] + t) * k_stride[2]
 * in elements, and its channels one after another; v likewise.  [n][Tq][H][D] and [n][H][Tq][D]
 * are strides with first_rows NULL (all 0); packed [T][H][D] has k_stride[0] = 0 and first_rows =
 * cu_seqlens.
 */
typedef struct qkv_cache_rows {
    uint32_t struct_size;      /* set by qkv_cache_rows_init */
    int32_t type;              /* QKV_F32, F16 or BF16; default F32 */
    int32_t n_seqs;            /* default 1 */
    int32_t reserved;
    const int32_t *seqs;       /* n_seqs ids */
    const int64_t *starts;     /* position of the first row; NULL: the newest counts[i] tokens */
    const int32_t *counts;     /* rows; NULL: all tokens that are not committed */
    const int32_t *first_rows; /* NULL: 0 */
    const void *k, *v;         /* v NULL if latent */
    int64_t k_stride[3], v_stride[3];
    const void *k_rope; /* latent: the rotary channels if k has only the others; NULL: k has all */
    int64_t k_rope_stride[3];
} qkv_cache_rows;

QKV_API void qkv_cache_rows_init_sized(qkv_cache_rows *rows, size_t struct_size);
static inline void qkv_cache_rows_init(qkv_cache_rows *rows)
{
    qkv_cache_rows_init_sized(rows, sizeof *rows);
}

/*
 * qkv_cache_write - store rows in one layer.
 *
 * Tokens must be reserved and not committed; with QKV_SCALE_HEAD write them in ascending order.
 * Takes no lock.  Numbers are rounded once, to the format of the cache.
 */
QKV_API qkv_status qkv_cache_write(qkv_cache *cache, int32_t layer, const qkv_cache_rows *rows,
                                   char *text, size_t bytes);

/*
 * qkv_cache_write_rotated - qkv_cache_write with keys turned on the way.
 *
 *   rope  Its head_dim is that of the cache; latent: only the last r channels may turn
 *         (rotary_offset at least head_dim_v), also if they come as k_rope.
 *   args  Angles: positions, position_stride, seq_len, inverse, and the table; the other fields are
 *         not looked at.  Row t of the i-th sequence has those of sequence i, token
 *         first_rows[i] + t.  Without a table they are found for each row, or once for all heads
 *         if a call writes one token: give a table where several heads and tokens are written.
 *
 * Stores the bits that qkv_rope_apply into memory of rows->type and then qkv_cache_write would.
 * Needs less than 40 KiB of stack.
 */
QKV_API qkv_status qkv_cache_write_rotated(qkv_cache *cache, int32_t layer,
                                           const qkv_cache_rows *rows, const qkv_rope *rope,
                                           const qkv_rope_args *args, char *text, size_t bytes);

/*
 * qkv_cache_read - tokens start .. start+count-1 of one sequence as numbers, decoded.
 *
 * What attention over the cache sees, in f32, f16 or bf16.  Strides in elements over head and
 * token.  k or v may be NULL.  Latent: k receives c + r channels, v the first c.  All tokens
 * must be there (see kept_from).  Takes no lock.
 */
QKV_API qkv_status qkv_cache_read(qkv_cache *cache, int32_t layer, int32_t seq, int64_t start,
                                  int64_t count, qkv_type type, void *k, const int64_t k_stride[2],
                                  void *v, const int64_t v_stride[2], char *text, size_t bytes);

/* Scales for QKV_SCALE_HEAD in one layer, n_kv_heads each, finite and more than 0; NULL for "found
 * at the first tokens".  For sequences whose token 0 is written from now on; not thread-safe. */
QKV_API qkv_status qkv_cache_set_scales(qkv_cache *cache, int32_t layer, const float *k_scales,
                                        const float *v_scales, char *text, size_t bytes);

/* ---- what is in it ---------------------------------------------------------------------- */

/* Counted when asked, in time proportional to all tables. */
typedef struct qkv_cache_stats {
    int32_t n_seqs;      /* alive */
    int32_t pages;       /* n_pages of the config */
    int32_t used_pages;  /* in a table; the others are free */
    int32_t shared_pages; /* in more than one table */
    int32_t open_pages, used_open_pages;
    int64_t tokens;        /* that are there, of all sequences; shared ones counted for each */
    int64_t stored_tokens; /* shared ones counted once */
    uint64_t allocated;    /* bytes asked of the allocator, as qkv_cache_bytes */
    uint64_t payload;      /* bytes that hold stored tokens with their scales and bounds */
    uint64_t copied;       /* since creation: pages copied because they were shared, */
    uint64_t closed, opened, evicted; /* closed, opened again, evicted */
} qkv_cache_stats;

QKV_API qkv_status qkv_cache_stats_get_sized(qkv_cache *cache, qkv_cache_stats *stats,
                                             size_t struct_size);
static inline qkv_status qkv_cache_stats_get(qkv_cache *cache, qkv_cache_stats *stats)
{
    return qkv_cache_stats_get_sized(cache, stats, sizeof *stats);
}

/* ---- save and load ---------------------------------------------------------------------- */

/* Where bytes go and come from.  write takes all of them or returns another number than 0; read
 * gives exactly as many or returns another number than 0. */
typedef struct qkv_cache_writer {
    int (*write)(void *ctx, const void *data, size_t bytes);
    void *ctx;
} qkv_cache_writer;
typedef struct qkv_cache_reader {
    int (*read)(void *ctx, void *data, size_t bytes);
    void *ctx;
} qkv_cache_reader;

/*
 * qkv_cache_save - n sequences with their tokens, pages they share once.
 *
 * A header with the config, tables, and pages, each part with a CRC-32C.  Places of a page that
 * hold no token of these sequences are written as zeros, so nothing of another sequence gets
 * out.  Little-endian machines only.  Uses scratch of the cache's allocator: a page of one layer
 * and 8 bytes for each page there is.
 *
 * QKV_ERR_SYSTEM if write fails.  qkv/io.h writes files.
 */
QKV_API qkv_status qkv_cache_save(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                  const qkv_cache_writer *writer, char *text, size_t bytes);

/*
 * qkv_cache_load - all sequences of a saved cache, as new sequences of this one.
 *
 *   seqs   Receives their ids in the order of saving; room for max_seqs.
 *   n      Receives how many.
 *
 * The configs must agree in everything that decides what a page holds, and in sink_tokens and
 * window_left; numbers of pages and sequences may differ.  Everything is checked before a sequence
 * exists: a foreign, shortened or damaged file leaves the cache as it was.  (Whether more bytes
 * follow is the caller's to see.)
 *
 * QKV_ERR_FORMAT: not a saved cache, of another version, damaged.  QKV_ERR_ARGUMENT: a cache
 * of another kind; the sentence names the field.  QKV_ERR_FULL; QKV_ERR_SYSTEM if read fails;
 * QKV_ERR_MEMORY.
 */
QKV_API qkv_status qkv_cache_load(qkv_cache *cache, const qkv_cache_reader *reader,
                                  int32_t max_seqs, int32_t *seqs, int32_t *n, char *text,
                                  size_t bytes);

/* The header alone: a config with which the file can be loaded (n_pages and max_seqs are what it
 * needs), and what is in it. */
typedef struct qkv_cache_file_info {
    qkv_cache_config config;
    int32_t version;
    int32_t n_seqs;
    int32_t n_pages, n_open_pages; /* stored */
    int64_t tokens;                /* as in qkv_cache_stats */
    uint64_t bytes;                /* of the whole file */
} qkv_cache_file_info;

QKV_API qkv_status qkv_cache_inspect_sized(const qkv_cache_reader *reader,
                                           qkv_cache_file_info *info, size_t struct_size,
                                           char *text, size_t bytes);
static inline qkv_status qkv_cache_inspect(const qkv_cache_reader *reader,
                                           qkv_cache_file_info *info, char *text, size_t bytes)
{
    return qkv_cache_inspect_sized(reader, info, sizeof *info, text, bytes);
}

#ifdef __cplusplus
}
#endif
#endif /* QKV_CACHE_H */
