/* Chapter 7: and the mistakes: what another program printed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

/* Lines "NAME: MICROSECONDS us ...". */
int draw_kernel(source *s, FILE *out) {
    bar bars[MOST_BARS] = {{"", 0}};
    char line[256];
    int n = 0;

    (void)s;
    while (n < MOST_BARS && fgets(line, sizeof line, stdin)) {
        char *colon = strchr(line, ':');

        if (!colon || !strstr(colon, " us"))
            continue;
        *colon = 0;
        snprintf(bars[n].name, sizeof bars[n].name, "%.90s", line);
        bars[n++].value = atof(colon + 1);
    }
    if (!n)
        return fail("no line 'NAME: N us' on standard input; see docs/7-fast-kernel.md");
    draw_bars(out, "One 3x3 convolution, 16 to 16 channels, 32x32: microseconds", bars, n, "%.0f",
              "Lowest of many runs on one core; another processor gives other numbers.");
    return 0;
}

/* The rows of ptq mistake: 42 columns of text, then numbers; the change is behind the percent sign.
   Of each mistake the first row, which is right, is left out. */
int draw_mistakes(source *s, FILE *out) {
    bar bars[MOST_BARS] = {{"", 0}};
    char line[256], name[64] = "";
    int n = 0, row = 0;

    (void)s;
    while (n < MOST_BARS && fgets(line, sizeof line, stdin)) {
        char *percent = strchr(line, '%');
        size_t end = 42;

        if (strncmp(line, "mistake ", 8) == 0) {
            snprintf(name, sizeof name, "%.50s", line + 10);
            row = 0;
        }
        if (!percent || strlen(line) < 60 || strncmp(line + 47, " of ", 4) != 0 || !row++ ||
            strstr(line, "right") || strstr(line, "exact sums") || strstr(line, "7-bit"))
            continue;
        while (end && line[end - 1] == ' ')
            end--;
        snprintf(bars[n].name, sizeof bars[n].name, "%.*s", (int)end, line);
        bars[n++].value = atof(percent + 1);
    }
    if (!n)
        return fail("no rows of 'ptq mistake' on standard input");
    draw_bars(out, "Points of accuracy against float, for each mistake", bars, n, "%+.1f",
              "500 test images (batch norm by batches: 100; saturation: 50).");
    return 0;
}
