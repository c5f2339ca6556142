/*
 * pages.h - random problems whose keys and values lie in pages, are codes, or both.
 *
 * A paged problem is a t_problem whose descriptor says where keys and values lie.  Its tensors T_K
 * and T_V are not what the library reads: they are dense copies in f64, gathered from the pages
 * and decoded by this program's own code, and what the oracle says about them must be what it
 * says about the pages.
 *
 *     pages_describe    sizes, types, page size, groups, rotary part: all may be edited
 *     pages_make        memory, contents, junk where nobody may look, both oracles' answers
 */
#ifndef PAGES_H
#define PAGES_H

#include "t_problem.h"

/* Keys or values as the library finds them; layouts are those of the problem's descriptor. */
typedef struct pages_side {
    int32_t dim;               /* channels in data */
    t_tensor data, scale, min; /* over pages (or sequences), heads, tokens, channels or groups */
} pages_side;

typedef struct paged {
    t_problem p;
    int latent; /* V is the first channels of K */
    int nan_in; /* 1 + number of the tensor where one element that is seen becomes NaN; 0: none */
    pages_side k, v;
    t_tensor rope;
    qkv_layout flat[2]; /* of T_K and T_V */
    double *k_error;
    int32_t *table, *true_table; /* as the library sees it; before junk was put in */
    int64_t n_entries;
    uint8_t *seen; /* [B][Hq][Tq][Tk]: pairs that may be looked at */
} paged;

/* A descriptor.  Limits that ask for f64 are honoured, with pages and without codes. */
void pages_describe(paged *x, uint64_t seed, const t_limits *limits);

/* Everything else.  Fails the case if the oracle says one thing about the pages and another about
 * the dense copy. */
void pages_make(paged *x);

/* Only memory and contents, with ordinary numbers also where nobody looks. */
void pages_contents(paged *x);

/* Keys, values, scales and rotary parts as they are, but in tensors without pages. */
void pages_unpage(paged *x);

/* One line for failure messages.  Static storage. */
const char *pages_text(const paged *x);

/* ---- between the files of this program ---- */

static inline int pages_coded(int32_t type) { return type >= QKV_I8 && type <= QKV_E5M2; }

static inline char *pages_at(const t_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (char *)t->first + t_offset(t, i0, i1, i2, i3);
}

/* All tensors but `latent` values, which lie in those of K; data first. */
enum { PAGES_TENSORS = 7 };
t_tensor *pages_tensor(paged *x, int i);
int pages_has(const paged *x, const t_tensor *t); /* is it there, and not shared with another? */

/* Memory of every tensor, and the table. */
void pages_allocate(paged *x);

/* Where key j of sequence b lies for kv head h. */
typedef struct pages_place {
    int64_t outer, row;
} pages_place;
pages_place pages_find(const paged *x, int32_t b, int32_t h, int64_t j);

/* Calls fn for every key that exists, of every sequence and head. */
typedef void pages_key_fn(paged *x, int32_t b, int32_t h, int64_t j, void *arg);
void pages_each_key(paged *x, pages_key_fn *fn, void *arg);

/* Contents from T_K and T_V, rounded to their types; codes at random with scales to match. */
void pages_encode(paged *x);
/* T_K and T_V from the contents; sets k_error. */
void pages_gather(paged *x);
/* Junk in all that the pairs in `seen` ([B][Hq][Tq][Tk]) do not need, also in the table. */
void pages_spoil(paged *x, const uint8_t *seen);

/* The layout of keys, values or their companions: nested strides in a random order. */
void pages_lay_out(t_rng *rng, qkv_layout *l, const int64_t n[4], int whole_rows, int share);

#endif
