/* t_call_wasi.c - calls of the harness where there are no signals, registers or control bits: what
 * traps ends the program, which the step counts as a failure. */
#include "t.h"

int t_call(void (*fn)(void *arg), void *arg)
{
    fn(arg);
    return 0;
}
