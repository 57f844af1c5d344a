/* Interrupts that long work notices. */
#include <signal.h>

#include "shared/interrupt.h"

static volatile sig_atomic_t came;

static void on_signal(int number) {
    (void)number;
    came = 1;
}

void interrupts_watch(void) {
    came = 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

int interrupts_came(void) { return came; }

void interrupts_unwatch(void) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}
