/* shapes.c - see shapes.h. */
#include "shapes.h"

static const bench_shape shapes[] = {
#include "shapes.inc"
};

const char *bench_extra_name(int i)
{
    static const char *const names[BENCH_N_EXTRAS] = {"mask",    "bias",  "alibi",
                                                      "softcap", "sinks", "blocks"};
    return names[i];
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
