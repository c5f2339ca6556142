/*
 * simd/scalar_f64.h - the vocabulary on one double at a time: the portable tier.  See scalar_ops.h.
 */
#ifndef QKV_SIMD_SCALAR_F64_H
#define QKV_SIMD_SCALAR_F64_H

#include <math.h>
#include <stdint.h>

typedef double real;
typedef double vf;
typedef uint64_t scalar_bits;
#define SCALAR_BIAS 1023
#define SCALAR_FRACTION 52
#define SCALAR_BIG 6755399441055744.0
#define SCALAR_ABS fabs
#define SCALAR_SIGN copysign
#include "kernels/simd/scalar_ops.h"

#endif
