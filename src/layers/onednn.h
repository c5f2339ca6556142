/*
 * layers/onednn.h - the little of oneDNN that layers use, without its headers.
 *
 * onednn.c calls the library; without_onednn.c stands in its place in a build that has none and
 * refuses.  Handles are oneDNN's own objects.  Everything here computes on the calling thread only,
 * whatever OpenMP would like: what spreads work over threads is the caller's parallel loop.
 *
 *     bf16   y [rows][outputs] f32 = x [rows][inputs] bf16, w [outputs][inputs] bf16, summed in f32
 *     int8   y [rows][outputs] i32 = x [rows][inputs] u8, w [outputs][inputs] s8, exact
 *     f32_packed   all f32
 */
#ifndef QKV_LAYERS_ONEDNN_H
#define QKV_LAYERS_ONEDNN_H

#include "core/say.h"

/* Sums of a product of int8 fit 32 bits up to here: 2^31 / (255 * 127). */
#define QKV_ONEDNN_MOST_INPUTS 66000

/* "bf16", "int8", "f32_packed"; "f32" for others. */
static inline const char *qkv_weights_name(int32_t weights)
{
    static const char *const names[] = {"f32", "bf16", "int8", "f32_packed"};
    return names[weights > 0 && weights < 4 ? weights : 0];
}

/* Whether this build and this CPU have products with such weights (QKV_WEIGHTS_). */
qkv_status qkv_onednn_check(int32_t weights, qkv_say say);

/* How a matrix is to lie in memory.  *layout receives the handle, *bytes its size so. */
qkv_status qkv_onednn_layout(int32_t weights, int64_t outputs, int64_t inputs, void **layout,
                             size_t *bytes);
/* Puts w, by rows, where the layout wants it; `to` is aligned to 64 bytes. */
qkv_status qkv_onednn_place(const void *layout, const void *w, void *to);
void qkv_onednn_layout_end(void *layout); /* NULL is allowed */

/* A product with a matrix of this layout, y dense: oneDNN 2 has no fast kernel for a part of a
 * wider y.  *scratch grows to what a run needs at least. */
qkv_status qkv_onednn_product(const void *layout, int64_t rows, void **product, size_t *scratch);
/* Any number of threads may run one product, each with its own scratch (aligned to 64 bytes). */
qkv_status qkv_onednn_run(const void *product, const void *x, const void *w, void *y,
                          void *scratch);
void qkv_onednn_product_end(void *product); /* NULL is allowed */

#endif
