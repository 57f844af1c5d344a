/* Chapter 0: the network, a convolution. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

enum { MAIN = 112, BESIDE = 306, HALF = 92 }; /* the middles of two columns, half a box */

/* Those that only an addition reads stand beside the others, in a column of their own. */
static int is_beside(const ptq_model *model, int index) {
    int i;

    for (i = 1; i < model->nodes; i++)
        if (model->node[i].input[0] == index)
            return 0;
    return index < model->nodes - 1;
}

/* From node `from` to node `to`, straight down or by two lines: to the column beside and back, and
   round the nodes that stand between. */
static void draw_edge(FILE *out, const ptq_model *model, int from, int to, const double *y) {
    int beside = is_beside(model, from), side = is_beside(model, to), between = 0, i;

    for (i = from + 1; i < to; i++)
        between += !is_beside(model, i);
    fputs("<path class=\"s-mut thin\" d=\"", out);
    if (beside)
        fprintf(out, "M%d %.0fV%.0fH%d", BESIDE, y[from] + 13, y[to] - 6, MAIN + HALF);
    else if (side)
        fprintf(out, "M%d %.0fH%dV%.0f", MAIN + HALF, y[from] + 6, BESIDE, y[to] - 13);
    else if (between)
        fprintf(out, "M%d %.0fH%dV%.0fH%d", MAIN + HALF, y[from] + 6, BESIDE, y[to] - 6,
                MAIN + HALF);
    else
        fprintf(out, "M%d %.0fV%.0f", MAIN, y[from] + 13, y[to] - 13);
    fputs("\"/>\n", out);
}

int draw_network(source *s, FILE *out) {
    enum { MOST = 24 };
    const ptq_model *model = s->fused;
    double y[MOST];
    int i;

    if (model->nodes > MOST)
        return fail("the network has too many nodes for this figure");
    open_figure(out, 70 + 38 * model->nodes, "The network, from the pixels to the answer");
    svg_label(out, 486, 44, "small end f-mut", "result");
    svg_label(out, WIDTH - 20, 44, "small end f-mut", "weights");
    for (i = 0; i < model->nodes; i++)
        y[i] = 64 + 38 * i;
    for (i = 1; i < model->nodes; i++) {
        draw_edge(out, model, model->node[i].input[0], i, y);
        if (model->node[i].residual)
            draw_edge(out, model, model->node[i].input[1], i, y);
    }
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        const ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT];
        double x = is_beside(model, i) ? BESIDE : MAIN;
        char text[128];

        svg_box(out, x - HALF, y[i] - 13, 2 * HALF, 26, w->rank ? "f-c1" : "f-lin",
                w->rank ? 0.25 : 0.6);
        snprintf(text, sizeof text, "%s%s", node->name, node->residual ? ", addition" : "");
        svg_label(out, x, y[i] + 4, "small mid", text);
        snprintf(text, sizeof text, "%d x %d x %d", node->shape[0], node->shape[1], node->shape[2]);
        svg_label(out, 486, y[i] + 4, "small end", text);
        if (w->rank)
            svg_number(out, WIDTH - 20, y[i] + 4, "small end", "%.0f",
                       (double)ptq_tensor_elements(w));
    }
    svg_label(out, 16, 60 + 38 * model->nodes, "small f-mut",
              "Blue: layers with weights. An addition takes two results, one past the block.");
    return 0;
}

/* A square of numbers; `marked`, a square of 3 x 3 in it, by its corner, or one number. */
static void draw_grid(FILE *out, double left, double top, const int *number, int size, int row,
                      int column, int marked) {
    const double step = 34;
    int i;

    for (i = 0; i < size * size; i++) {
        double x = left + step * (i % size), y = top + step * (i / size);
        int in = i / size >= row && i / size < row + marked && i % size >= column &&
                 i % size < column + marked;

        svg_box(out, x, y, step - 2, step - 2, in ? "f-c3" : "f-lin", in ? 0.45 : 0.3);
        svg_number(out, x + step / 2 - 1, y + 20, "small mid", "%.0f", number[i]);
    }
}

/* The third picture of examples/00_no_library.c, its filter for horizontal strokes. */
int draw_window(source *s, FILE *out) {
    static const char *const picture = "..............####................#.";
    static const float weight[9] = {-.5f, -.6f, -.4f, 1.1f, .9f, 1, -.5f, -.4f, -.6f};
    int pixel[36], code[9], result[16], i, k;

    (void)s;
    for (i = 0; i < 36; i++)
        pixel[i] = picture[i] == '#' ? 240 : 16;
    for (k = 0; k < 9; k++)
        code[k] = (int)lrint((double)weight[k] / (1.1 / 127));
    for (i = 0; i < 16; i++) {
        result[i] = 2944; /* the bias, 0.1, in units of the two scales */
        for (k = 0; k < 9; k++)
            result[i] += pixel[(i / 4 + k / 3) * 6 + i % 4 + k % 3] * code[k];
    }
    open_figure(out, 290, "A convolution: a window of nine pixels, nine weights, one sum");
    svg_label(out, 24, 50, "small", "picture");
    draw_grid(out, 24, 60, pixel, 6, 1, 1, 3);
    svg_label(out, 258, 50, "small", "weights");
    draw_grid(out, 258, 60 + 34, code, 3, 0, 0, 3);
    svg_label(out, 244, 60 + 34 + 54, "mid", "x");
    svg_label(out, 376, 60 + 34 + 54, "mid", "=");
    svg_label(out, 396, 50, "small", "sums, with the bias");
    for (i = 0; i < 16; i++) {
        double x = 396 + 57 * (i % 4), y = 60 + 34 + 34 * (i / 4);

        svg_box(out, x, y, 55, 32, i == 5 ? "f-c3" : "f-lin", i == 5 ? 0.45 : 0.3);
        svg_number(out, x + 27, y + 20, "small mid", "%.0f", result[i]);
    }
    svg_label(out, 24, 282, "small f-mut",
              "The window moves over the picture; each of its 16 places gives one sum.");
    return 0;
}
