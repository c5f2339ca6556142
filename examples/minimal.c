/* minimal.c - describe, plan, run: causal attention, 4 query heads on 2 key/value heads.
 *     cc minimal.c $(pkg-config --cflags --libs qkv) -lm -o minimal
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <qkv/attention.h>

enum { HQ = 4, HKV = 2, T = 50, D = 32 };
static float q[HQ][T][D], k[HKV][T][D], v[HKV][T][D], o[HQ][T][D];

/* Channel c of output row (h, i), from the formula, in double. */
static double expected(int h, int i, int c)
{
    const int g = h / (HQ / HKV);
    double sum = 0, out = 0;
    for (int j = 0; j <= i; j++) {
        double s = 0;
        for (int d = 0; d < D; d++)
            s += (double)q[h][i][d] * k[g][j][d];
        sum += exp(s / sqrt(D));
        out += exp(s / sqrt(D)) * v[g][j][c];
    }
    return out / sum;
}

int main(void)
{
    for (int n = 0; n < HQ * T * D; n++) {
        const int h = n / D / T, i = n / D % T, c = n % D;
        q[h][i][c] = sinf(0.7f * (float)n);
        k[h / (HQ / HKV)][i][c] = cosf(1.3f * (float)n);
        v[h / (HQ / HKV)][i][c] = sinf(2.1f * (float)n);
    }

    qkv_desc desc; /* Describe. */
    qkv_desc_init(&desc);
    desc.n_q_heads = HQ, desc.n_kv_heads = HKV, desc.q_len = desc.kv_len = T;
    desc.head_dim = desc.head_dim_v = D;
    desc.causal = QKV_CAUSAL_INCLUSIVE;
    qkv_desc_dense(&desc, QKV_F32, QKV_BHTD);

    const qkv_plan *plan; /* Plan: whatever can fail, fails here. */
    const size_t bytes = qkv_plan_size(&desc);
    if (qkv_plan_init(malloc(bytes), bytes, &desc, &plan) != QKV_OK)
        return 1; /* qkv_explain says why, in a sentence */
    qkv_args args; /* Run. */
    qkv_args_init(&args);
    args.q = q, args.k = k, args.v = v, args.o = o;
    args.workspace_bytes = (qkv_workspace_size(plan, 1) + 63) / 64 * 64;
    args.workspace = aligned_alloc(64, args.workspace_bytes);
    qkv_run(plan, &args);
    int wrong = 0;
    for (int n = 0; n < HQ * T * D; n++)
        wrong += !(fabs(o[n / D / T][n / D % T][n % D] -
                        expected(n / D / T, n / D % T, n % D)) <= 1e-5);
    printf("%s: %d wrong of %d\n", qkv_plan_kernel(plan), wrong, HQ * T * D);
    return wrong > 0;
}
