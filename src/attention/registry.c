/* attention/registry.c - the table behind kernels.inc, and how a plan picks from it. */
#include <string.h>

#include "attention/internal.h"

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

const qkv_kernel *qkv_find_kernel(qkv_op op, const qkv_desc *d)
{
    const uint32_t cpu = qkv_cpu_flags() & d->cpu_mask;
    const int32_t compute = qkv_compute_type(d);

    for (int i = 0; i < N_KERNELS; i++)
        if (table[i].op == op && table[i].compute == compute && table[i].k_type == d->k.type &&
            table[i].v_type == d->v.type && (table[i].cpu & ~cpu) == 0)
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
    k.compute_type = table[index].compute;
    k.k_type = table[index].k_type;
    k.v_type = table[index].v_type;
    k.cpu = table[index].cpu;
    k.available = (table[index].cpu & ~qkv_cpu_flags()) == 0;
    memset(info, 0, struct_size);
    memcpy(info, &k, struct_size < sizeof k ? struct_size : sizeof k);
    return QKV_OK;
}
