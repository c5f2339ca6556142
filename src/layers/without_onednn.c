/* layers/without_onednn.c - a build without oneDNN: there is f32, and the rest is refused. */
#include "layers/onednn.h"

qkv_status qkv_onednn_check(int32_t weights, qkv_say say)
{
    (void)weights;
    return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                      "this build has no oneDNN (Meson option onednn); it keeps weights as f32");
}

/* What follows is not reached: nothing gets past the check. */

qkv_status qkv_onednn_layout(int32_t weights, int64_t outputs, int64_t inputs, void **layout,
                             size_t *bytes)
{
    (void)weights, (void)outputs, (void)inputs, (void)layout, (void)bytes;
    return QKV_ERR_UNSUPPORTED;
}

qkv_status qkv_onednn_place(const void *layout, const void *w, void *to)
{
    (void)layout, (void)w, (void)to;
    return QKV_ERR_UNSUPPORTED;
}

void qkv_onednn_layout_end(void *layout) { (void)layout; }

qkv_status qkv_onednn_product(const void *layout, int64_t rows, void **product, size_t *scratch)
{
    (void)layout, (void)rows, (void)product, (void)scratch;
    return QKV_ERR_UNSUPPORTED;
}

qkv_status qkv_onednn_run(const void *product, const void *x, const void *w, void *y, void *scratch)
{
    (void)product, (void)x, (void)w, (void)y, (void)scratch;
    return QKV_ERR_UNSUPPORTED;
}

void qkv_onednn_product_end(void *product) { (void)product; }
