/* kernels_scalar_f64.c - the kernels that compute in f64 on the scalar tier. */
#include "kernels/simd/scalar_f64.h"

#define TIER scalar
#define REAL_TYPE QKV_F64
#include "kernels/tmpl/kernels_tmpl.h"

MAKE_KERNELS(f64_f64_f64, QKV_F64, QKV_F64, 1)
