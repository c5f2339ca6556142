/* sizing/time.c - a step on a machine: seconds, and what bounds them. */
#include <math.h>
#include <string.h>

#include "sizing/internal.h"

typedef struct rates {
    double flops[2], bytes[2];
} rates;

static qkv_status rates_of(const qkv_machine *m, int32_t compute, rates *r, qkv_say say)
{
    const int wide = compute == QKV_F32 || !(m->flops_16[0] > 0);

    for (int i = 0; i < 2; i++) {
        r->flops[i] = wide ? m->flops_f32[i] : m->flops_16[i];
        r->bytes[i] = m->bytes[i];
        if (!(r->flops[i] > 0 && isfinite(r->flops[i])) ||
            !(r->bytes[i] > 0 && isfinite(r->bytes[i])))
            return qkv_refuse(say, QKV_ERR_ARGUMENT,
                              "machine %.60s has %g FLOP/s and %g bytes/s; accepted are finite "
                              "rates above 0",
                              m->name, r->flops[i], r->bytes[i]);
    }
    return QKV_OK;
}

/* Half of the roof is what a program without any overlap of reading and computing still reaches. */
#define AT_WORST 2

static double longer(double a, double b) { return a > b ? a : b; }

static qkv_size_seconds seconds_of(const qkv_size_stage *s, const rates *r)
{
    const double flops = 2 * (double)s->multiply_adds, bytes = (double)s->bytes;
    const double compute = flops / r->flops[0], move = bytes / r->bytes[0];
    qkv_size_seconds t = {longer(flops / r->flops[1], (double)s->bytes_least / r->bytes[1]),
                          AT_WORST * longer(compute, move), bytes > 0 ? flops / bytes : 0, 0, 0};

    if (flops > 0 || bytes > 0)
        t.bound = compute > move ? QKV_BOUND_COMPUTE : QKV_BOUND_BANDWIDTH;
    return t;
}

/* Stages follow each other, so their seconds add up. */
static void add_to(qkv_size_seconds *sum, const qkv_size_seconds *one)
{
    sum->best += one->best;
    sum->worst += one->worst;
}

qkv_status qkv_size_time_find(const qkv_size_work *work, const qkv_size_setup *setup,
                              const qkv_machine *machine, qkv_size_time *time, char *text,
                              size_t bytes)
{
    const qkv_say say = {text, bytes};
    rates r;

    if (!work || !setup || !machine || !time)
        return qkv_refuse(say, QKV_ERR_ARGUMENT, "work, setup, machine or time is NULL");
    const qkv_status status = rates_of(machine, setup->compute, &r, say);
    if (status != QKV_OK)
        return status;
    const qkv_size_stage *scores = &work->stage[QKV_SIZE_SCORES];
    const qkv_size_stage *values = &work->stage[QKV_SIZE_VALUES];
    const qkv_size_stage both = {scores->multiply_adds + values->multiply_adds, 0,
                                 scores->bytes + values->bytes,
                                 scores->bytes_least + values->bytes_least};
    memset(time, 0, sizeof *time);
    time->ridge = r.flops[0] / r.bytes[0];
    time->attention = seconds_of(&both, &r);
    time->all = seconds_of(&work->all, &r);
    time->all.best = time->all.worst = 0;
    for (int i = 0; i < QKV_SIZE_STAGES; i++) {
        time->stage[i] = seconds_of(&work->stage[i], &r);
        add_to(&time->all, &time->stage[i]);
    }
    return qkv_accept(say);
}
