/*
 * tmpl/convert_tmpl.h - rows of other float types into the compute type, and back.
 *
 * Parameters: none.  Needs one simd/ header.
 */
#include "core/convert.h"

/* n elements of `type` at src, as reals.  Reads no byte past the last element. */
static void widen_row(real *dst, const void *src, int type, int n)
{
    int i = 0;
#ifdef QKV_WIDEN_F32 /* the vocabulary widens 16-bit floats */
    if (type == QKV_F32) {
        memcpy(dst, src, (size_t)n * sizeof(real));
        return;
    }
    const uint16_t *h = src;
    if (type == QKV_BF16)
        for (; i + VL <= n; i += VL)
            v_store(dst + i, v_widen_bf16(h + i));
    else if (type == QKV_F16)
        for (; i + VL <= n; i += VL)
            v_store(dst + i, v_widen_f16(h + i));
    for (; i < n; i++)
        dst[i] = qkv_load_f32(src, type, i);
#else
    for (; i < n; i++)
        dst[i] = (real)qkv_load_f64(src, type, i);
#endif
}

static void narrow_row(void *dst, int type, const real *src, int n)
{
    int i = 0;
    if ((type == QKV_F32 && sizeof(real) == 4) || type == QKV_F64) {
        memcpy(dst, src, (size_t)n * sizeof(real));
        return;
    }
#ifdef QKV_WIDEN_F32
    uint16_t *h = dst;
    if (type == QKV_BF16)
        for (; i + VL <= n; i += VL)
            v_narrow_bf16(h + i, v_load(src + i));
    else if (type == QKV_F16)
        for (; i + VL <= n; i += VL)
            v_narrow_f16(h + i, v_load(src + i));
#endif
    for (; i < n; i++)
        qkv_store_f64(dst, type, i, (double)src[i]);
}
