/* Progress on standard error, only when it is a terminal. */
#ifndef PTQ_TOOL_PROGRESS_H
#define PTQ_TOOL_PROGRESS_H

#include <stddef.h>

/* How far long work is: "calibrate: 363 of 1,000, about 2 s left". Of work in steps, each of which
   counts from 0 to its end again, it is told how many steps there are and what they are called:
   "learn rounding: layer 4 of 10, about 20 s left". */
typedef struct progress {
    const char *what, *step; /* step NULL: there is one step alone */
    size_t steps;
    size_t at, done, total;     /* of steps that have ended; of the step at hand */
    double start, began, shown; /* the first step, the step at hand; when it was shown last */
    int visible;
} progress;

progress progress_start(const char *what);
progress progress_start_steps(const char *what, const char *step, size_t steps);
int progress_show(void *user, size_t done, size_t total); /* a ptq_progress */
void progress_end(progress *state);

/* Seconds that are left, or less than 0 while too little is done to say: the steps that have ended,
   or the part of the first one that is done, took so long for each. For tests, apart from clocks. */
double progress_left(const progress *state, double now);

#endif
