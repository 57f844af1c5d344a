/* What the machine and the user's environment say. */
#ifndef PTQ_TOOL_MACHINE_H
#define PTQ_TOOL_MACHINE_H

#include <stddef.h>

/* The variable of that name; NULL if it is not set, or empty. */
const char *environment(const char *name);

int count_cores(void);
double seconds_now(void); /* since some time or other */

/* The processor's name, or "unknown". */
void find_machine(char *name, size_t size);

#endif
