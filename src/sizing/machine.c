/*
 * sizing/machine.c - machines whose numbers are published.
 *
 * Data sheets: what no program passes.  A profile of qkv bench --calibrate is better where there is
 * one.  CPUs: FLOPs a cycle and core, times cores, times base clock and times the highest clock;
 * memory channels times 8 bytes times transfers.  GPUs: the maker's dense rates (half of those
 * "with sparsity") at the boost clock, as both.
 *
 * FLOPs a cycle and core: Zen 4 has two 256-bit FMA pipes, 32 in f32, and VDPBF16PS does twice
 * that; Zen 5 has both twice as wide; Sapphire Rapids two 512-bit FMA pipes, 64, and an AMX product
 * of 16 x 16 x 32 bf16 (16,384 FLOPs) in 16 cycles, 1,024; Neoverse V1 four 128-bit pipes, 32.
 */
#include "qkv/sizing.h"

#define GIB  ((uint64_t)1 << 30)
#define GIGA 1e9
#define TERA 1e12

/* cores, FLOPs a cycle, base and highest GHz */
#define CLOCKS(cores, flops, low, high)                                                            \
    {                                                                                              \
        (cores) * (flops) * (low)*GIGA, (cores) * (flops) * (high)*GIGA                            \
    }
#define SAME(x)                                                                                    \
    {                                                                                              \
        (x), (x)                                                                                   \
    }

// clang-format off
static const qkv_machine machines[] = {
    {"epyc-9654", "AMD EPYC 9654 product page: 96 Zen 4 cores, 2.4 to 3.7 GHz, 12 x DDR5-4800",
     0, 0, CLOCKS(96, 32, 2.4, 3.7), CLOCKS(96, 64, 2.4, 3.7), SAME(460.8 * GIGA), 0},
    {"xeon-8480+", "Intel ARK, Xeon Platinum 8480+: 56 cores, 2.0 to 3.8 GHz, AMX, 8 x DDR5-4800",
     0, 0, CLOCKS(56, 64, 2.0, 3.8), CLOCKS(56, 1024, 2.0, 3.8), SAME(307.2 * GIGA), 0},
    {"graviton3", "WikiChip, AWS Graviton3: 64 Neoverse V1 cores, 2.6 GHz, 8 x DDR5-4800; f32 only",
     0, 0, CLOCKS(64, 32, 2.6, 2.6), CLOCKS(64, 32, 2.6, 2.6), SAME(307.2 * GIGA), 0},
    {"ryzen-9950x", "AMD Ryzen 9 9950X product page: 16 Zen 5 cores, 4.3 to 5.7 GHz, 2 x DDR5-5600",
     0, 0, CLOCKS(16, 64, 4.3, 5.7), CLOCKS(16, 128, 4.3, 5.7), SAME(89.6 * GIGA), 0},
    {"a100-80g", "NVIDIA A100 data sheet (SXM, 80 GB): 19.5 and 312 TFLOP/s, 2,039 GB/s",
     0, 0, SAME(19.5 * TERA), SAME(312 * TERA), SAME(2039 * GIGA), 80 * GIB},
    {"h100-sxm", "NVIDIA H100 data sheet (SXM): 67 and 989.4 TFLOP/s (1,979 sparse), 3.35 TB/s",
     0, 0, SAME(67 * TERA), SAME(989.4 * TERA), SAME(3350 * GIGA), 80 * GIB},
    {"rtx-4090", "NVIDIA Ada whitepaper, RTX 4090: 82.6 and 165.2 TFLOP/s (f32 sums), 1,008 GB/s",
     0, 0, SAME(82.6 * TERA), SAME(165.2 * TERA), SAME(1008 * GIGA), 24 * GIB},
};
// clang-format on

int32_t qkv_machine_count(void) { return (int32_t)(sizeof machines / sizeof machines[0]); }

const qkv_machine *qkv_machine_at(int32_t index)
{
    return index >= 0 && index < qkv_machine_count() ? &machines[index] : NULL;
}
