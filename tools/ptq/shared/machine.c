/* What the machine and the user's environment say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/machine.h"

const char *environment(const char *name) {
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

int count_cores(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return cores > 0 && cores < 1024 ? (int)cores : 1;
}

double seconds_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void find_machine(char *name, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(name, size, "%s", colon + 2);
            name[strcspn(name, "\n")] = 0;
            break;
        }
    }
    if (file)
        fclose(file);
}
