/* view_shift.c - masks and biases over positions, as a part of a view needs them.
 *
 * A part calls the first token in its table key 0.  If that is the same position in every sequence
 * the part's columns are those of the whole mask from there on; otherwise, with sequences of
 * unequal lengths whose older tokens are elsewhere, the columns of each sequence are copied. */
#include <string.h>

#include "view.h"

static int same_bases(const view_object *v, const view_part *part)
{
    for (int32_t b = 1; b < v->B; b++)
        if (part->bases[b] != part->bases[0])
            return 0;
    return 1;
}

static int in_place(const view_object *v, const view_part *part, const qkv_layout *whole)
{
    return whole->stride[3] == 0 || same_bases(v, part);
}

/* Heads and queries of the copy: axes that are broadcast stay so. */
static void sizes(const view_object *v, const view_part *part, const qkv_layout *whole,
                  int64_t n[4])
{
    n[0] = v->B;
    n[1] = whole->stride[1] ? v->made_for.desc.n_q_heads : 1;
    n[2] = whole->stride[2] ? v->made_for.desc.q_len : 1;
    n[3] = part->desc.kv_len;
}

void qkvpy_shift_layout(const view_object *v, const view_part *part, const qkv_layout *whole,
                        qkv_layout *l)
{
    *l = *whole;
    if (whole->type == QKV_NONE || in_place(v, part, whole))
        return;
    int64_t n[4];
    sizes(v, part, whole, n);
    l->stride[3] = 1;
    l->stride[2] = whole->stride[2] ? n[3] : 0;
    l->stride[1] = whole->stride[1] ? n[2] * n[3] : 0;
    l->stride[0] = n[1] * n[2] * n[3];
}

size_t qkvpy_shift_bytes(const view_object *v, const view_part *part, const qkv_layout *whole)
{
    if (whole->type == QKV_NONE || in_place(v, part, whole))
        return 0;
    int64_t n[4];
    sizes(v, part, whole, n);
    return (size_t)(n[0] * n[1] * n[2] * n[3]) * qkv_type_size((qkv_type)whole->type);
}

const void *qkvpy_shift(const view_object *v, const view_part *part, const qkv_layout *whole,
                        const void *data, void *memory)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)whole->type), *s = whole->stride;
    const char *from = data;
    char *to = memory;
    if (whole->type == QKV_NONE || whole->stride[3] == 0 || v->B == 0)
        return data;
    if (in_place(v, part, whole))
        return from + part->bases[0] * s[3] * size;
    int64_t n[4];
    sizes(v, part, whole, n);
    for (int64_t b = 0; b < n[0]; b++)
        for (int64_t h = 0; h < n[1]; h++)
            for (int64_t i = 0; i < n[2]; i++)
                for (int64_t j = 0; j < n[3]; j++, to += size) {
                    /* Keys past the longest sequence exist for nobody. */
                    const int64_t at = part->bases[b] + j;
                    if (at < v->made_for.desc.kv_len)
                        memcpy(to, from + (b * s[0] + h * s[1] + i * s[2] + at * s[3]) * size,
                               (size_t)size);
                    else
                        memset(to, 0, (size_t)size);
                }
    return memory;
}
