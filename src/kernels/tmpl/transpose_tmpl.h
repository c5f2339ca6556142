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

/* VL rows of n numbers, from_stride apart, to n rows of VL, to_stride apart.  Rows are read to whole
 * vectors: past n there must be room, whatever it holds. */
static void transpose_rows(const real *from, int64_t from_stride, int n, real *to, int to_stride)
{
    for (int c = 0; c < n; c += VL) {
        vf a[VL];
        UNROLL for (int i = 0; i < VL; i++) a[i] = v_load(from + i * from_stride + c);
        transpose(a);
        UNROLL for (int i = 0; i < VL; i++)
        {
            if (c + i < n)
                v_store(to + (c + i) * to_stride, a[i]);
        }
    }
}

/* Sixteen rows of sixteen bytes.  Vectors of the compiler's own: every baseline interleaves bytes. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));

static inline bytes16 zip_lo_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline bytes16 zip_hi_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
}

static inline void transpose_bytes(bytes16 a[16])
{
    UNROLL for (int round = 0; round < 4; round++)
    {
        bytes16 b[16];
        UNROLL for (int i = 0; i < 8; i++)
        {
            b[2 * i] = zip_lo_bytes(a[i], a[i + 8]);
            b[2 * i + 1] = zip_hi_bytes(a[i], a[i + 8]);
        }
        UNROLL for (int i = 0; i < 16; i++) a[i] = b[i];
    }
}
