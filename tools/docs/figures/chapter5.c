/* Chapter 5: the ranges that meet at an addition. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

static void range_of(const ptq_qparams *q, double *low, double *high) {
    int32_t least, most;

    ptq_code_range(q->type, q->bits, &least, &most);
    *low = (double)ptq_dequantize(least, q);
    *high = (double)ptq_dequantize(most, q);
}

int draw_residual(source *s, FILE *out) {
    static const char *const what[] = {"residual", "convolution", "sum, ReLU"};
    svg_axis x = {0, 0, 200, WIDTH - 24};
    const ptq_scheme best = {0};
    ptq_model *model = NULL;
    int i, k, rows = 0;

    if (calibrate(s) || convert(s, &best, &model))
        return 1;
    for (i = 0; i < model->nodes; i++)
        if (model->node[i].residual) {
            double low, high;

            range_of(&model->node[i].mid, &low, &high);
            x.low = fmin(x.low, low);
            x.high = fmax(x.high, high);
            range_of(&model->node[i].q, &low, &high);
            x.high = fmax(x.high, high);
        }
    open_figure(out, 300, "Three ranges meet at each addition, each with a scale of its own");
    svg_ticks(out, &x, 262, 40, "%g");
    printf("%-14s %-12s %9s %6s\n", "node", "", "scale", "zero");
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        for (k = 0; k < 3 && node->residual; k++, rows++) {
            const ptq_qparams *q = k == 0   ? &model->node[node->input[1]].q
                                   : k == 1 ? &node->mid
                                            : &node->q;
            double y = 56 + 22 * rows + 10 * (rows / 3), low, high;
            char text[128];

            range_of(q, &low, &high);
            snprintf(text, sizeof text, "%s%s%s", k ? "" : node->name, k ? "" : "  ", what[k]);
            svg_label(out, 190, y + 4, "small end", text);
            svg_box(out, svg_place(&x, low), y - 5, svg_place(&x, high) - svg_place(&x, low), 10,
                    k == 0   ? "f-c3"
                    : k == 1 ? "f-c1"
                             : "f-c2",
                    1);
            printf("%-14s %-12s %9.6f %6d\n", k ? "" : node->name, what[k], (double)q->scale,
                   (int)q->zero_point);
        }
    }
    svg_line(out, svg_place(&x, 0), 262, svg_place(&x, 0), 40, "s-ink thin");
    svg_label(out, 200, 292, "small f-mut", "Real values that the 256 codes of each tensor reach");
    ptq_model_free(model);
    return 0;
}
