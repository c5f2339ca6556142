/* rope/tensors.c - where tensors to be turned lie: types, alignment, extent, overlap. */
#include <stdint.h>

#include "core/convert.h"
#include "rope/internal.h"

#define REFUSE(...) return qkv_refuse(say, QKV_ERR_ARGUMENT, __VA_ARGS__)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const qkv_status try_status = (call);                                                      \
        if (try_status != QKV_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

/* What strides reach before and after the first element, in elements; 0 if it is too far. */
static int reach(const int64_t *n, const int64_t *stride, int rank, int64_t *low, int64_t *high)
{
    *low = *high = 0;
    for (int i = 0; i < rank; i++) {
        int64_t far;
        if (__builtin_mul_overflow(n[i] - 1, stride[i], &far) ||
            __builtin_add_overflow(far < 0 ? *low : *high, far, far < 0 ? low : high))
            return 0;
    }
    return *low > -(INT64_MAX >> 4) && *high < INT64_MAX >> 4;
}

qkv_status qkv_rope_check_memory(const char *name, const void *base, int32_t type,
                                 const int64_t *n, const int64_t *stride, int rank,
                                 qkv_rope_region *r, qkv_say say)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)type);
    int64_t low, high;

    if (!base)
        REFUSE("%s is NULL", name);
    if ((uintptr_t)base % (uintptr_t)size != 0)
        REFUSE("%s is at %p; it must be aligned to %d bytes, the size of %s", name, base, (int)size,
               qkv_type_name((qkv_type)type));
    if (!reach(n, stride, rank, &low, &high))
        REFUSE("%s spans more than 2^59 elements", name);
    if (r) {
        r->from = (uintptr_t)base + (uintptr_t)(low * size); /* low may be negative: wraps */
        r->end = (uintptr_t)base + (uintptr_t)((high + 1) * size);
    }
    return QKV_OK;
}

static int64_t magnitude(int64_t x) { return x == INT64_MIN ? INT64_MAX : x < 0 ? -x : x; }

/* No two elements in one place: from the smallest stride up, each must step over all that smaller
 * ones reach. */
static int is_injective(const int64_t n[4], const int64_t stride[4])
{
    int done[4] = {0, 0, 0, 0};
    int64_t far = 0;

    for (int round = 0; round < 4; round++) {
        int at = -1;
        for (int i = 0; i < 4; i++)
            if (!done[i] && (at < 0 || magnitude(stride[i]) < magnitude(stride[at])))
                at = i;
        done[at] = 1;
        if (n[at] == 1)
            continue;
        if (magnitude(stride[at]) <= far)
            return 0;
        far += (n[at] - 1) * magnitude(stride[at]);
    }
    return 1;
}

static int is_same(const qkv_rope_args *a, const int64_t n[4])
{
    int same = a->x == a->y && a->x_layout.type == a->y_layout.type;

    for (int i = 0; i < 4; i++)
        same &= n[i] == 1 || a->x_layout.stride[i] == a->y_layout.stride[i];
    return same;
}

/*
 * Do x and y lie in different channels of one packed array, such as [B][T][3][H][D]?  Then they
 * have their strides in common, tokens lie apart by a step that heads and channels fit into, and
 * so do sequences.
 */
static int is_interleaved(const qkv_rope_args *a, const int64_t n[4])
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)a->x_layout.type);
    const int64_t *s = a->x_layout.stride;
    const int64_t length = ((n[1] - 1) * s[1] + n[3]) * size;
    int64_t step; /* of one token nothing may be known but that its stride fits */

    if (__builtin_mul_overflow(s[2], size, &step) || step > INT64_MAX / 2)
        return 0;
    if (a->x_layout.type != a->y_layout.type || s[1] < 0 || s[2] <= 0 || length > step ||
        (n[0] > 1 && s[0] % s[2] != 0))
        return 0;
    for (int i = 0; i < 4; i++)
        if (n[i] > 1 && s[i] != a->y_layout.stride[i])
            return 0;
    const int64_t from_x = (int64_t)((uintptr_t)a->x % (uintptr_t)step);
    const int64_t from_y = (int64_t)((uintptr_t)a->y % (uintptr_t)step);
    const int64_t ahead = (from_y + step - from_x) % step;
    return ahead >= length && ahead + length <= step;
}

qkv_status qkv_rope_check_types(const qkv_rope_args *a, int32_t dim, qkv_say say)
{
    const qkv_layout *layouts[] = {&a->x_layout, &a->y_layout};
    const char *const names[] = {"x_layout", "y_layout"};

    for (int i = 0; i < 2; i++) {
        const int32_t type = layouts[i]->type;
        if (!qkv_type_is_float(type))
            REFUSE("%s.type is %d (%s); it must be f64, f32, f16 or bf16", names[i], type,
                   qkv_type_name((qkv_type)type));
        if (layouts[i]->stride[3] != 1 && dim > 1)
            REFUSE("%s.stride[3] is %lld; channels must be contiguous (stride 1): copy the tensor "
                   "first",
                   names[i], (long long)layouts[i]->stride[3]);
    }
    if ((a->x_layout.type == QKV_F64) != (a->y_layout.type == QKV_F64))
        REFUSE("x_layout.type is %s and y_layout.type %s; f64 goes only with f64",
               qkv_type_name((qkv_type)a->x_layout.type),
               qkv_type_name((qkv_type)a->y_layout.type));
    return QKV_OK;
}

qkv_status qkv_rope_check_tensors(const qkv_rope_args *a, int32_t dim, qkv_say say)
{
    const int64_t n[4] = {a->n_seqs, a->n_heads, a->n_tokens, dim};
    const int64_t *s = a->y_layout.stride;
    qkv_rope_region x, y;

    TRY(qkv_rope_check_memory("x", a->x, a->x_layout.type, n, a->x_layout.stride, 4, &x, say));
    TRY(qkv_rope_check_memory("y", a->y, a->y_layout.type, n, s, 4, &y, say));
    if (!is_injective(n, s))
        REFUSE("y_layout.stride is (%lld, %lld, %lld, %lld); an output must not have two elements "
               "in one place",
               (long long)s[0], (long long)s[1], (long long)s[2], (long long)s[3]);
    if (x.from < y.end && y.from < x.end && !is_same(a, n) && !is_interleaved(a, n))
        REFUSE("y overlaps x; it must be x itself in the same layout, or lie elsewhere");
    return QKV_OK;
}
