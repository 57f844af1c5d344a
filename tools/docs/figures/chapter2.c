/* Chapter 2: weights before and after folding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

/* The channels whose largest weight is the smallest, and the largest, after folding. */
static void print_extremes(const ptq_tensor *const weight[2], int channels) {
    int least = 0, most = 0;

    for (int c = 1; c < channels; c++) {
        least = largest_of(weight[1], c) < largest_of(weight[1], least) ? c : least;
        most = largest_of(weight[1], c) > largest_of(weight[1], most) ? c : most;
    }
    printf("channel   largest weight before   after\n");
    for (int k = 0; k < 2; k++) {
        int c = k ? most : least;

        printf("%7d %23.4f %7.4f\n", c, largest_of(weight[0], c), largest_of(weight[1], c));
    }
}

int draw_fold(source *s, FILE *out) {
    const ptq_tensor *weight[2];
    svg_axis y = {0, 0, 220, 46};
    int channels, c, k;
    double step;

    weight[0] = ptq_model_param(s->original, "conv1.weight");
    weight[1] = ptq_model_param(s->fused, "conv1.weight");
    if (!weight[0] || !weight[1])
        return fail("the model has no conv1; this figure is for ResNet8");
    channels = weight[0]->dim[0];
    for (c = 0; c < channels; c++)
        for (k = 0; k < 2; k++)
            y.high = fmax(y.high, log10(largest_of(weight[k], c)));
    y.low = y.high;
    for (c = 0; c < channels; c++)
        for (k = 0; k < 2; k++)
            y.low = fmin(y.low, log10(fmax(largest_of(weight[k], c), 1e-6)));
    y.low -= 0.2;
    open_figure(out, 262, "Largest weight of each channel of conv1, before and after folding");
    for (step = ceil(y.low); step <= y.high; step++) {
        svg_line(out, 60, svg_place(&y, step), WIDTH - 20, svg_place(&y, step), "s-lin thin");
        svg_number(out, 54, svg_place(&y, step) + 3, "small end f-mut", "%g", pow(10, step));
    }
    step = (WIDTH - 80.0) / channels;
    for (c = 0; c < channels; c++) {
        for (k = 0; k < 2; k++) {
            double top = svg_place(&y, log10(fmax(largest_of(weight[k], c), 1e-6)));

            svg_box(out, 62 + c * step + k * step * 0.42, top, step * 0.4, y.from - top,
                    k ? "f-c1" : "f-c3", 1);
        }
        svg_number(out, 62 + (c + 0.4) * step, y.from + 14, "small mid f-mut", "%.0f", c);
    }
    print_extremes(weight, channels);
    svg_box(out, 62, 244, 9, 9, "f-c3", 1);
    svg_label(out, 76, 252, "small", "before");
    svg_box(out, 130, 244, 9, 9, "f-c1", 1);
    svg_label(out, 144, 252, "small", "after folding, on a scale of powers of ten");
    return 0;
}
