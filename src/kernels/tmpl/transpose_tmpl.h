/*
 * tmpl/transpose_tmpl.h - rows become columns: queries into lanes and back, masks and biases.
 *
 * Interleaving row i with row i + N/2 turns the address (row, column) by one bit; log2(N) rounds
 * of it are a transpose.  N^2 log2(N) / VL shuffles in registers, where a scatter of single
 * elements costs N^2 stores (that was a tenth of a short prefill).
 *
 * Parameters: none.  Needs one simd/ header.
 */

/* VL vectors in place. */
static inline void transpose(vf a[VL])
{
    UNROLL for (int round = 1; round < VL; round *= 2)
    {
        vf b[VL];
        UNROLL for (int i = 0; i < VL / 2; i++)
        {
            b[2 * i] = v_zip_lo(a[i], a[i + VL / 2]);
            b[2 * i + 1] = v_zip_hi(a[i], a[i + VL / 2]);
        }
        UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
    }
}

/* Sixteen rows of bytes, turned in squares of sixteen side by side, as many as the widest vectors
 * hold: bytes are interleaved within 16 of them.  Vectors of the compiler's own: every baseline
 * has this. */
enum { SQUARES = VL >= 16 ? 4 : VL >= 8 ? 2 : 1, SQUARE_BYTES = 16 * SQUARES };
typedef uint8_t byte_row __attribute__((vector_size(16 * (VL >= 16 ? 4 : VL >= 8 ? 2 : 1))));
typedef uint8_t bytes16 __attribute__((vector_size(16)));

#define PAIRS8(o)                                                                                  \
    (o), (o) + SQUARE_BYTES, (o) + 1, (o) + 1 + SQUARE_BYTES, (o) + 2, (o) + 2 + SQUARE_BYTES,     \
        (o) + 3, (o) + 3 + SQUARE_BYTES, (o) + 4, (o) + 4 + SQUARE_BYTES, (o) + 5,                 \
        (o) + 5 + SQUARE_BYTES, (o) + 6, (o) + 6 + SQUARE_BYTES, (o) + 7, (o) + 7 + SQUARE_BYTES
#if VL >= 16
#define ZIP_BYTES(a, b, o)                                                                         \
    __builtin_shufflevector(a, b, PAIRS8(o), PAIRS8(16 + o), PAIRS8(32 + o), PAIRS8(48 + o))
#elif VL >= 8
#define ZIP_BYTES(a, b, o) __builtin_shufflevector(a, b, PAIRS8(o), PAIRS8(16 + o))
#else
#define ZIP_BYTES(a, b, o) __builtin_shufflevector(a, b, PAIRS8(o))
#endif

INLINE void transpose_bytes(byte_row a[16])
{
    UNROLL for (int round = 0; round < 4; round++)
    {
        byte_row b[16];
        UNROLL for (int i = 0; i < 8; i++)
        {
            b[2 * i] = ZIP_BYTES(a[i], a[i + 8], 0);
            b[2 * i + 1] = ZIP_BYTES(a[i], a[i + 8], 8);
        }
        UNROLL for (int i = 0; i < 16; i++) a[i] = b[i];
    }
}
#undef ZIP_BYTES
#undef PAIRS8
