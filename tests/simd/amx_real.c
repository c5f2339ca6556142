/* amx_real.c - the instructions behind amx_real.h; compiled with AVX2 and AMX, called if they are there. */
#undef QKV_AMX_MODEL
#include "amx_real.h"

#include <immintrin.h>

void amx_real_dot(const tile_config *config, int op, void *c, const void *a, const void *b,
                  int64_t stride)
{
    tile_file file;

    t_configure(&file, config);
    t_load(&file, 0, c, stride);
    t_load(&file, 1, a, stride);
    t_load_once(&file, 2, b, stride);
    switch (op) {
    case AMX_BF16:
        t_dot_bf16(&file, 0, 1, 2);
        break;
    case AMX_I8:
        t_dot_i8(&file, 0, 1, 2);
        break;
    case AMX_I8U8:
        t_dot_i8u8(&file, 0, 1, 2);
        break;
    case AMX_U8I8:
        t_dot_u8i8(&file, 0, 1, 2);
        break;
    default:
        t_dot_u8(&file, 0, 1, 2);
        break;
    }
    t_store(&file, 0, c, stride);
    t_release(&file);
}

void amx_real_fma(const float *a, const float *b, const float *c, float *out, size_t n)
{
    const unsigned before = _mm_getcsr();

    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zeros */
    for (size_t i = 0; i < n; i++) {
        const __m128 x = _mm_fmadd_ss(_mm_load_ss(a + i), _mm_load_ss(b + i), _mm_load_ss(c + i));
        _mm_store_ss(out + i, x);
    }
    _mm_setcsr(before);
}
