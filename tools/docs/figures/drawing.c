/* What the figures of several chapters draw with. */
#include <math.h>
#include <stdio.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

/* A figure on a ground of its own, which reads well on light and on dark pages. */
void open_figure(FILE *out, int height, const char *title) {
    svg_begin(out, WIDTH, height, title);
    fputs("<style>", out);
    write_figure_style(out, 1, 9.5);
    fputs("</style>\n", out);
    fprintf(out, "<rect width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#fcfcfa\"/>\n", WIDTH, height);
    svg_label(out, 16, 22, "f-ink", title);
}

void dot(FILE *out, double x, double y, double radius, const char *classes) {
    fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", classes, x, y,
            radius);
}

/* Ticks of a vertical axis, with grid lines to the right end. */
void vertical_ticks(FILE *out, const svg_axis *y, double left, double right, const char *format) {
    double step = svg_tick_step(y, 5), at;

    for (at = ceil(y->low / step) * step; at <= y->high + step * 1e-6; at += step) {
        svg_line(out, left, svg_place(y, at), right, svg_place(y, at), "s-lin thin");
        svg_number(out, left - 6, svg_place(y, at) + 3, "small end f-mut", format,
                   fabs(at) < step * 1e-6 ? 0.0 : at);
    }
}

void curve(FILE *out, const svg_axis *x, const svg_axis *y, const double *at, const double *value,
           int n, const char *classes) {
    int i;

    fprintf(out, "<path class=\"%s\" d=\"", classes);
    for (i = 0; i < n; i++)
        fprintf(out, "%c%.1f %.1f", i ? 'L' : 'M', svg_place(x, at[i]), svg_place(y, value[i]));
    fputs("\"/>\n", out);
}

/* A line from end to end of a bar's interval, where it has one. */
static void draw_bar_interval(FILE *out, const svg_axis *x, const bar *b, double y) {
    double low = svg_place(x, b->low), high = svg_place(x, b->high);

    if (b->low >= b->high)
        return;
    svg_line(out, low, y, high, y, "s-ink thin");
    svg_line(out, low, y - 3, low, y + 3, "s-ink thin");
    svg_line(out, high, y - 3, high, y + 3, "s-ink thin");
}

void draw_bars(FILE *out, const char *title, const bar *bars, int n, const char *format,
               const char *note) {
    svg_axis x = {0, 0, 270, WIDTH - 70};
    char text[32];
    int i;

    for (i = 0; i < n; i++) {
        x.low = fmin(x.low, fmin(bars[i].value, bars[i].low));
        x.high = fmax(x.high, fmax(bars[i].value, bars[i].high));
    }
    open_figure(out, 66 + 20 * n, title);
    for (i = 0; i < n; i++) {
        double y = 44 + 20 * i, zero = svg_place(&x, 0), at = svg_place(&x, bars[i].value);

        svg_label(out, 262, y + 4, "small end", bars[i].name);
        svg_box(out, fmin(zero, at), y - 6, fabs(at - zero), 12,
                bars[i].value < 0 ? "f-c5" : "f-c1", 1);
        snprintf(text, sizeof text, format, bars[i].value);
        draw_bar_interval(out, &x, &bars[i], y);
        svg_label(out, fmax(fmax(zero, at), svg_place(&x, bars[i].high)) + 5, y + 4, "small", text);
    }
    svg_line(out, svg_place(&x, 0), 34, svg_place(&x, 0), 40 + 20 * n, "s-mut thin");
    svg_label(out, 16, 56 + 20 * n, "small f-mut", note);
}
