/* shapes.c - see shapes.h. */
#include "shapes.h"

#include <math.h>

static const bench_shape shapes[] = {
#include "shapes.inc"
};

const char *bench_extra_name(int i)
{
    static const char *const names[BENCH_N_EXTRAS] = {"mask",    "bias",  "alibi",
                                                      "softcap", "sinks", "blocks"};
    return names[i];
}

const char *bench_use_name(int use)
{
    static const char *const names[BENCH_N_USES] = {"attend", "ragged", "shared", "cascade",
                                                    "append"};
    return names[use];
}

/* Lengths in an order that is neither ascending nor descending: 7 has no factor in common with the
 * numbers of sequences there are. */
int64_t bench_shape_length(const bench_shape *s, int32_t b)
{
    if (s->use != BENCH_RAGGED || s->B < 2 || s->Tk <= BENCH_SHORTEST)
        return s->Tk;
    const double step = (double)(7 * b % s->B) / (s->B - 1);
    return llround(BENCH_SHORTEST * pow((double)s->Tk / BENCH_SHORTEST, step));
}

int bench_shape_at(int i, bench_shape *shape)
{
    if (i < 0 || i >= (int)(sizeof shapes / sizeof *shapes))
        return 0;
    *shape = shapes[i];
    shape->B = shape->B ? shape->B : 1;
    shape->Hq = shape->Hq ? shape->Hq : 1;
    shape->Hkv = shape->Hkv ? shape->Hkv : shape->Hq;
    shape->Tk = shape->Tk ? shape->Tk : shape->Tq;
    shape->Dv = shape->Dv ? shape->Dv : shape->D;
    return 1;
}
