/*
 * view.h - the type View: some queries over the tokens of some sequences, planned once a step.
 *
 * The keys may fall into several parts (include/qkv/cache_view.h), each with a plan of its own. One
 * part is computed into the caller's output; more are computed into scratch and merged.  With a
 * shared prefix there is a second qkv_cache_view, of the prefix alone, for the queries of all
 * sequences stacked as rows of one.
 */
#ifndef QKV_PY_VIEW_H
#define QKV_PY_VIEW_H

#include "cache_binding.h"

enum { MAX_PARTS = 8 };

typedef struct view_part {
    const qkv_cache_view *view;
    int32_t number; /* in its view */
    int stacked;
    int64_t *bases; /* [B] position of the key that the part calls 0; NULL if stacked */
    qkv_desc desc;
    void *memory;
    const qkv_plan *plan;
} view_part;

typedef struct view_object {
    PyObject_HEAD
    cache_object *cache;
    problem made_for; /* closed, but for descriptor and options; kv_len is the longest length */
    tensor seen[SLOPES + 1];
    int32_t B, *seqs, *q_lens, *cu, *offsets;
    int64_t *lengths;
    int64_t rows; /* of q, in all sequences */
    int causal, offsets_given;
    long long window; /* OWN_WINDOW, or keys before a query */
    long long shared; /* tokens of the prefix that is read once */
    int pages;        /* to pick for each sequence and head; 0: all are read */
    void *memory[2];
    int n_parts;
    view_part part[MAX_PARTS];
    size_t workspace_bytes, room_bytes; /* room: the workspace, then scratch for parts */
    void *room;
    int busy; /* a run has the room; one from another thread makes itself another */
} view_object;

enum { OWN_WINDOW = -2 };

/* Is the output of one part the result? */
static inline int is_direct(const view_object *v) { return v->n_parts == 1 && !v->part[0].stacked; }

/* ---- view_parts.c ---- */

/* The qkv_cache_view or two, with their parts. */
int qkvpy_view_add(view_object *v);
/* The descriptor and plan of a part. */
int qkvpy_view_plan(view_object *v, view_part *part);

/* ---- view_pick.c ---- */

/* Tokens that each sequence shows in the pages that will be picked, for PyMem_Free; or NULL. */
int32_t *qkvpy_pick_lengths(const view_object *v);
/* The part's descriptor for picked pages. */
void qkvpy_pick_describe(const view_object *v, const int32_t *kv_lens, qkv_desc *d);
/* Their numbers for this layer and these queries, for free(); NULL with an exception. */
int32_t *qkvpy_pick(const view_object *v, int32_t layer, const tensor *q);

/* ---- view.c, view_run.c ---- */

/* Elements of one part's o and lse in scratch, each a multiple of 16. */
int64_t qkvpy_view_o_elements(const view_object *v);
int64_t qkvpy_view_lse_elements(const view_object *v);
/* run(layer, q, out, mask, bias, sinks, slopes): what attention returns, or None if an array lies
 * in memory differently than the one the view was made with. */
PyObject *qkvpy_view_run(PyObject *self, PyObject *const *args, Py_ssize_t n_args);

/* ---- view_shift.c ---- */

/* The mask or bias of a part: its layout, from that over positions. */
void qkvpy_shift_layout(const view_object *v, const view_part *part, const qkv_layout *whole,
                        qkv_layout *l);
/* Bytes of the copy that is needed, 0 if the part's keys are a piece of the whole. */
size_t qkvpy_shift_bytes(const view_object *v, const view_part *part, const qkv_layout *whole);
/* Its first element, in the whole or in the copy that is made in memory. */
const void *qkvpy_shift(const view_object *v, const view_part *part, const qkv_layout *whole,
                        const void *data, void *memory);

#endif
