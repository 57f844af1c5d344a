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
    bar bars[MOST_BARS] = {{"", 0, 0, 0}};
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

/* A row of ptq mistake as a bar: 42 columns of text, then "457 of 500  91.40 %  -1.60". The row says
   nothing of flips, so the interval is Wilson's of its accuracy, moved as the accuracy is. */
static int read_mistake(const char *line, bar *out) {
    unsigned long right, total;
    double accuracy, low, high;
    size_t end = 42;

    if (strlen(line) < 60 || strncmp(line + 47, " of ", 4) != 0 ||
        sscanf(line + 42, "%lu of %lu %lf %% %lf", &right, &total, &accuracy, &out->value) != 4)
        return 0;
    while (end && line[end - 1] == ' ')
        end--;
    snprintf(out->name, sizeof out->name, "%.*s", (int)end, line);
    ptq_share_interval(right, total, &low, &high);
    out->low = out->value + 100 * low - accuracy;
    out->high = out->value + 100 * high - accuracy;
    return 1;
}

/* Of each mistake the first row, which is right, is left out. */
int draw_mistakes(source *s, FILE *out) {
    bar bars[MOST_BARS] = {{"", 0, 0, 0}};
    char line[256];
    int n = 0, row = 0;

    (void)s;
    while (n < MOST_BARS && fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "mistake ", 8) == 0)
            row = 0;
        if (read_mistake(line, &bars[n]) && row++ && !strstr(line, "right") &&
            !strstr(line, "exact sums") && !strstr(line, "7-bit"))
            n++;
    }
    if (!n)
        return fail("no rows of 'ptq mistake' on standard input");
    draw_bars(
        out, "Points of accuracy against float, for each mistake", bars, n, "%+.1f",
        "500 test images (batch norm by batches: 100; saturation: 50). Lines: 95 % intervals.");
    return 0;
}
