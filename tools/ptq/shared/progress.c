/* Progress on standard error, only when it is a terminal. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/machine.h"
#include "shared/progress.h"

/* Whether lines can be overwritten: not where standard error goes to a file, nor on a terminal that
   says that it cannot. */
static int can_overwrite(void) {
    const char *terminal = environment("TERM");

    return isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0);
}

progress progress_start(const char *what) {
    progress made;

    made.what = what;
    made.start = seconds_now();
    made.shown = 0;
    made.visible = can_overwrite();
    return made;
}

int progress_show(void *user, size_t done, size_t total) {
    progress *state = user;
    double now = seconds_now();
    double rate = (double)done / (now - state->start + 1e-9);

    if (!state->visible || done == 0 || (now - state->shown < 0.2 && done < total))
        return 0;
    state->shown = now;
    fprintf(stderr, "\r%s: %zu of %zu, %.0f/s, %.0f s left \033[K", state->what, done, total, rate,
            (double)(total - done) / rate);
    return 0;
}

void progress_end(progress *state) {
    if (state->visible && state->shown > 0)
        fputs("\r\033[K", stderr);
}
