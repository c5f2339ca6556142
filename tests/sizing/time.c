/* time.c - seconds of a step on machines. */
#include <math.h>
#include <string.h>

#include "sizing_test.h"

void test_time(void)
{
    const qkv_model m = heads_model(2, 1024, 8, 8, 128);
    const qkv_machine toy = {"toy", "made up", 1, 0, {1e9, 2e9}, {4e9, 5e9}, {1e8, 2e8}, 0};
    qkv_size_setup s = setup_of(512, 4);
    qkv_size_time t;
    char text[256];

    if (t_case("rates")) {
        const qkv_size_work w = work_of(&m, &s, QKV_STEP_DECODE);
        const qkv_size_stage *g = &w.stage[QKV_SIZE_OUTPUT];
        t_check(qkv_size_time_find(&w, &s, &toy, &t, TEXT) == QKV_OK, "%s", text);
        const double flops = 2 * (double)g->multiply_adds, bytes = (double)g->bytes;
        t_check(fabs(t.stage[QKV_SIZE_OUTPUT].worst - 2 * fmax(flops / 4e9, bytes / 1e8)) < 1e-12,
                "worst");
        t_check(fabs(t.stage[QKV_SIZE_OUTPUT].best - fmax(flops / 5e9, bytes / 2e8)) < 1e-12,
                "best");
        t_check(t.all.bound == QKV_BOUND_BANDWIDTH && t.ridge == 40, "decode is bound by bytes");
        s.compute = QKV_F32;
        t_check(qkv_size_time_find(&w, &s, &toy, &t, TEXT) == QKV_OK && t.ridge == 10, "f32");
    }
    if (t_case("prefill")) {
        s = setup_of(4096, 1);
        const qkv_size_work w = work_of(&m, &s, QKV_STEP_PREFILL);
        t_check(qkv_size_time_find(&w, &s, &toy, &t, TEXT) == QKV_OK, "%s", text);
        t_check(t.all.bound == QKV_BOUND_COMPUTE && t.all.best < t.all.worst, "bound by products");
    }
    for (int32_t i = 0; i < qkv_machine_count(); i++)
        if (t_case("machine_%s", qkv_machine_at(i)->name)) {
            const qkv_machine *x = qkv_machine_at(i);
            const qkv_size_work w = work_of(&m, &s, QKV_STEP_PREFILL);
            t_check(qkv_size_time_find(&w, &s, x, &t, TEXT) == QKV_OK, "%s", text);
            t_check(x->source[0] && x->flops_f32[0] <= x->flops_f32[1] &&
                        x->flops_16[0] <= x->flops_16[1] && x->flops_16[0] >= x->flops_f32[0] &&
                        x->bytes[0] <= x->bytes[1] && t.ridge > 1,
                    "rates");
        }
    if (t_case("bad_rates")) {
        const qkv_size_work w = work_of(&m, &s, QKV_STEP_DECODE);
        qkv_machine bad = toy;
        bad.bytes[0] = NAN;
        t_check(qkv_size_time_find(&w, &s, &bad, &t, TEXT) == QKV_ERR_ARGUMENT, "NaN");
        t_check(strstr(text, "accepted are finite") != NULL, "%s", text);
        bad.bytes[0] = 0;
        t_check(qkv_size_time_find(&w, &s, &bad, &t, TEXT) == QKV_ERR_ARGUMENT, "0");
    }
    t_check(qkv_machine_at(-1) == NULL && qkv_machine_at(qkv_machine_count()) == NULL, "outside");
}
