/* t_call.c - calls under watch: signals caught, registers poisoned, control bits compared. */
#include "t.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static sigjmp_buf jump;
static pthread_t jumper; /* the thread that jump belongs to */
static volatile sig_atomic_t armed;
static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static const void *volatile fault_address;

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (!armed || !pthread_equal(jumper, pthread_self())) { /* die as if there were no handler */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    fault_address = info->si_addr;
    siglongjmp(jump, number);
}

static int catching(void)
{
    static int answer = -1;

    if (answer >= 0)
        return answer;
    const char *wish = getenv("QKV_TEST_SIGNALS");
    answer = !(wish && strcmp(wish, "0") == 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; answer && i < 4; i++)
        sigaction(signals[i], &action, NULL);
    return answer;
}

#if defined(__x86_64__)
/* All bits set is a NaN in every float type. */
static void poison_registers(void)
{
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile(
            "vpternlogd $255, %%zmm0, %%zmm0, %%zmm0\n\t"
            "vmovdqa64 %%zmm0, %%zmm1\n\tvmovdqa64 %%zmm0, %%zmm2\n\tvmovdqa64 %%zmm0, %%zmm3\n\t"
            "vmovdqa64 %%zmm0, %%zmm4\n\tvmovdqa64 %%zmm0, %%zmm5\n\tvmovdqa64 %%zmm0, %%zmm6\n\t"
            "vmovdqa64 %%zmm0, %%zmm7\n\tvmovdqa64 %%zmm0, %%zmm8\n\tvmovdqa64 %%zmm0, %%zmm9\n\t"
            "vmovdqa64 %%zmm0, %%zmm10\n\tvmovdqa64 %%zmm0, %%zmm11\n\t"
            "vmovdqa64 %%zmm0, %%zmm12\n\tvmovdqa64 %%zmm0, %%zmm13\n\t"
            "vmovdqa64 %%zmm0, %%zmm14\n\tvmovdqa64 %%zmm0, %%zmm15\n\t"
            "vmovdqa64 %%zmm0, %%zmm16\n\tvmovdqa64 %%zmm0, %%zmm20\n\t"
            "vmovdqa64 %%zmm0, %%zmm24\n\tvmovdqa64 %%zmm0, %%zmm28\n\tvmovdqa64 %%zmm0, %%zmm31"
            ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    else
        __asm__ volatile(
            "pcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm2\n\t"
            "movdqa %%xmm0, %%xmm3\n\tmovdqa %%xmm0, %%xmm4\n\tmovdqa %%xmm0, %%xmm5\n\t"
            "movdqa %%xmm0, %%xmm6\n\tmovdqa %%xmm0, %%xmm7\n\tmovdqa %%xmm0, %%xmm15"
            ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm15");
}

/* Rounding, flushing and masks; the low six bits are flags that any operation may raise. */
static uint32_t float_control(void) { return __builtin_ia32_stmxcsr() & ~63u; }
#elif defined(__aarch64__)
/* The registers that a function may change as it likes. */
static void poison_registers(void)
{
    __asm__ volatile(
        "movi v0.16b, #255\n\tmovi v1.16b, #255\n\tmovi v2.16b, #255\n\tmovi v3.16b, #255\n\t"
        "movi v4.16b, #255\n\tmovi v5.16b, #255\n\tmovi v6.16b, #255\n\tmovi v7.16b, #255\n\t"
        "movi v16.16b, #255\n\tmovi v17.16b, #255\n\tmovi v18.16b, #255\n\tmovi v19.16b, #255\n\t"
        "movi v20.16b, #255\n\tmovi v21.16b, #255\n\tmovi v22.16b, #255\n\tmovi v23.16b, #255\n\t"
        "movi v24.16b, #255\n\tmovi v25.16b, #255\n\tmovi v26.16b, #255\n\tmovi v27.16b, #255\n\t"
        "movi v28.16b, #255\n\tmovi v29.16b, #255\n\tmovi v30.16b, #255\n\tmovi v31.16b, #255"
        ::: "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21",
            "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}

/* Rounding, flushing, trapping; the flags lie in another register. */
static uint32_t float_control(void)
{
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (uint32_t)fpcr;
}
#else
static void poison_registers(void) {}
static uint32_t float_control(void) { return 0; }
#endif

int t_call(void (*fn)(void *arg), void *arg)
{
    const uint32_t before = float_control();

    if (catching()) {
        const int number = sigsetjmp(jump, 1);
        if (number) {
            armed = 0;
            t_fail("signal %d (%s) at address %p", number, strsignal(number), fault_address);
            return number;
        }
        jumper = pthread_self();
        armed = 1;
    }
    poison_registers();
    fn(arg);
    armed = 0;
    t_check(float_control() == before, "the floating-point control bits changed from %x to %x",
            before, float_control());
    return 0;
}
