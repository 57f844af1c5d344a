/* Chapter 8: intervals, sensitivity. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "measure/nodes.h"
#include "ptq.h"
#include "report/svg.h"

/* The first n images of both evaluations. */
static int compare_first(source *s, ptq_evaluation before, ptq_evaluation after, size_t n,
                         ptq_comparison *out) {
    before.total = after.total = n;
    return did(s, ptq_compare(&before, &after, out, &s->err));
}

int draw_interval(source *s, FILE *out) {
    static const size_t counts[] = {50, 100, 200, 500, 1000, 2000};
    enum { COUNTS = sizeof counts / sizeof *counts };
    ptq_comparison c[COUNTS];
    ptq_evaluation after = {0};
    ptq_scheme scheme = {0};
    ptq_model *model = NULL;
    svg_axis x = {-1, 1, 150, WIDTH - 24};
    int i, n = 0, status;

    scheme.weight_bits = 5;
    s->tested.count = ptq_cifar10_dataset(s->test)->count;
    status = calibrate(s) || convert(s, &scheme, &model) || evaluate(s, model, &after) ||
             evaluate(s, s->fused, &s->before);
    for (; !status && n < COUNTS && counts[n] <= s->tested.count; n++) {
        status = compare_first(s, s->before, after, counts[n], &c[n]);
        x.low = fmin(x.low, c[n].low_pp);
        x.high = fmax(x.high, c[n].high_pp);
    }
    ptq_release(&after.memory);
    ptq_model_free(model);
    if (status)
        return 1;
    open_figure(out, 84 + 26 * n, "5-bit weights against float, by number of test images");
    svg_ticks(out, &x, 44 + 26 * n, 36, "%+g");
    printf("images  lost  won   change   95 %% interval\n");
    for (i = 0; i < n; i++) {
        double y = 50 + 26 * i;

        printf("%6zu %5zu %4zu %+8.2f   %+.2f to %+.2f\n", counts[i], c[i].lost, c[i].won,
               c[i].delta_pp + 0.0, c[i].low_pp + 0.0, c[i].high_pp + 0.0);
        svg_number(out, 140, y + 4, "small end", "%.0f images", (double)counts[i]);
        svg_line(out, svg_place(&x, c[i].low_pp), y, svg_place(&x, c[i].high_pp), y, "s-c1 thick");
        dot(out, svg_place(&x, c[i].delta_pp), y, 4, "f-c1");
    }
    svg_line(out, svg_place(&x, 0), 44 + 26 * n, svg_place(&x, 0), 36, "s-ink thin");
    svg_label(out, 150, 76 + 26 * n, "small f-mut",
              "Change in points: the dot; its 95 % interval: the line.");
    return 0;
}

int draw_sensitivity(source *s, FILE *out) {
    search_options options = {0};
    node_ranking report;
    bar bars[MOST_BARS] = {{"", 0, 0, 0}};
    int n = 0, i;

    options.scheme.weight_bits = 4;
    options.images = &s->subset.dataset;
    options.measure = SAMPLES / 2;
    if (calibrate(s) || did(s, rank_nodes(s->fused, s->calibration, &options, &report, &s->err)))
        return 1;
    for (i = 0; i < report.items && n < MOST_BARS; i++) {
        int node = ptq_model_find(s->fused, report.item[i].node);

        if (node < 0 || !s->fused->node[node].param[PTQ_PARAM_WEIGHT].rank)
            continue;
        snprintf(bars[n].name, sizeof bars[n].name, "%s", report.item[i].node);
        bars[n++].value = 1000 * report.item[i].cost.kl;
    }
    draw_bars(out, "4-bit weights in one layer alone: divergence from float, in thousandths", bars,
              n, "%.2f", "Kullback-Leibler divergence of the answers' probabilities, nats / 1000.");
    ptq_release(&report.memory);
    return 0;
}
