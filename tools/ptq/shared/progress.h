/* Progress on standard error, only when it is a terminal. */
#ifndef PTQ_TOOL_PROGRESS_H
#define PTQ_TOOL_PROGRESS_H

#include <stddef.h>

typedef struct progress {
    const char *what;
    double start, shown;
    int visible;
} progress;

progress progress_start(const char *what);
int progress_show(void *user, size_t done, size_t total); /* a ptq_progress */
void progress_end(progress *state);

#endif
