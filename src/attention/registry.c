/* attention/registry.c - the table behind kernels.inc, and how a plan picks from it. */
#include <string.h>

#include "attention/internal.h"

/* A `compute` of kernels.inc that is no type: f32 by products of bf16 parts. */
enum { QKV_F32_HIGH = 1000 };

static const struct {
    qkv_op op;
    int32_t compute, k_type, v_type;
    const char *tier;
    uint32_t cpu;
    const qkv_kernel *kernel;
} table[] = {
#define QKV_KERNEL(op, compute, k, v, tier, cpu, name)                                             \
    {QKV_OP_##op, QKV_##compute, QKV_##k, QKV_##v, #tier, cpu, &qkv_##name},
#include "kernels/kernels.inc"
#undef QKV_KERNEL
};

enum { N_KERNELS = sizeof table / sizeof *table };

/* Are these numbers, or codes whose scales can wait, exact in bf16?  Scales wait for the sums over their
 * channels: of a whole row, or of even groups of 16 at least in tiles of many queries. */
static int exact_in_bf16(qkv_op op, int32_t type, int32_t dim, int32_t group)
{
    const int waits = group == dim || (op == QKV_OP_ATTEND && group >= 16 && group % 2 == 0);
    return type == QKV_BF16 ||
           ((type == QKV_I8 || type == QKV_U4 || type == QKV_E4M3 || type == QKV_E5M2) && waits);
}

/* Products of pairs of channels want the rotary part to begin at an even one. */
static int rope_exact(qkv_op op, const qkv_desc *d)
{
    return d->rope_dim == 0 || (op == QKV_OP_ATTEND && d->k_rope.type == QKV_BF16 &&
                                (d->head_dim - d->rope_dim) % 2 == 0);
}

static int keys_and_values_exact(qkv_op op, const qkv_desc *d)
{
    return exact_in_bf16(op, d->k.type, d->head_dim - d->rope_dim, d->k_group) &&
           exact_in_bf16(op, d->v.type, d->head_dim_v, d->v_group) && rope_exact(op, d);
}

/* May products be computed in this type? */
static int permits(qkv_op op, const qkv_desc *d, int32_t compute)
{
    if (compute == QKV_BF16)
        return (d->q.type == QKV_BF16 && keys_and_values_exact(op, d)) ||
               (d->q.type != QKV_F64 && d->precision == QKV_PRECISION_MEDIUM);
    if (compute == QKV_F32_HIGH)
        return d->q.type != QKV_F64 && d->precision != QKV_PRECISION_HIGHEST;
    return compute == qkv_compute_type(d);
}

/* The most exact precision at which line i is chosen, for tensors of its types. */
static int32_t precision_of(int i)
{
    if (table[i].compute == QKV_F32_HIGH)
        return QKV_PRECISION_HIGH;
    return table[i].compute == QKV_BF16 && table[i].k_type == QKV_F32 ? QKV_PRECISION_MEDIUM
                                                                      : QKV_PRECISION_HIGHEST;
}

/* Kernels for given types read all channels of a key from one place. */
static int suits(const qkv_desc *d, int i)
{
    if (table[i].k_type == QKV_ANY)
        return table[i].compute == QKV_F32 || keys_and_values_exact(table[i].op, d);
    return table[i].k_type == d->k.type && table[i].v_type == d->v.type && d->rope_dim == 0;
}

const qkv_kernel *qkv_find_kernel(qkv_op op, const qkv_desc *d)
{
    const uint32_t cpu = qkv_cpu_flags() & d->cpu_mask;

    for (int i = 0; i < N_KERNELS; i++)
        if (table[i].op == op && permits(op, d, table[i].compute) && suits(d, i) &&
            (table[i].cpu & ~cpu) == 0)
            return table[i].kernel;
    return NULL;
}

int32_t qkv_kernel_count(void) { return N_KERNELS; }

qkv_status qkv_kernel_info_get_sized(int32_t index, qkv_kernel_info *info, size_t struct_size)
{
    qkv_kernel_info k;

    if (index < 0 || index >= N_KERNELS || !info)
        return QKV_ERR_ARGUMENT;
    memset(&k, 0, sizeof k);
    k.name = table[index].kernel->name;
    k.op = table[index].op == QKV_OP_DECODE ? "decode" : "attend";
    k.tier = table[index].tier;
    k.compute_type = table[index].compute == QKV_F32_HIGH ? QKV_F32 : table[index].compute;
    k.precision = precision_of(index);
    k.k_type = table[index].k_type;
    k.v_type = table[index].v_type;
    k.cpu = table[index].cpu;
    k.available = (table[index].cpu & ~qkv_cpu_flags()) == 0;
    memset(info, 0, struct_size);
    memcpy(info, &k, struct_size < sizeof k ? struct_size : sizeof k);
    return QKV_OK;
}
