/*
 * qkv/ref.h - the oracle: attention in plain C, in double, with a two-pass softmax.
 *
 * Slow and simple on purpose.  It is written from the formulas in qkv/attention.h, shares no code
 * with the kernels and is never dispatched to.  Use it to check results; `qkv check` does.
 */
#ifndef QKV_REF_H
#define QKV_REF_H

#include "qkv/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What the oracle writes, all in double, dense, and NULL where not wanted.  Rows are
 * [B][Hq][q_len], also for packed queries (row i of sequence b, i < q_len).
 *
 * o_budget and lse_budget bound how far a correct kernel may be from o and lse: the rounding of
 * the descriptor's types propagated through this very problem (docs/numerics.md).  A kernel is
 * right if |got - o| <= o_budget for every element; where o is NaN the kernel must give NaN; a
 * budget of infinity says that scores overflow the compute type and nothing can be asked.
 */
typedef struct qkv_ref_out {
    double *o;          /* [B][Hq][q_len][Dv] */
    double *lse;        /* [B][Hq][q_len] */
    double *weights;    /* [B][Hq][q_len][kv_len], at the descriptor's stage (whether or not it asks for weights) */
    double *o_budget;   /* as o */
    double *lse_budget; /* as lse */
} qkv_ref_out;

/* Bytes of scratch that qkv_ref_attention needs, 8-byte aligned; 0 if the descriptor is refused. */
QKV_API size_t qkv_ref_scratch_size(const qkv_desc *desc);

/*
 * Compute a problem.  args holds the inputs; its outputs and workspace are ignored.  Costs
 * O(B Hq Tq Tk (D + Dv)) on the calling thread.  Returns QKV_OK or what qkv_explain returns for desc.
 */
QKV_API qkv_status qkv_ref_attention(const qkv_desc *desc, const qkv_args *args,
                                     const qkv_ref_out *out, void *scratch);

#ifdef __cplusplus
}
#endif
#endif /* QKV_REF_H */
