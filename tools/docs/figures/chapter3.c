/* Chapter 3: what observers choose. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

static void draw_histogram(FILE *out, const ptq_observer *seen, const svg_axis *x) {
    enum { COLUMNS = 150 };
    double column[COLUMNS] = {0}, most = 1, width = ldexp(1, seen->exponent);
    int b;

    for (b = 0; b < PTQ_BINS; b++) {
        double at = ((b - PTQ_BINS / 2 + 0.5) * width - x->low) / (x->high - x->low) * COLUMNS;

        if (at >= 0 && at < COLUMNS)
            column[(int)at] += (double)seen->bin[b];
    }
    for (b = 0; b < COLUMNS; b++)
        most = fmax(most, log1p(column[b]));
    for (b = 0; b < COLUMNS; b++)
        if (column[b] > 0) {
            double tall = 110 * log1p(column[b]) / most, wide = (x->to - x->from) / COLUMNS;

            svg_box(out, x->from + b * wide, 150 - tall, wide - 0.5, tall, "f-c6", 0.6);
        }
}

int draw_observers(source *s, FILE *out) {
    const char *tensor = "conv1.relu";
    const ptq_observer *observer;
    svg_axis x = {0, 0, 110, WIDTH - 24};
    int at, rule;

    if (calibrate(s))
        return 1;
    at = ptq_calibration_find(s->calibration, tensor);
    if (at < 0)
        return fail("the model has no tensor conv1.relu; this figure is for ResNet8");
    observer = &s->calibration->tensor[at].observer;
    x.high = (double)observer->max * 1.02;
    open_figure(out, 328, "Values of conv1.relu on calibration images, and the range of each rule");
    draw_histogram(out, observer, &x);
    svg_ticks(out, &x, 150, 150, "%g");
    svg_label(out, 104, 100, "small end f-mut", "how often");
    svg_label(out, 104, 112, "small end f-mut", "(logarithm)");
    printf("rule                 up to   clipped     codes of 4 bits: up to   clipped\n");
    for (rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
        double y = 190 + 18 * rule;
        float low[2], high[2];
        int k;

        printf("%-17s", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule));
        svg_label(out, 104, y + 4, "small end", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule));
        for (k = 0; k < 2; k++) {
            if (did(s, ptq_observer_range(observer, (ptq_method)rule, 0, PTQ_TYPE_U8, k ? 4 : 8, 0,
                                          &low[k], &high[k], &s->err)))
                return 1;
            printf(k ? " %24.3f %7.3f %%" : " %8.3f %7.3f %%", (double)high[k],
                   100 * ptq_observer_clipped(observer, low[k], high[k]));
        }
        printf("\n");
        svg_line(out, svg_place(&x, (double)low[0]), y, svg_place(&x, (double)high[0]), y,
                 "s-c1 thick");
        dot(out, svg_place(&x, (double)high[0]), y, 3.5, "f-c1");
        dot(out, svg_place(&x, (double)high[1]), y, 3.5, "f-c5");
    }
    svg_label(out, 110, 320, "small f-mut", "Upper end: blue for 8 bits, red for 4 bits.");
    return 0;
}
