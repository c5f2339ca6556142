/*
 * qkv/formats.h - the number formats of keys and values in a cache, bit for bit.
 *
 * Rows of float in, codes and scales out, and back.  A group is a run of channels of one row that
 * shares a scale: `group` channels each, the last one shorter if it must be; group 0 is the whole
 * row.  A row of n channels has (n + group - 1) / group groups, or 1, and as many scales.
 *
 *     format      value of a code          code of a value x
 *     int8        code * scale             x / scale to nearest even, -127 .. 127
 *     int4        min + code * step        (x - min) / step to nearest even, 0 .. 15
 *     e4m3, e5m2  fp8(code) * scale        x / scale to nearest even, saturating
 *
 * All arithmetic is f32 in the rounding mode to nearest, so results are the same on every machine.
 *
 * What is not finite stays visible: integer codes have no NaN, so a group of int8 or int4 that
 * holds a NaN or an infinity decodes to NaN as a whole (its scale, or its step and min, are NaN);
 * in fp8 the element alone becomes NaN.  Nothing finite ever stands for something that was not.
 *
 * Functions returning qkv_status return QKV_OK, or QKV_ERR_ARGUMENT without having written anything
 * for a negative count, a group outside 0 .. n, a NULL array while n > 0, or what is named beside
 * them.  Arrays may not overlap.  All are thread-safe and allocate nothing.
 */
#ifndef QKV_FORMATS_H
#define QKV_FORMATS_H

#include "qkv/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- int8, symmetric -------------------------------------------------------------------- */

/*
 * scale = max |x| / 127 of the group, at least 2^-126 (so that it is a normal number); a group of
 * zeros has scale 0 and codes 0.  |x - value| <= scale / 2, up to the rounding of the quotient.
 * codes: n; scales: one a group.
 */
QKV_API qkv_status qkv_int8_encode(const float *x, int64_t n, int32_t group, int8_t *codes,
                                   float *scales);
QKV_API qkv_status qkv_int8_decode(const int8_t *codes, const float *scales, int64_t n,
                                   int32_t group, float *x);

/*
 * The same with one scale a channel, over all rows of a block: x and codes are
 * [n_tokens][n_channels], scales [n_channels].  A NaN or an infinity makes its channel NaN in every
 * row of the block.
 */
QKV_API qkv_status qkv_int8_channel_encode(const float *x, int64_t n_tokens, int64_t n_channels,
                                           int8_t *codes, float *scales);
QKV_API qkv_status qkv_int8_channel_decode(const int8_t *codes, const float *scales,
                                           int64_t n_tokens, int64_t n_channels, float *x);

/* ---- int4, with a minimum --------------------------------------------------------------- */

/*
 * min and step are f16 (bit patterns): min is the smallest x of the group rounded down, step is
 * (largest x - min) / 15 rounded up, so that min .. min + 15 step holds the group and codes, taken
 * against the rounded numbers, need no clipping: |x - value| <= step / 2, and the rounding of the
 * sum.  Rounding both to nearest, as is usual, clips the ends of narrow groups far from zero.  A
 * group of one f16 number has step 0.  A group that reaches beyond -65504 or +65504 is treated as
 * not finite.
 *
 * codes: (n + 1) / 2 bytes, channel 2i in the low nibble of byte i and channel 2i + 1 in the high
 * one; the last high nibble of an odd n is 0.  steps, mins: one a group.  group must be even or 0.
 */
QKV_API qkv_status qkv_int4_encode(const float *x, int64_t n, int32_t group, uint8_t *codes,
                                   uint16_t *steps, uint16_t *mins);
QKV_API qkv_status qkv_int4_decode(const uint8_t *codes, const uint16_t *steps,
                                   const uint16_t *mins, int64_t n, int32_t group, float *x);

/* ---- fp8 (OCP 8-bit floating point, revision 1.0) --------------------------------------- */

/*
 * e4m3 (the "fn" kind: no infinity, NaN is S.1111.111, largest number 448) and e5m2 (as IEEE 754
 * would have it, largest number 57344).  To nearest even; what is larger than the largest number,
 * and infinity, becomes the largest number; NaN stays NaN with its sign (0x7f, 0x7e).
 */
QKV_API uint8_t qkv_e4m3_of_f32(float x);
QKV_API uint8_t qkv_e5m2_of_f32(float x);

/* The value, exactly; both infinities and every NaN of e5m2 are themselves. */
QKV_API float qkv_f32_of_e4m3(uint8_t code);
QKV_API float qkv_f32_of_e5m2(uint8_t code);

enum { QKV_FP8_E4M3 = 0, QKV_FP8_E5M2 = 1 };

/*
 * The scale that uses the format's whole range for these numbers: max |x| / 448 (or / 57344) over
 * the finite ones, at least 2^-126, and 0 if they are all zero (or there are none).  kind is
 * QKV_FP8_; another gives 0.
 */
QKV_API float qkv_fp8_scale(const float *x, int64_t n, int32_t kind);

/* scales: one a group, found as qkv_fp8_scale does.  A NaN or infinity becomes NaN, by itself. */
QKV_API qkv_status qkv_fp8_encode(const float *x, int64_t n, int32_t group, int32_t kind,
                                  uint8_t *codes, float *scales);

/* With a scale that is given, finite and 0 or more, for all n; larger numbers saturate.  With scale
 * 0 every finite number becomes 0. */
QKV_API qkv_status qkv_fp8_encode_scaled(const float *x, int64_t n, float scale, int32_t kind,
                                         uint8_t *codes);
QKV_API qkv_status qkv_fp8_decode(const uint8_t *codes, const float *scales, int64_t n,
                                  int32_t group, int32_t kind, float *x);

/* ---- blocks of ggml --------------------------------------------------------------------- */

/*
 * q8_0: 34 bytes for 32 numbers, an f16 scale and 32 int8.  q4_0: 18 bytes for 32 numbers, an f16
 * scale and 16 bytes, numbers 0 .. 15 in the low nibbles and 16 .. 31 in the high ones, each code
 * less 8.  Little-endian.  Writers give the bytes of ggml's reference functions (those that write
 * model files; its vector code may round ties of q8_0 another way).  Where those are undefined, for
 * NaN, infinity, or a block whose scale has no finite reciprocal, we write what decodes to NaN, or
 * to 0 for the last.
 *
 * n must be a multiple of 32.  blocks needs no alignment.
 */
enum { QKV_GGML_BLOCK = 32, QKV_Q8_0_BYTES = 34, QKV_Q4_0_BYTES = 18 };
QKV_API qkv_status qkv_q8_0_encode(const float *x, int64_t n, void *blocks);
QKV_API qkv_status qkv_q8_0_decode(const void *blocks, int64_t n, float *x);
QKV_API qkv_status qkv_q4_0_encode(const float *x, int64_t n, void *blocks);
QKV_API qkv_status qkv_q4_0_decode(const void *blocks, int64_t n, float *x);

/* ---- caches of ONNX Runtime ------------------------------------------------------------- */

/*
 * The int8 and int4 caches of com.microsoft.GroupQueryAttention: symmetric, with scales that are
 * given and not found.  code = x / scale to nearest even, clamped to -128 .. 127 or -8 .. 7; a
 * scale of 0 counts as 1.  Rows of dim channels; n_scales is 1 (PER_TENSOR) or dim (PER_CHANNEL,
 * one head's).  An infinity clamps.  A NaN has no code and is refused: QKV_ERR_ARGUMENT, the codes
 * then unspecified.
 *
 * An int4 row takes (dim + 1) / 2 bytes.  GroupQueryAttention stores element 2i in the low
 * nibble and codes with 8 added: QKV_NIBBLES_EVEN_LOW, QKV_INT4_BIASED.  The other order and
 * two's complement are what other tools write.
 */
enum { QKV_NIBBLES_EVEN_LOW = 0, QKV_NIBBLES_EVEN_HIGH = 1 };
enum { QKV_INT4_BIASED = 0, QKV_INT4_TWOS_COMPLEMENT = 1 };
QKV_API qkv_status qkv_ort_int8_encode(const float *x, int64_t rows, int64_t dim,
                                       const float *scales, int64_t n_scales, int8_t *codes);
QKV_API qkv_status qkv_ort_int8_decode(const int8_t *codes, int64_t rows, int64_t dim,
                                       const float *scales, int64_t n_scales, float *x);
QKV_API qkv_status qkv_ort_int4_encode(const float *x, int64_t rows, int64_t dim,
                                       const float *scales, int64_t n_scales, int32_t nibbles,
                                       int32_t coding, uint8_t *codes);
QKV_API qkv_status qkv_ort_int4_decode(const uint8_t *codes, int64_t rows, int64_t dim,
                                       const float *scales, int64_t n_scales, int32_t nibbles,
                                       int32_t coding, float *x);

#ifdef __cplusplus
}
#endif
#endif /* QKV_FORMATS_H */
