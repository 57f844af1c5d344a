/* Progress on standard error, only when it is a terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/machine.h"
#include "shared/output.h"
#include "shared/progress.h"

/* Whether lines can be overwritten: not where standard error goes to a file, nor on a terminal that
   says that it cannot. */
static int can_overwrite(void) {
    const char *terminal = environment("TERM");

    return isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0);
}

progress progress_start_steps(const char *what, const char *step, size_t steps) {
    progress made = {0};

    made.what = what;
    made.step = step;
    made.steps = steps;
    made.start = made.began = seconds_now();
    made.visible = can_overwrite();
    return made;
}

progress progress_start(const char *what) { return progress_start_steps(what, NULL, 1); }

double progress_left(const progress *state, double now) {
    double part = state->total ? (double)state->done / (double)state->total : 0;
    double ended = (double)state->at, all = (double)(state->steps > state->at ? state->steps : 0);

    if (now - state->start < 1 || state->done < 2)
        return -1;
    /* A step that has ended took as long as it took; only the first is judged by a part of it. */
    if (state->at > 0)
        return fmax(0, (state->began - state->start) / ended * (all - ended - part));
    return (now - state->began) / part * (all - part);
}

/* A number of seconds is known to no better than its first digit or two. */
static void describe_left(double seconds, char *text, size_t size) {
    if (seconds < 0)
        snprintf(text, size, "%s", "");
    else if (seconds < 10)
        snprintf(text, size, ", a few seconds left");
    else if (seconds < 90)
        snprintf(text, size, ", about %.0f s left", 5 * ceil(seconds / 5));
    else if (seconds < 5400)
        snprintf(text, size, ", about %.0f min left", ceil(seconds / 60));
    else
        snprintf(text, size, ", about %.1f h left", seconds / 3600);
}

/* Counting from the beginning again, or up to another number, is another step. One that was not of
   this kind, a trial of a few models between steps over images, begins the steps anew. */
static void begin_step(progress *state, size_t done, size_t total, double now) {
    int same = total == state->total;

    if (same && done >= state->done)
        return;
    if (same && state->step)
        state->at++;
    if (!same || !state->step || state->at >= state->steps) {
        state->at = 0;
        state->start = now;
    }
    state->began = now;
}

int progress_show(void *user, size_t done, size_t total) {
    progress *state = user;
    double now = seconds_now();
    char left[64], a[COUNT_SIZE], b[COUNT_SIZE];

    begin_step(state, done, total, now);
    state->done = done;
    state->total = total;
    if (!state->visible || done == 0 || (now - state->shown < 0.2 && done < total))
        return 0;
    state->shown = now;
    describe_left(progress_left(state, now), left, sizeof left);
    if (state->step)
        fprintf(stderr, "\r%s: %s %zu of %zu, %.0f %% of it%s\033[K", state->what, state->step,
                state->at + 1, state->steps, 100 * (double)done / (double)total, left);
    else
        fprintf(stderr, "\r%s: %s of %s%s\033[K", state->what, count_text(done, a),
                count_text(total, b), left);
    return 0;
}

void progress_end(progress *state) {
    if (state->visible && state->shown > 0)
        fputs("\r\033[K", stderr);
}
