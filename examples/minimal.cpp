/*
 * minimal.cpp - the same three steps from C++17: a packed batch of sequences of unequal length.
 *
 * Three sequences lie one after another in arrays [T][H][D], as most inference engines keep
 * them; cu_seqlens says where each begins.  Every sequence is causal and sees the 8 keys before
 * its own position and that position (a sliding window).
 */
#include <qkv/attention.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

constexpr int Hq = 6, Hkv = 2, D = 40, Dv = 24, window = 8;
const std::vector<int32_t> cu_seqlens = {0, 5, 38, 71};

struct Problem {
    std::vector<float> q, k, v, o, lse;
};

Problem make_problem()
{
    const auto rows = static_cast<std::size_t>(cu_seqlens.back());
    Problem p{std::vector<float>(rows * Hq * D), std::vector<float>(rows * Hkv * D),
              std::vector<float>(rows * Hkv * Dv), std::vector<float>(rows * Hq * Dv),
              std::vector<float>(rows * Hq)};
    float phase = 0.0f;
    for (auto *tensor : {&p.q, &p.k, &p.v}) {
        phase += 1.0f;
        for (std::size_t n = 0; n < tensor->size(); n++)
            (*tensor)[n] = std::sin(phase + 0.9f * phase * static_cast<float>(n));
    }
    return p;
}

/* The packed layouts are dense [T][H][D]; only the log-sum-exp, [T][Hq] here, needs strides. */
qkv_desc describe()
{
    qkv_desc desc;
    qkv_desc_init(&desc);
    desc.n_seqs = static_cast<int32_t>(cu_seqlens.size()) - 1;
    desc.n_q_heads = Hq;
    desc.n_kv_heads = Hkv;
    desc.head_dim = D;
    desc.head_dim_v = Dv;
    desc.q_len = desc.kv_len = 33; /* the longest */
    desc.cu_seqlens_q = desc.cu_seqlens_k = cu_seqlens.data();
    desc.causal = QKV_CAUSAL_INCLUSIVE;
    desc.window_left = window;
    qkv_desc_dense(&desc, QKV_F32, QKV_BTHD);
    desc.lse.type = QKV_F32;
    desc.lse.stride[0] = 0;
    desc.lse.stride[1] = 1;
    desc.lse.stride[2] = Hq;
    return desc;
}

/* Compares with the formula: row i of a sequence sees rows max(first, i - window) .. i. */
int count_wrong(const Problem &p)
{
    int wrong = 0;
    for (std::size_t b = 0; b + 1 < cu_seqlens.size(); b++)
        for (int i = cu_seqlens[b]; i < cu_seqlens[b + 1]; i++)
            for (int h = 0; h < Hq; h++) {
                const int g = h / (Hq / Hkv);
                double sum = 0.0;
                std::vector<double> out(Dv, 0.0);
                for (int j = std::max(cu_seqlens[b], i - window); j <= i; j++) {
                    double s = 0.0;
                    for (int d = 0; d < D; d++)
                        s += static_cast<double>(p.q[(i * Hq + h) * D + d]) *
                             p.k[(j * Hkv + g) * D + d];
                    const double w = std::exp(s / std::sqrt(D));
                    sum += w;
                    for (int c = 0; c < Dv; c++)
                        out[c] += w * p.v[(j * Hkv + g) * Dv + c];
                }
                for (int c = 0; c < Dv; c++)
                    wrong += !(std::abs(p.o[(i * Hq + h) * Dv + c] - out[c] / sum) <= 1e-5);
                wrong += !(std::abs(p.lse[i * Hq + h] - std::log(sum)) <= 1e-5);
            }
    return wrong;
}

} // namespace

int main()
{
    Problem p = make_problem();
    const qkv_desc desc = describe();

    const qkv_plan *plan = nullptr;
    std::vector<std::uint64_t> memory(qkv_plan_size(&desc) / 8 + 1); /* 8-byte aligned */
    if (qkv_plan_init(memory.data(), memory.size() * 8, &desc, &plan) != QKV_OK) {
        char why[256];
        qkv_explain(&desc, why, sizeof why);
        std::fprintf(stderr, "%s\n", why);
        return 1;
    }

    const std::size_t bytes = (qkv_workspace_size(plan, 1) + 63) / 64 * 64;
    const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(64, bytes),
                                                                &std::free);
    qkv_args args;
    qkv_args_init(&args);
    args.q = p.q.data();
    args.k = p.k.data();
    args.v = p.v.data();
    args.o = p.o.data();
    args.lse = p.lse.data();
    args.workspace = workspace.get();
    args.workspace_bytes = bytes;

    char why[256];
    if (qkv_args_check(plan, &args, 1, why, sizeof why) != QKV_OK) { /* optional, once */
        std::fprintf(stderr, "%s\n", why);
        return 1;
    }
    qkv_run(plan, &args);

    const int wrong = count_wrong(p);
    std::printf("%s: %d sequences, %zu values, %d wrong\n", qkv_plan_kernel(plan), desc.n_seqs,
                p.o.size() + p.lse.size(), wrong);
    return wrong > 0;
}
